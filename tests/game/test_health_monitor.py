"""Each alarm on a run made to show it, silence on a run that is well, and the arithmetic of the thresholds."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rivals.api.common.game_factory import build_game
from rivals.api.equilibrium.discriminator_eval import equilibrium_probe
from rivals.base.duration import Duration
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.game.callbacks import Every, OnLog, Progress
from rivals.game.game import Game, Turn
from rivals.game.health_monitor import LONG, STRIDE, WINDOW, YOUNG, HealthMonitor
from rivals.game.loop import play
from rivals.game.player import Player, adam
from rivals.losses.gan import make_loss, minimax
from rivals.metrics.diversity import Diversity
from rivals.recipes import RECIPES

BCE = make_loss("nonsaturating").equilibrium


@pytest.fixture(scope="module")
def blobs():
    """400 images of one soft spot each, 8 x 8: easy to draw, and varied."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8]
    cy, cx = rng.uniform(1, 6, (2, 400, 1, 1))
    pixels = 255 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 3)
    return ImageSet("blobs", "train", pixels.astype(np.uint8)[:, None])


def watched(images, until, recipe="mlp-classic", every="40 steps", held=None, **settings):
    """Play a small game and return its health and the alarms it raised, each with its record."""
    config = RECIPES[recipe]().changed(
        **{"batch_size": 16, "latent_dim": 8, "generator_widths": (32,), "discriminator_widths": (32,), **settings}
    )
    game = build_game(config, size=8, channels=1, classes=0, device=torch.device("cpu"), seed=0)
    loss = make_loss(config.loss, config.label_smoothing)
    health = HealthMonitor(loss.equilibrium, least=loss.least)
    diversity = Diversity(images.images, 32)
    generator = game.players["generator"].eval_net

    def sample_grid(progress):
        measured = diversity(generator.sample(32))
        yield progress.record(sample_grid="", diversity=measured)

    alarms = []
    play(
        game,
        Batches(images, config.batch_size, seed=0),
        until=until,
        callbacks=[
            Every(Duration.parse(every), sample_grid),
            *(
                [Every(Duration.parse(every), equilibrium_probe(game, images, held, seed=0))]
                if held is not None
                else []
            ),
            health,
            OnLog(lambda record: alarms.append(record) if "alarm" in record else None),
        ],
    )
    return health, {record["alarm"]: record for record in alarms if record["raised"]}


def test_a_generator_that_hardly_learns_lets_the_discriminator_win(blobs):
    health, alarms = watched(blobs, "300 steps", generator_lr=1e-6, discriminator_lr=5e-3)
    alarm = alarms["discriminator-wins"]
    assert "discriminator wins" in alarm["message"]
    assert "--discriminator-lr" in alarm["remedy"]
    assert "discriminator-wins" in health.active


def test_a_discriminator_that_hardly_learns_lets_the_generator_win_and_collapse(blobs):
    """The best answer to a fixed D is one image. A game of two that learn would collapse by chance only."""
    _, alarms = watched(blobs, "500 steps", generator_lr=5e-3, discriminator_lr=1e-6)
    assert "generator wins" in alarms["generator-wins"]["message"]
    assert "as diverse as real images" in alarms["mode-collapse"]["message"]
    assert "discriminator-wins" not in alarms


def test_the_dirac_gan_without_penalty_raises_the_alarm_of_oscillation():
    class Point(nn.Module):
        """Dirac-GAN (Mescheder et al. 2018): G draws one point, D is a line through the origin."""

        classes, latent_dim = 0, 1

        def __init__(self, start):
            super().__init__()
            self.place = nn.Parameter(torch.tensor(start))

        def forward(self, x, labels=None):
            if x.ndim == 4:
                return self.place * x.flatten()
            return self.place.expand(len(x), 1, 1, 1)

    players = {
        "generator": Player(Point(2.0), adam(0.05, beta1=0.0)),
        "discriminator": Player(Point(2.0), adam(0.05, beta1=0.0)),
    }
    loss = minimax()
    game = Game(players, [Turn("discriminator", loss.discriminator), Turn("generator", loss.generator)])
    zeros = ImageSet("dirac", "train", np.full((8, 1, 1, 1), 127, np.uint8))
    health = HealthMonitor(loss.equilibrium)
    found = []
    show = lambda record: found.append(record) if "alarm" in record else None  # noqa: E731
    play(game, Batches(zeros, 4, seed=0), until="800 steps", callbacks=[health, OnLog(show)])
    assert "oscillation" in {record["alarm"] for record in found}
    assert "oscillates" in next(record["message"] for record in found if record["alarm"] == "oscillation")


