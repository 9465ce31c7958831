"""AutoAttack, ours in both versions against pyautoattack: robust images after each stage, and the cost.

Nine cases, 100 images each, one thread per side. Processor time is compared, which other programs disturb less than
wall-clock time. The reference takes seconds per image, so a side that is in the results already is not run again unless
it is named, and then only that side is: ``python -m benchmarks.autoattack swift``.
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
from rivals.attacks.autoattack import autoattack_stages
from rivals.attacks.ensemble import run_ensemble
from rivals.base.norm_balls import Linf
from rivals.nets.classifier import Classifier

N = 100
STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")


def reference(case: Case, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Any]:
    """pyautoattack's standard version, its stages called one by one on the images still robust, as it does itself."""
    robust = right(model, x, y)
    found: dict[str, Any] = {"clean": int(robust.sum()), "stages": {}}
    for stage in STAGES:
        if not bool(robust.any()):
            break
        peer = importlib.import_module("pyautoattack").AutoAttack(model, norm="Linf", eps=case.eps, seed=0)
        peer.verbose = False
        peer.attacks_to_run = [stage]
        indices = robust.nonzero()[:, 0]
        cpu, wall = time.process_time(), time.perf_counter()
        result = peer.run_standard_evaluation(x[indices], y[indices], batch_size=N)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        x_adv = result[0] if isinstance(result, tuple) else result
        correct = right(model, x_adv, y[indices])
        robust[indices[~correct]] = False
        found["stages"][stage] = {
            "attacked": len(indices),
            "fooled": int((~correct).sum()),
            "cpu_seconds": round(cpu, 1),
            "seconds": round(wall, 1),
            "indices": indices.tolist(),
        }
    return found | _sums(found, robust)


def ours(version: str) -> Callable[[Case, Classifier, Tensor, Tensor], dict[str, Any]]:
    """A version of ours; its adversarial examples are verified by the model itself."""

    def run(case: Case, model: Classifier, x: Tensor, y: Tensor) -> dict[str, Any]:
        robust = right(model, x, y)
        found: dict[str, Any] = {"clean": int(robust.sum()), "stages": {}}
        ball = Linf(case.eps)
        cpu, wall = time.process_time(), time.perf_counter()
        with freeze(model, x) as frozen:
            for outcome in run_ensemble(frozen, x, y, ball, autoattack_stages(version, ball)):
                now = time.process_time(), time.perf_counter()
                fooled = outcome.indices[outcome.fooled]
                x_adv = outcome.x_adv[outcome.fooled]
                assert bool(ball.contains(x_adv, x[fooled]).all())
                assert not bool(right(model, x_adv, y[fooled]).any())
                robust[fooled] = False
                if outcome.stage != "clean":
                    found["stages"][outcome.stage] = {
                        "attacked": len(outcome.indices),
                        "fooled": len(fooled),
                        "cpu_seconds": round(now[0] - cpu, 1),
                        "seconds": round(now[1] - wall, 1),
                        "passes": [outcome.forwards, outcome.backwards],
                        "indices": outcome.indices.tolist(),
                        "fooled_indices": fooled.tolist(),
                    }
                cpu, wall = time.process_time(), time.perf_counter()
        return found | _sums(found, robust)

    return run


def same_images(case: Case, model: Classifier, x: Tensor, y: Tensor, results: dict[str, Any]) -> dict[str, Any]:
    """How many of the images that a stage of the reference attacked the same stage of either side fools.

    Our attack on an image does not depend on the others, so only those that it did not attack yet are attacked now.
    """
    ball, found = Linf(case.eps), {}
    mine = {stage.name: stage for stage in autoattack_stages("standard", ball)}
    for name, theirs in results["reference"]["stages"].items():
        known = results["standard"]["stages"].get(name, {"indices": [], "fooled_indices": []})
        fooled = len(set(theirs["indices"]) & set(known["fooled_indices"]))
        missing = torch.tensor(sorted(set(theirs["indices"]) - set(known["indices"])), dtype=torch.long)
        if len(missing):
            with freeze(model, x) as frozen:
                outcomes = list(run_ensemble(frozen, x[missing], y[missing], ball, [mine[name]]))
            fooled += int(sum(outcome.fooled.sum() for outcome in outcomes))
        found[name] = {"attacked": len(theirs["indices"]), "ours": fooled, "reference": theirs["fooled"]}
    return found


def _sums(found: dict[str, Any], robust: Tensor) -> dict[str, Any]:
    stages = found["stages"].values()
    return {
        "robust": int(robust.sum()),
        "robust_indices": robust.nonzero()[:, 0].tolist(),
        "cpu_seconds": round(sum(stage["cpu_seconds"] for stage in stages), 1),
        "seconds": round(sum(stage["seconds"] for stage in stages), 1),
    }


def main() -> None:
    """Run every side that is missing, or that was named, and save each as soon as it is done."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    cases = recorded("autoattack", "cases")
    sides = {"reference": reference, "standard": ours("standard"), "swift": ours("swift")}
    for case in CASES:
        model, (x, y) = model_of(case.model), images_of(case.model, N)
        results = cases.setdefault(case.name, {})
        for side, run in sides.items():
            if side in sys.argv or (len(sys.argv) == 1 and side not in results):
                results[side] = run(case, model, x, y)
                print(
                    f"{case.name}: {side} {results[side]['robust']} of {N}, {results[side]['cpu_seconds']} s",
                    flush=True,
                )
                save(cases)
        if {"reference", "standard"} <= results.keys():
            results["same_images"] = same_images(case, model, x, y, results)
        if "reference" in results:
            cost = {side: results[side]["cpu_seconds"] for side in sides if side in results}
            mine = [side for side in cost if side != "reference"]
            results["times"] = {side: round(cost["reference"] / max(cost[side], 0.1), 2) for side in mine}
        save(cases)


def save(cases: dict[str, Any]) -> None:
    """Save the results so far."""
    record("autoattack", n=N, threads=1, peer="pyautoattack 0.2.0", target={"standard": 2, "swift": 6}, cases=cases)


if __name__ == "__main__":
    main()
