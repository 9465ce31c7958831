"""Rivals: adversarial learning for PyTorch. Two players, one game, one loop.

``import rivals`` is cheap: every name is resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "rivals.api": (
        "train",
        "classify",
        "harden",
        "demo",
        "equilibrium",
        "evaluate",
        "explore",
        "export",
        "certify",
        "report",
        "load",
        "pull",
        "push",
        "sample",
        "score",
        "translate",
    ),
    "rivals.api.critic": ("Critic",),
    "rivals.base.norm_balls": ("L0", "L1", "L2", "Linf"),
    "rivals.base.errors": ("UserError", "Interrupted"),
    "rivals.base.schedules": ("Schedule",),
    "rivals.base.duration": ("Duration",),
    "rivals.data.imageset": ("ImageSet",),
    "rivals.data.batches": ("Batches",),
    "rivals.game.callbacks": ("Callback", "Every", "OnLog"),
    "rivals.game.checkpoint": ("Checkpoints",),
    "rivals.game.game": ("Game", "Turn"),
    "rivals.game.health_monitor": ("HealthMonitor",),
    "rivals.game.loop": ("Saving", "play"),
    "rivals.game.player": ("Player", "adam"),
    "rivals.losses.gan": (
        "minimax",
        "nonsaturating",
        "least_squares",
        "hinge",
        "wasserstein",
        "relativistic",
    ),
    "rivals.losses.penalties": ("fd_r1", "fd_r2", "r1", "r2", "wgan_gp"),
    "rivals.nets.factory": ("build_classifier", "build_discriminator", "build_generator", "build_translator"),
    "rivals.recipes": (
        "AttackConfig",
        "CertifyConfig",
        "ClassifierConfig",
        "Config",
        "DataOptions",
        "HardenConfig",
        "TranslateConfig",
    ),
    "rivals.base.run_folder": ("Run",),
}
_HOME = {name: (home, name) for home, names in _HOMES.items() for name in names}
_HOME["load_images"] = ("rivals.data.load", "load")
_HOME["attacks"] = ("rivals.attacks", "")
_HOME["metrics"] = ("rivals.metrics", "")

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals' has no attribute {name!r}")
    home, inside = _HOME[name]
    module = importlib.import_module(home)
    value = getattr(module, inside) if inside else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
