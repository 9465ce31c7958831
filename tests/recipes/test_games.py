"""Every game that can be put together from the recipes' settings: it plays, stays finite, and resumes exactly."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from rivals import Batches, UserError
from rivals.api.common.game_factory import build_game
from rivals.base.schedules import Clock
from rivals.data.imageset import ImageSet
from rivals.losses.gan import LOSSES
from rivals.losses.penalties import LeCam
from rivals.nets.factory import GAN_NETS, build_discriminator, build_generator
from rivals.recipes import RECIPES, Config
from rivals.recipes.gan import AUGMENTS

WIDTHS = {"mlp": (8, 8, 8), "dcgan": (4,), "sngan": (4, 4), "r3": (8, 8)}
PENALTIES = {
    "none": {},
    "r1 r2": {"r1": "0.1", "r2": "0.1", "penalty_every": 2},
    "gp": {"gp": "1"},
    "finite differences": {"fd_r1": "0.1", "fd_r2": "0.1", "penalty_every": 2, "dropout": 0.0},
    "cr lecam": {"cr": "10", "lecam": "0.1"},
}
STEPS = 4  # of which two have gradient penalties


def batches() -> Batches:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (32, 3, 8, 8), np.uint8)
    return Batches(ImageSet("noise", "train", images, random.integers(0, 2, 32), ("a", "b")), 4, seed=0)


def game(**settings: object):
    net = str(settings.get("net", "dcgan"))
    widths = {"generator_widths": WIDTHS[net], "discriminator_widths": WIDTHS[net][::-1]}
    config = Config().changed(**{"latent_dim": 4, "batch_size": 4, **widths, **settings})
    return build_game(config, size=8, channels=3, classes=2, device=torch.device("cpu"), seed=0)


@pytest.mark.parametrize("net", list(GAN_NETS))
@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_three_settings_play_together_and_are_finite(net: str, loss: str) -> None:
    """A third of all combinations, in which any three of net, loss, penalty and augmentation meet."""
    stream = batches()  # a function of the index: nothing is left in it by an earlier game
    first = list(GAN_NETS).index(net) + list(LOSSES).index(loss)
    pairs = itertools.product(enumerate(PENALTIES.items()), enumerate(AUGMENTS))
    for (i, (name, penalty)), (j, augment) in pairs:
        if (first + i + j) % len(AUGMENTS):
            continue
        extra = {"augment_p": "0.5"} if augment == "ada" else {}
        penalty = {key: value for key, value in penalty.items() if key != "dropout" or net == "mlp"}
        played = game(net=net, loss=loss, augment=augment, conditional=augment == "diff", **penalty, **extra)
        for step in range(STEPS):
            values = played.round(step, stream, seed=0)
            bad = [key for key, value in values.items() if not bool(value.isfinite())]
            assert not bad, (name, augment, step, bad)
        assert all(bool(each.isfinite().all()) for each in played.state().values() if each.is_floating_point())


@pytest.mark.parametrize(
    ("recipe", "half_life"),
    [("r3-cifar10", 5e6), ("r3-ffhq64", 5e5), ("r3-ffhq256", 5e5), ("r3-imagenet32", 5e7), ("r3-imagenet64", 5e7)],
)
def test_published_recipes_keep_the_published_half_life(recipe: str, half_life: float) -> None:
    """Huang et al. 2024, table 8; their code has no ramp-up beside the schedule itself."""
    config = RECIPES[recipe]()
    small = config.changed(generator_widths=(8, 8), discriminator_widths=(8, 8), groups=None, conditional=False)
    played = build_game(small, size=8, channels=3, classes=0, device=torch.device("cpu"), seed=0)
    player, end = played.players["generator"], round(config.ema.length)
    with torch.no_grad():
        for average, weight in zip(player.ema.parameters(), player.net.parameters(), strict=True):
            average.zero_(), weight.fill_(1)
    player.update_ema(Clock(end), end // 100)
    weights = torch.cat([each.flatten() for each in player.ema.parameters()])
    assert torch.allclose(weights, torch.tensor(1 - 0.5 ** (end / 100 / half_life)), atol=1e-5)


def test_lazy_regularization_is_for_gradient_penalties_alone() -> None:
    """LeCam's averages follow every batch, and CR needs no second backward pass."""
    played = game(r1="0.1", r2="0.1", gp="1", cr="10", lecam="0.1", penalty_every=8, loss="hinge")
    intervals = {penalty.name: penalty.every for penalty in played.turns[0].penalties}
    assert intervals == {"r1": 8, "r2": 8, "gp": 8, "cr": 1, "lecam": 1}
    average, stream = played.modules["lecam"], batches()
    played.round(0, stream, seed=0)
    for step in range(1, 4):  # none of them a step of the lazy penalties
        before = float(average.real)
        values = played.round(step, stream, seed=0)
        wanted = LeCam.DECAY * before + (1 - LeCam.DECAY) * float(values["d_real"])
        assert float(average.real) == pytest.approx(wanted, rel=1e-5)
        assert {"penalty/lecam", "penalty/cr"} <= values.keys() and "penalty/r1" not in values


