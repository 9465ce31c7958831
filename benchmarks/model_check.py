"""The committed classifiers, verified from their files: correct, robust and certified test images.

Anyone who attacks a file of ``benchmarks/models/`` can begin by this. If a file is the one of the recorded result, what
is measured must agree with it, but for a few images on another processor; else the benchmark fails and records nothing.

    python -m benchmarks model_check                       # all of them: ten minutes of one thread
    python -m benchmarks.model_check mnist-linf-0.3 ...    # some
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import torch

import rivals
from benchmarks.attack_models import MODELS
from benchmarks.harness import load, record, recorded
from rivals.api.training.callbacks import accuracy
from rivals.base.eps import parse_eps
from rivals.base.norm_balls import Linf

EPS = {
    "mnist-plain": "0.1",
    "mnist-hard": "0.3",
    "mnist-linf-0.3": "0.3",
    "mnist-certified-0.1": "0.1",
    "mnist-certified-0.3": "0.3",
    "fashion-linf-0.1": "0.1",
    "cifar10-plain": "1/255",
    "cifar10-linf-8-255": "8/255",
    "cifar10-certified-2-255": "2/255",
}
N = 1000  # test images that are attacked, those of ``rivals attack``; also certified, if that is what the file is for
SLACK = 3  # images by which another processor may differ, of 1,000


def measure(name: str) -> dict[str, Any]:
    """What is true of one file; ``certified`` by IBP alone, which is the same computation everywhere."""
    path = MODELS / f"{name}.safetensors"
    net, ball = rivals.load(path), Linf(parse_eps(EPS[name]))
    source: Any = net.about["data"]
    test = load(source, split="test")
    options: dict[str, Any] = {"n": N, "quiet": True}
    report = rivals.evaluate(net, source, ball, attack="autoattack-swift", alarms=False, save="none", **options)
    facts = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "data": f"{source} {test.hash}",
        "eps": EPS[name],
        "of": len(test),
        "correct": round(accuracy(net, test) * len(test)),
        "n": N,
        "robust": report.robust.count,
    }
    if "certified" in name:
        found = rivals.certify(net, source, ball, method="ibp", upper=False, **options)
        facts["certified"] = found.as_dict()["certified"]["count"]
    return facts


def disagreements(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where a file that is the same gives other figures than were recorded."""
    if old.get("sha256") != new["sha256"] or old["eps"] != new["eps"]:
        return []
    slack = {"correct": SLACK * new["of"] / 1000, "robust": SLACK, "certified": SLACK}
    return [
        f"{key} {new[key]:,}, recorded were {old[key]:,}"
        for key, most in slack.items()
        if key in new and abs(new[key] - old[key]) > most
    ]


def main() -> int:
    """Verify what is named, or all; 1 if a figure is not the recorded one."""
    torch.set_num_threads(1)
    known = recorded("model_check", "models")
    failed = False
    for name in sys.argv[1:] or EPS:
        facts = measure(name)
        print(name, facts, flush=True)
        for line in disagreements(known.get(name, {}), facts):
            print(f"{name}: {line}", file=sys.stderr)
            failed = True
        known[name] = facts
    if not failed:
        record("model_check", threads=1, models=known)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
