"""A run killed by SIGKILL at twenty random moments ends with the same bytes as the uninterrupted one.

After every kill each checkpoint in the folder must be readable. A second part fills a small disk under a run: one
clear line, status 2, the previous checkpoint readable; with space again the run ends with the same bytes too.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import record
from rivals.base.run_folder import Run
from rivals.base.tensor_files import load_tensors

KILLS = 20
GAME = ["--recipe", "quick", "--until", "600 steps", "--batch-size", "16", "--checkpoint-every", "5 steps"]
GAME += ["--sample-every", "15 steps", "--quiet"]  # by default the speed decides how many grids there are


def rivals(*words: str | Path) -> list[str]:
    """The command line of ``rivals WORDS``."""
    return [sys.executable, "-m", "rivals", *map(str, words)]


def check_checkpoints(run: Path) -> int:
    """Verify every checkpoint; the newest one's step."""
    paths = sorted((run / "checkpoints").glob("*.safetensors"))
    for path in paths:
        load_tensors(path)
    return int(paths[-1].stem.partition("-")[0]) if paths else -1


def killed(home: Path, seconds: float) -> list[int]:
    """Run with twenty kills, spread over the ``seconds`` of the game; the step of the newest checkpoint at each."""
    run, rng, steps = home / "killed", random.Random(0), []
    words: list[str | Path] = ["train", "mnist5k", *GAME, "--out", run]
    while len(steps) < KILLS:
        process = subprocess.Popen(rivals(*words))
        records = run / "metrics.jsonl"
        before = records.stat().st_size if records.exists() else 0
        while process.poll() is None and (not records.exists() or records.stat().st_size == before):
            time.sleep(0.01)
        try:
            process.wait(rng.uniform(0, 1.2 * seconds / KILLS))
            raise SystemExit(f"the run ended by itself, with status {process.returncode}, after {len(steps)} kills")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        steps.append(check_checkpoints(run))
        print(f"kill {len(steps)} at checkpoint {steps[-1]}", flush=True)
        words = ["train", "--resume", "--out", run, "--checkpoint-every", "5 steps", "--quiet"]
    subprocess.run(rivals(*words), check=True)
    return steps


def full_disk(home: Path) -> dict[str, object]:
    """Fill a tmpfs under a run, check the message, free space and resume."""
    disk = home / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=26M", "tmpfs", str(disk)]):
        return {"skipped": "mounting a tmpfs needs root"}
    try:
        run = disk / "run"
        done = subprocess.run(rivals("train", "mnist5k", *GAME, "--out", run), capture_output=True, text=True)
        step = check_checkpoints(run)
        subprocess.run(["mount", "-o", "remount,size=300M", str(disk)], check=True)
        subprocess.run(rivals("train", "--resume", "--out", run, "--quiet"), check=True)
        return {
            "status": done.returncode,
            "message": done.stderr.strip().replace(str(disk), "DISK"),
            "lines": len(done.stderr.strip().splitlines()),
            "newest_readable_checkpoint": step,
            "generator": (run / "generator.safetensors").read_bytes(),
        }
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    """Both parts against one uninterrupted run."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        subprocess.run(rivals("train", "mnist5k", *GAME, "--out", home / "whole"), check=True)
        whole = (home / "whole" / "generator.safetensors").read_bytes()
        steps = killed(home, Run.open(home / "whole").info["seconds"])
        same = (home / "killed" / "generator.safetensors").read_bytes() == whole
        filled = full_disk(home)
        if "generator" in filled:
            filled["same_bytes_after_freeing_space"] = filled.pop("generator") == whole
        record(
            "resume",
            description="recipe quick on mnist5k, 600 steps of batch 16, killed at random moments",
            config=Run.open(home / "whole").info["config"],
            kills=len(steps),
            newest_checkpoint_at_each_kill=steps,
            unreadable_checkpoints=0,
            same_bytes=same,
            full_disk=filled,
        )
        if not same or not filled.get("same_bytes_after_freeing_space", True):
            raise SystemExit("the bytes differ")


if __name__ == "__main__":
    main()
