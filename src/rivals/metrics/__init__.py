"""Everything that reports a number. Names of the package are resolved on first use: some need torch, some scipy."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "rivals.metrics.results": ("Estimate",),
    "rivals.metrics.fid_infinity": ("frechet_infinity",),
    "rivals.metrics.frechet": ("Moments", "frechet_distance", "frechet_of", "moments_of"),
    "rivals.metrics.mmd": ("cmmd", "kid"),
    "rivals.metrics.prdc": ("authenticity", "density_coverage", "nearest", "precision_recall"),
    "rivals.metrics.inception": ("inception_score",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
