"""The recipe that configures itself: what the rules choose; settings of the user are kept, and all is recorded."""

import json

import numpy as np
import pytest
import torch

import rivals
from rivals.api.training import auto_config as fitting
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data.imageset import ImageSet
from rivals.nets.factory import build_discriminator, build_generator
from rivals.nets.padding import PaddedSize
from rivals.recipes import auto_rules as rules

CPU = torch.device("cpu")


def facts(**said):
    said = {"n": 50_000, "size": 32, "channels": 3} | said
    return rules.DataFacts(**said | {"size": Size.parse(said["size"])})


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


@pytest.mark.parametrize(("size", "upsample"), [(28, None), (40, None), (64, "nearest"), ("200x48", "nearest")])
def test_high_resolutions_are_upsampled_without_a_checkerboard(fast, size, upsample):
    config, why = rules.settings_for_data(facts(size=size))
    assert config.generator_upsample == upsample
    assert ("generator_upsample" in why) == (upsample is not None)


def test_another_net_and_the_user_have_the_last_word_on_upsampling(fast):
    given = {"until": "1000 images"}
    large = images(size=64)
    assert fitting.fit_config(large, given, CPU, 0).config.generator_upsample == "nearest"
    for settings in ({"generator_upsample": "transposed"}, {"net": "r3", "generator_widths": (8,) * 5}):
        fitted = fitting.fit_config(large, given | settings, CPU, 0)
        assert fitted.config.generator_upsample == settings.get("generator_upsample")
        assert "generator_upsample" not in fitted.reasons


@pytest.mark.parametrize(
    ("size", "stages"), [(8, 1), (28, 3), (32, 3), (48, 4), (50, 4), (100, 5), (1024, 8), ("96x64", 4)]
)
def test_halving_ends_near_four_pixels_and_the_networks_can_be_built(size, stages):
    chosen = rules.widths(64, facts(size=size))["generator_widths"]
    assert len(chosen) == stages
    assert 3 <= PaddedSize.of(size, stages).base.shorter <= 6
    draws = build_generator("dcgan", size=size, channels=1, widths=(1,) * stages)
    discriminator = build_discriminator("dcgan", size=size, channels=1, widths=(1,) * stages)
    assert discriminator(draws(torch.randn(2, 100))).shape == (2,)


@pytest.mark.parametrize(
    ("until", "comes_to"), [("2M images", 2e6), ("2 epochs", 1e5), ("100 steps", 6400), ("3 minutes", None)]
)
def test_a_budget_is_counted_in_images_unless_it_is_a_time(until, comes_to):
    assert rules.budget(rivals.recipes.auto().changed(until=until), 50_000) == comes_to


def test_the_data_decide_gamma_and_flips():
    color, _ = rules.settings_for_data(facts(size=64))
    assert color.r1.start == color.r2.start == pytest.approx(4 * rules.GAMMA)
    assert color.flip
    gray, why = rules.settings_for_data(facts(channels=1))
    assert not gray.flip
    assert "text" in why["flip"]


def test_images_that_come_too_often_are_changed_before_the_discriminator_sees_them():
    assert rules.settings_for_length(99 * 500, Duration(1, "epochs"), facts(n=500))[0]["augment"] == "none"
    assert rules.settings_for_length(101 * 500, Duration(1, "epochs"), facts(n=500))[0]["augment"] == "diff"


def test_ema_and_learning_rates_follow_the_length():
    settings, _ = rules.settings_for_length(1_234_567, Duration(1, "epochs"), facts())
    assert settings["ema"].start == 62_000
    assert (settings["generator_lr"].length, settings["generator_lr"].end) == (1_200_000, 2e-4)
    assert rules.settings_for_length(500, Duration(1, "epochs"), facts())[0]["ema"].start == 1_000
    assert rules.settings_for_length(1e9, Duration(1, "epochs"), facts())[0]["ema"].start == 500_000


@pytest.mark.parametrize(
    ("until", "first"), [("20k images", 64), ("200k images", 128), ("400k images", 256), ("2M images", 512)]
)
def test_a_budget_in_images_takes_the_widest_network_that_it_fills(fast, until, first):
    choice = fitting.fit_config(images(size=32, channels=3), {"until": until}, CPU, 0)
    assert choice.config.generator_widths[0] == first
    assert len(fast) == 1  # only for the estimate


def test_a_budget_in_minutes_is_probed_width_by_width(fast):
    # w channels see 1e5 / w * 600 * 0.9 images, and want 1,500 w: up to 189 channels.
    choice = fitting.fit_config(images(size=32, channels=3), {"until": "10 minutes"}, CPU, 0)
    assert choice.config.generator_widths == (128, 64, 32)
    assert [widths[0] for widths in fast] == [64, 96, 128, 192]
    assert choice.images_per_second == pytest.approx(1e5 / 128)
    assert choice.total_images == pytest.approx(1e5 / 128 * 540)


