"""Seconds that ``rivals --help``, every ``rivals COMMAND --help`` and ``import rivals`` take: medians of seven."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import record
from rivals.cli.commands import COMMANDS

REPEATS = 7


def seconds(words: list[str]) -> float:
    """The median time of a command."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times), 3)


def main() -> None:
    """Time them all."""
    program = str(Path(sys.executable).with_name("rivals"))
    helps = [[], *(name.split() for name in COMMANDS)]
    values = {" ".join(["rivals", *words, "--help"]): seconds([program, *words, "--help"]) for words in helps}
    values["import rivals"] = seconds([sys.executable, "-c", "import rivals"])
    values["python -c pass"] = seconds([sys.executable, "-c", "pass"])
    record(
        "startup", description="seconds, median of 7 starts", seconds=values, slowest=max(values.values()), target=0.5
    )


if __name__ == "__main__":
    main()
