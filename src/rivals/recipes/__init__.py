"""Named presets: functions that return the whole configuration of a game, every field of which can be set."""

from rivals.recipes.classifiers import CLASSIFIERS, ClassifierConfig
from rivals.recipes.games import DEFAULT, RECIPES, Config, auto, dcgan, mlp, mlp_classic, quick, r3, sngan
from rivals.recipes.hardening import HARDENING, METHODS, HardenConfig

__all__ = [  # noqa: RUF022 - settings first, then presets
    "CLASSIFIERS",
    "ClassifierConfig",
    "Config",
    "DEFAULT",
    "HARDENING",
    "HardenConfig",
    "METHODS",
    "RECIPES",
    "auto",
    "dcgan",
    "mlp",
    "mlp_classic",
    "quick",
    "r3",
    "sngan",
]
