"""Command lines with one odd word: the value of any flag of any command, or a name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

from benchmarks.faults import mutators
from benchmarks.faults.judge import Case
from benchmarks.faults.world import CLASSIFIER, GAN, World

HERE = "{}"  # stands for the world's folder
CLASSIFIED = (f"{HERE}/classifier", f"{HERE}/photos", "-n", "2", "--quiet", "--out", "out")
COMMANDS: dict[str, tuple[str, ...]] = {
    "data pack": (f"{HERE}/photos", "out.zip"),
    "data ls": (),
    "sample": (f"{HERE}/gan", "-n", "2", "--grid", "out.png"),
    "explore": (f"{HERE}/gan", "directions", "-n", "1", "--count", "1", "--out", "out"),
    "export": (f"{HERE}/gan", "--format", "safetensors", "--out", "out.safetensors"),
    "push": (f"{HERE}/gan", "./out"),
    "pull": (f"{HERE}/gan", "--out", "out"),
    "report": (f"{HERE}/attacked", "--out", "out.html"),
    "completion": ("bash",),
    "attack": (*CLASSIFIED, "--attack", "fgsm", "--no-alarms", "--save", "none"),
    "certify": (*CLASSIFIED, "--samples", "10", "--guesses", "2", "--no-upper"),
    "score": (
        *(f"{HERE}/photos", f"{HERE}/photos", "--extractor", f"classifier:{HERE}/classifier", "--metrics", "fd"),
        *("-n", "4", "--out", "out", "--quiet"),
    ),
    "train": (f"{HERE}/photos", "--out", "out", *GAN),
    "classify": (f"{HERE}/photos", "--out", "out", *CLASSIFIER),
    "harden": (f"{HERE}/photos", "--out", "out", "--eps", "8/255", "--steps", "1", *CLASSIFIER),
}
NEVER = ("--resume", "--json", "--compiled", "--compile")  # --compile takes a minute, rightly
VALUES = (
    *mutators.TEXTS,
    *mutators.NUMBERS,
    *("abc", "meta", "cuda:99", "x.jpg.exe", "~nobody-here/x", "/", ".", "a/b/c", "-5", "1e-3", "8/255", "1/0", "+1"),
    *("1 steps", "1e99 epochs", "-1 images", "0 minutes", "cats", "1,2", ",", "=", "pgd(steps=-1)", "pgd(", "fgsm,"),
    *(str(2**31 - 1), str(2**40), "1" * 50, "True", "None", "[]", "['x']", "{}", "0.1->0", "->", "1->2->3"),
)


def command_line(rng: Random, world: World, home: Path) -> Case:
    """A command with an odd value of a flag, an odd name, or words that are missing or too many."""
    name = rng.choice(list(COMMANDS))
    words = [word.replace(HERE, str(world.home)) for word in COMMANDS[name]]
    value = rng.choice(VALUES).replace("\0", "")  # which no argument of a process can hold
    choice = rng.random()
    if choice < 0.75:
        flag = rng.choice(_flags(name))
        words += [f"{flag}={value}"] if rng.random() < 0.3 else [flag, value]
    elif choice < 0.9 and words:
        words[rng.randrange(len(words))] = value
    elif choice < 0.95 and words:
        del words[rng.randrange(len(words))]
    else:
        words.insert(rng.randrange(len(words) + 1), value)
    shown = " ".join(word if len(word) < 80 else f"{word[:40]}..." for word in (*name.split(), *words))
    return Case(f"{shown!r}".replace(str(world.home), "WORLD"), (*name.split(), *words))


@cache
def _flags(name: str) -> list[str]:
    from rivals.cli import commands
    from rivals.cli.parsing import long_flags

    found = long_flags(commands.COMMANDS[name].flags([]))
    return [flag for flag in found if flag not in NEVER and not flag.startswith("--no-")]
