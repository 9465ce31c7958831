"""AutoAttack (Croce & Hein 2020): an ensemble of attacks, each on the images that are still classified correctly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor

from rivals.attacks.apgd import apgd
from rivals.attacks.attack_losses import margin
from rivals.attacks.attack_state import Model, check_norm, prepare
from rivals.attacks.bim import bim
from rivals.attacks.carlini_wagner import carlini_wagner
from rivals.attacks.ddn import ddn
from rivals.attacks.deepfool import deepfool
from rivals.attacks.ensemble import Attack, EnsembleOptions, Stage, run_ensemble
from rivals.attacks.fab import fab
from rivals.attacks.fgsm import fgsm
from rivals.attacks.fmn import fmn
from rivals.attacks.frozen_model import FrozenModel
from rivals.attacks.hopskipjump import hopskipjump
from rivals.attacks.mifgsm import mifgsm
from rivals.attacks.pdpgd import pdpgd
from rivals.attacks.pgd import pgd
from rivals.attacks.random_baselines import noise
from rivals.attacks.sigma_zero import sigma_zero
from rivals.attacks.sparse_rs import sparse_rs
from rivals.attacks.spsa import spsa
from rivals.attacks.square import square
from rivals.attacks.square_pgd import square_pgd
from rivals.attacks.surfree import surfree
from rivals.attacks.transfer import transfer
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Ball, Linf
from rivals.base.registry import Registry, unknown
from rivals.base.rng import derive

NEAR = 0.5  # share of the clean margin at which an image counts as close to the boundary


def autoattack_stages(version: str, ball: Ball) -> tuple[Stage, ...]:
    """The stages of a version of AutoAttack, in order.

    ``standard``, as published: APGD on the cross-entropy, APGD-T, FAB-T, Square; 100 steps and 9 targets each, 5000
    queries; in L1 (Croce & Hein 2021) 5 restarts of the first, and 5 targets in the second.

    ``swift``, about an eighth of those passes: PGD with 40 steps; APGD-T with 25 steps and 4 targets; PGD with three
    restarts on images close to the boundary; then Square and PGD in turns from the best iterate so far, given up where
    the margin makes no progress.

    Args:
        version: ``standard`` or ``swift``.
        ball: The threat model; its norm decides on budgets.

    Raises:
        UserError: there is no such version.
    """
    if version not in VERSIONS:
        raise unknown("version of autoattack", version, VERSIONS)
    if not isinstance(ball, Ball):
        raise UserError(f"the ball is a {type(ball).__name__}: give Linf(8 / 255), L2(0.5) or L1(12.0)")
    check_norm(ball, "autoattack", (Linf, L2, L1))
    return VERSIONS[version](ball)


def autoattack(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    version: str = "standard",
    stages: Sequence[str] | None = None,
    clean: Tensor | None = None,
    **options: Unpack[EnsembleOptions],
) -> Tensor:
    """AutoAttack (Croce & Hein 2020): attacks without options to tune, each on the images that resisted the others.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``.
        version: Which stages: see :func:`autoattack_stages`.
        stages: The names of the stages to run, in any order; all by default.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`EnsembleOptions`.

    Returns:
        For each image an adversarial example in ball and box, or the image itself if none was found.

    Raises:
        UserError: bad input, in one line.
    """
    chosen = autoattack_stages(version, ball)
    if stages is not None:
        names = [stage.name for stage in chosen]
        for name in stages:
            if name not in names:
                raise unknown(f"stage of autoattack {version}", name, names)
        chosen = tuple(stage for stage in chosen if stage.name in stages)
    with prepare(model, x, y, ball, **options) as state:
        for outcome in run_ensemble(state.frozen, x, y, ball, chosen, clean=clean, **options):
            state.best[outcome.indices[outcome.fooled]] = outcome.x_adv[outcome.fooled]
        return state.best


def _standard(ball: Ball) -> tuple[Stage, ...]:
    sparse = isinstance(ball, L1)
    return (
        Stage("apgd-ce", partial(apgd, restarts=5 if sparse else 1)),
        Stage("apgd-t", partial(_targeted, apgd, 5 if sparse else 9, loss="dlr")),
        Stage("fab-t", partial(_targeted, fab, 9, stop_within=True)),
        Stage("square", square),
    )


def _swift(ball: Ball) -> tuple[Stage, ...]:
    return (
        Stage("pgd", partial(pgd, steps=40)),
        Stage("apgd-t", partial(_targeted, apgd, 4, loss="dlr", steps=25)),
        Stage("pgd-restarts", partial(_near_boundary, partial(pgd, steps=40, restarts=3))),
        Stage("square-pgd", partial(square_pgd, turns=7)),
    )


def _near_boundary(
    attack: Attack,
    model: FrozenModel,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    clean: Tensor,
    best: Tensor,
    **options: Any,
) -> Tensor:
    """Attack the images whose margin is down to half of the clean one; leave the others unchanged."""
    targets = options["targets"]
    logits = torch.cat([model.logits(some) for some in torch.split(best, options["batch_size"])])
    near = (margin(logits, y, targets) >= NEAR * margin(clean, y, targets)).nonzero()[:, 0]
    options |= {"targets": None if targets is None else targets[near], "seed": derive(options["seed"], "again")}
    x_adv = x.clone()
    own = ball.with_eps(ball.radii(x)[near])
    x_adv[near] = attack(model, x[near], y[near], own, clean=clean[near], **options)
    return x_adv


def _targeted(
    attack: Attack, n_targets: int, model: Model, x: Tensor, y: Tensor, ball: Ball, clean: Tensor, **options: Any
) -> Tensor:
    """An attack with the strongest wrong classes as targets in turn; if targets are given, with those."""
    if options.get("targets") is None:
        options["n_targets"] = n_targets
    return attack(model, x, y, ball, clean=clean, **options)


VERSIONS: dict[str, Callable[[Ball], tuple[Stage, ...]]] = {"standard": _standard, "swift": _swift}

ATTACKS: Registry[Attack] = Registry(
    "attack",
    {
        "noise": noise,
        "fgsm": fgsm,
        "bim": bim,
        "pgd": pgd,
        "mifgsm": mifgsm,
        "apgd": apgd,
        "fab": fab,
        "deepfool": deepfool,
        "carlini_wagner": carlini_wagner,
        "ddn": ddn,
        "fmn": fmn,
        "sigma_zero": sigma_zero,
        "pdpgd": pdpgd,
        "square": square,
        "square_pgd": square_pgd,
        "transfer": transfer,
        "sparse_rs": sparse_rs,
        "spsa": spsa,
        "hopskipjump": hopskipjump,
        "surfree": surfree,
        "autoattack": autoattack,
    },
)
LABELS_ONLY = ("hopskipjump", "surfree")  # of these, the attacks that see no logits
GRADIENT_FREE = (
    "noise",
    "square",
    "sparse_rs",
    "spsa",
    *LABELS_ONLY,
)  # of these, the attacks that need no gradient
