"""The command line: one verb a function of the api, its flags made from that function's signature."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from rivals import api, recipes
from rivals.base.errors import Interrupted, UserError
from rivals.base.registry import unknown
from rivals.base.schedules import Schedule
from rivals.reports.run import Run, foreign

VERBS = {
    "demo": "draw digits, then fool and harden a classifier, in minutes on this machine",
    "train": "train a generator against a discriminator",
    "classify": "train a classifier, to be attacked or hardened",
    "attack": "attack a classifier, and say how many images stand",
    "certify": "prove a radius within which a classifier keeps its answer under noise",
    "harden": "train a classifier against an attack that is solved afresh for every batch",
    "sample": "draw images with a trained generator",
    "explore": "walk through what a generator draws, find directions and the way back",
    "score": "measure how near generated images are to real ones",
    "export": "write a finished network for other programs, checked against itself",
    "push": "share a finished network, on the Hugging Face Hub or in a folder",
    "pull": "fetch a network that was shared",
    "studio": "open a page to watch runs and play with what they made",
    "report": "write the page that shows one run, or several side by side",
    "doctor": "say what this machine has, what is missing, and what to install",
    "completion": "print what makes a shell complete verbs and flags",
    "data": "list the data sets that have a name, or pack images into one zip",
}

C = TypeVar("C", recipes.Config, recipes.ClassifierConfig, recipes.HardenConfig)

_schedules = tyro.constructors.ConstructorRegistry()


@_schedules.primitive_rule
def _schedule_rule(info: Any) -> Any:
    """How tyro reads and shows a :class:`Schedule`."""
    if info.type is not Schedule:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER|SCHEDULE",
        instance_from_str=lambda words: Schedule.parse(words[0]),
        is_instance=lambda value: isinstance(value, Schedule),
        str_from_instance=lambda schedule: [str(schedule)],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit: 0 done, 2 the user can fix it, 130 interrupted after saving."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        sys.exit(_run(words))
    except UserError as error:
        print(f"rivals: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stopped:
        print(f"rivals: {stopped}", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("rivals: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a name too long, a folder that may not be read
        print(f"rivals: cannot use '{error.filename}': {error.strerror}: choose another path", file=sys.stderr)
        sys.exit(2)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from rivals import __version__

        print(f"rivals {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    as_json = "--json" in rest
    result = _COMMANDS[verb]([word for word in rest if word != "--json"])
    if as_json:
        print(json.dumps(result.as_dict() if hasattr(result, "as_dict") else result))
    else:
        _tell(result)
    return 0


def _overview() -> str:
    lines = [f"  {verb:<8} {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: rivals VERB ...",
            "",
            "Adversarial learning for PyTorch: two players, one game, one loop.",
            "",
            *lines,
            "",
            "Each verb explains itself: rivals VERB --help. All take --json: the result as one JSON object.",
        ]
    )


def _parse(function: Callable[..., Any], verb: str, words: list[str]) -> Any:
    """Call ``function`` with what the words say; whatever is wrong with them becomes one line."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [_plain(each) for each in signature.parameters.values()]

    def remember(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return lambda: function(*args, **kwargs)  # parsing is over before work begins

    remember.__doc__ = re.sub(r"^(\s+)\*+(\w+:)", r"\1\2", function.__doc__ or "", flags=re.MULTILINE)
    remember.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    remember.__annotations__ = {each.name: each.annotation for each in parameters}
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stderr(spoken):
            call = tyro.cli(remember, prog=f"rivals {verb}", args=words, registry=_schedules)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(spoken.getvalue(), verb)) from None
    return call()


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """How a parameter stands on the command line: positional or a flag, its value named as a user would."""
    kind: Any = parameter.annotation
    optional = parameter.default is None
    positional = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
    name = parameter.name.upper()
    if "Path" in str(kind):
        kind = Path | None if optional else Path
    if positional and parameter.kind is not parameter.VAR_POSITIONAL:
        kind = Annotated[kind, tyro.conf.arg(metavar=f"[{name}]" if optional else name)]
    elif optional:
        value = "PATH" if "Path" in str(kind) else "N" if "int" in str(kind) else "TEXT"
        kind = Annotated[kind, tyro.conf.arg(metavar=value)]
    elif len(parameter.name) == 1:
        kind = Annotated[kind, tyro.conf.arg(aliases=[f"-{parameter.name}"])]
    if positional:
        kind = Annotated[kind, tyro.conf.Positional]
    return parameter.replace(annotation=kind)


