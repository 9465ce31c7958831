"""The random state of a randomized model, fixed during an attack."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from rivals.base.rng import fork, reseed

_before: dict[torch.device, tuple[Tensor, int]] = {}  # the state before all attacks under way, and how many they are
_lock = threading.Lock()


@contextlib.contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random state, which randomized models use, and restore it afterward.

    All threads share that state. A randomized model draws by the seed alone only if no other thread does; but when the
    last of several is done, the state is what it was before the first.
    """
    with _restored(torch.device("cpu")), _restored(device), fork(device):
        reseed(device, seed, "model")
        yield


@contextlib.contextmanager
def _restored(device: torch.device) -> Iterator[None]:
    """The random state of a device is restored once nobody is inside any more."""
    place = torch if device.type == "cpu" else torch.get_device_module(device)
    of = () if device.type == "cpu" else (device,)
    with _lock:
        state, count = _before.get(device) or (place.get_rng_state(*of), 0)
        _before[device] = state, count + 1
    try:
        yield
    finally:
        with _lock:
            state, count = _before.pop(device)
            if count > 1:
                _before[device] = state, count - 1
            else:
                place.set_rng_state(state, *of)
