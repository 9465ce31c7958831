"""A device that is not there, to find what a GPU would have to wait for.

Tensors on torch's ``meta`` device have shapes and no values. So whatever reads a value on the host, as ``item()`` or a
boolean index, raises; and what is copied to the device is logged here.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PRETEND = torch.device("meta")


class WithoutFloat64(TorchDispatchMode):
    """Makes the pretend device one that refuses float64, as MPS does, and whose tensors are ones where they are read.

    As in some versions of PyTorch, copy and conversion at once are refused too.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = any(isinstance(each, torch.Tensor) and each.device.type == "meta" for each in args)
        if there and kwargs.get("dtype") == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        if there and func is torch.ops.aten._to_copy.default and torch.device(kwargs["device"]).type == "cpu":
            return torch.ones(args[0].shape, dtype=args[0].dtype)
        return func(*args, **kwargs)


class Crossings(TorchDispatchMode):
    """Logs copies between the host and the pretend device, by the line of ours that makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {each.device.type for each in (*args, result) if isinstance(each, torch.Tensor)}
        if len(devices) > 1:
            ours = [frame for frame in traceback.extract_stack() if "/rivals/" in frame.filename]
            self.lines.append(f"{ours[-1].filename.rpartition('/rivals/')[2]} {ours[-1].line}")
        return result
