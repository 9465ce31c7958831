"""Robust accuracy before and after adversarial training: two classifiers under the same attack, at the end of a run."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.base.run_folder import Record
from rivals.base.typed_json import read_json
from rivals.recipes.options import AttackConfig, DataOptions
from rivals.reports.history import FIX
from rivals.reports.sections.before_after import IMAGE_FILE, NUMBERS, BeforeAfterFile, read_pictures

if TYPE_CHECKING:
    from torch import nn

    from rivals.api.robustness.eval_data import EvalData
    from rivals.base.norm_balls import Ball
    from rivals.data.imageset import ImageSet
    from rivals.metrics.robust_accuracy import Robustness

Array = npt.NDArray[Any]

SHARES = (0.125, 0.25, 0.5, 0.75)  # of the radius, where robust accuracy is measured, as at the radius itself
IMAGES = 300  # test images
STEPS = 20  # of PGD
SHOWN = 8  # images of the report


@dataclass(frozen=True)
class Comparison:
    """A comparison of two classifiers. Calling it measures, unless the folder has the same result already.

    Attributes:
        folder: The run folder, which receives ``before_after.json`` and ``before_after.npz``.
        test: Images with labels.
        ball: The threat model of the training.
        before: The name and the network of the classifier to compare with, if there is one.
        seed: Of the attack.
    """

    folder: Path
    test: ImageSet
    ball: Ball
    before: tuple[str, nn.Module] | None
    seed: int

    def __call__(self, after: nn.Module) -> str:
        """Measure the classifiers before and ``after``; returns a line with their robust accuracies."""
        from rivals.base.hashing import weights_hash

        sides = {"after": (str(self.folder), after)}
        if self.before is not None:
            sides = {"before": self.before, **sides}
        hashes = {side: weights_hash(net) for side, (_, net) in sides.items()}
        result = self._stored()
        if result is None or {each["side"]: each["hash"] for each in result["sides"]} != hashes:
            result = self._measure(sides, hashes)
        accuracies = [
            f"{side} {100 * each['robust']['value']:.1f}%" for side, each in zip(sides, result["sides"], strict=True)
        ]
        protocol = result["protocol"]
        return (
            f"Robust accuracy under PGD-{protocol['steps']} at {protocol['norm']} eps {protocol['eps'][-1]:.4g}, "
            f"{protocol['n']} test images: {', '.join(accuracies)}."
        )

    def _stored(self) -> Record | None:
        """What was measured before; None if it is not there, or damaged."""
        try:
            result = read_json(self.folder / NUMBERS, BeforeAfterFile, FIX)
            read_pictures(self.folder / IMAGE_FILE, [each["side"] for each in result["sides"]])
        except (FileNotFoundError, UserError):
            return None
        return {**result}

    def _measure(self, sides: dict[str, tuple[str, nn.Module]], hashes: dict[str, str]) -> Record:
        from rivals.api.common.model_zoo import find_model
        from rivals.api.robustness.eval_data import load_eval_data
        from rivals.api.robustness.evaluation import evaluate

        radius = float(self.ball.eps)
        attack: Any = {"attack": f"pgd(steps={STEPS})", "seed": self.seed, "n": IMAGES, "alarms": False}
        curve = [share * radius for share in SHARES]
        found: dict[str, Robustness] = {}
        for side, (_, net) in sides.items():
            found[side] = evaluate(net, self.test, self.ball, curve=curve, save="none", quiet=True, **attack)
        named = find_model(sides["after"][1])
        config = AttackConfig(n=IMAGES)
        data = load_eval_data(self.test, self.ball.bounds, named, config, DataOptions(), lambda text: None)
        images = self._example_images(sides, data)
        protocol = {"attack": attack["attack"], "steps": STEPS, "norm": type(self.ball).__name__, "seed": self.seed}
        protocol |= {"eps": [*curve, radius], "n": len(data), "data": self.test.name, "split": self.test.split}
        result = {
            "format": 1,
            "protocol": protocol,
            "sides": [
                {
                    "side": side,
                    "source": source,
                    "hash": hashes[side],
                    **{key: found[side].as_dict()[key] for key in ("clean", "robust", "curve", "classes")},
                }
                for side, (source, _) in sides.items()
            ],
        }
        file = io.BytesIO()
        np.savez(file, **images)  # type: ignore[arg-type]
        write_atomically(self.folder / IMAGE_FILE, file.getvalue())
        # The numbers last: where they are, the images are complete.
        write_atomically(self.folder / NUMBERS, json.dumps(result, indent=2).encode() + b"\n")
        return result

    def _example_images(self, sides: dict[str, tuple[str, nn.Module]], data: EvalData) -> dict[str, Array]:
        """A few images with, for each classifier, adversarial examples, predictions and input gradients."""
        import torch

        from rivals.attacks import pgd
        from rivals.attacks.frozen_model import freeze

        chosen = varied(data.labels)[:SHOWN]
        taken, labels = data.take(chosen), torch.from_numpy(data.labels[chosen])
        columns = {"x": taken.numpy(), "label": labels.numpy(), "index": data.order[chosen]}
        for side, (_, net) in sides.items():
            place = next(net.parameters())
            x, y = taken.to(place), labels.to(place.device)
            with freeze(net, x) as frozen:
                x_adv = pgd(frozen, x, y, self.ball, steps=STEPS, seed=self.seed)
                leaf, logits = frozen.trace(x)
                gradient = frozen.gradient(torch.nn.functional.cross_entropy(logits, y, reduction="none"), leaf)
                predictions = {"prediction": logits.argmax(1), "prediction_adv": frozen.logits(x_adv).argmax(1)}
            found = {"x_adv": x_adv, "input_gradient": gradient, **predictions}
            columns |= {f"{side}_{key}": value.detach().cpu().numpy() for key, value in found.items()}
        return columns


def varied(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices (n,) that cycle through the classes: the first of each, the second of each, ..."""
    turn = np.zeros(len(labels), np.int64)
    for number in np.unique(labels):
        own = labels == number
        turn[own] = np.arange(own.sum())
    return np.lexsort((labels, turn))
