"""Extra images judged by the critic: those that the discriminator of their generator's run takes most for real."""

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from rivals.api.equilibrium.discriminator_eval import discriminator_logits
from rivals.api.training.extra_images import extra_batches
from rivals.api.training.start_weights import load_gan

TINY = {"widths": (4,), "batch_size": 8, "quiet": True, "until": "2 steps", "method": "fgsm"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Images in two classes, and the runs of two GANs of them, one of them without classes."""
    home = tmp_path_factory.mktemp("extra")
    for i in range(40):
        path = home / "photos" / ("b" if i % 2 else "a") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    for name, conditional in (("gan", True), ("any", False)):
        rivals.train(
            str(home / "photos"),
            recipe="mlp",
            conditional=conditional,
            latent_dim=4,
            generator_widths=(8,),
            discriminator_widths=(8,),
            batch_size=8,
            until="3 steps",
            sample_grid=4,
            out=home / name,
            quiet=True,
        )
    return home


def test_the_discriminator_of_the_run_chooses_the_images(home, monkeypatch):
    monkeypatch.chdir(home)
    settings = {"extra": "gan", "extra_judge": "critic", "extra_keep": 0.25, **TINY}
    run = rivals.harden(str(home / "photos"), rivals.Linf(0.1), out="judged", **settings)
    assert run.info["state"] == "finished"
    plain = rivals.harden(
        str(home / "photos"), rivals.Linf(0.1), out="plain", **{**settings, "extra_judge": "margin", "extra_keep": 1}
    )
    # It is noted which discriminator judged.
    assert run.info["contents"]["extra"] != plain.info["contents"]["extra"]
    first, second = (each.classifier.state_dict() for each in (run, plain))
    assert any((first[name] != second[name]).any() for name in first)


@pytest.mark.parametrize("name", ["gan", "any"])
def test_what_is_kept_looks_more_real_to_the_discriminator(home, name):
    images = rivals.load_images(home / "photos", on_note=lambda note: None)
    place = images, rivals.DataOptions(), 16, torch.device("cpu")
    shares = {"judged": 0.1, "plain": 1.0}
    drawn = {
        which: extra_batches(str(home / name), *place, labeled=name == "gan", critic_keeps=share, seed=0)[0].draw(0)
        for which, share in shares.items()
    }
    critic = load_gan(str(home / name)).discriminator
    # Labels are those of the data, and so are the generator's classes.
    judged, plain = (discriminator_logits(critic, *drawn[which]).mean() for which in ("judged", "plain"))
    assert judged > plain


def test_a_teacher_may_label_what_the_critic_kept(home, monkeypatch):
    monkeypatch.chdir(home)
    rivals.classify(str(home / "photos"), out="teacher", **{k: v for k, v in TINY.items() if k != "method"})
    settings = {"extra": "any", "extra_teacher": "teacher", "extra_judge": "critic", "extra_keep": 0.5, **TINY}
    run = rivals.harden(str(home / "photos"), rivals.Linf(0.1), out="taught", **settings)
    assert set(run.info["contents"]) == {"extra", "extra-teacher"}


@pytest.mark.parametrize("extra", ["gan/generator.safetensors", "photos"])
def test_what_has_no_discriminator_is_refused(home, run_rivals, monkeypatch, extra):
    monkeypatch.chdir(home)
    words = ("harden", "photos", "--extra", extra, "--extra-judge", "critic", "--extra-keep", "0.5", "--out", "refused")
    assert_refused(run_rivals(*words), f"{extra}' has no discriminator", "its checkpoints")
    assert not (home / "refused").exists()
