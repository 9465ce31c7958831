"""``train --against``: a generator learns to fool a classifier, end to end, and its attack is used."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from helpers.kill_and_resume import goes_on
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_classifier, build_perturber

QUICK = ("--until", "30 steps", "--batch-size", "8", "--discriminator-widths", "4", "--generator-widths", "4", "4", "8")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Bright and dark images, a classifier that tells them apart, and others that do not fit."""
    home = tmp_path_factory.mktemp("advgan")
    for i in range(60):
        path = home / "photos" / ("bright" if i % 2 else "dark") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 80, (8, 8), dtype=np.uint8) + (i % 2) * 70
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    torch.manual_seed(0)
    for name, size, names in (("plain", 8, ["bright", "dark"]), ("large", 16, ["bright", "dark"]), ("three", 8, None)):
        net = build_classifier("cnn", size=size, channels=1, classes=2 if names else 3, widths=(4,))
        if name == "plain":
            optimizer = torch.optim.Adam(net.parameters(), 1e-2)
            for _ in range(60):
                y = torch.randint(2, (32,))
                x = (torch.rand(32, 1, 8, 8) * 80 + (1 - y).view(-1, 1, 1, 1) * 70) / 255
                loss = torch.nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad(), loss.backward(), optimizer.step()
        save_network(net, home / f"{name}.safetensors", {"classes": names} if names else {})
    return home


@pytest.fixture(scope="module")
def run(home):
    settings = {"batch_size": 16, "hold_out": 12, "discriminator_widths": (4,), "generator_widths": (4, 4, 8)}
    return rivals.train(
        str(home / "photos"),
        against=str(home / "plain.safetensors"),
        eps="0.4",
        until="120 steps",
        out=home / "run",
        quiet=True,
        **settings,
    )


def test_the_generator_learns_to_fool_the_classifier(run):
    result = run.result()
    assert result["accuracy/held_out"] == 1
    assert result["accuracy/generator"] < 0.5
    assert run.info["fools"]["eps"] == 0.4 and run.info["fools"]["condition"] == "label"
    assert run.generator.condition == "label" and run.generator.classes == 2
    assert run.info["recipe"] == "advgan"
    assert (run.folder / "report.html").exists()


def test_the_generator_of_a_run_is_in_evaluation_mode(run):
    assert not run.generator.training


def test_the_run_is_an_attack_in_a_list_of_attacks(run, home, run_rivals):
    words = ("attack", home / "plain.safetensors", home / "photos", "--eps", "0.4", "--no-alarms", "--save", "none")
    result = run_rivals(*words, "--attack", f"generator:{run.folder},pgd(steps=2)", "--out", home / "attack", "--json")
    assert result.status == 0, result.err
    report = json.loads(result.out)
    stages = {stage["stage"]: stage for stage in report["stages"]}
    assert stages[f"generator:{run.folder}"]["fooled"] > 20
    assert stages[f"generator:{run.folder}"]["backwards"] == 0


@pytest.mark.parametrize("first", ["generator", "square(queries=50)"])
def test_what_a_stage_without_gradients_fools_before_pgd_is_no_sign_of_masking(run, home, run_rivals, tmp_path, first):
    first = f"generator:{run.folder}" if first == "generator" else first
    words = ("attack", home / "plain.safetensors", home / "photos", "--eps", "0.4", "--save", "none", "--json")
    result = run_rivals(*words, "--attack", f"{first},pgd(steps=5)", "--out", tmp_path / "attack")
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["stages"][0]["fooled"] > 5
    assert "black-box-beats-gradient" not in {alarm["alarm"] for alarm in report["alarms"]}


@pytest.mark.parametrize("attack", ["generator:{run}", "noise,generator:{run},pgd(steps=1)"])
def test_a_target_that_it_cannot_reach_is_refused_before_a_run_begins(run, home, run_rivals, tmp_path, attack):
    words = ("attack", home / "plain.safetensors", home / "photos", "--eps", "0.4", "--target", "dark")
    refused = run_rivals(*words, "--attack", attack.format(run=run.folder), "--out", tmp_path / "refused")
    assert refused.status == 2 and "clean accuracy" not in refused.err, refused.err
    assert "cannot be given a target: train it with --condition target" in refused.err.splitlines()[-1]
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("net", ["r3", "sngan", "mlp"])
def test_discriminators_of_every_net_work_without_widths(home, run_rivals, tmp_path, net):
    words = ("train", home / "photos", "--against", home / "plain.safetensors", "--net", net, "--until", "1 steps")
    result = run_rivals(*words, "--batch-size", "8", "--eps", "0.4", "--out", tmp_path / "run")
    assert result.status == 0, result.err


