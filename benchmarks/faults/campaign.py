"""Make and run cases of one kind; each is a function of the seed, the kind and its number."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.faults.judge import Fault, fault_of
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.world import World, environment


class Failure(NamedTuple):
    """A case that failed: its number, what was mangled, and what went wrong."""

    number: int
    what: str
    fault: Fault


def faults_of(kind: str, world: World, seed: int, numbers: range) -> Iterator[Failure]:
    """Run cases of a kind; those that fail."""
    for number in numbers:
        found = run_case(kind, world, seed, number)
        if found is not None:
            yield found


def run_case(kind: str, world: World, seed: int, number: int) -> Failure | None:
    """Run one case in a folder of its own."""
    rng = Random(f"{seed} {kind} {number}")
    home = Path(tempfile.mkdtemp(dir=world.home)).resolve()
    try:
        with environment(home, home / "cache"):
            case = rng.choice(KINDS[kind])(rng, world, home)
            fault = fault_of(case)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return None if fault is None else Failure(number, case.what, fault)