def _one_line(box: str, verb: str) -> str:
    """What tyro says in a box of lines, as one line: the first paragraph, and the flags it thinks were meant."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip("│|+╭╰╮╯ \n") for row in plain.splitlines()]
    ruled = [not row.strip("─- ") for row in rows]
    rule = next((i for i, empty in enumerate(ruled) if empty and i > 1), len(rows))
    flags = [found[0] for row in rows[rule:] if (found := re.match(r"--[a-z][\w-]*", row))]
    near = f"; did you mean {' or '.join(flags[:3])}?" if "Perhaps you meant" in plain or "similar to" in plain else ""
    said = " ".join(row for row, empty in zip(rows[1:rule], ruled[1:rule], strict=True) if not empty)
    return f"{said}{near}; see rivals {verb} --help"


def _tell(result: Any) -> None:
    """A result in plain lines on standard output: a list as a table, a mapping as its entries."""
    if isinstance(result, list):
        rows = [[_cell(value) for key, value in row.items() if key != "found"] for row in result]
        rows.insert(0, [key for key in result[0] if key != "found"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    elif isinstance(result, dict):
        width = max(map(len, result))
        for key, value in result.items():
            print(f"{key:<{width}}  {_cell(value)}")
    elif result is not None:
        print(result)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "; ".join(each["says"] if isinstance(each, dict) else str(each) for each in value) or "none"
    return str(value)


def _train(words: list[str]) -> Any:
    """``rivals train``."""
    base = _base_config("train", words, recipes.Config(), recipes.RECIPES, recipes.DEFAULT)
    return _configured(api.train, base, lambda settings: _flagged(settings, words), words).result()


def _classify(words: list[str]) -> Any:
    """``rivals classify``."""
    base = _base_config("classify", words, recipes.ClassifierConfig(), recipes.CLASSIFIERS, "cnn")
    return _configured(api.classify, base, lambda settings: _flagged(settings, words), words).result()


def _harden(words: list[str]) -> Any:
    """``rivals harden``."""
    base = _base_config("harden", words, recipes.HardenConfig(), recipes.HARDENING, "cnn")
    if method := _named(words).get("--method"):
        base = base.changed(method=method)  # or the flags would meet what the recipe's own method was told
    return _configured(api.harden, base, lambda settings: _flagged(settings, words), words).result()


def _flagged(settings: Any, words: list[str]) -> dict[str, Any]:
    """The settings that have a flag among the words. Which recipe they change may depend on the data, so what differs
    from a recipe's values does not tell."""
    said = {word.partition("=")[0] for word in words if word.startswith("--")}
    flags = {word.removeprefix("--").removeprefix("no-").replace("-", "_") for word in said}
    fields = (field.name for field in dataclasses.fields(settings))
    return {name: getattr(settings, name) for name in fields if name in flags}


def _configured(verb: Callable[..., Any], base: C, said: Callable[[C], dict[str, Any]], words: list[str]) -> Any:
    """Call a verb of the api: its own flags and, with the values of ``base`` as defaults, those of a configuration."""

    def call(data: str | None, settings: Any, **options: Any) -> Any:
        return verb(data, **options, **said(settings))

    call.__doc__ = verb.__doc__
    signature = inspect.signature(verb, eval_str=True)
    # A ball is written --norm and --eps, which are settings.
    spoken = [each for name, each in signature.parameters.items() if name != "ball"]
    parameters = [each for each in spoken if each.kind is not each.VAR_KEYWORD]
    kind: Any = Annotated[type(base), tyro.conf.OmitArgPrefixes]
    parameters.append(inspect.Parameter("settings", inspect.Parameter.KEYWORD_ONLY, default=base, annotation=kind))
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return _parse(call, verb.__name__, words)


def _base_config(verb: str, words: list[str], plain: C, presets: Mapping[str, Callable[[], C]], default: str) -> C:
    """The configuration whose fields the flags change: the resumed run's, the named recipe's, or the default's."""
    named = _named(words)
    if "--resume" in words and "--out" in named:
        kept = Run.open(named["--out"]).about
        if kept.get("verb") == verb:
            return plain.changed(**kept["config"])
    return presets[named.get("--recipe", default)]()


def _named(words: list[str]) -> dict[str, str]:
    """What stands after each flag, in either way of writing it."""
    named = dict(pairwise(words))
    return named | {key: value for word in words for key, found, value in [word.partition("=")] if found}


def _attack(words: list[str]) -> Any:
    """``rivals attack``."""
    return _examined("attack", api.attack, words)


def _certify(words: list[str]) -> Any:
    """``rivals certify``."""
    return _examined("certify", api.certify, words)


