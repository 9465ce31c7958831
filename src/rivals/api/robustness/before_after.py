"""Before and after: two classifiers under one attack, measured once, at the end of a hardening, into its folder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rivals.base.files import write_atomically
from rivals.reports.run import Record

if TYPE_CHECKING:
    from torch import nn

    from rivals.api.pool import Pool
    from rivals.base.balls import Ball
    from rivals.data.imageset import ImageSet
    from rivals.metrics.robustness import Robustness

Array = npt.NDArray[Any]

SHARES = (0.125, 0.25, 0.5, 0.75)  # of the radius, at which the course of accuracy is told, and at the whole of it
IMAGES = 300  # of the test's
STEPS = 20  # of PGD
SHOWN = 8  # images to look at
NUMBERS, PICTURES = "comparison.json", "comparison.npz"


@dataclass(frozen=True)
class Comparison:
    """What is to be measured; calling it measures, unless the folder holds the very same already.

    Attributes:
        folder: Of the run. It gets ``comparison.json`` and ``comparison.npz``.
        test: Images with labels.
        ball: What the classifier was hardened for.
        before: The classifier to compare with and where it is from, if there is one.
        seed: Of the attack.
    """

    folder: Path
    test: ImageSet
    ball: Ball
    before: tuple[str, nn.Module] | None
    seed: int

    def __call__(self, after: nn.Module) -> str:
        """Measure both sides, before and ``after``; a line that tells how they fare."""
        from rivals.api.models import fingerprint

        sides = {"after": (str(self.folder), after)}
        if self.before is not None:
            sides = {"before": self.before, **sides}
        hashes = {side: fingerprint(net) for side, (_, net) in sides.items()}
        kept = self._kept()
        if kept is None or {each["side"]: each["hash"] for each in kept["sides"]} != hashes:
            kept = self._measure(sides, hashes)
        told = [
            f"{side} {100 * each['robust']['value']:.1f} %" for side, each in zip(sides, kept["sides"], strict=True)
        ]
        protocol = kept["protocol"]
        return (
            f"Under PGD of {protocol['steps']} steps at {protocol['norm']} eps {protocol['eps'][-1]:.4g} stand, "
            f"of {protocol['n']} test images: {', '.join(told)}."
        )

    def _kept(self) -> Record | None:
        try:
            kept: Record = json.loads((self.folder / NUMBERS).read_text())
        except (OSError, ValueError):
            return None
        return kept if (self.folder / PICTURES).exists() else None

    def _measure(self, sides: dict[str, tuple[str, nn.Module]], hashes: dict[str, str]) -> Record:
        from rivals.api.evaluation import evaluate
        from rivals.api.models import find_model
        from rivals.api.pool import fill

        radius = float(self.ball.eps)
        attack: Any = {"attack": f"pgd(steps={STEPS})", "seed": self.seed, "n": IMAGES, "alarms": False}
        curve = [share * radius for share in SHARES]
        found: dict[str, Robustness] = {}
        for side, (_, net) in sides.items():
            found[side] = evaluate(net, self.test, self.ball, curve=curve, save="none", quiet=True, **attack)
        named = find_model(sides["after"][1])
        pool = fill(self.test, self.ball, named, IMAGES, split=None, size=None, note=lambda text: None)
        pictures = self._pictures(sides, pool)
        protocol = {"attack": attack["attack"], "steps": STEPS, "norm": type(self.ball).__name__, "seed": self.seed}
        protocol |= {"eps": [*curve, radius], "n": len(pool), "data": self.test.name, "split": self.test.split}
        told = {
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
        np.savez(file, **pictures)  # type: ignore[arg-type]
        write_atomically(self.folder / PICTURES, file.getvalue())
        # The numbers last: where they are, all is there.
        write_atomically(self.folder / NUMBERS, json.dumps(told, indent=2).encode() + b"\n")
        return told

    def _pictures(self, sides: dict[str, tuple[str, nn.Module]], pool: Pool) -> dict[str, Array]:
        """A few images, and of each side its adversarial twins, its answers, and its slopes at the images."""
        import torch

        from rivals.attacks import pgd
        from rivals.attacks.frozen import freeze

        chosen = varied(pool.labels)[:SHOWN]
        taken, labels = pool.take(chosen), torch.from_numpy(pool.labels[chosen])
        columns = {"x": taken.numpy(), "label": labels.numpy(), "index": pool.order[chosen]}
        for side, (_, net) in sides.items():
            place = next(net.parameters())
            x, y = taken.to(place), labels.to(place.device)
            with freeze(net, x) as frozen:
                x_adv = pgd(frozen, x, y, self.ball, steps=STEPS, seed=self.seed)
                leaf, logits = frozen.trace(x)
                slope = frozen.gradient(torch.nn.functional.cross_entropy(logits, y, reduction="none"), leaf)
                said = {"said": logits.argmax(1), "said_adv": frozen.logits(x_adv).argmax(1)}
            found = {"x_adv": x_adv, "slope": slope, **said}
            columns |= {f"{side}_{key}": value.detach().cpu().numpy() for key, value in found.items()}
        return columns


def varied(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places (n,) in an order that goes round the classes: the first of each, the second of each, ..."""
    turn = np.zeros(len(labels), np.int64)
    for number in np.unique(labels):
        own = labels == number
        turn[own] = np.arange(own.sum())
    return np.lexsort((labels, turn))
