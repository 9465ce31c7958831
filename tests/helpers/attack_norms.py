"""Which norms each attack has an algorithm for, and options that keep it short."""

from __future__ import annotations

from typing import Any

from rivals.base.norm_balls import L0, L1, L2, Ball, Linf

DENSE = (Linf, L2, L1)
NORMS: dict[str, tuple[type[Ball], ...]] = {
    **dict.fromkeys(("noise", "transfer", "fgsm", "bim", "pgd", "mifgsm", "fmn"), (*DENSE, L0)),
    **dict.fromkeys(("carlini_wagner", "ddn"), (L2,)),
    **dict.fromkeys(("sigma_zero", "sparse_rs"), (L0,)),
    "pdpgd": (L2, L1),
    "hopskipjump": (Linf, L2),
    "surfree": (L2,),
}
RADII = {Linf: 0.05, L2: 0.5, L1: 2.0, L0: 5.0}
SHORT: dict[str, dict[str, Any]] = {
    "square": {"queries": 4},
    "square_pgd": {"turns": 1, "queries": 2, "steps": 2},
    "carlini_wagner": {"steps": 4, "searches": 1},
    "sparse_rs": {"queries": 8},
    "transfer": {"steps": 2, "variance": 1, "transform": "none"},
    "spsa": {"queries": 10, "samples": 2},
    "hopskipjump": {"queries": 30, "samples": 5},
    "surfree": {"queries": 20},
    "autoattack": {"version": "swift", "stages": ["pgd", "apgd-t"]},
    "fgsm": {},
    "noise": {"trials": 3},
}


def norms_of(name: str) -> tuple[type[Ball], ...]:
    """The balls that an attack takes."""
    return NORMS.get(name, DENSE)


def ball_of(name: str, eps: float | None = None) -> Ball:
    """A ball that an attack takes, of radius ``eps`` unless it is in L0: in L2 if it can be."""
    norm = L2 if L2 in norms_of(name) else norms_of(name)[0]
    return norm(RADII[norm] if eps is None or norm is L0 else eps)


def short(name: str) -> dict[str, Any]:
    """Options for few passes."""
    return SHORT.get(name, {"steps": 3})
