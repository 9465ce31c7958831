"""``attack --defense``: a purifier in front of the classifier, and the attacks that see it and that do not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rivals.api.robustness.attack_spec import read_options
from rivals.api.robustness.target import Target
from rivals.base.errors import UserError
from rivals.base.registry import unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rivals.attacks.ensemble import Stage
    from rivals.base.norm_balls import Ball
    from rivals.defenses.purifier import Purifier
    from rivals.recipes.options import AttackConfig

NAIVE = "naive"  # the stage that attacks the classifier alone
UNROLLED = 10  # last steps of Defense-GAN that the unrolled gradient passes through
HOW = "write jpeg(quality=50), bit-depth(bits=3) or defense-gan:RUN(steps=100,restarts=4)"


def read_defense(text: str) -> Purifier:
    """A purifier from text: a name with options in parentheses, and for ``defense-gan`` a run of ``rivals train``.

    Raises:
        UserError: there is no such defense, option or run.
    """
    from rivals.api.common.network_io import generator_of
    from rivals.defenses import JPEG, BitDepth, DefenseGAN

    kinds: Mapping[str, Callable[..., Purifier]] = {"jpeg": JPEG, "bit-depth": BitDepth, "defense-gan": DefenseGAN}
    match = re.fullmatch(r"\s*([\w-]+)(?::([^()]+))?\s*(?:\((.*)\))?\s*", text)
    if not match:
        raise UserError(f"'{text}' does not name a defense: {HOW}")
    name, run, options = match.groups()
    if name not in kinds:
        raise unknown("defense", name, list(kinds))
    if (run is not None) != (name == "defense-gan"):
        raise UserError(f"'{text}' {'names a run' if run else 'names no run'}: {HOW}")
    given = read_options(name, kinds[name], options) if options else {}
    return kinds[name](**given) if run is None else DefenseGAN(generator_of(run), **given)


def defend(
    target: Target, stages: Sequence[Stage], ball: Ball, config: AttackConfig
) -> tuple[Target, tuple[Stage, ...]]:
    """The classifier behind the defense, and the stages that attack both.

    First the attacks that were asked for, on the classifier alone: their examples give the naive figure. Then, on what
    is left, attacks through the defense: PGD on the margin with the purifier replaced by the identity in the backward
    pass (BPDA), by its surrogate if it has one, and for Defense-GAN through its last steps and in its latent space.

    Raises:
        UserError: the defense cannot be made, or the images have another range per feature.
    """
    from torch import Tensor

    from rivals.attacks.ensemble import Stage
    from rivals.attacks.latent_pgd import latent_pgd
    from rivals.attacks.pgd import pgd
    from rivals.base.norm_balls import L1, L2, Linf
    from rivals.defenses import DefenseGAN, PurifiedModel
    from rivals.nets.wrappers import EOTModel

    if not isinstance(ball, Linf | L2 | L1):
        raise UserError(
            f"attacks through a defense follow gradients, which {config.norm} has none for: take linf or l2"
        )
    if any(isinstance(bound, Tensor) for bound in ball.bounds):
        raise UserError("a defense takes images of one range, and these have bounds per feature: give two numbers")
    purifier = read_defense(config.defense).to(target.device).eval().requires_grad_(False)
    bare, bounds = target.model, (float(ball.bounds[0]), float(ball.bounds[1]))
    honest = PurifiedModel(bare, purifier, "bpda", bounds)
    through = partial(pgd, steps=config.adaptive_steps, loss="margin")

    def averaged(model: nn.Module) -> nn.Module:
        return EOTModel(model, config.eot) if config.eot > 1 else model

    found = [Stage(NAIVE, _Naive(bare, stages)), Stage("bpda-pgd", through)]
    if purifier.has_surrogate:
        found.append(Stage("surrogate-pgd", _Attacked(averaged(honest.with_gradient("surrogate")), through)))
    if isinstance(purifier, DefenseGAN):
        unrolled = purifier.with_unrolled(min(UNROLLED, purifier.steps))
        found.append(Stage("unrolled-pgd", _Attacked(averaged(PurifiedModel(bare, unrolled, "own", bounds)), through)))
        found.append(
            Stage("latent-pgd", partial(latent_pgd, generator=purifier.generator, classifier=bare, restarts=2))
        )
    return dataclasses.replace(target, model=honest), tuple(found)


class _Naive:
    """An ensemble of attacks on another model than the one that is evaluated."""

    def __init__(self, model: nn.Module, stages: Sequence[Stage]) -> None:
        self.model, self.stages = model, stages

    def __call__(self, frozen: Any, x: Tensor, y: Tensor, ball: Ball, **options: Any) -> Tensor:
        """Their adversarial examples, and the images where they found none."""
        from rivals.attacks.ensemble import run_ensemble
        from rivals.attacks.frozen_model import freeze

        x_adv = x.clone()
        with freeze(self.model, x, warn=False) as other:
            for outcome in run_ensemble(other, x, y, ball, self.stages, **options):
                x_adv[outcome.indices[outcome.fooled]] = outcome.x_adv[outcome.fooled]
            frozen.forwards, frozen.backwards = frozen.forwards + other.forwards, frozen.backwards + other.backwards
        return x_adv


class _Attacked:
    """An attack that follows another model than the one that is evaluated, as with another gradient."""

    def __init__(self, model: nn.Module, attack: Callable[..., Tensor]) -> None:
        self.model, self.attack = model, attack

    def __call__(self, frozen: Any, x: Tensor, y: Tensor, ball: Ball, **options: Any) -> Tensor:
        """What it makes of the images."""
        from rivals.attacks.frozen_model import freeze

        with freeze(self.model, x, warn=False) as other:
            x_adv = self.attack(other, x, y, ball, **options)
            frozen.forwards, frozen.backwards = frozen.forwards + other.forwards, frozen.backwards + other.backwards
        return x_adv
