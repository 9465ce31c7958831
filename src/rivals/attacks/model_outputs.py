"""What models return, read as logits (n, K): tensors, objects with ``.logits``, dictionaries, tuples, one logit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError

Step = Callable[[Any], Any]


class LogitsModel(nn.Module):
    """A model whose output is read as logits.

    Args:
        model: Images (n, ...) to whatever it returns.
        steps: From that to the logits (n, K), in order: of :func:`steps_to_logits`.
    """

    def __init__(self, model: nn.Module, steps: list[Step]) -> None:
        super().__init__()
        self.model = model
        self.steps = steps
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, ...) to logits (n, K)."""
        output = self.model(x)
        for step in self.steps:
            output = step(output)
        logits: Tensor = output
        return logits


def steps_to_logits(output: Any, count: int) -> list[Step]:
    """How to get from the output for ``count`` images to the logits (n, K): nothing to do for a tensor (n, K).

    Of an object, ``.logits`` is taken; of a dictionary ``logits``, or its only value; of a tuple or a list the first
    entry. One logit per image, (n,) or (n, 1), stands for two classes.

    Raises:
        UserError: there are no logits to be found in it.
    """
    steps: list[Step] = []
    while not isinstance(output, Tensor):
        steps.append(_step_into(output))
        output = steps[-1](output)
    if tuple(output.shape) in ((count,), (count, 1)):
        steps.append(two_logits)
    return steps


def _step_into(output: Any) -> Step:
    if isinstance(getattr(output, "logits", None), Tensor):
        return attrgetter("logits")
    if isinstance(output, Mapping) and output:
        if "logits" in output or len(output) == 1:
            return itemgetter("logits" if "logits" in output else next(iter(output)))
        names = ", ".join(map(str, output))
        raise UserError(
            f"the model returns a dictionary of {names}: let its forward return the logits, or name them so"
        )
    if isinstance(output, tuple | list) and output:
        return itemgetter(0)
    raise UserError(f"the model returns a {type(output).__name__}: let its forward return the logits (n, classes)")


def two_logits(logit: Tensor) -> Tensor:
    """Logits (n, 2) of a binary model with one logit per image, (n,) or (n, 1): above 0 is class 1."""
    column = logit.reshape(-1, 1)
    return torch.cat([torch.zeros_like(column), column], 1)
