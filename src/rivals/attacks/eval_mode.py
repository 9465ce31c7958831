"""A model in evaluation mode, without gradients by its parameters, for as many threads at once as want it so.

Threads that attack one model, or models that share layers, must not restore it under each other's hands: every module,
parameter and buffer is counted, and what the last one leaves is restored.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class _Held:
    """A part of a model that is held: its state before, and by how many."""

    part: nn.Module | Tensor  # referenced, so that no other object gets its id
    before: bool | Tensor
    holders: int = 0


_held: dict[int, _Held] = {}  # by the id of the part
_lock = threading.Lock()


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode and no parameter requires a gradient.

    Once nobody holds it any more, also after an error, the mode of every module, ``requires_grad`` and the buffers are
    what they were before the first.
    """
    modules = list(model.modules())
    parts: list[nn.Module | Tensor] = [*modules, *model.parameters(), *model.buffers()]
    with _lock:
        for part in parts:
            _held.setdefault(id(part), _Held(part, _state(part))).holders += 1
    try:
        with _lock:
            # Through eval() and train(), not the flags alone: a module may do more in them, as merging its weights.
            for module in modules:
                if _is_training(module):
                    _train(module, False)
            for parameter in model.parameters():
                parameter.requires_grad_(False)
        yield
    finally:
        with _lock:
            _release(model, parts)


def _state(part: nn.Module | Tensor) -> bool | Tensor:
    if isinstance(part, nn.Module):
        return _is_training(part)
    return part.requires_grad if isinstance(part, nn.Parameter) else part.detach().clone()


def _release(model: nn.Module, parts: Sequence[nn.Module | Tensor]) -> None:
    """One holder less of every part; those that have none left are restored."""
    left = []
    for part in parts:
        held = _held[id(part)]
        held.holders -= 1
        if not held.holders:
            left.append(_held.pop(id(part)))
    # train() reaches all modules: it must not, while somebody else holds one.
    if len(left) == len(parts) and left[0].before:
        _train(model, True)
    for held in left:
        part, before = held.part, held.before
        if isinstance(part, nn.Module):
            if _is_training(part) != before:
                part.training = bool(before)
        elif isinstance(before, Tensor):
            # Written only if it differs: writing would break a graph the caller has open.
            if not torch.equal(part, before):
                part.detach().copy_(before)
        else:
            part.requires_grad_(before)


def _is_training(module: nn.Module) -> bool:
    return bool(getattr(module, "training", False))  # what torch.jit.freeze makes has no modes


def _train(module: nn.Module, mode: bool) -> None:
    with contextlib.suppress(NotImplementedError):  # of what torch.export makes, whose mode was fixed when it was made
        module.train(mode)
