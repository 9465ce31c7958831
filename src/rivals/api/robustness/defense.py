"""``attack --defense``: a purifier in front of the classifier, and the attacks that see it and that do not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.network_io import generator_of, load
from rivals.api.robustness.attack_spec import read_options
from rivals.api.robustness.surrogates import without_early_stop
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
ENCODER = "encoder"  # the network of a run of train --invert, beside its generator
UNROLLED = 10  # last steps of Defense-GAN that the unrolled gradient passes through
HOW = "write jpeg(quality=50), bit-depth(bits=3), defense-gan:RUN(steps=100,restarts=4) or gan-inversion:RUN"


def read_defense(text: str) -> Purifier:
    """A purifier from text: a name with options in parentheses, and for those by a GAN a run of ``rivals train``.

    Raises:
        UserError: there is no such defense, option or run.
    """
    from rivals.defenses import JPEG, BitDepth

    kinds: Mapping[str, Callable[..., Purifier]] = {"jpeg": JPEG, "bit-depth": BitDepth}
    of_runs: Mapping[str, Callable[..., Purifier]] = {"defense-gan": _defense_gan, "gan-inversion": _gan_inversion}
    match = re.fullmatch(r"\s*([\w-]+)(?::([^()]+))?\s*(?:\((.*)\))?\s*", text)
    if not match:
        raise UserError(f"'{text}' does not name a defense: {HOW}")
    name, run, options = match.groups()
    if name not in {*kinds, *of_runs}:
        raise unknown("defense", name, [*kinds, *of_runs])
    if (run is not None) != (name in of_runs):
        raise UserError(f"'{text}' {'names a run' if run else 'names no run'}: {HOW}")
    if run is not None:
        return of_runs[name](run, options)
    return kinds[name](**read_options(name, kinds[name], options)) if options else kinds[name]()


def _defense_gan(run: str, options: str | None) -> Purifier:
    from rivals.defenses import DefenseGAN

    given = read_options("defense-gan", DefenseGAN, options) if options else {}
    return DefenseGAN(generator_of(run), **given)


def _gan_inversion(run: str, options: str | None) -> Purifier:
    from rivals.defenses import GANInversion

    if options:
        raise UserError(f"gan-inversion has no options, such as '{options}': write gan-inversion:RUN")
    file = Path(run) / f"{ENCODER}.safetensors"
    if not file.exists():
        raise UserError(f"'{run}' holds no encoder: name a run of rivals train with --invert RUN")
    return GANInversion(generator_of(run), load(file))


def defend(
    target: Target, stages: Sequence[Stage], ball: Ball, config: AttackConfig
) -> tuple[Target, tuple[Stage, ...]]:
    """The classifier behind the defense, and the stages that attack both.

    First the attacks that were asked for, on the classifier alone: their examples give the naive figure. Then, on what
    is left, attacks through the defense: PGD on the margin with the purifier replaced by the identity in the backward
    pass (BPDA), by its surrogate or its own gradient if it has one, for Defense-GAN through its last steps, and in the
    latent space of a generator.

    Raises:
        UserError: the defense cannot be made, or the images have another range per feature.
    """
    import torch
    from torch import Tensor

    from rivals.attacks.ensemble import Stage
    from rivals.attacks.latent_pgd import latent_pgd
    from rivals.attacks.pgd import pgd
    from rivals.base.norm_balls import L1, L2, Linf
    from rivals.defenses import DefenseGAN, GANInversion, PurifiedModel
    from rivals.nets.wrappers import EOTModel

    if not isinstance(ball, Linf | L2 | L1):
        raise UserError(
            f"attacks through a defense follow gradients, which {config.norm} has none for: take linf, l2 or l1"
        )
    if any(isinstance(bound, Tensor) for bound in ball.bounds):
        raise UserError("a defense takes images of one range, and these have bounds per feature: give two numbers")
    purifier = read_defense(config.defense).to(target.device).eval().requires_grad_(False)
    purifier(torch.empty(0, *target.data.shape, dtype=target.dtype, device=target.device))  # or it refuses the shape
    bare, bounds = target.model, (float(ball.bounds[0]), float(ball.bounds[1]))
    honest = PurifiedModel(bare, purifier, "bpda", bounds)
    through = partial(pgd, steps=config.adaptive_steps, loss="margin")

    def averaged(model: nn.Module) -> nn.Module:
        return EOTModel(model, config.eot) if config.eot > 1 else model

    # An example that has only just crossed the classifier's boundary is the easiest to purify: take all steps.
    whole = [Stage(stage.name, without_early_stop(stage.attack)) for stage in stages]
    nets = tuple(net for stage in stages for net in stage.nets)
    found = [Stage(NAIVE, _Naive(bare, whole), nets), Stage("bpda-pgd", through)]
    if purifier.has_surrogate:
        found.append(Stage("surrogate-pgd", _Attacked(averaged(honest.with_gradient("surrogate")), through)))
    if purifier.differentiable:
        found.append(Stage("gradient-pgd", _Attacked(averaged(honest.with_gradient("own")), through)))
    if isinstance(purifier, DefenseGAN):
        unrolled = purifier.with_unrolled(min(UNROLLED, purifier.steps))
        found.append(Stage("unrolled-pgd", _Attacked(averaged(PurifiedModel(bare, unrolled, "own", bounds)), through)))
    if isinstance(purifier, DefenseGAN | GANInversion):
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
