"""Devices: by name, their fastest precision, their memory."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from rivals.base.errors import UserError

if TYPE_CHECKING:
    import torch


def pick(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` is the accelerator if there is one, else the CPU.

    Of several processes, as ``torchrun`` starts them, each has its own accelerator, unless ``name`` has an index.

    Raises:
        UserError: the name is not a device, or this machine has no such device.
    """
    import torch

    fix = "take cpu" if name == "auto" else "take cpu or auto"
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        name = "cpu" if found is None else found.type
    try:
        device = torch.device(name)
        if device.type in ("cuda", "xpu") and "LOCAL_RANK" in os.environ:
            device = torch.device(device.type, _index_of_process(name))
            torch.accelerator.set_device_index(device.index)  # collectives use the current one
        torch.zeros(1, device=device).item()  # not so on "meta", which computes shapes alone
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"device '{name}' cannot be used here ({reason}): {fix}") from None
    return device


def _index_of_process(name: str) -> int:
    """The accelerator of this process among those of its machine.

    Raises:
        UserError: there is none for it.
    """
    import torch

    kind, _, index = name.partition(":")
    local, processes = int(os.environ["LOCAL_RANK"]), os.environ.get("LOCAL_WORLD_SIZE")
    if index:
        if int(processes or 1) > 1:
            raise UserError(f"--device {name} is one device, for {processes} processes: give --device {kind}")
        return int(index)
    count = torch.accelerator.device_count()
    if count == 1 and processes is None:  # of a launcher that shows each process its own alone
        return 0
    if local >= count:
        raise UserError(
            f"process {local} of this machine has no device of its own, as {count} can be seen: start one process for "
            "each, or add --device cpu"
        )
    return local


def autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager[object]:
    """Matrix products and convolutions on the device in bf16, or not; nothing where the device knows no autocast."""
    import torch

    if not torch.amp.autocast_mode.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def check_float64(device: torch.device, what: str) -> None:
    """Refuse a device without float64 where ``what`` is computed in it.

    Raises:
        UserError: it is Apple's mps.
    """
    if device.type == "mps":
        raise UserError(f"{what} are computed in float64, which the device mps does not have: add --device cpu")


def fastest_precision(device: torch.device) -> str:
    """``bf16`` if the device multiplies matrices in it natively and faster; else ``fp32``.

    Of x86 processors these are Intel's with AMX and AMD's with AVX512-BF16. With that alone, as virtual machines often
    show it, Intel's take 1.3 to 1.6 times as long in bf16 (docs/decisions/0036).
    """
    import torch

    if device.type == "cpu":
        # Older versions of PyTorch cannot tell: fp32.
        capabilities: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
        found = capabilities()
        intel = "Intel" in str(found.get("cpu_name", ""))
        native = bool(found.get("amx_bf16") or (found.get("avx512_bf16") and not intel))
    else:
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    import torch

    # The allocators of the CPU and of MPS raise a plain RuntimeError, known by its text alone.
    told = "allocate memory" in str(error) or "out of memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError) or told


@contextlib.contextmanager
def explain_out_of_memory(fix: str = "lower --batch-size or the widths") -> Iterator[None]:
    """Turn a failed allocation inside into a :class:`UserError` that names the fix.

    Raises:
        UserError: an allocation failed.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"there is not enough memory: {fix}") from None


def peak_memory(device: torch.device) -> int | None:
    """Peak memory so far in bytes, of the device or, on a CPU, of this process; None if the system does not tell."""
    import torch

    if device.type != "cpu":
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
