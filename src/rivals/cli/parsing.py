"""From the words of the command line to the arguments of a function.

The flags of a command are made from the signature of the function behind it and from the fields of its options objects:
names, types, defaults and descriptions. So the command line and Python cannot disagree.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import re
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.run_folder import Resume
from rivals.base.schedules import Schedule
from rivals.base.size import Size
from rivals.cli.config_file import read_config
from rivals.cli.numbers import number_rule
from rivals.recipes.base import Settings

registry = tyro.constructors.ConstructorRegistry()


@registry.primitive_rule
def _schedule_rule(info: Any) -> Any:
    """How tyro reads and shows a :class:`Schedule`, or None where it is left to the command."""
    if info.type not in (Schedule, Schedule | None):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER|SCHEDULE",
        instance_from_str=lambda words: None if words == ["None"] else Schedule.parse(words[0]),
        is_instance=lambda value: value is None or isinstance(value, Schedule),
        str_from_instance=lambda schedule: [str(schedule)],
    )


@registry.primitive_rule
def _size_rule(info: Any) -> Any:
    """How tyro reads and shows a :class:`Size`."""
    if info.type != Size | None:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|WIDTHxHEIGHT",
        instance_from_str=lambda words: None if words == ["None"] else Size.parse(words[0]),
        is_instance=lambda value: value is None or isinstance(value, Size),
        str_from_instance=lambda size: [str(size)],
    )


@registry.primitive_rule
def _resume_rule(info: Any) -> Any:
    """How tyro reads ``--resume`` and ``--resume auto``; the commands refuse other words."""
    if info.type != Resume:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[auto]",
        instance_from_str=lambda words: words[0] if words else True,
        is_instance=lambda value: value in (True, False, "auto"),
        str_from_instance=lambda value: [] if value is True else [str(value)],
    )


@dataclass(frozen=True)
class Flags:
    """What the flags of a command are made from.

    Attributes:
        function: What a user calls in Python. Its keyword-only parameters are flags, its others are positional.
        options: Options objects by the title of their group in the help. Their fields are flags, which reach the
            function as keyword arguments; their values are the defaults that the help shows.
        hidden: Parameters of the function that the command line does not have.
    """

    function: Callable[..., Any]
    options: Mapping[str, Settings] = dataclasses.field(default_factory=dict)
    hidden: Sequence[str] = ()


@dataclass(frozen=True)
class RunFlags:
    """Flags of every command."""

    config: Path | None = None
    """Take settings from this TOML or JSON file, or from a run.json; flags take precedence."""
    cache: Path | None = None
    """Keep decoded images in this folder; by default RIVALS_CACHE, or ~/.cache/rivals."""
    json: bool = False
    """Print the result as one JSON object."""


@dataclass(frozen=True)
class Call:
    """A command ready to run: a function, its arguments, where images are cached, how to print what it returns."""

    function: Callable[..., Any]
    arguments: Sequence[Any]
    settings: Mapping[str, Any]
    cache: Path | None
    as_json: bool


def parse(flags: Flags, command: str, words: Sequence[str]) -> Call:
    """The call that the words of a command line make.

    Only what the words or the file of ``--config`` set is handed to the function: what they leave out is its own
    default, the recipe's or, in a resumed run, what the run was started with.

    Raises:
        UserError: the words or the file name no such setting, or a value has the wrong type; in one line.
        SystemExit: the help was printed.
    """
    words = _resume_last(words)
    for word in words:
        _check_text(word, "a word of the command line")
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            raise UserError(f"the word '{word}' is empty, as a shell variable may be: give a value, or leave it out")
    arguments, values = _parse_once(flags, command, words, variant=0)
    _, others = _parse_once(flags, command, words, variant=1)
    # A flag was set if and only if its value does not depend on the default, and a repeatable one is not empty.
    given = {name: value for name, value in values.items() if same(value, others[name]) and value != ()}
    as_json, config = given.pop("json", False), given.pop("config", None)
    if config is not None:
        settings = read_config(config, [name for name in values if name not in ("json", "config")])
        _check_types(flags, settings, config)
        for name, value in settings.items():
            _check_text(value, f"{name} in '{config}'")
        given = settings | given
    cache = given.pop("cache", None)
    if not isinstance(cache, Path | str | None):
        raise UserError(f"cache {cache!r} in '{config}' is of the wrong type: give the path of a folder")
    return Call(flags.function, arguments, given, None if cache is None else expand_user(cache), as_json)


def _resume_last(words: Sequence[str]) -> list[str]:
    """The words with ``--resume`` or ``--resume auto`` at the end: a flag whose value may be missing takes any word."""
    if "--resume" not in words:
        return list(words)
    at = words.index("--resume")
    end = at + 1 + (list(words[at + 1 : at + 2]) == ["auto"])
    return [*words[:at], *words[end:], *words[at:end]]


def _check_text(value: Any, what: str) -> None:
    """Refuse text that no file can be called and no other program writes; bytes that are not UTF-8 can be names."""
    if isinstance(value, str):
        try:
            valid = b"\0" not in value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            valid = False
        if not valid:
            raise UserError(
                f"{what}, '{value[:40]}', is not text: write it without lone surrogates and null characters"
            )


def _check_types(flags: Flags, settings: Mapping[str, Any], config: Path) -> None:
    """Refuse a value of a file that a parameter of the function cannot take; options objects check their own."""
    kinds = {each.name: each.annotation for each in _parameters(flags)}
    for name in settings.keys() & kinds.keys():
        if kinds[name] == tuple[str, ...]:
            if not isinstance(settings[name], list) or not all(isinstance(each, str) for each in settings[name]):
                raise UserError(f"{name} {settings[name]!r} in '{config}' is of the wrong type: give a list of texts")
            continue
        value, wanted = settings[name], dict[str, bool]()  # what may be given, and whether it is
        for part in _parts(kinds[name]):
            if get_origin(part) is Literal:
                wanted |= {repr(word): same(value, word) for word in get_args(part)}
            elif part in _WRITTEN:
                wanted[_WRITTEN[part][-1].__name__] = type(value) in _WRITTEN[part]
        if wanted and not any(wanted.values()):
            raise UserError(f"{name} {value!r} in '{config}' is of the wrong type: give {' or '.join(wanted)}")


_WRITTEN: dict[Any, tuple[type, ...]] = {  # the types of a file that a parameter of a type takes
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    Path: (str,),
}


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same type."""
    return type(one) is type(other) and bool(one == other)


