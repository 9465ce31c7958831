"""What is refused before a game begins, and what is only said."""

import numpy as np
import pytest
from PIL import Image

from rivals.api.training import memory
from rivals.api.training.gan import GanJob
from rivals.api.training.job import Request
from rivals.api.training.preflight import check_trainable, warnings_for
from rivals.base.errors import UserError
from rivals.data.imageset import ImageSet
from rivals.recipes import PUBLISHED, RECIPES

SMALL = ["--generator-widths", "8", "8", "--discriminator-widths", "8", "8", "--until", "2 steps"]


def images(n=60, size=16, labels=None):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    return ImageSet("photos", "train", pixels, labels, ("a", "b") if labels is not None else ())


def game(recipe="quick", **settings):
    return RECIPES[recipe]().changed(**settings)


@pytest.mark.parametrize(
    ("settings", "n", "says"),
    [
        ({}, 3, "'photos' has 3 images, too few to learn from: give 10 or more"),
        ({"until": "10 images"}, 60, "--until '10 images' is 10 images, less than one step of 64"),
        ({"until": "0.5 epochs"}, 60, "is 30 images, less than one step of 64"),
        ({"until": "0.5 steps"}, 60, "is 32 images, less than one step of 64"),
        ({"until": "200 images", "discriminator_turns": 5}, 60, "less than one step of 320"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(settings, n, says):
    with pytest.raises(UserError, match=says):
        check_trainable(game(**settings), images(n))


def test_one_step_is_enough():
    for until in ("64 images", "1 steps", "0.01 minutes"):
        check_trainable(game(until=until), images())
    check_trainable(game(until="1 epochs"), images(64))


def test_doubtful_settings_are_noted_in_one_line_each():
    assert warnings_for(game(), images()) == []
    assert warnings_for(game("mlp"), images(size=20)) == []  # no canvas there
    (warning,) = warnings_for(game(), images(size=33))
    assert warning == "images of 33 px are generated at 40 px and cropped"
    assert warnings_for(game(), images(size=28)) == []
    (warning,) = warnings_for(game(generator_widths=(8, 4, 2)), images(size=28))  # as many halvings as widths
    assert warning.startswith("images of 28 px are generated at 32 px")
    (warning,) = warnings_for(game(conditional=True), images(labels=np.array([0] + [1] * 59)))
    assert warning.startswith("only one image in class 'a'")
    (warning,) = warnings_for(game(r1=0, r2=0), images())
    assert "--r1 and --r2" in warning
    (warning,) = warnings_for(game(loss="wasserstein", r1=0, r2=0), images())
    assert "wasserstein" in warning
    assert warnings_for(game(loss="hinge", r1=0, r2=0), images()) == []
    assert warnings_for(game(r1="0 -> 1 in 1k images", r2=0), images()) == []


def test_warnings_are_printed_before_the_run(run_rivals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), dtype=np.uint8)
    for i, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / "odd" / f"{i}.png")
    words = ["train", "odd", *SMALL, "--batch-size", "4", "--r1", "0", "--r2", "0", "--recipe", "quick"]
    status, _, err = run_rivals(*words, "--out", "a")
    assert status == 0, err
    assert err.count("diverges") == 1
    status, _, err = run_rivals(*words, "--out", "b", "--quiet")
    assert (status, err) == (0, "")
    status, _, err = run_rivals("train", "odd", "--until", "3 images", "--out", "c")
    assert status == 2
    assert err.strip().count("\n") == 0 and "less than one step" in err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_every_published_recipe_tells_its_memory_before_the_start(monkeypatch, recipe):
    asked = []
    monkeypatch.setattr(memory, "estimate_memory", lambda config, **shape: asked.append(shape) or 3 * 2**30)
    job = GanJob(Request("noise", recipe, None, False, None, "cpu", True, {}))
    job.images = images(labels=np.arange(60) % 2)
    job.resolve_config()
    assert any(note.startswith("a step needs about 3.0 GiB of memory") for note in job.notes)
    assert asked[0]["micro_batches"] == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"penalty_every": 4, "cr": "10"}, "--penalty-every 4 has no meaning without a gradient penalty"),
        ({"ema_rampup": 0.1}, "--ema-rampup 0.1 has no meaning without an EMA"),
    ],
)
def test_settings_that_nothing_reads_are_refused_and_those_of_a_recipe_are_not(settings, says):
    plain = {"r1": "0", "r2": "0", "loss": "hinge", "ema": "0"}

    def resolve(**more):
        job = GanJob(Request("mnist5k", "quick", None, False, 0, "cpu", True, {**plain, **more}))
        job.load_data()
        job.resolve_config()

    resolve()  # the recipe's own interval goes unread
    resolve(penalty_every=1, ema_rampup=0.05)  # as a file with all settings has them
    resolve(**settings, gp="1", ema="1000")
    with pytest.raises(UserError, match=says):
        resolve(**settings)
