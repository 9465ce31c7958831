"""The commands: for each a line of help, and what its flags are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from rivals import api, recipes
from rivals.base.registry import Registry
from rivals.cli.completion import SHELLS
from rivals.cli.parsing import Flags, long_flags


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        summary: What it does, in one line.
        flags: Its flags. Takes its words, since ``--recipe`` decides which defaults the help shows.
        on_processes: Whether several processes, as ``torchrun`` starts them, can run it together.
    """

    summary: str
    flags: Callable[[Sequence[str]], Flags]
    on_processes: bool = False


def _plain(name: str) -> Callable[[Sequence[str]], Flags]:
    """The flags of a function of the api without options objects."""
    return lambda words: Flags(getattr(api, name))


def _recipe(words: Sequence[str], recipes: Mapping[str, Callable[[], Any]], default: str) -> Any:
    """The configuration whose values the help shows: that of ``--recipe``, or the default one's."""

    def named(recipe: str = default) -> str:
        return recipe

    try:
        name, _ = tyro.cli(named, args=list(words), return_unknown_args=True, add_help=False, console_outputs=False)
    except SystemExit:  # without a value; the whole command line is about to be refused
        name = default
    return recipes[name]()


GAMES = {"--against": "advgan", "--invert": "encoder"}  # the recipe of a flag that names the other player


def _train(words: Sequence[str]) -> Flags:
    named = {word.partition("=")[0] for word in words}
    default = next((name for flag, name in GAMES.items() if flag in named), recipes.DEFAULT)
    config = _recipe(words, recipes.RECIPES, default)
    return Flags(api.train, {"recipe": config, "data": recipes.DataOptions(), "run": recipes.GanRunOptions()})


def _classify(words: Sequence[str]) -> Flags:
    config = _recipe(words, recipes.CLASSIFIERS, "cnn")
    return Flags(api.classify, {"recipe": config, "data": recipes.DataOptions(), "run": recipes.RunOptions()})


def _harden(words: Sequence[str]) -> Flags:
    config = _recipe(words, recipes.HARDENING, "cnn")
    options = {"recipe": config, "data": recipes.DataOptions(), "run": recipes.RunOptions()}
    return Flags(api.harden, options, hidden=["ball"])  # written --norm and --eps, which are settings


def _translate(words: Sequence[str]) -> Flags:
    options = {"translator": recipes.TranslateConfig(), "apply": recipes.ApplyConfig(), "data": recipes.DataOptions()}
    return Flags(api.translate, {**options, "run": recipes.TranslateRunOptions()})


def _studio(words: Sequence[str]) -> Flags:
    from rivals.studio import server

    return Flags(server.studio)


def completion(shell: str) -> str:
    """Print a script that completes commands and flags in a shell.

    Args:
        shell: bash, zsh or fish.
    """
    flags: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():  # of two words, the second is completed like a flag
        first, *second = name.split()
        known = flags.setdefault(first, [])
        known += [word for word in (*second, *long_flags(command.flags([]))) if word not in known]
    return SHELLS[shell](flags).rstrip()


COMMANDS: Registry[Command] = Registry(
    "command",
    {
        "demo": Command(
            "generate digits, then attack and harden a classifier, in minutes on this machine", _plain("demo")
        ),
        "train": Command("train a generator against a discriminator", _train, on_processes=True),
        "classify": Command("train a classifier, to be attacked or hardened", _classify, on_processes=True),
        "attack": Command(
            "attack a classifier and report its robust accuracy",
            lambda words: Flags(api.attack, {"attack": recipes.AttackConfig(), "data": recipes.DataOptions()}),
            on_processes=True,
        ),
        "certify": Command(
            "certify a classifier by bounds or randomized smoothing, or prove a property",
            lambda words: Flags(
                api.certify, {"certify": recipes.CertifyConfig(), "data": recipes.DataOptions()}, hidden=["ball"]
            ),
            on_processes=True,
        ),
        "harden": Command("train a classifier adversarially", _harden, on_processes=True),
        "translate": Command("learn to enlarge images or to translate A to B; or do it", _translate, on_processes=True),
        "sample": Command(
            "generate images with a trained generator",
            lambda words: Flags(api.sample, {"sample": recipes.SampleConfig()}),
            on_processes=True,
        ),
        "explore": Command(
            "interpolate in latent space, find directions, invert images",
            lambda words: Flags(api.explore, {"explore": recipes.ExploreConfig()}),
        ),
        "score": Command(
            "measure how close generated images are to real ones, or a GAN to its equilibrium",
            lambda words: Flags(api.score, {"score": recipes.ScoreConfig(), "data": recipes.DataOptions()}),
            on_processes=True,
        ),
        "score --equilibrium": Command(
            "measure how far a GAN is from its equilibrium",
            lambda words: Flags(
                api.equilibrium, {"equilibrium": recipes.EquilibriumConfig(), "real": recipes.DataOptions()}
            ),
        ),
        "export": Command("export a network to ONNX or safetensors, checked against the original", _plain("export")),
        "push": Command("share a network on the Hugging Face Hub or in a folder", _plain("push")),
        "pull": Command("fetch a network that was shared", _plain("pull")),
        "studio": Command("open a web page to watch runs, explore generators and try attacks", _studio),
        "report": Command("write the HTML report of one run, or of several side by side", _plain("report")),
        "doctor": Command("check this machine: what is there, what is missing, what to install", _plain("doctor")),
        "completion": Command(
            "print a script that completes commands and flags in a shell", lambda words: Flags(completion)
        ),
        "data ls": Command("list the data sets that have a name, and where each was found", _plain("data_ls")),
        "data pack": Command(
            "pack a data set or images into a zip, or into tar shards",
            lambda words: Flags(api.data_pack, {"data": recipes.DataOptions()}),
        ),
        "data prune": Command("list the cache of decoded images, and remove what is old", _plain("data_prune")),
    },
)


def split_name(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of a command and the words after it. Some commands have a second word, such as ``data ls``."""
    first, rest = words[0], list(words[1:])
    for second in rest:
        if f"{first} {second}" in COMMANDS:
            rest.remove(second)
            return f"{first} {second}", rest
    if first not in COMMANDS and any(name.startswith(f"{first} ") for name in COMMANDS):
        return " ".join(words[:2]), rest
    return first, rest
