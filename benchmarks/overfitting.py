"""Two hardening runs made to fail, each watched and not: what is noticed, and what is left in the end.

**One step.** A net that stands (``mnist-hard``, hardened at eps 0.3) learns on from FGSM that starts at the image, at a
high rate: it comes to stand against that step and nothing else (catastrophic overfitting, Wong et al. 2020).

**Many epochs.** A net learns from few images for long: the share that stands of images kept aside rises and then falls
(robust overfitting, Rice et al. 2020).

Unwatched, the same run goes on to its end whatever happens, and its last state is what is left. What is left is judged
by PGD on test images that no side has seen, as ``rivals harden`` does it for its report.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import rivals
from benchmarks.harness import record
from rivals.api.comparison import NUMBERS
from rivals.base.balls import Ball, Linf
from rivals.base.errors import UserError
from rivals.data.load import load
from rivals.game.guard import Guard
from rivals.reports.run import Run
from rivals.reports.sheet import picture

MODEL = Path(__file__).parent / "models" / "mnist-hard.safetensors"
FEW = 2500  # images of cifar10, of which a tenth is the test and a tenth of the rest kept aside
PLAIN = {"optimizer": "adam", "ema": 0}
SCENES: dict[str, tuple[str, Ball, dict[str, Any]]] = {
    "one step": (
        *("mnist5k", Linf(0.3)),
        PLAIN
        | {"method": "fgsm", "start": "image", "step": 1.0, "ramp": 0.0, "batch": 32}
        | {"weights": str(MODEL), "lr": 4.5e-3, "until": "2 epochs"},
    ),
    "many epochs": (
        *("cifar10", Linf(8 / 255)),
        PLAIN | {"recipe": "cnn", "method": "fgsm", "ramp": 0.0, "lr": 2e-3, "widths": (16, 32), "until": "25 epochs"},
    ),
}


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Within it nothing is rolled back, and no state but the last is kept."""
    with patch.object(Guard, "see", lambda self, record, moment: None):
        yield


def few(name: str, home: Path) -> str:
    """Some images of a set in a folder, one sub-folder a class."""
    images = load(name)
    assert images.labels is not None
    for place in np.random.default_rng(0).permutation(len(images))[:FEW]:
        folder = home / images.classes[images.labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        picture(images.images[place]).save(folder / f"{place}.png")
    return str(home)


def played(data: str, ball: Ball, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """A run, as far as it comes: its looks, what was said, and what is left."""
    stopped = ""
    try:
        rivals.harden(data, ball, out=out, device="cpu", seed=0, **settings)
    except UserError as error:
        stopped = str(error)
    run = Run.open(out)
    records = list(run.records())
    looks = [
        [each["step"], *(round(each[f"accuracy/{key}"], 3) for key in ("held", "fgsm", "pgd"))]
        for each in records
        if "accuracy/pgd" in each
    ]
    sides = json.loads((out / NUMBERS).read_text())["sides"] if (out / NUMBERS).exists() else []
    return {
        "looks": looks,
        "told": [each["says"] for each in records if "says" in each],
        "rollbacks": sum("rollback" in each for each in records),
        "seconds": round(run.about["seconds"]),
        "stopped": stopped,
        "left": {key: sides[-1][key] for key in ("clean", "robust")} if sides else None,
    }


def main() -> None:
    """Play all four runs and record them."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for number, (scene, (data, ball, settings)) in enumerate(SCENES.items()):
            source = data if data == "mnist5k" else few(data, home / data)
            with unwatched():
                blind = played(source, ball, settings, home / f"{number}-blind")
            watched = played(source, ball, settings, home / f"{number}-watched")
            told = settings | {"weights": Path(settings["weights"]).stem} if "weights" in settings else settings
            found[scene] = {"data": data, "eps": round(float(ball.eps), 5), "settings": told}
            found[scene] |= {"unwatched": blind, "watched": watched}
            print(scene, {side: found[scene][side]["left"] for side in ("unwatched", "watched")}, flush=True)
    record("overfitting", few=FEW, looks=["step", "held", "fgsm", "pgd"], scenes=found)


if __name__ == "__main__":
    main()
