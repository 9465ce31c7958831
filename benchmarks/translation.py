"""Image translation on CIFAR-10: an adversarial translator beside the same network by L1 alone, at equal minutes.

``python -m benchmarks.translation [PART ...] [--minutes N] [--test-images N]`` measures the named parts, or all. A side
gets so many minutes of processor time of one thread (20 by default), not of a clock: a probe finds out how many images
that is, so that other programs on the machine do not shorten a side.

The adversarial side has the defaults of ``rivals translate`` and, to enlarge, a narrower discriminator and the distance
in the features of a classifier (``ENLARGE``); for edges it has that distance too, and begins by L1 alone. All of it was
tried on training images. The side by L1 alone gets a learning rate and a beta1 of its own, as those of a GAN may not
suit it: of ``CANDIDATES`` the pair with the highest PSNR on ``KEPT`` training images after ``SWEEP`` of the minutes,
which are not taken off its training. No side trains on the images that are kept aside. Test images are read when all
sides are trained, and judged once.
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
from benchmarks.attack_models import MODELS
from benchmarks.harness import RESULTS, load, record, recorded
from benchmarks.processor_minutes import LONG, Probe, load_facts
from rivals.api.scoring.feature_passes import find_extractor
from rivals.api.training.job import Request
from rivals.api.translation.image_pairs import ImagePairs, load_held_out, load_image_pairs
from rivals.api.translation.job import TranslateJob
from rivals.api.translation.judgement import bicubic, judge, to_bytes
from rivals.data.decode import to_channels
from rivals.recipes import DataOptions, TranslateConfig
from rivals.reports.image_grid import make_grid, save_png

N, SHOWN = 10_000, 12
PAIRS = 20_000  # training images of the parts that are written as files
SEED = 0
KEPT = 500  # training images that no side trains on
SWEEP = 0.05  # of the minutes, for each candidate
L1 = {"gan_weight": 0.0}
# Learning rate and beta1 of the side by L1 alone: those of the adversarial side, and rates with Adam's usual beta1.
CANDIDATES = ((5e-4, 0.5), (2.5e-4, 0.9), (5e-4, 0.9), (1e-3, 0.9), (2e-3, 0.9))
# Of the adversarial side, to enlarge. The classifier was trained on the same training images, and judges nothing.
CLASSIFIER = "cifar10-plain"
FEATURES: dict[str, Any] = {"perceptual": f"classifier:{MODELS / CLASSIFIER}.safetensors", "perceptual_every": 4}
ENLARGE = {"discriminator_widths": (32, 64), **FEATURES}
# Both sides of colors and of edges have these networks; the rest is of the adversarial side. A discriminator of four
# widths sees the whole image.
WHOLE = (32, 64, 128, 256)
COLOR_NET: dict[str, Any] = {"net": "unet", "widths": (16, 32, 64, 128), "blocks": 0}
COLOR: dict[str, Any] = {
    "discriminator_widths": WHOLE,
    "gan_weight": 0.03,
    "generator_lr": "2e-3",
    "discriminator_lr": "1e-3",
}
EDGES_NET: dict[str, Any] = {"net": "unet", "widths": (16, 32, 64, 128)}
EDGES: dict[str, Any] = {
    "discriminator_widths": WHOLE,
    "gan_weight": 0.06,
    "generator_lr": "1e-3",
    "discriminator_lr": "1e-3",
    **FEATURES,
}
FIRST = 0.25  # of the minutes, in which the adversarial side of edges learns by L1 alone
UNPAIRED: dict[str, Any] = {
    "pairs": "unpaired",
    "widths": (16, 32, 64),
    "blocks": 2,
    "discriminator_widths": WHOLE,
    "nce_weight": 0.3,
    "identity_weight": 0.3,
}
RECORDED = (
    "net",
    "widths",
    "blocks",
    "generator_lr",
    "beta1",
    "gan_weight",
    "batch_size",
    "discriminator_widths",
    "precision",
)
CPU = torch.device("cpu")

Images = npt.NDArray[np.uint8]


class Trained(NamedTuple):
    """A translator, and what to record of its training."""

    net: Any
    facts: dict[str, Any]


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
    """How many images a training sees in so many minutes of processor time."""
    settings = {**settings, "hold_out": KEPT, "until": LONG}
    job = TranslateJob(Request(data, None, None, False, SEED, "cpu", True, settings))
    return Probe(job).images_in(minutes)


def train(data: str, images: int, out: Path, **settings: Any) -> Trained:
    """A translator that has seen so many images."""
    settings = {**settings, "hold_out": KEPT}
    until = f"{images} images"
    start = time.process_time()
    run: Any = rivals.translate(
        data, until=until, sample_every=until, judge=2, out=out, seed=SEED, device="cpu", quiet=True, **settings
    )
    config = run.info["config"]
    facts = {
        "images": run.info["images"],
        "processor_minutes": round((time.process_time() - start) / 60, 2),  # with the reading of the data
        "settings": {name: config[name] for name in RECORDED} | {"perceptual": Path(config["perceptual"]).stem},
        "train_hash": run.info["pairs_hash"],
    }
    return Trained(run.translator, facts)


def choose_for_l1(data: str, minutes: float, home: Path, **common: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Learning rate and beta1 for L1 alone, by training images that are kept aside; and how they were chosen."""
    config = TranslateConfig().changed(**common, hold_out=KEPT)
    options = DataOptions()
    _, kept = load_held_out(load_image_pairs(data, config, options, "train", print), data, config, options, SEED, print)
    images, trials = images_in(SWEEP * minutes, data, **common, **L1), []
    for number, (rate, beta1) in enumerate(CANDIDATES):
        settings = {"generator_lr": f"{rate:g}", "beta1": beta1}
        net = train(data, images, home / f"trial{number}", **common, **L1, **settings).net
        found = judge({"l1": net.eval()}, kept, n=KEPT, device=CPU, extractor=None)["l1"]["psnr"]
        trials.append({**settings, "psnr": found})
        print("for L1 alone", trials[-1], flush=True)
    best = max(trials, key=lambda trial: trial["psnr"])
    sweep = {"minutes_each": SWEEP * minutes, "images_each": images, "kept_aside": KEPT, "trials": trials}
    return {**L1, "generator_lr": best["generator_lr"], "beta1": best["beta1"]}, sweep