WIDE = {"recipe": "mlp", "discriminator_widths": (256, 256), "discriminator_lr": 1e-3, "dropout": 0.0}
WIDE |= {"r1": 0.01, "r2": 0.01}


def halves(images, n):
    """``n`` images to learn from, and 200 others of the same kind."""
    return (dataclasses.replace(images, images=images.images[part]) for part in (slice(n), slice(200, 400)))


def test_a_discriminator_memorizes_few_images(blobs):
    train, held = halves(blobs, 20)
    _, alarms = watched(train, "640 steps", held=held, **WIDE)
    alarm = alarms["discriminator-overfits"]
    assert "r_v = " in alarm["message"] and "--augment diff" in alarm["remedy"]


def test_a_discriminator_of_many_does_not(blobs):
    train, held = halves(blobs, 200)
    _, alarms = watched(train, "640 steps", held=held, **WIDE)
    assert "discriminator-overfits" not in alarms


def test_a_healthy_game_raises_no_alarm(blobs):
    _, alarms = watched(blobs, "640 steps", recipe="mlp", dropout=0.0, generator_lr=1e-3, discriminator_lr=1e-3)
    assert alarms == {}


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_a_discriminator_wins_over_smoothed_labels_too(blobs, smoothing):
    """Its loss cannot fall below the entropy of the labels."""
    _, alarms = watched(blobs, "300 steps", generator_lr=1e-6, discriminator_lr=5e-3, label_smoothing=smoothing)
    assert "discriminator-wins" in alarms


@pytest.mark.parametrize("name", ["nonsaturating", "minimax", "least-squares"])
def test_the_least_loss_is_that_of_a_discriminator_without_error(name):
    for smoothing in (0.0, 0.1, 0.25):
        loss = make_loss(name, smoothing)
        real = torch.linspace(-20, 20, 200_001, dtype=torch.float64)
        fake = torch.tensor([-60.0 if loss.unit == "probability" else 0.0], dtype=torch.float64)
        least = min(
            float(loss.discriminator(SimpleNamespace(real=part, fake=fake))["real"]) for part in real.view(-1, 1)[::20]
        )
        least += float(loss.discriminator(SimpleNamespace(real=real[:1], fake=fake))["fake"])
        assert loss.least == pytest.approx(least, abs=1e-4)


def test_the_term_of_the_classes_is_none_of_the_game(blobs):
    """In Rob-GAN the losses are sums with a cross-entropy of classes; only what is left has a level."""
    plain = [batch(i, 1.386, 0.693) for i in range(2 * WINDOW)]
    assert feed(HealthMonitor(BCE), plain) == []
    classes = {"loss/discriminator/class": 2.3, "loss/generator/class": 2.3}
    added = [batch(i, 1.386 + 2.3, 0.693 + 2.3) | classes for i in range(2 * WINDOW)]
    assert feed(HealthMonitor(BCE), added) == []
    won = [batch(i, 0.01 + 2.3, 5 + 2.3) | classes for i in range(2 * WINDOW)]
    assert "discriminator-wins" in {each["alarm"] for each in feed(HealthMonitor(BCE), won)}


# The thresholds, on records made by hand


def batch(step, loss_d, loss_g):
    return {"images": step, "step": step, "seconds": 0.0, "loss/discriminator": loss_d, "loss/generator": loss_g}


def feed(health, records):
    return [found for record in records for found in health.on_record(record)]


def test_an_alarm_is_raised_once_and_cleared_when_it_is_over():
    health = HealthMonitor(BCE)
    wins = [batch(i, 0.01, 9.0) for i in range(2 * WINDOW)]
    fair = [batch(i, 1.2, 0.8) for i in range(2 * WINDOW, 4 * WINDOW)]
    found = feed(health, wins + fair)
    assert [(each["alarm"], each["raised"]) for each in found] == [
        ("discriminator-wins", True),
        ("discriminator-wins", False),
    ]
    assert found[0]["step"] == WINDOW - 1
    assert not health.active


