"""Commands that are killed at any moment, or whose disk is full, read-only or limited, lose nothing.

Each of seven commands is killed by SIGKILL at twelve moments, spread over its processor time, and begun again with the
same words: networks and results must be those of a run that was left alone. Then every command that writes does so on
a disk that is too small, on a read-only one, and under a limit of the size of files (``ulimit -f``): one line, exit
status 2, inputs as they were; and with the obstacle gone the same words succeed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.fault_cases import make_inputs, outcome, resumable, writing
from benchmarks.forked import Words, run
from benchmarks.harness import record, recorded

MOMENTS = 12
SHARES = (0.1, 0.8)  # of the space that a command needs, and of its largest file
SPEED_DECIDES = ("demo",)  # how many sample grids there are


def killed(name: str, words: Callable[[Path], Words], home: Path) -> dict[str, Any]:
    """Kill a command at each moment and begin it again; what differed."""
    networks_only = name in SPEED_DECIDES
    for whole in (home / f"{name}-cold", home / f"{name}-whole"):  # the second finds the caches filled
        ended = run(*words(whole), streams=home)
        if ended.status:
            raise SystemExit(f"{name}: {ended.err}")
    wanted, differing, kills = outcome(whole, networks_only=networks_only), [], 0
    for moment in range(MOMENTS):
        folder = home / f"{name}-{moment}"
        after = ended.seconds * (moment + 0.5) / MOMENTS
        kills += run(*words(folder), streams=home, kill_after=after).status == -9
        again = run(*words(folder), streams=home)
        found = outcome(folder, networks_only=networks_only) if folder.exists() else {}
        names = [each for each in wanted.keys() | found.keys() if wanted.get(each) != found.get(each)]
        if again.status or names:
            differing.append({"moment": moment, "status": again.status, "differs": sorted(names), "says": again.err})
        shutil.rmtree(folder, ignore_errors=True)
        print(
            f"{name}: killed after {after:.2f} s of {ended.seconds:.2f}: {differing[-1:] if names else 'same'}",
            flush=True,
        )
    return {"kills": kills, "processor_seconds": round(ended.seconds, 2), "differing": differing}


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes, in memory."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, option: str) -> None:
    """Mount a file system again with another option, such as ``ro``."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)


def obstructed(name: str, words: Callable[[Path], Words], home: Path) -> dict[str, Any]:
    """Run a command against each obstacle, then without it; what it did wrong."""
    inputs, free = digest(home), home / "free"
    ended = run(*words(free), streams=home)
    if ended.status:
        raise SystemExit(f"{name}: {ended.err}")
    sizes = [path.stat().st_size for path in free.rglob("*") if path.is_file()]
    shutil.rmtree(free)
    tries, disk = [], home / "disk"
    for share in SHARES:
        with small_disk(disk, max(8192, round(share * sum(sizes)))):
            refused = run(*words(disk / "out"), streams=home)
            remount(disk, "size=200M")
            tries.append((f"disk of {share:.0%}", refused, run(*words(disk / "out"), streams=home)))
        limit = max(512, round(share * max(sizes)))
        refused = run(*words(free), streams=home, file_limit=limit)
        tries.append((f"files of {share:.0%}", refused, run(*words(free), streams=home)))
        shutil.rmtree(free)
    with small_disk(disk, 200 << 20):
        remount(disk, "ro")
        refused = run(*words(disk / "out"), streams=home)
        remount(disk, "rw")
        tries.append(("read-only", refused, run(*words(disk / "out"), streams=home)))
    found = []
    for obstacle, first, second in tries:
        lines = first.err.splitlines()[-1:] if name in SPEED_DECIDES else first.err.splitlines()  # after its progress
        one_line = len(lines) == 1 and lines[0].startswith("rivals: ") and "Traceback" not in first.err
        right = (first.status == 2 and one_line) or first.status == 0
        print(f"{name}, {obstacle}: {first.status} {first.err.strip()[-150:]!r}; then {second.status}", flush=True)
        if not right or (second.status and first.status):
            says = [first.err.strip()[-400:], second.err.strip()[-400:]]
            found.append({"obstacle": obstacle, "status": [first.status, second.status], "says": says})
    if digest(home) != inputs:
        found.append({"obstacle": "any", "status": [], "says": ["the inputs changed"]})
    return {"tries": len(tries), "refused": sum(first.status == 2 for _, first, _ in tries), "wrong": found}


def digest(home: Path) -> str:
    """A hash of all inputs."""
    found = hashlib.sha256()
    for folder in ("photos", "gan", "plain", "pushed"):
        for path in sorted((home / folder).rglob("*")):
            found.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return found.hexdigest()


def main() -> None:
    """All commands, or those that are named; each part is recorded once it is done."""
    if os.geteuid():
        raise SystemExit("mounting a small disk needs root")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        make_inputs(home)
        continued, commands = resumable(home), writing(home)
        for name in sys.argv[1:] or commands:
            for part, measure, words in (
                ("kills", killed, continued.get(name)),
                ("obstacles", obstructed, commands[name]),
            ):
                if words is not None:
                    before = recorded("kills", "commands")
                    found = {**before, name: {**before.get(name, {}), part: measure(name, words, home)}}
                    record("kills", moments=MOMENTS, shares=SHARES, commands=found)


if __name__ == "__main__":
    main()
