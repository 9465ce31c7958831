"""AutoAttack, ours in both versions against pyautoattack: who is left standing, part by part, and what it costs.

Nine cases, 100 images each, one thread a side. Processor time is compared, which other programs on the machine disturb
less than time on the clock. The reference takes seconds an image, so a side that stands in the results already is not
run again unless it is named, and then only what is named is: ``python -m benchmarks.autoattack swift``.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.attack_cases import CASES, Case, images_of, model_of, right
from benchmarks.harness import record, recorded
from rivals.attacks import freeze
from rivals.attacks.ensemble import assault, plan
from rivals.base.balls import Linf
from rivals.nets.classifier import Classifier

N = 100
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
Clock = Callable[[], float]


def reference(case: Case, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Any]:
    """pyautoattack's standard version, its parts called one by one on what stands, as it does itself."""
    standing = right(model, x, y)
    found: dict[str, Any] = {"clean": int(standing.sum()), "parts": {}}
    for part in PARTS:
        if not bool(standing.any()):
            break
        peer = importlib.import_module("pyautoattack").AutoAttack(model, norm="Linf", eps=case.eps, seed=0)
        peer.verbose = False
        peer.attacks_to_run = [part]
        points = standing.nonzero()[:, 0]
        cpu, wall = time.process_time(), time.perf_counter()
        answer = peer.run_standard_evaluation(x[points], y[points], batch_size=N)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        x_adv = answer[0] if isinstance(answer, tuple) else answer
        stands = right(model, x_adv, y[points])
        standing[points[~stands]] = False
        found["parts"][part] = {
            "attacked": len(points),
            "felled": int((~stands).sum()),
            "cpu_seconds": round(cpu, 1),
            "seconds": round(wall, 1),
            "points": points.tolist(),
        }
    return found | _sums(found, standing)


def ours(version: str) -> Callable[[Case, Classifier, Tensor, Tensor], dict[str, Any]]:
    """A version of ours; what it felled is judged by the model itself."""

    def run(case: Case, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Any]:
        standing = right(model, x, y)
        found: dict[str, Any] = {"clean": int(standing.sum()), "parts": {}}
        ball = Linf(case.eps)
        cpu, wall = time.process_time(), time.perf_counter()
        with freeze(model, x) as frozen:
            for outcome in assault(frozen, x, y, ball, plan(version, ball)):
                now = time.process_time(), time.perf_counter()
                felled = outcome.points[outcome.fooled]
                x_adv = outcome.x_adv[outcome.fooled]
                assert bool(ball.contains(x_adv, x[felled]).all())
                assert not bool(right(model, x_adv, y[felled]).any())
                standing[felled] = False
                if outcome.part != "clean":
                    found["parts"][outcome.part] = {
                        "attacked": len(outcome.points),
                        "felled": len(felled),
                        "cpu_seconds": round(now[0] - cpu, 1),
                        "seconds": round(now[1] - wall, 1),
                        "passes": [outcome.forwards, outcome.backwards],
                        "points": outcome.points.tolist(),
                        "fell": felled.tolist(),
                    }
                cpu, wall = time.process_time(), time.perf_counter()
        return found | _sums(found, standing)

    return run


def alike(case: Case, model: Classifier, x: Tensor, y: Tensor, told: dict[str, Any]) -> dict[str, Any]:
    """Of just the images that the reference's own part met, how many either side's part fells.

    What ours does to an image does not depend on the others, so only those that it did not meet are attacked now.
    """
    ball, found = Linf(case.eps), {}
    mine = {part.name: part for part in plan("standard", ball)}
    for name, theirs in told["reference"]["parts"].items():
        known = told["standard"]["parts"].get(name, {"points": [], "fell": []})
        felled = len(set(theirs["points"]) & set(known["fell"]))
        missing = torch.tensor(sorted(set(theirs["points"]) - set(known["points"])), dtype=torch.long)
        if len(missing):
            with freeze(model, x) as frozen:
                outcomes = list(assault(frozen, x[missing], y[missing], ball, [mine[name]]))
            felled += int(sum(outcome.fooled.sum() for outcome in outcomes))
        found[name] = {"attacked": len(theirs["points"]), "ours": felled, "reference": theirs["felled"]}
    return found


def _sums(found: dict[str, Any], standing: Tensor) -> dict[str, Any]:
    parts = found["parts"].values()
    return {
        "robust": int(standing.sum()),
        "standing": standing.nonzero()[:, 0].tolist(),
        "cpu_seconds": round(sum(part["cpu_seconds"] for part in parts), 1),
        "seconds": round(sum(part["seconds"] for part in parts), 1),
    }


def main() -> None:
    """Run every side that is missing, or that was named, and keep each as soon as it is done."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    cases = recorded("autoattack", "cases")
    sides = {"reference": reference, "standard": ours("standard"), "swift": ours("swift")}
    for case in CASES:
        model, (x, y) = model_of(case.model), images_of(case.model, N)
        told = cases.setdefault(case.name, {})
        for side, run in sides.items():
            if side in sys.argv or (len(sys.argv) == 1 and side not in told):
                told[side] = run(case, model, x, y)
                print(f"{case.name}: {side} {told[side]['robust']} of {N}, {told[side]['cpu_seconds']} s", flush=True)
                keep(cases)
        if {"reference", "standard"} <= told.keys():
            told["alike"] = alike(case, model, x, y, told)
        if "reference" in told:
            cost = {side: told[side]["cpu_seconds"] for side in sides if side in told}
            mine = [side for side in cost if side != "reference"]
            told["times"] = {side: round(cost["reference"] / max(cost[side], 0.1), 2) for side in mine}
        keep(cases)


def keep(cases: dict[str, Any]) -> None:
    """Write down what there is."""
    record("autoattack", n=N, threads=1, peer="pyautoattack 0.2.0", asked={"standard": 2, "swift": 6}, cases=cases)


if __name__ == "__main__":
    main()