def test_a_monitor_restored_from_the_log_equals_the_one_that_was_never_stopped():
    lived = HealthMonitor(BCE)
    records = []
    for i in range(3 * WINDOW):
        record = batch(i, 0.01 if i > WINDOW else 1.3, 5.0)
        records += [record, *lived.on_record(record)]
    recalled = HealthMonitor(BCE)
    feed(recalled, records[: WINDOW * 2])  # what it saw of a part that a kill undid
    recalled.on_restore(records, Progress(0, 0, 0, 0))
    assert recalled.active.keys() == lived.active.keys() == {"discriminator-wins"}
    more = [batch(i, 1.2, 0.8) for i in range(2 * WINDOW)]
    assert feed(lived, more) == feed(recalled, more)


def test_swings_of_the_lead_are_counted_and_small_ones_are_not():
    levels = [0.5 if (i // 100) % 2 else 1.9 for i in range(LONG)]
    assert "oscillation" in {
        each["alarm"] for each in feed(HealthMonitor(BCE), [batch(i, v, 1) for i, v in enumerate(levels)])
    }
    levels = [1.1 if (i // 100) % 2 else 1.5 for i in range(LONG)]
    assert feed(HealthMonitor(BCE), [batch(i, v, 1) for i, v in enumerate(levels)]) == []
    noise = np.random.default_rng(0).normal(1.2, 0.8, 5 * LONG)  # single batches scatter; strides of 20 do not
    assert feed(HealthMonitor(BCE), [batch(i, abs(v), 1) for i, v in enumerate(noise)]) == []
    assert LONG % STRIDE == 0


def sample_grid(step, diversity):
    return {"images": step, "step": step, "seconds": 0.0, "sample_grid": "x", "diversity": diversity}


def test_mode_collapse_needs_several_sample_grids_and_ignores_the_untrained_one():
    values = [0.0, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.4, 0.6, 0.7, 0.8]
    found = feed(HealthMonitor(BCE), [sample_grid(step * YOUNG, value) for step, value in enumerate(values)])
    assert [(each["step"] // YOUNG, each["raised"]) for each in found] == [(6, True), (10, False)]
    assert feed(HealthMonitor(BCE), [sample_grid(step, 0.0) for step in range(YOUNG)]) == []
    growing = [sample_grid(step * YOUNG, 0.06 * step) for step in range(12)]
    assert feed(HealthMonitor(BCE), growing) == []


def evaluation(step, r_v):
    return {"images": step, "step": step, "seconds": 0.0, "equilibrium/r_v": r_v}


def test_overfitting_needs_several_evaluations_and_clears_after_as_many():
    values = [0.6, 0.9, 0.45, 0.55, 0.9, 0.6, 0.4, 0.3, 0.3, 0.4, 0.3, 0.3, 0.3, 0.6]
    found = feed(HealthMonitor(BCE), [evaluation(step, value) for step, value in enumerate(values)])
    assert [(each["step"], each["raised"]) for each in found] == [(5, True), (12, False)]


@pytest.mark.parametrize(("d_real", "d_fake", "alarms"), [(-2.0, 3.0, ["generator-wins"]), (3.0, 2.0, [])])
def test_with_hinge_the_generator_wins_only_if_its_images_score_higher(d_real, d_fake, alarms):
    """D's loss is 2 at the equilibrium, and G's has no level; a D that is merely bad is no win of G."""
    records = [batch(step, 5.0, -d_fake) | {"d_real": d_real, "d_fake": d_fake} for step in range(WINDOW)]
    found = feed(HealthMonitor(make_loss("hinge").equilibrium), records)
    assert [each["alarm"] for each in found] == alarms


def test_a_loss_without_a_level_has_no_alarm_of_balance():
    health = HealthMonitor(make_loss("wasserstein").equilibrium)
    assert feed(health, [batch(i, -50.0, 3.0) for i in range(2 * WINDOW)]) == []


def test_diversity_of_real_repeated_and_noisy_images(blobs):
    diversity = Diversity(blobs.images, 64)
    real = torch.from_numpy(blobs.images)
    assert diversity(real[:64]) == pytest.approx(1, abs=0.2)
    once = real[:1].expand(64, 1, 8, 8)
    assert diversity(once) == 0
    assert diversity(real[:8].repeat(8, 1, 1, 1)) == 0
    assert diversity(real[:1]) is None
    assert Diversity(np.zeros((9, 1, 8, 8), np.uint8), 4)(real[:4]) is None