def test_a_resumed_game_continues_its_adaptive_augmentation() -> None:
    settings = {"loss": "nonsaturating", "augment": "ada", "augment_target": 0.1, "cr": "1", "lecam": "0.1"}
    whole, first, second = (game(**settings) for _ in range(3))
    for step in range(8):
        values = whole.round(step, batches(), seed=3)
    assert {"augment/p", "augment/sign"} <= values.keys()
    for step in range(4):
        first.round(step, batches(), seed=3)
    second.restore({key: value.clone() for key, value in first.state().items()})
    for step in range(4, 8):
        second.round(step, batches(), seed=3)
    state = second.state()
    assert {"augment/transforms.0.p", "lecam/real", "lecam/fake"} <= state.keys()
    assert all(torch.equal(value, state[key]) for key, value in whole.state().items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"augment": "blur"}, "unknown augmentation 'blur'"),
        ({"augment": "ada"}, "changes nothing at a probability of 0"),
        ({"augment": "ada", "augment_p": "2"}, "is not a probability"),
        ({"augment": "diff", "augment_p": "0.5"}, "need --augment ada"),
        ({"augment": "ada", "augment_target": 0.6, "loss": "relativistic"}, "meaningful sign"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Config().changed(**settings)


def parameters(config: Config, *, size: int, classes: int) -> tuple[float, float]:
    """Millions of weights of the generator and the discriminator that a configuration describes."""
    with torch.device("meta"):
        shape = {"size": size, "channels": 3, "classes": classes if config.conditional else 0}
        extra = {} if config.groups is None else {"groups": config.groups}
        nets = (
            build_generator(config.net, latent_dim=config.latent_dim, widths=config.generator_widths, **shape, **extra),
            build_discriminator(config.net, widths=config.discriminator_widths, **shape, **extra),
        )
    return tuple(round(sum(weight.numel() for weight in net.parameters()) / 1e6, 1) for net in nets)  # type: ignore


def test_the_published_cifar10_players_have_the_published_sizes() -> None:
    assert parameters(RECIPES["r3-cifar10"](), size=32, classes=10) == (20.8, 21.3)


@pytest.mark.parametrize(("name", "size"), [("ffhq64", 64), ("ffhq256", 256), ("imagenet32", 32), ("imagenet64", 64)])
def test_every_published_recipe_builds_its_players(name: str, size: int) -> None:
    config = RECIPES[f"r3-{name}"]()
    generator, discriminator = parameters(config, size=size, classes=1000)
    assert 20 < generator < 250 and 20 < discriminator < 250
    assert Config().changed(**config.written()) == config


def test_a_finite_difference_sees_one_augmentation() -> None:
    """Of nothing else than the direction: with an offset of 0 both logits are the same under any augmentation."""
    played, stream = game(augment="ada", augment_p="1", fd_r1="1"), batches()
    seen = []
    played.turns[0].penalties[0] = dataclasses.replace(
        played.turns[0].penalties[0],
        score=lambda s: seen.append(s.critic_and_moved(s.real_images, 0 * s.real_images)) or s.real.mean(),
    )
    played.round(0, stream, seed=0)
    ((logits, moved),) = seen
    assert torch.allclose(logits, moved, atol=1e-6) and logits.std() > 0


@pytest.mark.parametrize("name", ["fd_r1", "fd_r2"])
def test_a_finite_difference_of_a_net_with_dropout_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} compares two passes.*--dropout 0"):
        game(net="mlp", **{name: "1"})
    game(net="mlp", dropout=0.0, **{name: "1"})
    with pytest.raises(UserError, match="negative"):
        game(**{name: "-1"})