def long_flags(flags: Flags) -> list[str]:
    """Every long flag of a command, in the order of its help."""
    found: list[str] = []
    for name, kind in _flag_types(flags).items():
        flag = name.replace("_", "-")
        found += [f"--{flag}", f"--no-{flag}"] if kind is bool else [f"--{flag}"]
    return found


def _flag_types(flags: Flags) -> dict[str, Any]:
    parameters = [each for each in _parameters(flags) if each.kind is each.KEYWORD_ONLY]
    hints = {each.name: each.annotation for each in parameters}
    for options in (*flags.options.values(), RunFlags()):
        hints |= get_type_hints(type(options))
    return hints


def _parameters(flags: Flags) -> list[inspect.Parameter]:
    signature = inspect.signature(flags.function, eval_str=True)
    fields = {field.name for options in flags.options.values() for field in dataclasses.fields(options)}
    shown = [each for each in signature.parameters.values() if each.name not in (*flags.hidden, *fields)]
    return [each for each in shown if each.kind is not each.VAR_KEYWORD]


def _parse_once(flags: Flags, command: str, words: Sequence[str], variant: int) -> tuple[Sequence[Any], dict[str, Any]]:
    """Arguments of any number, and the value of every other; ``variant`` 1 parses with other defaults than the true."""
    objects: dict[str, Any] = {**flags.options, "common": RunFlags()}
    groups = {f"_{title}": _group(title, options, variant) for title, options in objects.items()}
    own = [_own_flag(each, variant) for each in _parameters(flags)]
    parameters = own + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in groups.items()
    ]

    def collect(*args: Any, **kwargs: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        options = [kwargs.pop(name) for name in groups]
        return args, kwargs | {key: value for each in options for key, value in vars(each).items()}

    collect.__doc__ = re.sub(r"^(\s+)\*+(\w+:)", r"\1\2", flags.function.__doc__ or "", flags=re.MULTILINE)
    collect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    collect.__annotations__ = {each.name: each.annotation for each in parameters}
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stderr(spoken):
            return tyro.cli(collect, prog=f"rivals {command}", args=list(words), registry=registry)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(spoken.getvalue(), command)) from None


