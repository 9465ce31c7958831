"""The alarms of ``rivals.evaluate``: honest classifiers, the same behind masks, and what a strong attack finds.

A mask makes PGD report too high a robust accuracy. What is true is estimated from above: the images that are classified
correctly after all of (a) PGD and APGD-T on the model without its mask, carried over; (b) the swift AutoAttack on the
masked one; (c) Square; (d) what was reported. All but the last are judged one image at a time; where the rest of the
batch has a say, (d) does not count. A masked model is *missed* if the reported count is off by
more than a tenth of the images, and no alarm says so. An alarm on an honest model is false if the report is not so far
off.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import rivals
from benchmarks.attack_cases import images_of as kept_images
from benchmarks.attack_cases import model_of
from benchmarks.harness import record, recorded
from benchmarks.masking_models import HONEST, MASKS, SPLITS, Around, images_of
from rivals.attacks import apgd, autoattack, pgd, square
from rivals.attacks.input_checks import NoGradientError
from rivals.base.norm_balls import Linf

N, ATTACK, OFF = 100, "pgd(steps=10)", 0.1
BASES = ("mlp",)  # wear every mask
KEPT = {"mnist-plain": 0.15, "mnist-hard": 0.3}  # of the other benchmarks
KEPT_MASKS = ("10 tanh(z / 2)", "x + 0.1 sin(1e4 x)", "steep staircase", "wave staircase")


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor, votes: int = 1) -> Tensor:
    """Which images are classified correctly, one at a time, by a majority of votes (n,)."""
    said = torch.stack([torch.cat([model(image).argmax(1) for image in x.split(1)]) for _ in range(votes)])
    return said.mode(0).values == y


def still_right(model: nn.Module, bare: nn.Module, x: Tensor, y: Tensor, ball: Linf, votes: int = 1) -> Tensor:
    """Which images are classified correctly after every attack that is known (n,)."""
    robust = right(model, x, y, votes)
    attempts = (
        lambda x, y: pgd(bare, x, y, ball, steps=40, restarts=2, loss="margin", stop_when_fooled=False),
        lambda x, y: apgd(bare, x, y, ball, steps=30, n_targets=5, loss="dlr", stop_when_fooled=False),
        lambda x, y: autoattack(model, x, y, ball, version="swift", batch_size=128),
        lambda x, y: square(model, x, y, ball, queries=500),
    )
    for attempt in attempts:
        left = robust.nonzero()[:, 0]
        if not len(left):
            break
        try:
            x_adv = attempt(x[left], y[left])
        except NoGradientError:  # the mask left none to follow
            continue
        robust[left] &= right(model, x_adv, y[left], votes)
    return robust


def row_of(model: nn.Module, bare: nn.Module, x: Tensor, y: Tensor, eps: float, **judged: Any) -> dict[str, Any]:
    """What is reported of a model, what is true, and the alarms.

    Args:
        model: What is evaluated, with its mask if it has one.
        bare: The same without it.
        x: Images (n, C, H, W).
        y: Their labels (n,).
        eps: The radius.
        judged: ``votes`` and ``by_batch`` of the mask.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = rivals.evaluate(model, (x, y), Linf(eps), attack=ATTACK, device="cpu", quiet=True)
        truth = int(still_right(model, bare, x, y, Linf(eps), judged.get("votes", 1)).sum())
    reported = report.robust.count
    truth = truth if judged.get("by_batch") else min(truth, reported)
    alarms = [alarm["alarm"] for alarm in report.alarms]
    return {
        "eps": round(eps, 5),
        "n": len(y),
        "clean": report.clean.count,
        "reported": reported,
        "true": truth,
        "alarms": alarms,
    }


def main() -> None:
    """Measure what was named, or all that is not in the results yet."""
    torch.set_num_threads(1)
    chosen = sys.argv[1:]
    found = {kind: recorded("masking", kind) for kind in ("honest", "masked")}

    def measure(name: str, model: nn.Module, images: tuple[Tensor, Tensor], eps: float, masks: Iterable[str]) -> None:
        for mask in ("", *masks):
            table, entry = found["masked" if mask else "honest"], f"{name} | {mask}" if mask else name
            if entry in table and not chosen:
                continue
            options = MASKS[mask] if mask else {}
            worn = Around(model, options.get("before"), options.get("after")).eval() if mask else model
            table[entry] = row_of(worn, model, *images, eps, **options)
            print(entry, table[entry], flush=True)
            record("masking", attack=ATTACK, off=OFF, **found)

    for name in chosen or (*HONEST, *KEPT):
        if name in KEPT:
            masks: Iterable[str] = KEPT_MASKS if name == "mnist-plain" else ()
            measure(name, model_of(name).eval().requires_grad_(False), kept_images(name, N // 2), KEPT[name], masks)
        else:
            x, y = images_of(HONEST[name].data)
            start = SPLITS[HONEST[name].data][1]
            images = x[start : start + N], y[start : start + N]
            measure(name, HONEST[name].train(), images, HONEST[name].eps, MASKS if name in BASES else ())


if __name__ == "__main__":
    main()
