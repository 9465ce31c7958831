"""A run is resumed wherever its data are: what counts is their content."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rivals
from helpers.commands import TINY, assert_refused
from helpers.refusals import named
from rivals import Linf
from rivals.api import attack
from rivals.data.pack import pack

SMALL = {"batch_size": 8, "quiet": True, "device": "cpu", "widths": (4,)}
RESUMED = {"resume": True, "quiet": True, "device": "cpu"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Twelve images of each of two classes, in the folder ``set``."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for name in ("ant", "yak"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(noise.integers(256, size=(8, 8), dtype=np.uint8)).save(f"set/{name}/{number}.png")
    return tmp_path


def spoil(folder):
    """Change one image."""
    path = sorted(folder.rglob("*.png"))[-1]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def test_a_classifier_resumes_from_data_that_moved_or_were_packed(place):
    rivals.classify("set", until="2 steps", out="run", **SMALL)
    (place / "set").rename(place / "elsewhere")
    with named("the data of the run, is not there", "name its place now"):
        rivals.classify(out="run", **RESUMED)
    run = rivals.classify("elsewhere", out="run", **RESUMED)
    assert run.info["source"]["data"] == str(place / "elsewhere")
    pack("elsewhere", "packed.zip")
    shutil.rmtree("elsewhere")
    run = rivals.classify("packed.zip", out="run", **RESUMED)
    assert (run.info["source"]["data"], run.info["data"]["name"]) == (str(place / "packed.zip"), "set")
    assert rivals.classify(out="run", **RESUMED).info["state"] == "finished"


def test_other_images_or_test_images_are_refused(place):
    shutil.copytree("set", "split/train")
    shutil.copytree("set", "split/test")
    rivals.classify("split", until="2 steps", out="run", **SMALL)
    shutil.copytree("split", "copy")
    rivals.classify("copy", out="run", **RESUMED)
    spoil(place / "copy/test")
    with named("the test images are not those that the run began with"):
        rivals.classify("copy", out="run", **RESUMED)
    spoil(place / "copy/train")
    with named("the images of 'copy' are not those that the run began with"):
        rivals.classify("copy", out="run", **RESUMED)


@pytest.mark.parametrize("recipe", ["dcgan", "robgan"])
@pytest.mark.parametrize("change", ["spoiled", "gone"])
def test_a_gan_is_not_resumed_with_other_held_out_images(place, run_rivals, recipe, change):
    # As many as a discriminator is evaluated on, of both.
    for split, name, number in itertools.product(("train", "test"), ("ant", "yak"), range(36)):
        to = Path(f"split/{split}/{name}/{number}.png")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"set/{name}/{number % 12}.png", to)
    words = ("--out", "run", "--quiet", "--device", "cpu")
    tiny = ("--batch-size", "8", "--latent-dim", "4", "--generator-widths", "4")
    assert run_rivals("train", "split", "--recipe", recipe, "--until", "2 steps", *tiny, *words).status == 0
    assert run_rivals("train", "--resume", "--until", "3 steps", *words).status == 0
    if change == "gone":
        shutil.rmtree("split/test")
    else:
        spoil(place / "split/test")
    resumed = run_rivals("train", "--resume", "--until", "4 steps", *words)
    assert_refused(resumed, "images are not those that the run began with: restore them")


def test_a_gan_resumes_from_data_that_moved(place, run_rivals):
    words = ("--out", "run", "--quiet", "--device", "cpu")
    assert run_rivals("train", "set", "--recipe", "dcgan", "--until", "2 steps", *TINY, *words).status == 0
    (place / "set").rename(place / "elsewhere")
    assert run_rivals("train", "elsewhere", "--resume", "--until", "3 steps", *words).status == 0
    (place / "elsewhere").rename(place / "third")
    with named("the data of the run, is not there"):
        rivals.equilibrium("run", quiet=True)
    with named("all images of 'third' were trained on"):  # it has been found, and was recognized
        rivals.equilibrium("run", data="third", quiet=True)
    spoil(place / "third")
    assert_refused(run_rivals("train", "third", "--resume", "--until", "4 steps", *words), "'third' are not those")


def test_an_attack_resumes_from_a_model_and_data_that_moved(place):
    rivals.classify("set", until="1 steps", out="plain", **SMALL)
    fgsm = {"attack": "fgsm", "alarms": False, "quiet": True, "device": "cpu"}
    before = attack("plain", "set", out="run", **fgsm)
    (place / "set").rename(place / "moved-set")
    with named("the data of the run, is not there"):
        attack(out="run", resume=True, quiet=True)
    (place / "plain").rename(place / "moved-plain")
    with named("the model of the run, is not there"):
        attack(out="run", resume=True, quiet=True)
    after = attack("moved-plain", "moved-set", out="run", resume=True, quiet=True, device="cpu")
    assert after.robust == before.robust
    assert attack(out="run", resume=True, quiet=True, device="cpu").robust == before.robust
    spoil(place / "moved-set")
    with named("the data", "is not what the run began with"):
        attack(out="run", resume=True, quiet=True, device="cpu")


def test_hardening_resumes_from_start_weights_and_extra_images_that_moved(place):
    rivals.classify("set", until="1 steps", out="plain", **SMALL)
    shutil.copytree("set", "more")
    options = {"until": "2 steps", "weights": "plain", "extra": "more", "out": "run"}
    rivals.harden("set", Linf(0.1), **options, **SMALL)
    for name in ("set", "more", "plain"):
        (place / name).rename(place / f"new-{name}")
    with named("the weights of the run, is not there"):
        rivals.harden("new-set", out="run", **RESUMED)
    moved = {"weights": "new-plain", "extra": "new-more"}
    run = rivals.harden("new-set", out="run", **moved, **RESUMED)
    assert run.info["config"]["extra"] == str(place / "new-more")
    spoil(place / "new-more")
    with named("--extra", "is not what the run began with"):
        rivals.harden(out="run", **RESUMED)
