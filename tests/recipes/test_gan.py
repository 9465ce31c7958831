"""Settings of GANs: what is refused, and their written form."""

import pytest

from helpers.small_games import small_game
from rivals.base.errors import UserError
from rivals.recipes import RECIPES, Config
from rivals.recipes.base import NONE


@pytest.mark.parametrize(
    "settings",
    [
        {"generator_lr": -1e-3},
        {"discriminator_lr": 5},
        {"generator_lr": 0},
        {"beta1": 1.0},
        {"beta2": 1.5},
        {"ema": -1},
        {"batch_size": 1},
        {"latent_dim": 0},
        {"r1": -1},
        {"instance_noise": -0.1},
        {"label_smoothing": 0.1},
        {"loss": "hing"},
        {"net": "dcgn"},
        {"penalty_every": 0},
        {"discriminator_turns": 0},
        {"generator_widths": (0,)},
        {"generator_widths": (4, 4, 4, 4, 4)},
        {"dropout": 0.5},
        {"augment": "diff", "augment_color": 0.3},
        {"nonsense": 1},
        {"until": "a while"},
    ],
)
def test_bad_settings_are_refused_in_one_line(settings):
    with pytest.raises(UserError) as caught:
        small_game("quick", **settings)
    assert "\n" not in str(caught.value)


def test_written_configuration_is_read_back_equal():
    for recipe in RECIPES.values():
        assert Config().changed(**recipe().written()) == recipe()


def test_another_augmentation_drops_what_is_of_ada_alone():
    published = RECIPES["r3-cifar10"]()
    assert published.augment_p.peak and published.augment_color == 0.5
    other = published.changed(augment="diff")
    assert (other.augment_p, other.augment_color, other.augment_target) == (NONE, 1.0, None)
    assert published.changed(augment="ada", r1=1).augment_color == 0.5
    with pytest.raises(UserError, match="--augment-color needs --augment ada"):
        published.changed(augment="none", augment_color=0.2)
