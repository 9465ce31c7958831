"""Runs on 1, 2 and 4 processes: the same bytes, killed or not; how fast they are.

Everything runs as a user runs it, by ``torchrun`` over gloo with one thread a process. ``python -m benchmarks.processes
PART ...`` runs some of: bytes (5 minutes), kills (8), speed (20, on two quiet cores); what was not run is kept.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import in_turn, paired_ratio, record, recorded

HOME = Path("runs/benchmark-processes")
TRAIN = ("train", "cifar10", "--batch-size", "16", "--latent-dim", "16", "--sample-grid", "9", "--quiet")
HARDEN = ("harden", "mnist5k", "--widths", "8", "16", "--batch-size", "16", "--quiet")
SMALL = ("--generator-widths", "32", "16", "16", "16", "--discriminator-widths", "16", "16", "16", "32")
CASES = {
    "r3": (*TRAIN, "--recipe", "r3", *SMALL),
    "dcgan, flips": (*TRAIN, "--recipe", "dcgan", "--flip"),
    "sngan, conditional, ADA": (
        *(*TRAIN, "--recipe", "sngan", *SMALL, "--discriminator-turns", "2"),
        *("--conditional", "--augment", "ada", "--augment-target", "0.6"),
    ),
    "quick, LeCam": (*TRAIN, "--recipe", "quick", "--lecam", "0.1"),
    "harden, pgd": (*HARDEN, "--method", "pgd", "--steps", "3"),
    "harden, trades, AWP": (*HARDEN, "--method", "trades", "--steps", "3", "--awp", "0.005"),
    "harden, free": (*HARDEN, "--method", "free"),
}
PARTS = ("bytes", "kills", "speed")
MICRO_BATCHES, STEPS, KILLS = 4, 24, 2
SPEED_STEPS, FIRST_STEPS, ROUNDS = 30, 10, 5
CLASSIFY = ("classify", "mnist5k", "--until", "100 steps", "--quiet")
# Most images stay robust, so that each costs the same; the chunks, of 32 images, are many.
ATTACK = ("attack", str(HOME / "classifier"), "mnist5k", "--attack", "pgd(steps=50)", "--eps", "0.03")
ATTACK = (*ATTACK, "-n", "1000", "--batch-size", "8", "--no-alarms", "--save", "none", "--quiet")
SLOWER = 3  # one of two processes runs a third of the time
TARGETS = {"weak_scaling": 1.8, "micro_batches": 0.9, "attack_time": 0.6, "attack_time_uneven": 0.75}


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(words: tuple[str, ...], processes: int, out: Path) -> list[str]:
    """The words that start a run."""
    module = ("-m", "rivals", *words, "--out", str(out))
    if processes == 1:
        return [sys.executable, *module]
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return [sys.executable, *launch, *module]


def run(words: tuple[str, ...], processes: int, out: Path) -> None:
    """Run to the end."""
    subprocess.run(command(words, processes, out), check=True, env=ENVIRONMENT, capture_output=True)


def network(out: Path) -> bytes:
    """The bytes of the trained network."""
    return next(out.glob("*.safetensors")).read_bytes()


def whole(name: str, processes: int) -> Path:
    """A run that nobody disturbs."""
    out = HOME / f"{name}-{processes}"
    if not out.exists():
        run((*CASES[name], "--micro-batches", str(MICRO_BATCHES), "--until", f"{STEPS} steps"), processes, out)
    return out


def same_bytes(name: str) -> dict[str, bool]:
    """Whether 2 and 4 processes end with the network of one."""
    for processes in (1, 2, 4):
        whole(name, processes)
    one = network(HOME / f"{name}-1")
    return {str(processes): network(HOME / f"{name}-{processes}") == one for processes in (2, 4)}


def killed(name: str, source: random.Random) -> dict[str, object]:
    """Killed at random moments, one process or all, and continued by another number of processes each time."""
    out = HOME / f"{name}-killed"
    words = (*CASES[name], "--micro-batches", str(MICRO_BATCHES), "--checkpoint-every", "2 steps")
    numbers = [source.choice((1, 2, 4)) for _ in range(KILLS)]
    kills = 0
    for turn, processes in enumerate(numbers):
        start = (*words, "--until", f"{STEPS} steps") if turn == 0 else (words[0], "--resume", "--quiet")
        running = subprocess.Popen(
            command(start, processes, out),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wanted = source.randrange(1, STEPS - 2)
        while running.poll() is None and last_step(out) < wanted:
            time.sleep(0.02)
        if running.poll() is None:
            kills += 1
            victims = children(running.pid) if processes > 1 else [running.pid]
            if victims and source.random() < 0.5:
                os.kill(source.choice(victims), signal.SIGKILL)  # one process: the others notice
            else:
                os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        with_children_gone(running.pid)
    run((words[0], "--resume", "--quiet"), source.choice((1, 2, 4)), out)
    return {"processes": numbers, "kills": kills, "same_bytes": network(out) == network(whole(name, 1))}


def last_step(out: Path) -> int:
    """The last step in the records."""
    log = out / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    return max(steps, default=-1)


def children(pid: int) -> list[int]:
    """The processes that ``torchrun`` started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in found.split()]