def test_options_of_a_generator_are_refused(run, home, run_rivals, tmp_path):
    words = ("attack", home / "plain.safetensors", home / "photos", "--eps", "0.4", "--out", tmp_path / "refused")
    assert_refused(run_rivals(*words, "--attack", f"generator:{run.folder}(steps=3)"), "has no options")
    assert_refused(run_rivals(*words, "--attack", "generator"), "generator:RUN")


def test_a_target_that_is_hardly_reached_is_told(home, run_rivals, tmp_path):
    words = ("train", home / "photos", "--against", home / "plain.safetensors", *QUICK, "--until", "2 steps")
    result = run_rivals(*words, "--target", "dark", "--eps", "0.01", "--out", tmp_path / "run")
    assert result.status == 0 and "reaches the target on 0.0%" in result.err


def test_the_loaded_generator_is_an_attack_in_python(run, home):
    model = rivals.load(home / "plain.safetensors")
    x = torch.rand(6, 1, 8, 8) * 0.3
    y, ball = torch.ones(6, dtype=torch.int64), rivals.Linf(0.4)
    x_adv = rivals.attacks.advgan(model, x, y, ball, generator=run.generator)
    assert ball.contains(x_adv, x).all()


def test_a_run_resumes_to_the_same_weights(home, run_rivals):
    words = ("train", home / "photos", "--against", home / "plain.safetensors", *QUICK, "--sample-every", "4 steps")
    assert run_rivals(*words, "--out", home / "whole", "--until", "12 steps").status == 0
    assert run_rivals(*words, "--out", home / "part", "--until", "4 steps").status == 0
    with goes_on(home / "part"):
        assert run_rivals("train", "--resume", "--out", home / "part", "--until", "12 steps").status == 0
    whole, part = ((home / name / "generator.safetensors").read_bytes() for name in ("whole", "part"))
    assert whole == part


@pytest.mark.parametrize(
    ("more", "facts"),
    [
        (("--target", "dark"), {"target": "dark", "condition": "none"}),
        (("--condition", "target", "--norm", "l2", "--eps", "3"), {"condition": "target", "norm": "l2", "eps": 3}),
        (("--condition", "none"), {"condition": "none"}),
        (("--universal",), {"universal": True, "condition": "none"}),
        (("--black-box",), {"black_box": True, "condition": "label"}),
    ],
)
def test_its_kinds_learn_to_fool(home, run_rivals, more, facts, tmp_path):
    words = ("train", home / "photos", "--against", home / "plain.safetensors", *QUICK, "--until", "100 steps")
    assert run_rivals(*words, "--eps", "0.4", *more, "--out", tmp_path / "run").status == 0
    fools = json.loads((tmp_path / "run" / "run.json").read_text())["fools"]
    assert facts.items() <= fools.items()
    ball = more[more.index("--norm") :] if "--norm" in more else ("--eps", "0.4")
    attack = ("attack", home / "plain.safetensors", home / "photos", *ball, "--no-alarms", "--save", "none", "--json")
    target = ("--target", "dark") if "target" in more or "--target" in more else ()
    result = run_rivals(*attack, *target, "--attack", f"generator:{tmp_path / 'run'}", "--out", tmp_path / "attack")
    assert result.status == 0, result.err
    (stage,) = json.loads(result.out)["stages"]
    assert stage["fooled"] > 15


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--against", "large.safetensors"), ("takes images of 1 x 16 x 16", "--size")),
        (("--against", "three.safetensors"), ("has 3 classes and 'photos' 2",)),
        (("--against", "plain.safetensors", "--eps", "0"), ("eps of 0",)),
        (
            ("--against", "plain.safetensors", "--ema", "0", "--ema-rampup", "0.2"),
            ("--ema-rampup 0.2", "without an EMA"),
        ),
        (("--against", "plain.safetensors", "--target", "blue"), ("target class 'blue'",)),
        (("--against", "plain.safetensors", "--recipe", "quick"), ("--recipe quick", "leave it out")),
        (("--against", "plain.safetensors", "--norm", "l2"), ("--norm l2 needs a radius",)),
        (("--universal",), ("--universal", "add --against")),
        (("--condition", "label"), ("--condition", "add --against")),
        (("--against", "plain.safetensors", "--condition", "labels"), ("condition 'labels'", "label")),
        (("--against", "plain.safetensors", "--condition", "target", "--target", "dark"), ("leave --target out",)),
        (("--against", "plain.safetensors", "--r1", "1"), ("--r1 has no meaning beside --against",)),
        (("--against", "plain.safetensors", "--universal", "--condition", "label"), ("one for each class",)),
        (("--against", "plain.safetensors", "--conditional"), ("--condition label or target",)),
        (("--recipe", "advgan"), ("name one by --against MODEL",)),
    ],
)
def test_what_cannot_work_is_refused_before_a_run_begins(home, run_rivals, monkeypatch, words, parts):
    monkeypatch.chdir(home)
    assert_refused(run_rivals("train", "photos", *words, "--out", "refused"), *parts)
    assert not (home / "refused").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"size": 16}, "for images of 1 x 16 x 16, and these are 1 x 8 x 8"),
        ({"classes": 5, "condition": "label"}, "is for 5 classes and"),
    ],
)
def test_a_generator_for_other_images_or_classes_is_refused_before_a_run_begins(home, run_rivals, tmp_path, more, says):
    save_network(
        build_perturber(**{"size": 8, "channels": 1, "widths": (4, 4, 8), **more}), tmp_path / "g.safetensors", {}
    )
    words = ("attack", home / "plain.safetensors", home / "photos", "--attack", f"generator:{tmp_path}/g.safetensors")
    assert_refused(run_rivals(*words, "--out", tmp_path / "refused"), says)
    assert not (tmp_path / "refused").exists()


