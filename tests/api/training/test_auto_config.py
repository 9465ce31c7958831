"""The recipe that fits itself: what the rules choose, that the user's word stands, and that it is all written down."""

import json

import numpy as np
import pytest
import torch

import rivals
from rivals.api import automatic as fitting
from rivals.base.errors import UserError
from rivals.data.imageset import ImageSet
from rivals.nets.build import build_discriminator, build_generator
from rivals.nets.canvas import Canvas
from rivals.recipes import automatic as rules

CPU = torch.device("cpu")


def facts(**said):
    return rules.Facts(**({"n": 50_000, "size": 32, "channels": 3} | said))


def images(n=40, size=8, channels=1, classes=2):
    pixels = np.random.default_rng(0).integers(0, 256, (n, channels, size, size), dtype=np.uint8)
    return ImageSet("noise", "train", pixels, np.arange(n) % classes, tuple(map(str, range(classes))))


@pytest.fixture
def fast(monkeypatch):
    """A machine that plays 100,000 images a second, divided by the channels of the generator's first stage."""
    probed = []

    def probe(config, images, device, seed):
        probed.append(config.generator_widths)
        return 1e5 / (config.generator_widths or (100,))[0]

    monkeypatch.setattr(fitting, "probe", probe)
    return probed


def test_widths_halve_with_every_doubling_and_stop_at_a_vector():
    assert rules.widths(128, facts()) == {"generator_widths": (128, 64, 32), "discriminator_widths": (32, 64, 128)}
    deep = rules.widths(64, facts(size=256))
    assert deep["generator_widths"] == (64, 32, 16, 16, 16, 16)


@pytest.mark.parametrize(("size", "stages"), [(8, 1), (28, 3), (32, 3), (48, 4), (50, 4), (100, 5), (1024, 8)])
def test_halving_ends_near_four_pixels_and_the_networks_can_be_built(size, stages):
    chosen = rules.widths(64, facts(size=size))["generator_widths"]
    assert len(chosen) == stages
    assert 3 <= Canvas.of(size, stages).base <= 6
    draws = build_generator("dcgan", size=size, channels=1, widths=(1,) * stages)
    judges = build_discriminator("dcgan", size=size, channels=1, widths=(1,) * stages)
    assert judges(draws(torch.randn(2, 100))).shape == (2,)


@pytest.mark.parametrize(
    ("until", "comes_to"), [("2M images", 2e6), ("2 epochs", 1e5), ("100 steps", 6400), ("3 minutes", None)]
)
def test_a_budget_is_counted_in_images_unless_it_is_a_time(until, comes_to):
    assert rules.budget(rivals.recipes.auto().changed(until=until), 50_000) == comes_to


def test_the_data_decide_gamma_and_mirrors():
    colour, _ = rules.basis(facts(size=64))
    assert colour.r1.start == colour.r2.start == pytest.approx(4 * rules.GAMMA)
    assert colour.flip
    grey, why = rules.basis(facts(channels=1))
    assert not grey.flip
    assert "writing" in why["flip"]


def test_images_that_come_too_often_are_changed_before_the_discriminator_sees_them():
    assert rules.course(99 * 500, facts(n=500))[0]["augment"] == "none"
    assert rules.course(101 * 500, facts(n=500))[0]["augment"] == "diff"


def test_the_average_and_the_rates_follow_the_length():
    told, _ = rules.course(1_234_567, facts())
    assert told["ema"].start == 62_000
    assert (told["generator_lr"].images, told["generator_lr"].end) == (1_200_000, 2e-4)
    assert rules.course(500, facts())[0]["ema"].start == 1_000
    assert rules.course(1e9, facts())[0]["ema"].start == 500_000


@pytest.mark.parametrize(
    ("until", "first"), [("20k images", 64), ("200k images", 128), ("400k images", 256), ("2M images", 512)]
)
def test_a_budget_in_images_takes_the_widest_network_that_it_fills(fast, until, first):
    choice = fitting.choose(images(size=32, channels=3), {"until": until}, CPU, 0)
    assert choice.config.generator_widths[0] == first
    assert len(fast) == 1  # only for the estimate


def test_a_budget_in_minutes_is_probed_width_by_width(fast):
    # w channels see 1e5 / w * 600 * 0.9 images, and want 1,500 w: up to 189 channels.
    choice = fitting.choose(images(size=32, channels=3), {"until": "10 minutes"}, CPU, 0)
    assert choice.config.generator_widths == (128, 64, 32)
    assert [widths[0] for widths in fast] == [64, 96, 128, 192]
    assert choice.speed == pytest.approx(1e5 / 128)
    assert choice.images == pytest.approx(1e5 / 128 * 540)


def test_what_the_user_says_stands(fast):
    said = {"until": "400k images", "generator_widths": (24, 16, 16), "r1": 3, "augment": "none", "ema": 0, "batch": 8}
    choice = fitting.choose(images(size=32, channels=3), said, CPU, 0)
    assert choice.config.generator_widths == (24, 16, 16)
    assert choice.config.discriminator_widths == ()
    assert choice.config.r1.start == 3
    assert choice.config.augment == "none"  # though each image comes 10,000 times
    assert choice.config.ema.start == 0
    assert choice.config.batch == 8
    assert not set(said) & set(choice.why)
    other = fitting.choose(images(size=32), {"net": "mlp", "until": "10 minutes"}, CPU, 0)
    assert (other.config.net, other.config.generator_widths) == ("mlp", ())
    assert "generator_widths" not in other.why
    with pytest.raises(UserError, match="bach"):
        fitting.choose(images(size=32), {"bach": 8}, CPU, 0)


def test_the_probe_plays_the_game_and_leaves_the_callers_dice_alone():
    before = torch.get_rng_state()
    config = rivals.recipes.auto().changed(batch=4, generator_widths=(8,), discriminator_widths=(8,), precision="fp32")
    assert fitting.probe(config, images(), CPU, 0) > 0
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_says_what_was_chosen_and_keeps_it(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "PROBE", 0.01)
    words = ["train", "mnist5k", "--until", "4 steps", "--batch", "4", "--hold-out", "50", "--out", "a", "--json"]
    status, out, err = command(words)
    assert status == 0, err
    assert json.loads(out)["state"] == "finished"
    assert "auto: for 4,450 images of 28 px, --until '4 steps'" in err
    assert "generator_widths      64 32 16 (the widest that sees 1,500 images" in err
    assert "images/s" in err and "memory" in err
    about = json.loads((tmp_path / "a" / "run.json").read_text())
    assert about["recipe"] == "auto"
    assert about["config"]["generator_widths"] == [64, 32, 16]
    assert {"images_per_second", "images", "memory", "why"} <= about["auto"].keys()
    # Resumed, it is the same game, whatever the machine can do now.
    status, out, err = command(["train", "--resume", "--out", "a", "--until", "6 steps", "--json"])
    assert status == 0, err
    assert json.loads(out)["step"] == 6
    assert "auto:" not in err
    assert json.loads((tmp_path / "a" / "run.json").read_text())["config"]["ema"] == about["config"]["ema"]


def test_quiet_says_nothing_and_the_same_budget_is_the_same_game(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "PROBE", 0.01)
    for name in ("a", "b"):
        status, _, err = command(["train", "--until", "2 steps", "--batch", "4", "--out", name, "--quiet"])
        assert (status, err) == (0, "")
    assert (tmp_path / "a/generator.safetensors").read_bytes() == (tmp_path / "b/generator.safetensors").read_bytes()
