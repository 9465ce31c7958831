"""Image translation on CIFAR-10: an adversarial translator beside the same network by L1 alone, at equal minutes.

``python -m benchmarks.translation [PART ...] [--minutes N] [--test-images N]`` measures the named parts, or all. A side
gets so many minutes of processor time of one thread (20 by default): a probe finds out how many images that is, so that
other programs on the machine do not shorten a side. Settings were chosen on training images that were kept aside; the
figures are of the test images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import rivals
from benchmarks.attack_cases import model_of
from benchmarks.harness import RESULTS, record, recorded
from rivals.api.scoring.feature_passes import find_extractor
from rivals.api.training.job import Request
from rivals.api.translation.image_pairs import ImagePairs, load_image_pairs
from rivals.api.translation.job import TranslateJob
from rivals.api.translation.judgement import bicubic, judge, to_bytes
from rivals.data.decode import to_channels
from rivals.data.load import load
from rivals.recipes import DataOptions, TranslateConfig
from rivals.reports.image_grid import make_grid, save_png

N, SHOWN, BUSY = 10_000, 12, 1.5
WARM, TIMED = 5, 60  # rounds of a probe
PAIRS = 20_000  # training images of the parts that are written as files
CPU = torch.device("cpu")

Images = npt.NDArray[np.uint8]


class Budget(NamedTuple):
    """Minutes of processor time a side, and test images to judge on."""

    minutes: float
    n: int


def gray(image: Images) -> Images:
    """The luma of an image (H, W, 3), (H, W)."""
    return np.asarray(Image.fromarray(image).convert("L"))


def edges(image: Images) -> Images:
    """Where the brightness of an image (H, W, 3) changes: the length of its gradient, black on white, (H, W)."""
    rows, columns = np.gradient(gray(image).astype(np.float64))
    strength: Images = (255 - np.clip(4 * np.hypot(rows, columns), 0, 255)).astype(np.uint8)
    return strength


def write_pairs(home: Path, make_input: Callable[[Images], Images]) -> None:
    """Folders A and B of CIFAR-10, each with train and test images."""
    for split, count in (("train", PAIRS), ("test", N)):
        images = load("cifar10", split=split).images[:count].transpose(0, 2, 3, 1)
        for side in ("A", "B"):
            (home / side / split).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(make_input(image)).save(home / "A" / split / f"{i:05d}.png", compress_level=1)
            Image.fromarray(np.ascontiguousarray(image)).save(home / "B" / split / f"{i:05d}.png", compress_level=1)


def write_classes(home: Path, one: str, other: str) -> None:
    """Folders A and B of two classes of CIFAR-10."""
    for split in ("train", "test"):
        images = load("cifar10", split=split)
        assert images.labels is not None
        for side, name in (("A", one), ("B", other)):
            (home / side / split).mkdir(parents=True)
            for i in np.flatnonzero(images.labels == images.classes.index(name)):
                picture = Image.fromarray(images.images[int(i)].transpose(1, 2, 0))
                picture.save(home / side / split / f"{i:05d}.png", compress_level=1)


def images_in(minutes: float, data: str, **settings: Any) -> int:
    """How many images a training sees in so many minutes of processor time, by its first rounds."""
    job = TranslateJob(Request(data, None, None, False, 0, "cpu", True, {**settings, "until": "1M images"}))
    job.load_data()
    job.resolve_config()
    game, batches = job.build_game(), job.make_batches()
    for step in range(WARM + TIMED):
        if step == WARM:
            start = time.process_time()
        values = game.round(step, batches, seed=0)
        float(values["loss/generator"])
    cost = (time.process_time() - start) / (TIMED * batches.batch_size)
    return round(60 * minutes / cost)


def train(data: str, minutes: float, out: Path, **settings: Any) -> Any:
    """A translator, and how many images it has seen."""
    until = f"{images_in(minutes, data, **settings)} images"
    every = {"sample_every": until}
    run: Any = rivals.translate(data, until=until, judge=2, out=out, device="cpu", **every, **settings)
    return run.translator, run.info["images"]


def measure(
    data: str, budget: Budget, home: Path, name: str, sides: dict[str, dict[str, Any]], **common: Any
) -> dict[str, Any]:
    """Train all sides, judge them on the same test images; save a picture."""
    nets, seen = {}, {}
    for side, settings in sides.items():
        nets[side], seen[side] = train(data, budget.minutes, home / side, **common, **settings)
    config = TranslateConfig().changed(**common)
    pairs = load_image_pairs(data, config, DataOptions(), "test", print)
    judged: dict[str, Any] = dict(nets)
    if pairs.scale > 1:
        judged["bicubic"] = bicubic(pairs)
    values = judge(judged, pairs, n=budget.n, device=CPU, extractor=find_extractor("lite0", CPU))
    for side, images in seen.items():
        values[side]["images"] = images
    picture = f"translation_{name}_{budget.minutes:g}.png"
    save_png(shown(pairs, judged), RESULTS / picture)
    return {"n": min(budget.n, len(pairs)), "sides": values, "picture": picture}


@torch.no_grad()
def shown(pairs: ImagePairs, sides: dict[str, Any]) -> Image.Image:
    """Columns: the input, what each side makes of it, the target; a row for an image, in two blocks."""
    x, y = pairs.x(0, SHOWN, CPU), pairs.y(0, SHOWN, CPU)
    columns = [
        x.repeat_interleave(pairs.scale, 2).repeat_interleave(pairs.scale, 3),
        *(net(x) for net in sides.values()),
        y,
    ]
    arrays = [to_channels(to_bytes(each).numpy(), 3) for each in columns]
    return make_grid(np.stack(arrays, 1).reshape(-1, *arrays[0].shape[1:]), columns=2 * len(columns), scale=3)


def upscale(budget: Budget, home: Path) -> dict[str, Any]:
    """16 to 32 px."""
    return measure("cifar10", budget, home, "upscale", {"adversarial": {}, "l1": {"gan_weight": 0}}, scale=2)


def color(budget: Budget, home: Path) -> dict[str, Any]:
    """Gray to color."""
    write_pairs(home / "data", gray)
    return measure(str(home / "data"), budget, home, "color", {"adversarial": {}, "l1": {"gan_weight": 0}})


def from_edges(budget: Budget, home: Path) -> dict[str, Any]:
    """Edges to images."""
    write_pairs(home / "data", edges)
    return measure(str(home / "data"), budget, home, "edges", {"adversarial": {}, "l1": {"gan_weight": 0}})


@torch.no_grad()
def unpaired(budget: Budget, home: Path) -> dict[str, Any]:
    """Automobiles to trucks, judged by a classifier that was not used in training."""
    one, other = "automobile", "truck"
    write_classes(home / "data", one, other)
    net, images = train(str(home / "data"), budget.minutes, home / "cut", pairs="unpaired")
    config = TranslateConfig().changed(pairs="unpaired")
    pairs = load_image_pairs(str(home / "data"), config, DataOptions(), "test", print)
    values = judge({"cut": net}, pairs, n=len(pairs), device=CPU, extractor=find_extractor("lite0", CPU))["cut"]
    model, names = model_of("cifar10-plain").eval(), load("cifar10", split="test").classes
    x = pairs.x(0, len(pairs), CPU)
    for name, images_ in (("before", x), ("after", to_bytes(net(x)).float() / 255)):
        predicted = model(images_).argmax(1)
        values[f"target_class_{name}"] = int((predicted == names.index(other)).sum())
    picture = f"translation_unpaired_{budget.minutes:g}.png"
    rows = np.stack([to_bytes(x[:24]).numpy(), to_bytes(net(x[:24])).numpy()], 1)
    save_png(make_grid(rows.reshape(-1, *rows.shape[2:]), columns=8, scale=3), RESULTS / picture)
    return {
        "n": len(pairs),
        "from": one,
        "to": other,
        "sides": {"cut": {**values, "images": images}},
        "picture": picture,
    }


PARTS: dict[str, Callable[[Budget, Path], dict[str, Any]]] = {
    "upscale": upscale,
    "color": color,
    "edges": from_edges,
    "unpaired": unpaired,
}


def main() -> None:
    """Measure what was named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--test-images", type=int, default=N)
    words = parser.parse_args()
    torch.set_num_threads(1)
    cases = recorded("translation", "cases")
    for name in words.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            load_before = os.getloadavg()[0]
            result = PARTS[name](Budget(words.minutes, words.test_images), Path(folder))
        # One thread computes here: what is above it are others, which take caches and memory bandwidth.
        load_average = max(load_before, os.getloadavg()[1])
        cases[f"{name} {words.minutes:g}"] = {
            "part": name,
            "minutes": words.minutes,
            "load_average": round(load_average, 1),
            "busy": load_average > BUSY,
            **result,
        }
        print(name, cases[f"{name} {words.minutes:g}"], flush=True)
        record("translation", seed=0, cases=cases)


if __name__ == "__main__":
    main()
