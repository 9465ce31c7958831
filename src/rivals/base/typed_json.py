"""JSON that others may have written, parsed once into values of a declared type.

A ``TypedDict`` declares what a file must hold; :func:`read_json` and :func:`parse_json` return a value of that type, or
say in one line which field is wrong. After that no code needs to distrust the value::

    class Description(TypedDict):
        name: str
        size: Annotated[int, Between(1, 4096)]
        classes: NotRequired[list[str] | None]

    description = read_json(path, Description, fix="copy the file anew")

Declared types are ``str``, ``bool``, ``int``, ``float``, ``None``, ``Literal``, ``list[T]``, ``tuple[T, U]`` and
``tuple[T, ...]`` for lists, ``dict[str, T]``, ``TypedDict``, unions, ``Annotated[T, Between(low, high)]``, and ``Any``.
A ``float`` may be written as an integer, and may be NaN or infinite unless it has bounds. Keys that are not declared
are kept as they are. Whatever the type, nothing in the result is nested deeper than ``MAX_DEPTH``, no integer is beyond
64 bits, and all text can be written as UTF-8 and has no null characters.
"""

from __future__ import annotations

import contextlib
import json
import stat
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from rivals.base.errors import UserError

T = TypeVar("T")
Check = Callable[[Any], None]

MAX_DEPTH = 40
MAX_BYTES = 64_000_000
MAX_SHOWN = 40  # characters of a wrong value in a message


@dataclass(frozen=True)
class Between:
    """Inclusive bounds of a number, which NaN is never within; given by ``Annotated``."""

    low: float
    high: float


def read_json(path: Path, schema: type[T], fix: str, *, max_bytes: int = MAX_BYTES) -> T:
    """The content of a JSON file as a value of the type ``schema``.

    Args:
        path: The file.
        schema: Usually a ``TypedDict``.
        fix: What to do about an invalid file: the end of the message.
        max_bytes: A larger file is refused before it is read.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, or is not of this type.
    """
    return parse_json(read_small_file(path, max_bytes), schema, f"'{path}'", fix)


def parse_json(content: bytes | str, schema: type[T], what: str, fix: str) -> T:
    """Some JSON as a value of the type ``schema``.

    Args:
        content: The text, or its bytes in UTF-8.
        schema: Usually a ``TypedDict``.
        what: The name of the content, as messages give it.
        fix: What to do about it: the end of the message.

    Raises:
        UserError: it is not JSON, or not of this type.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = json.loads(text)
        _check_any(value)
        check: Check = _check_for(schema)  # type: ignore[arg-type]  # a type, or one such as dict[str, int]
        check(value)
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is invalid: byte {error.start} is not UTF-8: {fix}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{what} is invalid: no JSON at line {error.lineno}, column {error.colno}: {fix}") from None
    except RecursionError:
        raise UserError(f"{what} is invalid: it is nested too deep: {fix}") from None
    except _WrongValue as wrong:
        raise UserError(f"{what} is invalid: {wrong}: {fix}") from None
    except ValueError:  # the one that json.loads has left: too many digits
        raise UserError(f"{what} is invalid: it has a number of thousands of digits: {fix}") from None
    typed: T = value
    return typed


def conforms(value: Any, schema: Any) -> bool:
    """Whether a value that was parsed already is of the type ``schema`` too."""
    try:
        _check_for(schema)(value)
    except _WrongValue:
        return False
    return True


def what_cannot_be_read_back(value: Any) -> str | None:
    """Where plain values hold what :func:`read_json` refuses in any file, and what it is; None if nothing."""
    try:
        _check_any(value)
    except _WrongValue as wrong:
        return str(wrong)
    return None


def read_small_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file that is not too large; a FIFO or a device is never opened.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is something else, too large, or cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"'{path}' is not a file: remove it, or name another")
        if found.st_size > max_bytes:
            raise UserError(f"'{path}' has {found.st_size:,} bytes, more than the {max_bytes:,} that are read")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}: check the path and its permissions") from None


class _WrongValue(Exception):
    """A value that is not of the declared type, and the place where it is: keys and indices from the top."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.place: list[str | int] = []

    def __str__(self) -> str:
        place = "".join(f"[{key}]" if isinstance(key, int) else f".{_escape(key)}" for key in reversed(self.place))
        return f"{place.removeprefix('.') or 'the content'} {self.problem}"


def _check_any(value: Any, depth: int = 0) -> None:
    """Refuse what no part of any file needs: deep nesting, huge integers, lone surrogates."""
    kind = type(value)
    if kind is float:
        return
    if kind is int:
        if not -(2**63) <= value < 2**64:
            raise _WrongValue("is an integer beyond 64 bits")
    elif kind is str:
        _check_text(value)
    elif kind is dict or kind is list:
        if depth >= MAX_DEPTH:
            raise _WrongValue("is nested too deep")
        if kind is dict:
            for key in value:
                _check_text(key)
        for key, entry in value.items() if kind is dict else enumerate(value):
            try:
                _check_any(entry, depth + 1)
            except _WrongValue as wrong:
                wrong.place.append(key)
                raise


