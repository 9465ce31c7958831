"""Two adversarial training runs made to fail, each with monitoring and without: what is noticed, and the final model.

**One step.** A robust network (``mnist-hard``, trained at eps 0.3) trains on with FGSM without a random start, at a
high learning rate: it becomes robust against that step only (catastrophic overfitting, Wong et al. 2020).

**Many epochs.** A network trains on few images for long: robust accuracy on held-out images rises and then falls
(robust overfitting, Rice et al. 2020).

Without monitoring the same run continues to its end and keeps its last state. The final model is evaluated by PGD on
test images that neither run has seen, as ``rivals harden`` does for its report.
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
from benchmarks.harness import load, record
from rivals.api.robustness.before_after import NUMBERS
from rivals.base.errors import UserError
from rivals.base.images import to_pil
from rivals.base.norm_balls import Ball, Linf
from rivals.base.run_folder import Run
from rivals.game.robust_checkpoint import RobustCheckpoint

MODEL = Path(__file__).parent / "models" / "mnist-hard.safetensors"
N_IMAGES = 2500  # of cifar10: a tenth for the test, a tenth of the rest held out
PLAIN = {"optimizer": "adam", "ema": 0}
CASES: dict[str, tuple[str, Ball, dict[str, Any]]] = {
    "one step": (
        *("mnist5k", Linf(0.3)),
        PLAIN
        | {"method": "fgsm", "start": "none", "step_size": 1.0, "eps_warmup": 0.0, "batch_size": 32}
        | {"weights": str(MODEL), "lr": 4.5e-3, "until": "2 epochs"},
    ),
    "many epochs": (
        *("cifar10", Linf(8 / 255)),
        PLAIN
        | {"recipe": "cnn", "method": "fgsm", "eps_warmup": 0.0, "lr": 2e-3, "widths": (16, 32), "until": "25 epochs"},
    ),
}


@contextlib.contextmanager
def unmonitored() -> Iterator[None]:
    """Within it nothing is rolled back, and only the last state is kept."""
    with patch.object(RobustCheckpoint, "on_record", lambda self, record, progress: ()):
        yield


def image_folder(name: str, home: Path) -> str:
    """A random part of a data set in a folder, one subfolder per class."""
    images = load(name)
    assert images.labels is not None
    for place in np.random.default_rng(0).permutation(len(images))[:N_IMAGES]:
        folder = home / images.classes[images.labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        to_pil(images.images[place]).save(folder / f"{place}.png")
    return str(home)


def train(data: str, ball: Ball, settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train as far as it goes: evaluations, messages, and accuracy of the final model."""
    stopped = ""
    try:
        rivals.harden(data, ball, out=out, device="cpu", seed=0, **settings)
    except UserError as error:
        stopped = str(error)
    run = Run.open(out)
    records = list(run.records())
    evaluations = [
        [each["step"], *(round(each[f"accuracy/{key}"], 3) for key in ("held", "fgsm", "pgd"))]
        for each in records
        if "accuracy/pgd" in each
    ]
    sides = json.loads((out / NUMBERS).read_text())["sides"] if (out / NUMBERS).exists() else []
    return {
        "evaluations": evaluations,
        "messages": [each["message"] for each in records if "message" in each],
        "rollbacks": sum("rollback" in each for each in records),
        "seconds": round(run.info["seconds"]),
        "stopped": stopped,
        "final": {key: sides[-1][key] for key in ("clean", "robust")} if sides else None,
    }


def main() -> None:
    """Train all four runs and record them."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for number, (case, (data, ball, settings)) in enumerate(CASES.items()):
            source = data if data == "mnist5k" else image_folder(data, home / data)
            with unmonitored():
                without = train(source, ball, settings, home / f"{number}-unmonitored")
            monitored = train(source, ball, settings, home / f"{number}-monitored")
            shown = settings | {"weights": Path(settings["weights"]).stem} if "weights" in settings else settings
            found[case] = {"data": data, "eps": round(float(ball.eps), 5), "settings": shown}
            found[case] |= {"unmonitored": without, "monitored": monitored}
            print(case, {side: found[case][side]["final"] for side in ("unmonitored", "monitored")}, flush=True)
    record("overfitting", n_images=N_IMAGES, evaluations=["step", "held", "fgsm", "pgd"], cases=found)


if __name__ == "__main__":
    main()