def test_a_generator_whose_classes_are_in_another_order_is_refused(home, run_rivals, tmp_path):
    net = build_perturber(size=8, channels=1, widths=(4, 4, 8), classes=2, condition="label")
    save_network(net, tmp_path / "g.safetensors", {"classes": ["dark", "bright"]})
    words = ("attack", home / "plain.safetensors", home / "photos", "--attack", f"generator:{tmp_path}/g.safetensors")
    assert_refused(run_rivals(*words, "--out", tmp_path / "refused"), "dark, bright", "in this order")


@pytest.mark.parametrize("extra", [(), ("--defense", "jpeg")])
def test_a_run_is_not_resumed_with_a_generator_that_was_trained_again(home, run_rivals, tmp_path, extra):
    file = tmp_path / "g.safetensors"

    def train_again(seed):
        torch.manual_seed(seed)
        save_network(build_perturber(size=8, channels=1, widths=(4, 4, 8)), file, {})

    words = ("attack", home / "plain.safetensors", home / "photos", "--attack", f"generator:{file}", *extra)
    train_again(0)
    assert run_rivals(*words, "--out", tmp_path / "run").status == 0
    assert run_rivals(*words, "--out", tmp_path / "run", "--resume").status == 0
    train_again(1)
    assert_refused(run_rivals(*words, "--out", tmp_path / "run", "--resume"), "not what the run began with")


def test_a_targeted_generator_is_kept_where_it_reaches_most_targets(home, tmp_path):
    run = rivals.train(
        *(str(home / "photos"),),
        **{"against": str(home / "plain.safetensors"), "eps": "0.4", "target": "dark", "hold_out": 12, "quiet": True},
        **{"discriminator_widths": (4,), "generator_widths": (4, 4, 8), "until": "40 steps", "batch_size": 8},
        out=tmp_path / "run",
    )
    reached = [(r["targets_reached"], r["images"]) for r in run.records() if "targets_reached" in r]
    assert max(reached)[0] > 0.5
    assert run.generator.about["images"] in {images for share, images in reached if share == max(reached)[0]}


def test_a_network_that_perturbs_nothing_is_no_attack(home, run_rivals, monkeypatch):
    monkeypatch.chdir(home)
    words = ("attack", "plain.safetensors", "photos", "--out", "refused", "--attack")
    assert_refused(run_rivals(*words, "generator:plain.safetensors"), "holds a classifier that perturbs no images")
    assert_refused(run_rivals(*words, "generator:"), "names no run")
