"""``--surrogate``: attacks see other models than the one that is evaluated, and their results are transferred to it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rivals.api.common.model_zoo import find_model
from rivals.base.errors import UserError
from rivals.base.registry import first_names

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rivals.api.robustness.target import Target
    from rivals.attacks.ensemble import Attack, Stage


def through_surrogates(stages: Sequence[Stage], names: str, target: Target) -> tuple[Stage, ...]:
    """The stages, each run on the mean logits of the named models in place of the target.

    Args:
        stages: The attacks.
        names: Models as for ``rivals attack``, separated by commas.
        target: What is evaluated, on its device.

    Raises:
        UserError: a model cannot be loaded, fails on the images, or has other classes than the target.
    """
    import torch

    from rivals.attacks.ensemble import Stage
    from rivals.attacks.frozen_model import freeze
    from rivals.attacks.transfer import LogitsMean

    sample = target.images(0, 2)
    with freeze(target.model, sample, fold=False, warn=False) as frozen:
        classes = frozen.classes
    models: list[nn.Module] = []
    for name in names.split(","):
        found = find_model(name.strip())
        net = found.model.to(target.device, target.dtype)
        with freeze(net, sample, fold=False, warn=False) as frozen:
            other = frozen.classes
        if other != classes:
            raise UserError(
                f"the surrogate '{name.strip()}' has {other} classes and the model {classes}: give one that was "
                "trained on the same classes"
            )
        if found.classes and target.named.classes and found.classes != target.named.classes:
            raise UserError(
                f"the surrogate '{name.strip()}' has the classes {first_names(found.classes)} and the model "
                f"{first_names(target.named.classes)}, in this order: give one that was trained on the same"
            )
        models.append(net)
    surrogate = models[0] if len(models) == 1 else LogitsMean(models)
    surrogate.requires_grad_(False)
    with torch.no_grad():
        return tuple(Stage(stage.name, _on(surrogate, stage.attack), (surrogate, *stage.nets)) for stage in stages)


def _on(surrogate: nn.Module, attack: Attack) -> Attack:
    """An attack that ignores the model it is given, and never stops early where it can."""
    whole = without_early_stop(attack)

    def run(
        model: object, x: Tensor, y: Tensor, ball: object, *, targets: Tensor | None, seed: int, batch_size: int
    ) -> Tensor:
        x_adv: Tensor = whole(surrogate, x, y, ball, targets=targets, seed=seed, batch_size=batch_size)
        return x_adv

    return run


def without_early_stop(attack: Attack) -> Attack:
    """An attack that takes all its steps where it can: its examples are for another model than the one it follows."""
    parameters = inspect.signature(attack).parameters
    common = "options" in parameters and "Common" in str(parameters["options"].annotation)
    return partial(attack, stop_when_fooled=False) if common else attack
