"""Many small images in tar shards: how soon the first batch is there, how fast they come, in how much memory.

The other side is torchvision's ``ImageFolder`` of the same PNG files with a ``DataLoader`` of 2 workers. The two are
measured in turn. ``python -m benchmarks.shards N`` takes N images instead of 200,000; the files are kept in ``runs``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import in_turn, paired_ratio, record
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.data.load import load
from rivals.data.pack import write_shards
from rivals.data.splits import hold_out

HOME = Path("runs/benchmark-shards")
SIDE, CLASSES, SHARDS, BATCH = 64, 10, 20, 256
STARTS, ROUNDS = 5, 3
MEASURED = 100  # batches of a round
WORKERS = 2

START = """
import sys, time, json
from rivals.data.load import load
from rivals.data.batches import Batches
images = load(sys.argv[1])
images.hash
batches = Batches(images, 256, seed=0)
batches.draw(0)
first, processor = time.time(), time.process_time()
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
for index in range(1, 20):
    batches.draw(index)
early = anonymous()
for index in range(20, len(images) // 256):
    batches.draw(index)
print(json.dumps([first, processor, early, anonymous()]))
"""


class _Synthetic:
    """Smooth color noise, uint8 (n, 3, 64, 64), made where it is indexed."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, n: int) -> None:
        self.shape = (n, 3, SIDE, SIDE)
        self.coarse = np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.coarse)

    def __getitem__(self, index: int) -> np.ndarray:
        large = Image.fromarray(self.coarse[index].transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return np.asarray(large).transpose(2, 0, 1)


def make_files(n: int) -> tuple[Path, Path]:
    """The shards, and the same PNGs as files in a folder for each class."""
    shards, folder = HOME / f"shards-{n}", HOME / f"folder-{n}"
    if not shards.exists():
        images: Any = _Synthetic(n)
        temporary = HOME / "making"
        temporary.mkdir(parents=True)
        names = tuple(map(str, range(CLASSES)))
        write_shards(ImageSet("noise", "train", images, np.arange(n) % CLASSES, names), temporary, SHARDS)
        temporary.rename(shards)
    if not folder.exists():
        temporary = HOME / "unpacking"
        for label in range(CLASSES):
            (temporary / str(label)).mkdir(parents=True)
        for path in sorted(shards.glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.endswith(".png"):
                        label = int(member.name[3:11]) % CLASSES
                        content = tar.extractfile(member)
                        assert content is not None
                        (temporary / str(label) / member.name).write_bytes(content.read())
        temporary.rename(folder)
    return shards, folder


def start(shards: Path) -> list[float]:
    """A process of its own: seconds from its start to its first batch, by the clock and of the processor; MiB of its
    own memory early, and after an epoch."""
    began = time.time()
    found = subprocess.run([sys.executable, "-c", START, str(shards)], check=True, capture_output=True, text=True)
    first, *others = json.loads(found.stdout)
    return [first - began, *others]


def our_speed(images: ImageSet) -> Callable[[], float]:
    """Images a second of batches with flips, each round on other batches."""
    batches, done = Batches(images, BATCH, seed=1, flip=True), [0]

    def measure() -> float:
        began = time.perf_counter()
        for index in range(done[0], done[0] + MEASURED):
            batches.draw(index)
        done[0] += MEASURED
        return BATCH * MEASURED / (time.perf_counter() - began)

    return measure


def their_speed(folder: Path) -> Callable[[], float]:
    """The same of ``ImageFolder``, after its first batches, for which its workers have to start."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.PILToTensor()])
    data = datasets.ImageFolder(str(folder), transform)

    def measure() -> float:
        loader = iter(DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS))
        for _ in range(5):
            next(loader)
        began = time.perf_counter()
        for _ in range(MEASURED):
            next(loader)
        return BATCH * MEASURED / (time.perf_counter() - began)

    return measure


def flips() -> dict[str, float]:
    """Milliseconds of a batch of 256 images of 256 px, without flips and with them: the least of 5."""
    pixels = np.random.default_rng(0).integers(0, 256, (512, 3, 256, 256), dtype=np.uint8)
    images, found = ImageSet("noise", "train", pixels), {}
    for name, flip in (("without", False), ("with", True)):
        batches, times = Batches(images, BATCH, seed=0, flip=flip), []
        for index in range(6):
            began = time.perf_counter()
            batches.draw(index)
            times.append(1000 * (time.perf_counter() - began))
        found[name] = round(min(times[1:]), 1)
    return found


def main() -> None:
    """Make the files, decode them, and measure."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    torch.set_num_threads(1)
    os.environ["RIVALS_CACHE"] = str((HOME / f"cache-{n}").resolve())
    shards, folder = make_files(n)
    began = time.perf_counter()
    images = load(shards)
    cold = time.perf_counter() - began  # index, recognize, decode; less if the cache is there from before
    seconds, processor, early, late = zip(*(start(shards) for _ in range(STARTS)), strict=True)
    print("first batches after", [round(each, 2) for each in seconds], flush=True)
    sides = {"rivals": our_speed(images), f"ImageFolder, {WORKERS} workers": their_speed(folder)}
    values = in_turn(sides, ROUNDS)
    ours, theirs = values.values()
    before = _anonymous()
    rest, aside = hold_out(images, 1000, 0)
    held = _anonymous() - before
    assert len(rest) + len(aside) == n
    record(
        "shards",
        description=f"{n:,} PNGs of {SIDE} px in {SHARDS} tar shards; batches of {BATCH}, with flips",
        load_average=round(os.getloadavg()[0], 1),
        images=n,
        megabytes=round(sum(path.stat().st_size for path in shards.iterdir()) / 1e6),
        decoded_megabytes=round(images.images.nbytes / 1e6),
        seconds_to_decode=round(cold, 1),
        seconds_to_first_batch={"median": round(median(seconds), 2), "all": [round(each, 2) for each in seconds]},
        processor_seconds_to_first_batch=round(median(processor), 2),
        own_memory_mib={"early": round(median(early)), "after_an_epoch": round(median(late))},
        own_memory_of_hold_out_mib=round(held, 1),
        images_per_second=values,
        ratio=paired_ratio(ours, theirs),
        flip_ms_256px=flips(),
    )


def _anonymous() -> float:
    """MiB of this process's memory that is no part of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