@pytest.mark.parametrize(("minutes", "probed"), [(1, [64]), (2, [64, 96]), (4, [64, 96, 128])])
def test_a_width_that_the_run_could_not_fill_is_not_probed(fast, minutes, probed):
    fitting.fit_config(images(size=32, channels=3), {"until": f"{minutes} minutes"}, CPU, 0)
    assert [widths[0] for widths in fast] == probed


@pytest.mark.parametrize(("fits", "first"), [(100, 96), (64, 64), (32, None)])
def test_a_network_that_does_not_fit_into_memory_ends_the_search(fast, monkeypatch, fits, first):
    measure = fitting.probe

    def probe(config, images, device, seed):
        if config.generator_widths[0] > fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return measure(config, images, device, seed)

    monkeypatch.setattr(fitting, "probe", probe)
    if first is None:
        with pytest.raises(RuntimeError, match="allocate memory"):
            fitting.fit_config(images(size=32, channels=3), {"until": "10 minutes"}, CPU, 0)
        return
    choice = fitting.fit_config(images(size=32, channels=3), {"until": "10 minutes"}, CPU, 0)
    assert choice.config.generator_widths[0] == first
    assert choice.reasons["generator_widths"] == "the widest that fits into memory"
    assert choice.images_per_second == pytest.approx(1e5 / first)


def test_settings_of_the_user_are_kept(fast):
    said = {
        "until": "400k images",
        "generator_widths": (24, 16, 16),
        "r1": 3,
        "augment": "none",
        "ema": 0,
        "batch_size": 8,
    }
    choice = fitting.fit_config(images(size=32, channels=3), said, CPU, 0)
    assert choice.config.generator_widths == (24, 16, 16)
    assert choice.config.discriminator_widths == ()
    assert choice.config.r1.start == 3
    assert choice.config.augment == "none"  # though each image comes 10,000 times
    assert choice.config.ema.start == 0
    assert choice.config.batch_size == 8
    assert not set(said) & set(choice.reasons)
    other = fitting.fit_config(images(size=32), {"net": "mlp", "until": "10 minutes"}, CPU, 0)
    assert (other.config.net, other.config.generator_widths) == ("mlp", ())
    assert "generator_widths" not in other.reasons
    with pytest.raises(UserError, match="bach"):
        fitting.fit_config(images(size=32), {"bach": 8}, CPU, 0)


def test_the_probe_plays_the_game_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    config = rivals.recipes.auto().changed(
        batch_size=4, generator_widths=(8,), discriminator_widths=(8,), precision="fp32"
    )
    assert fitting.probe(config, images(), CPU, 0) > 0
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_prints_what_was_chosen_and_stores_it(run_rivals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "PROBE_SECONDS", 0.01)
    words = ["train", "mnist5k", "--until", "4 steps", "--batch-size", "4", "--hold-out", "50", "--out", "a", "--json"]
    status, out, err = run_rivals(*words)
    assert status == 0, err
    assert json.loads(out)["state"] == "finished"
    assert "auto: for 4,450 images of 28 px, --until '4 steps'" in err
    assert "generator_widths      64 32 16 (the widest with 1,500 images per channel" in err
    assert "images/s" in err and "memory" in err
    about = json.loads((tmp_path / "a" / "run.json").read_text())
    assert about["recipe"] == "auto"
    assert about["config"]["generator_widths"] == [64, 32, 16]
    assert {"images_per_second", "total_images", "memory_bytes", "reasons"} <= about["auto"].keys()
    # Resumed, it is the same game, whatever the machine can do now.
    status, out, err = run_rivals("train", "--resume", "--out", "a", "--until", "6 steps", "--json")
    assert status == 0, err
    assert json.loads(out)["step"] == 6
    assert "auto:" not in err
    assert json.loads((tmp_path / "a" / "run.json").read_text())["config"]["ema"] == about["config"]["ema"]


def test_quiet_prints_nothing_and_the_same_budget_gives_the_same_game(run_rivals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "PROBE_SECONDS", 0.01)
    for name in ("a", "b"):
        status, _, err = run_rivals("train", "--until", "2 steps", "--batch-size", "4", "--out", name, "--quiet")
        assert (status, err) == (0, "")
    assert (tmp_path / "a/generator.safetensors").read_bytes() == (tmp_path / "b/generator.safetensors").read_bytes()
