"""How numbers are computed: deterministic kernels or the fastest ones, and the rounding of float32 products."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError

if TYPE_CHECKING:
    import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it cuBLAS may add in another order each time


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within it the same operations on the same device give the same bits; afterward all is as it was.

    A CPU gives them anyway. On a GPU some kernels are slower, and operations without a deterministic kernel raise.

    Args:
        wanted: Whether to change anything.

    Raises:
        UserError: an operation inside has no deterministic kernel.
    """
    if not wanted:
        yield
        return
    import torch

    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags, workspace = (cudnn.deterministic, cudnn.benchmark), os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False  # a benchmark may select another algorithm each time
    try:
        yield
    except RuntimeError as error:
        operation, known, _ = str(error).partition(" does not have a deterministic implementation")
        if not known:  # PyTorch raises a plain RuntimeError, known by its text alone
            raise
        raise UserError(f"{operation} has no deterministic kernel on this device: leave --deterministic out") from None
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if workspace is None:
            del os.environ[WORKSPACE]


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No float32 operation rounds its inputs to TF32 inside, as bounds allow for the rounding of float32 alone."""
    import torch

    backends: Any = torch.backends
    places = [backends.cuda.matmul, backends.cudnn.conv] if device.type == "cuda" else []
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def numerics(device: torch.device) -> dict[str, bool | str]:
    """What decides the last bits of a result on a device: whether kernels are deterministic, and where TF32 is used."""
    import torch

    return {"deterministic": torch.are_deterministic_algorithms_enabled(), "tf32": _tf32(device)}


def _tf32(device: torch.device) -> str:
    """Which float32 operations round their inputs to TF32, with 10 bits of mantissa."""
    import torch

    if device.type != "cuda":
        return "off"
    backends: Any = torch.backends
    by_default = backends.fp32_precision
    places = {
        "matrix products": backends.cuda.matmul.fp32_precision,
        "convolutions": backends.cudnn.conv.fp32_precision,
    }
    used = [name for name, value in places.items() if (by_default if value == "none" else value) == "tf32"]
    return " and ".join(used) or "off"