def _check_text(text: str) -> None:
    if "\0" in text:  # which no path may have
        raise _WrongValue("has text with a null character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _WrongValue("has text that is not Unicode") from None


@lru_cache(maxsize=256)
def _check_for(schema: Any) -> Check:
    """What raises :class:`_WrongValue` for a value that is not of the type ``schema``."""
    origin, args = get_origin(schema), get_args(schema)
    if schema is Any:
        return lambda value: None
    if origin is Annotated:
        return _check_bounds(_check_for(args[0]), args[1:])
    if origin in (Union, types.UnionType):
        return _check_union(args)
    if origin is Literal:
        allowed = [(type(each), each) for each in args]  # true is not 1
        return _check_that(lambda value: (type(value), value) in allowed, " or ".join(map(json.dumps, args)))
    if is_typeddict(schema):
        return _check_fields(schema)
    if origin is list or (origin is tuple and args[-1:] == (...,)):
        return _check_items(_check_for(args[0]))
    if origin is tuple:
        return _check_tuple([_check_for(each) for each in args])
    if origin is dict:
        return _check_values(_check_for(args[1]))
    expected = _NAMES[schema]
    kinds = (int, float) if schema is float else (schema,)
    return _check_that(lambda value: type(value) in kinds, expected)


_NAMES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
    None: "null",
}


def _check_that(is_right: Callable[[Any], bool], expected: str) -> Check:
    def check(value: Any) -> None:
        if not is_right(value):
            raise _WrongValue(f"is {_shown(value)}, not {expected}")

    return check


def _check_bounds(check_type: Check, bounds: tuple[Any, ...]) -> Check:
    (between,) = (each for each in bounds if isinstance(each, Between))

    def check(value: Any) -> None:
        check_type(value)
        if not between.low <= value <= between.high:
            raise _WrongValue(f"is {_shown(value)}, not within {between.low:,} and {between.high:,}")

    return check


def _check_union(args: tuple[Any, ...]) -> Check:
    kinds = [each for each in args if each is not type(None)]
    checks = [_check_for(each) for each in kinds]
    is_optional = len(checks) < len(args)
    check_value = checks[0] if len(checks) == 1 else _check_one_of(checks, " or ".join(map(_called, kinds)))

    def check(value: Any) -> None:
        if not (value is None and is_optional):
            check_value(value)

    return check


def _called(kind: Any) -> str:
    """What a type is called in a message."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(bare) is Literal:
        return " or ".join(map(_shown, get_args(bare)))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list"}
    return names.get(get_origin(bare) or bare, "an object")


def _check_one_of(checks: list[Check], kinds: str) -> Check:
    def check(value: Any) -> None:
        for each in checks:
            with contextlib.suppress(_WrongValue):
                each(value)
                return
        raise _WrongValue(f"is {_shown(value)}, not {kinds}")

    return check


def _check_fields(schema: Any) -> Check:
    checks: dict[str, Check] = {}
    required = set(schema.__required_keys__)
    for key, kind in get_type_hints(schema, include_extras=True).items():
        # __required_keys__ does not see markers in annotations that are kept as text.
        if get_origin(kind) is NotRequired:
            required.discard(key)
        elif get_origin(kind) is Required:
            required.add(key)
        if get_origin(kind) in (NotRequired, Required):
            (kind,) = get_args(kind)
        checks[key] = _check_for(kind)

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise _WrongValue(f"is {_shown(value)}, not an object")
        for key, check_field in checks.items():
            if key in value:
                _check_inside(value[key], key, check_field)
            elif key in required:
                raise _WrongValue(f"has no '{key}'")

    return check


def _check_items(check_item: Check) -> Check:
    def check(value: Any) -> None:
        if type(value) is not list:
            raise _WrongValue(f"is {_shown(value)}, not a list")
        for index, item in enumerate(value):
            _check_inside(item, index, check_item)

    return check


def _check_tuple(checks: list[Check]) -> Check:
    def check(value: Any) -> None:
        if type(value) is not list or len(value) != len(checks):
            raise _WrongValue(f"is {_shown(value)}, not a list of {len(checks)}")
        for index, (item, check_item) in enumerate(zip(value, checks, strict=True)):
            _check_inside(item, index, check_item)

    return check


def _check_values(check_value: Check) -> Check:
    def check(value: Any) -> None:
        if type(value) is not dict:
            raise _WrongValue(f"is {_shown(value)}, not an object")
        for key, entry in value.items():
            _check_inside(entry, key, check_value)

    return check


def _check_inside(value: Any, key: str | int, check: Check) -> None:
    try:
        check(value)
    except _WrongValue as wrong:
        wrong.place.append(key)
        raise


def _shown(value: Any) -> str:
    """A wrong value in a message, on one line and without control characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return _cut(json.dumps(value))


def _escape(key: str) -> str:
    return _cut(json.dumps(key)[1:-1])


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