def measure(
    data: str, budget: Budget, home: Path, name: str, adversarial: dict[str, Any], *, first: float = 0.0, **common: Any
) -> dict[str, Any]:
    """Train both sides, judge them on the same test images; save a picture.

    The adversarial side spends the share ``first`` of its minutes as the other side does, by L1 alone, and goes on from
    those weights (as SRGAN's generator does, Ledig et al. 2017, sec. 3.2).
    """
    chosen, sweep = choose_for_l1(data, budget.minutes, home, **common)

    def side(out: Path, minutes: float, **settings: Any) -> Trained:
        return train(data, images_in(minutes, data, **settings), out, **settings)

    trained, start, before = {}, common, None
    if first:
        before = side(home / "first", first * budget.minutes, **common, **chosen)
        start = {"weights": str(home / "first")}
    trained["adversarial"] = side(home / "adversarial", (1 - first) * budget.minutes, **start, **adversarial)
    trained["l1"] = side(home / "l1", budget.minutes, **common, **chosen)
    pairs = load_image_pairs(data, TranslateConfig().changed(**common), DataOptions(), "test", print)
    judged: dict[str, Any] = {side: each.net for side, each in trained.items()}
    if pairs.scale > 1:
        judged["bicubic"] = bicubic(pairs)
    values = judge(judged, pairs, n=budget.n, device=CPU, extractor=find_extractor("lite0", CPU))
    for side, each in trained.items():
        values[side] |= each.facts
    if before is not None:
        values["adversarial"]["first_by_l1"] = before.facts
    picture = f"translation_{name}_{budget.minutes:g}.png"
    save_png(shown(pairs, judged), RESULTS / picture)
    n = min(budget.n, len(pairs))
    return {"n": n, "test_hash": pairs.hash, "l1_sweep": sweep, "sides": values, "picture": picture}


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
    return measure("cifar10", budget, home, "upscale", ENLARGE, scale=2)


def color(budget: Budget, home: Path) -> dict[str, Any]:
    """Gray to color."""
    write_pairs(home / "data", gray)
    return measure(str(home / "data"), budget, home, "color", COLOR, **COLOR_NET)


def from_edges(budget: Budget, home: Path) -> dict[str, Any]:
    """Edges to images."""
    write_pairs(home / "data", edges)
    return measure(str(home / "data"), budget, home, "edges", EDGES, first=FIRST, **EDGES_NET)


def unpaired(budget: Budget, home: Path) -> dict[str, Any]:
    """Automobiles to trucks, judged by a classifier that was not used in training."""
    one, other = "automobile", "truck"
    write_classes(home / "data", one, other)
    data = str(home / "data")
    net, facts = train(data, images_in(budget.minutes, data, **UNPAIRED), home / "cut", **UNPAIRED)
    config = TranslateConfig().changed(**UNPAIRED)
    pairs = load_image_pairs(data, config, DataOptions(), "test", print)
    values = judge({"cut": net}, pairs, n=len(pairs), device=CPU, extractor=find_extractor("lite0", CPU))["cut"]
    model, names = model_of("cifar10-plain").eval(), load("cifar10", split="test").classes
    x = pairs.x(0, len(pairs), CPU)
    with torch.no_grad():
        outputs = to_bytes(net(x))
        predictions = {"before": model(x).argmax(1), "after": model(outputs.float() / 255).argmax(1)}
    for name, predicted in predictions.items():
        values[f"target_class_{name}"] = int((predicted == names.index(other)).sum())
    picture = f"translation_unpaired_{budget.minutes:g}.png"
    rows = np.stack([to_bytes(x[:24]).numpy(), outputs[:24].numpy()], 1)
    save_png(make_grid(rows.reshape(-1, *rows.shape[2:]), columns=8, scale=3), RESULTS / picture)
    return {
        "n": len(pairs),
        "test_hash": pairs.hash,
        "from": one,
        "to": other,
        "sides": {"cut": {**values, **facts}},
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
        cases[f"{name} {words.minutes:g}"] = {
            "part": name,
            "minutes": words.minutes,
            **load_facts(load_before),
            **result,
        }
        print(name, cases[f"{name} {words.minutes:g}"], flush=True)
        record("translation", seeds=[SEED], cases=cases)


if __name__ == "__main__":
    main()
