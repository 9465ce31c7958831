"""Which device to work on."""

from __future__ import annotations

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
