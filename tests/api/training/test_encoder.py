"""``train --invert``: an encoder learns to invert a generator, end to end, and the defense made of it is attacked."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from helpers.kill_and_resume import goes_on
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_classifier, build_generator

QUICK = ("--batch-size", "8", "--encoder-widths", "4", "8", "--hold-out", "12", "--sample-grid", "8")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A generator of random images, photos that it makes, and a classifier of them."""
    home = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    for name, more in (("gan", {}), ("classes", {"classes": 2}), ("large", {"size": 16})):
        net = build_generator("mlp", **{"size": 8, "channels": 1, "latent_dim": 2, "widths": (8,), **more})
        with torch.no_grad():
            for weights in net.parameters():
                weights.mul_(3)  # or all its images would be gray
        save_network(net, home / f"{name}.safetensors", {})
    images = rivals.load(home / "gan.safetensors").sample(60, seed=5)
    for i, image in enumerate(images):
        path = home / "photos" / ("a" if i % 2 else "b") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image[0])).save(path)
    save_network(build_classifier("cnn", size=8, channels=1, classes=2, widths=(4,)), home / "cnn.safetensors", {})
    return home


@pytest.fixture(scope="module")
def run(home):
    settings = {"batch_size": 16, "hold_out": 12, "encoder_widths": (8, 16), "until": "300 steps"}
    return rivals.train(
        str(home / "photos"), invert=str(home / "gan.safetensors"), out=home / "run", quiet=True, **settings
    )


def test_the_encoder_learns_to_reconstruct_images_that_were_kept_aside(run):
    errors = [record["score/reconstruction"] for record in run.records() if "score/reconstruction" in record]
    assert run.result()["score/reconstruction"] == errors[-1]
    assert min(errors) < errors[0] / 2
    assert run.info["recipe"] == "encoder"
    assert "Inverts" in (run.folder / "report.html").read_text()


def test_the_run_holds_both_networks(run, home):
    generator, encoder = run.generator, rivals.load(run.folder / "encoder.safetensors")
    for name, weights in rivals.load(home / "gan.safetensors").state_dict().items():
        assert torch.equal(weights, generator.state_dict()[name])
    z = generator.latents(20, seed=3)
    with torch.no_grad():
        assert (generator(encoder(generator(z))) - generator(z)).square().mean() < 0.1


def test_the_run_is_a_defense_that_is_attacked_through_its_own_gradient_and_in_its_latent_space(
    run, home, run_rivals, monkeypatch
):
    monkeypatch.chdir(home)
    words = ("attack", "cnn.safetensors", "photos", "--eps", "0.001", "--attack", "pgd(steps=2)", "--no-alarms")
    result = run_rivals(
        *words, "--defense", "gan-inversion:run", "--adaptive-steps", "2", "--save", "none", "--out", "at", "--json"
    )
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert [stage["stage"] for stage in report["stages"]] == ["naive", "bpda-pgd", "gradient-pgd", "latent-pgd"]
    assert report["naive"]["count"] >= report["robust"]["count"] > 0


def test_a_run_resumes_to_the_same_weights(home, run_rivals):
    words = ("train", home / "photos", "--invert", home / "gan.safetensors", *QUICK, "--sample-every", "4 steps")
    assert run_rivals(*words, "--out", home / "whole", "--until", "8 steps").status == 0
    assert run_rivals(*words, "--out", home / "part", "--until", "4 steps").status == 0
    with goes_on(home / "part"):
        assert run_rivals("train", "--resume", "--out", home / "part", "--until", "8 steps").status == 0
    whole, part = ((home / name / "encoder.safetensors").read_bytes() for name in ("whole", "part"))
    assert whole == part


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--invert", "classes.safetensors"), ("images of 2 classes", "without --conditional")),
        (("--invert", "large.safetensors"), ("makes images of 1 x 16 x 16", "these are 1 x 8 x 8")),
        (("--invert", "cnn.safetensors"), ("is not a generator",)),
        (("--invert", "gan.safetensors", "--ema", "0", "--ema-rampup", "0.2"), ("--ema-rampup 0.2", "without an EMA")),
        (("--invert", "gan.safetensors", "--recipe", "quick"), ("--recipe quick", "leave it out")),
        (("--invert", "gan.safetensors", "--against", "cnn.safetensors"), ("leave --against",)),
        (("--encoder-widths", "8"), ("--encoder-widths", "add --invert")),
        (("--invert", "gan.safetensors", "--encoder-widths", "4", "4", "4", "4"), ("widths", "images of 8 px")),
        (("--recipe", "encoder"), ("name its run by --invert RUN",)),
    ],
)
def test_what_cannot_work_is_refused_before_a_run_begins(home, run_rivals, monkeypatch, words, parts):
    monkeypatch.chdir(home)
    assert_refused(run_rivals("train", "photos", *words, "--out", "refused"), *parts)
    assert not (home / "refused").exists()


def test_its_run_is_no_gan_to_start_from_or_with_an_equilibrium(run, home, run_rivals):
    words = ("train", home / "photos", "--weights", run.folder, "--out", home / "refused")
    assert_refused(run_rivals(*words), "is no run of a GAN alone")
    assert_refused(run_rivals("score", run.folder, "--equilibrium"), "is no run of a GAN alone")
