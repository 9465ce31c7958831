"""Thousands of mangled inputs of nine kinds: how many end in a traceback, hang, are unpickled, taken for whole.

``python -m benchmarks.faults KIND ...`` runs some kinds and keeps what is recorded of the others.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.faults.campaign import faults_of
from benchmarks.faults.judge import FAULTS, SECONDS
from benchmarks.faults.world import World
from benchmarks.harness import record, recorded

SEED = 2026
CASES = {
    "images in folders": 900,
    "zips, shards, dataset.json": 500,
    "run.json": 900,
    "metrics.jsonl": 600,
    "side files (npz, png)": 500,
    "safetensors, checkpoints": 300,
    "network .json": 1700,
    "decoded cache": 200,
    "command-line values": 3500,
}


def main() -> None:
    """Run the kinds that were named, or all, and record each as soon as it is done."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for kind in sys.argv[1:] or CASES:
            start = time.perf_counter()
            failures = list(faults_of(kind, world, SEED, range(CASES[kind])))
            counts = Counter(each.fault.kind for each in failures)
            failed += len(failures)
            examples = [f"case {each.number}: {each.what[:200]}: {each.fault.details}" for each in failures[:5]]
            found = {"cases": CASES[kind], **{name: counts[name] for name in FAULTS}, "examples": examples}
            print(f"{kind}: {len(failures)} of {CASES[kind]} failed, {time.perf_counter() - start:.0f} s", flush=True)
            kinds = recorded("faults", "kinds") | {kind: found}
            record(
                "faults",
                description="Files of runs, networks and data sets, and command lines, changed at random: bytes, "
                f"fields, types, names. A command reads each; a hang is more than {SECONDS} s",
                seed=SEED,
                faults=list(FAULTS),
                kinds={name: kinds[name] for name in CASES if name in kinds},
            )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