def with_children_gone(group: int) -> None:
    """Wait until no process of a session is left, so that the folder is free."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def images_per_second(words: tuple[str, ...], processes: int) -> float:
    """The median speed of the rounds of a run, the first ones left out."""
    out = HOME / "speed"
    shutil.rmtree(out, ignore_errors=True)
    run((*words, "--until", f"{SPEED_STEPS} steps"), processes, out)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [each for each in records if "loss/discriminator" in each]
    pairs = list(pairwise(steps[FIRST_STEPS:]))
    return median((b["images"] - a["images"]) / (b["seconds"] - a["seconds"]) for a, b in pairs)


def attack_seconds(processes: int, uneven: bool = False) -> float:
    """The time of an attack from its first image to its last.

    Args:
        processes: How many share it.
        uneven: Whether the last of them is ``SLOWER`` times slower than the others.
    """
    out = HOME / "attack"
    shutil.rmtree(out, ignore_errors=True)
    running = subprocess.Popen(
        command(ATTACK, processes, out), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if uneven:
        while running.poll() is None and "processes" not in info(out):  # which is written when all are ready
            time.sleep(0.01)
        slow_down(running, max(children(running.pid)))
    _, err = running.communicate()
    if running.returncode:
        raise SystemExit(err.decode())
    seconds: float = info(out)["seconds"]
    return seconds


def info(out: Path) -> dict[str, Any]:
    """``run.json``, or nothing before it is written."""
    path = out / "run.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def slow_down(running: subprocess.Popen[bytes], pid: int) -> None:
    """Let a process run a share of the time, in slices of 20 ms, until the command has ended."""
    while running.poll() is None:
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.02 * (SLOWER - 1))
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        time.sleep(0.02)


def speed() -> dict[str, object]:
    """Weak scaling, what micro-batches cost on one process, and the time of an attack on two."""
    # What `auto` takes for CIFAR-10 and half an hour, without its probe.
    words = ("train", "cifar10", "--recipe", "quick", "--quiet", "--precision", "fp32", "--batch-size")
    training = {
        "1 process, 64 images": lambda: images_per_second((*words, "64"), 1),
        "2 processes, 128 images": lambda: images_per_second((*words, "128", "--micro-batches", "2"), 2),
        "1 process, 256 images": lambda: images_per_second((*words, "256"), 1),
        "1 process, 4 x 64 images": lambda: images_per_second((*words, "256", "--micro-batches", "4"), 1),
    }
    run(CLASSIFY, 1, HOME / "classifier")
    attacks = {
        "1 process": lambda: attack_seconds(1),
        "2 processes": lambda: attack_seconds(2),
        f"2 processes, one {SLOWER} times slower": lambda: attack_seconds(2, uneven=True),
    }
    values = in_turn(training, ROUNDS)
    one, two, complete, parts = values.values()
    seconds = in_turn(attacks, ROUNDS)
    alone, shared, uneven = seconds.values()
    found = {
        "weak_scaling": paired_ratio(two, one),
        "micro_batches": paired_ratio(parts, complete),
        "attack_time": paired_ratio(shared, alone),
        "attack_time_uneven": paired_ratio(uneven, alone),
    }
    more_is_better = ("weak_scaling", "micro_batches")
    met = {
        name: value >= TARGETS[name] if name in more_is_better else value <= TARGETS[name]
        for name, value in found.items()
    }
    return {"images_per_second": values, "attack_seconds": seconds, **found, "targets": TARGETS, "met": met}


def main() -> None:
    """Run what was named, or all."""
    parts = sys.argv[1:] or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    shutil.rmtree(HOME, ignore_errors=True)
    facts = {key: recorded("processes", key) for key in PARTS}
    source = random.Random(0)
    for name in CASES:
        if "bytes" in parts:
            facts["bytes"][name] = same_bytes(name)
            print(name, facts["bytes"][name], flush=True)
        if "kills" in parts:
            facts["kills"][name] = killed(name, source)
            print(name, facts["kills"][name], flush=True)
    if "speed" in parts:
        facts["speed"] = speed()
        print(facts["speed"], flush=True)
    record("processes", micro_batches=MICRO_BATCHES, steps=STEPS, **facts)


if __name__ == "__main__":
    main()