def _own_flag(parameter: inspect.Parameter, variant: int) -> inspect.Parameter:
    """A parameter of the function as tyro takes it."""
    kind, default = parameter.annotation, parameter.default
    if parameter.kind is parameter.VAR_POSITIONAL:
        return parameter.replace(annotation=Annotated[str, tyro.conf.Positional])
    if parameter.kind is not parameter.KEYWORD_ONLY:
        name = parameter.name.upper()
        if isinstance(default, Path):
            kind = Path
        elif get_origin(kind) is not Literal:
            kind = str if default is parameter.empty else str | None
        shown = tyro.conf.arg(metavar=name if default is parameter.empty else f"[{name}]")
        return parameter.replace(
            annotation=Annotated[kind, shown, tyro.conf.Positional],
            default=default if variant == 0 or default is parameter.empty else _other(kind, default),
        )
    if Path in get_args(kind):
        kind = Path | None if default is None else Path
    if kind == tuple[str, ...]:
        shown = Annotated[kind, tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TEXT")]
        return parameter.replace(annotation=shown)  # given values are added to the default, which is empty
    return parameter.replace(
        annotation=_shown_type(parameter.name, kind), default=default if variant == 0 else _other(kind, default)
    )


@functools.cache
def _group(title: str, options: Any, variant: int) -> tuple[Any, Any]:
    """A dataclass with the flags of an options object, and its default.

    The values are checked when the options object is made from file, flags and recipe together: not here.
    """
    hints = get_type_hints(type(options))
    docs = field_docs(type(options))  # type: ignore[arg-type]  # mypy takes no class for hashable
    fields = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        value = value if variant == 0 else _other(hints[field.name], value)
        kind = _shown_type(field.name, hints[field.name], docs.get(field.name, ""))
        fields.append((field.name, kind, dataclasses.field(default=value)))
    made = dataclasses.make_dataclass(type(options).__name__, fields, frozen=True)
    made.__doc__ = (type(options).__doc__ or "").split("\n\n")[0]
    return Annotated[made, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name=title)], made()


def _shown_type(name: str, kind: Any, help_text: str | None = None) -> Any:
    """A type with the name that the help gives to its values, and ``-n`` for ``n``."""
    chosen = [each for each in get_args(kind) if each is not types.NoneType]
    metavar = None
    if get_origin(kind) in (Union, types.UnionType) and len(chosen) == 1:
        metavar = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}.get(chosen[0])
    aliases = [f"-{name}"] if len(name) == 1 else None
    shown = tyro.conf.arg(help=help_text, metavar=metavar, aliases=aliases)
    rule = number_rule(name, kind)
    return Annotated[kind, shown] if rule is None else Annotated[kind, shown, rule]


_SAMPLES: dict[Any, tuple[Any, Any]] = {
    bool: (False, True),
    int: (0, 1),
    float: (0.0, 1.0),
    str: ("a", "b"),
    Path: (Path("a"), Path("b")),
    Schedule: (Schedule(0.0, 0.0), Schedule(1.0, 1.0)),
    Size: (Size(1, 1), Size(2, 2)),
    tuple[int, ...]: ((1,), (2,)),
    tuple[float, ...]: ((1.0,), (2.0,)),
}


def _parts(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _other(kind: Any, value: Any) -> Any:
    """Some value of a type that differs from ``value``."""
    choices = [
        each
        for one in _parts(kind)
        for each in (get_args(one) if get_origin(one) is Literal else _SAMPLES.get(one, ()))
    ]
    return next(each for each in choices if each != value)


@functools.cache
def field_docs(kind: type[Any]) -> dict[str, str]:
    """The docstring below each field of a dataclass and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                docs[field.target.id] = inspect.cleandoc(str(text.value.value)).replace("\n", " ")
    return docs


def _one_line(box: str, command: str) -> str:
    """What tyro prints in a box of lines, as one line: the first paragraph, and the flags it suggests."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip("│|+╭╰╮╯ \n") for row in plain.splitlines()]
    ruled = [not row.strip("─- ") for row in rows]
    rule = next((i for i, empty in enumerate(ruled) if empty and i > 1), len(rows))
    flags = [found[0] for row in rows[rule:] if (found := re.match(r"--[a-z][\w-]*", row))]
    near = f"; did you mean {' or '.join(flags[:3])}?" if "Perhaps you meant" in plain or "similar to" in plain else ""
    message = " ".join(row for row, empty in zip(rows[1:rule], ruled[1:rule], strict=True) if not empty)
    return f"{message}{near}; see rivals {command} --help"
