"""Which device to work on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from rivals.base.errors import UserError

if TYPE_CHECKING:
    import torch


def pick(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` is the accelerator if there is one, else the CPU.

    Raises:
        UserError: the name is no device, or this machine has none of the kind.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found is not None else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"device '{name}' cannot be used here: take cpu or auto") from None
    return device


def precision(device: torch.device) -> str:
    """The faster of fp32 and bf16 on a device: bf16 where its matrix products are built in, not emulated."""
    import torch

    if device.type == "cpu":
        # Older PyTorch cannot tell, and keeps to fp32.
        capabilities: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
        built_in = bool(capabilities().get("avx512_bf16"))
    else:
        built_in = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if built_in else "fp32"


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Say in one line, as a :class:`UserError`, that memory did not suffice for the game played within."""
    import torch

    try:
        yield
    except RuntimeError as error:
        # The CPU's allocator has no error of its own, only its words.
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise UserError("there is not enough memory for this game: lower --batch or the widths") from None


def peak_memory(device: torch.device) -> int | None:
    """The most bytes held so far: on the device, or by this process on a CPU; None where the system does not tell."""
    import torch

    if device.type != "cpu":
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
