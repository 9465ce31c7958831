"""Random streams that are functions of where they are used, so that no generator state is ever saved.

Every random number of a run belongs to a key such as ``(seed, micro-batch, step, turn)``. Its generator is seeded by a
hash of that key, so a resumed run, or one on several processes, gets the same numbers at the same step. The literal
keys in the code are therefore part of the results: to rename one is to change every number drawn from it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive(*key: int | str) -> int:
    """A 63-bit seed for a key: the same for the same words and numbers, on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU random generator seeded by :func:`derive`."""
    import torch

    return torch.Generator().manual_seed(derive(*key))


def on_device(source: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator of the device with the seed of a fresh one of the CPU: the same one on the CPU.

    What it draws is on the device from the start. Each kind of device has its own numbers.
    """
    import torch

    if device.type not in ("cuda", "xpu", "mps"):
        return source
    return torch.Generator(device).manual_seed(source.initial_seed())


def reseed(device: torch.device, *key: int | str) -> None:
    """Seed the global random states of the CPU and of ``device``, which layers draw from, by :func:`derive`."""
    import torch

    seed = derive(*key)
    torch.default_generator.manual_seed(seed)
    if device.type in ("cuda", "xpu"):
        module = torch.get_device_module(device)
        index: int | None = device.index
        index = module.current_device() if index is None else index
        module.default_generators[index].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)  # tells every backend in turn, which takes half a millisecond


@contextlib.contextmanager
def fork(device: torch.device) -> Iterator[None]:
    """Leave the global random states of the CPU and of ``device`` as they were. No other device is touched."""
    import torch

    accelerated = device.type in ("cuda", "xpu", "mps")
    devices = [device] if accelerated else []
    with torch.random.fork_rng(devices, device_type=device.type if accelerated else "cuda"):
        yield


def streams(x: Tensor, trials: Sequence[int], *key: int | str) -> list[torch.Generator]:
    """A CPU generator per image (n, ...), for its trial and a key such as ``(seed, "pgd")``.

    It is seeded by the values of the image, not by its index. So the numbers of an image depend neither on the batch
    size, nor on the order of the images, nor on which others are there; and copies of an image, each with its own
    radius, get the same noise.
    """
    import torch

    rows = x.detach().cpu().flatten(1).contiguous().view(torch.uint8).numpy()
    return [
        generator(*key, trial, hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest())
        for row, trial in zip(rows, trials, strict=True)
    ]


def draw_per_image(
    distribution: Callable[..., Tensor],
    x: Tensor,
    generators: Sequence[torch.Generator],
    size: tuple[int, ...] | None = None,
) -> Tensor:
    """Numbers of ``torch.rand`` or ``torch.randn`` for each image of ``x`` (n, ...) from its own CPU generator.

    They are drawn in single precision at least: bf16 has 256 numbers from 0 to 1, too few to choose a pixel by.

    Returns:
        (n, *size) in the precision they were drawn in; by default of the shape and precision of ``x``. On its device:
        the same numbers on every device.
    """
    import torch

    shape = tuple(x.shape[1:]) if size is None else size
    dtype = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty((len(x), *shape), dtype=x.dtype if size is None else dtype)
    for row, generator in zip(out, generators, strict=True):
        row.copy_(distribution(shape, generator=generator, dtype=dtype))
    return out.to(x.device)
