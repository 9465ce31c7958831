"""Recipes: named presets, and the typed options whose every field can be set."""

from rivals.recipes.adversarial import HARDENING, METHODS, HardenConfig
from rivals.recipes.classifiers import CLASSIFIERS, ClassifierConfig
from rivals.recipes.gan import DEFAULT, PUBLISHED, RECIPES, Config, auto, dcgan, mlp, mlp_classic, quick, r3, sngan
from rivals.recipes.options import (
    AttackConfig,
    CertifyConfig,
    DataOptions,
    EquilibriumConfig,
    ExploreConfig,
    GanRunOptions,
    RunOptions,
    SampleConfig,
    ScoreConfig,
)
from rivals.recipes.translation import ApplyConfig, TranslateConfig, TranslateRunOptions

__all__ = [  # noqa: RUF022 - settings first, then presets
    "ApplyConfig",
    "AttackConfig",
    "CLASSIFIERS",
    "CertifyConfig",
    "ClassifierConfig",
    "Config",
    "DEFAULT",
    "DataOptions",
    "EquilibriumConfig",
    "ExploreConfig",
    "GanRunOptions",
    "HARDENING",
    "HardenConfig",
    "METHODS",
    "PUBLISHED",
    "RECIPES",
    "RunOptions",
    "SampleConfig",
    "ScoreConfig",
    "TranslateConfig",
    "TranslateRunOptions",
    "auto",
    "dcgan",
    "mlp",
    "mlp_classic",
    "quick",
    "r3",
    "sngan",
]