def _examined(name: str, verb: Callable[..., Any], words: list[str]) -> Any:
    """Call a verb that examines a model; what a resumed run was told stands for what is left out."""
    named = _named(words)
    kept: dict[str, Any] = {}
    if "--resume" in words and "--out" in named:
        about = Run.open(named["--out"]).about
        if about.get("verb") != name:
            raise foreign(named["--out"], name)
        kept = about["config"]

    def call(*args: Any, **options: Any) -> Any:
        return verb(*args, **options)

    call.__doc__ = verb.__doc__
    signature = inspect.signature(verb, eval_str=True)
    parameters = []
    for each in signature.parameters.values():
        if each.name in kept:
            value = kept[each.name]
            each = each.replace(default=tuple(value) if isinstance(value, list) else value)
        # Only model and data have no flag.
        flagged = each.name not in ("model", "data")
        parameters.append(each.replace(kind=each.KEYWORD_ONLY) if flagged else each)
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return _parse(call, name, words)


def _demo(words: list[str]) -> Any:
    return _parse(api.demo, "demo", words).result()


def _by_name(verb: str) -> Callable[[list[str]], Any]:
    """A verb whose flags are all that its function takes."""
    return lambda words: _parse(getattr(api, verb), verb, words)


def _score(words: list[str]) -> Any:
    """``rivals score``: there images come by name only. With ``--equilibrium`` the game is measured, not the images."""
    if "--equilibrium" in words:
        return _parse(api.equilibrium, "score --equilibrium", [word for word in words if word != "--equilibrium"])

    def call(*args: Any, equilibrium: bool, **options: Any) -> Any:
        return api.score(*args, **options)

    call.__doc__ = api.score.__doc__
    signature = inspect.signature(api.score, eval_str=True)
    kinds: dict[str, Any] = {"subject": str, "data": str | None}
    parameters = [
        each.replace(annotation=kinds[name]) if name in kinds else each for name, each in signature.parameters.items()
    ]
    says = "Measure instead how far a run is from the draw, and who is ahead; with --help, its own flags."
    kind: Any = Annotated[bool, tyro.conf.arg(help=says), tyro.conf.FlagCreatePairsOff]
    parameters.append(inspect.Parameter("equilibrium", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind))
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return _parse(call, "score", words)


def _studio(words: list[str]) -> Any:
    from rivals.studio import serving

    return _parse(serving.studio, "studio", words)


def _completion(words: list[str]) -> Any:
    """``rivals completion SHELL``."""
    from rivals.completion import SHELLS

    if not words or words[0] in ("-h", "--help"):
        print(f"usage: rivals completion {'|'.join(SHELLS)}\n\nPrint what makes the shell complete verbs and flags.")
        return None
    write = SHELLS[words[0]]
    print(write({verb: _long_flags(verb) for verb in _COMMANDS}), end="")
    return None


def _long_flags(verb: str) -> list[str]:
    """Every long flag that a verb's help names at the head of a line, in its order."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        _COMMANDS[verb](["--help"])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", page.getvalue())
    heads = re.findall(r"^[\s│|]*(-[^\n]*)", plain, re.MULTILINE)
    flags = [flag for head in heads for flag in re.findall(r"--[a-z][a-z0-9-]*", head.split("  ")[0])]
    return list(dict.fromkeys([*flags, "--json"]))


def _report(words: list[str]) -> Any:
    return {"report": str(_parse(api.report, "report", words))}


def _data(words: list[str]) -> Any:
    """``rivals data ls`` and ``rivals data pack``."""
    parts: dict[str, Callable[..., Any]] = {"ls": api.data_ls, "pack": api.data_pack}
    if not words or words[0] in ("-h", "--help"):
        print("usage: rivals data ls | rivals data pack SRC DEST.zip [OPTIONS]\n")
        print("  ls    list the data sets that have a name: where each was found, or what to do to have it")
        print("  pack  pack a data set, a folder or a zip of images into one zip that any verb takes")
        return None
    if words[0] not in parts:
        raise unknown("verb of data", words[0], parts)
    return _parse(parts[words[0]], f"data {words[0]}", words[1:])


_COMMANDS: dict[str, Callable[[list[str]], Any]] = {
    "demo": _demo,
    "train": _train,
    "classify": _classify,
    "attack": _attack,
    "certify": _certify,
    "harden": _harden,
    "sample": _by_name("sample"),
    "explore": _by_name("explore"),
    "export": _by_name("export"),
    "push": _by_name("push"),
    "pull": _by_name("pull"),
    "score": _score,
    "studio": _studio,
    "report": _report,
    "data": _data,
    "doctor": _by_name("doctor"),
    "completion": _completion,
}
