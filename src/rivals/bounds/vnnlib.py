"""Properties of networks in VNN-LIB (https://www.vnnlib.org), the format of the verification competition VNN-COMP."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError

Array = npt.NDArray[np.float64]

MOST_CHARACTERS = 100_000_000
MOST_VARIABLES = 1_000_000
MOST_CASES = 10_000
DEEPEST = 100  # nesting of parentheses

_TOKEN = re.compile(r"\s+|;[^\n]*|(?P<token>[()]|[^\s();]+)")
_VARIABLE = re.compile(r"([XY])_(\d{1,7})")


@dataclass(frozen=True)
class Case:
    """A way to violate a property: an input in a box whose output satisfies all inequalities.

    Attributes:
        lower: The smallest value of each input (n,).
        upper: The largest.
        coefficients: Of the outputs, one row for each inequality (r, m).
        limits: ``coefficients @ outputs <= limits`` (r,).
    """

    lower: Array
    upper: Array
    coefficients: Array
    limits: Array


@dataclass(frozen=True)
class Property:
    """A property: no input and output satisfy any of the cases.

    Attributes:
        inputs: Number of inputs, n.
        outputs: Number of outputs, m.
        cases: The cases.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]


Expression = str | list["Expression"]
Linear = tuple[dict[str, float], float]
"""Coefficients of variables, and a constant."""
Constraint = Linear
"""At most 0."""


def read_property(text: str) -> Property:
    """Parse a property: declarations of X_i and Y_j, and assertions of linear inequalities, ``and`` and ``or``.

    An inequality has input variables or output variables, not both; of input variables one, as the bound of a box.
    Strict inequalities are read as the others, which only makes a proof harder.

    Raises:
        UserError: it is something else, too large, or leaves an input without a bound.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"the property has more than {MOST_CHARACTERS:,} characters: split it")
    sizes = {"X": 0, "Y": 0}
    cases: list[list[Constraint]] = [[]]
    for statement in _statements(text):
        match statement:
            case ["declare-const", str(name), "Real"] if found := _VARIABLE.fullmatch(name):
                sizes[found[1]] = max(sizes[found[1]], int(found[2]) + 1)
            case ["assert", expression]:
                cases = _both(cases, _alternatives(expression))
            case _:
                raise _unreadable(statement)
    if max(sizes.values()) > MOST_VARIABLES or not min(sizes.values()):
        raise UserError(
            f"the property declares {sizes['X']:,} inputs and {sizes['Y']:,} outputs: it needs 1 to {MOST_VARIABLES:,}"
        )
    made = [_case(each, sizes["X"], sizes["Y"]) for each in cases]
    # No input is in a box whose lower bound is above its upper one.
    return Property(sizes["X"], sizes["Y"], tuple(case for case in made if bool((case.lower <= case.upper).all())))


def _statements(text: str) -> Iterator[Expression]:
    """The expressions of a file, one at a time."""
    open_lists: list[list[Expression]] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None
        at, token = match.end(), match["token"]
        if token is None:
            continue
        if token == "(":
            if len(open_lists) == DEEPEST:
                raise UserError(f"the property has more than {DEEPEST} parentheses inside each other: write it flatter")
            open_lists.append([])
            continue
        if not open_lists:
            raise _unreadable(token)
        done: Expression = open_lists.pop() if token == ")" else token
        if open_lists:
            open_lists[-1].append(done)
        elif token == ")":
            yield done
    if open_lists:
        raise UserError("the property ends inside a parenthesis: it is incomplete")


def _alternatives(expression: Expression) -> list[list[Constraint]]:
    """The ways to satisfy an expression: each is a list of constraints."""
    match expression:
        case ["and", *parts]:
            cases: list[list[Constraint]] = [[]]
            for part in parts:
                cases = _both(cases, _alternatives(part))
            return cases
        case ["or", *parts] if parts:
            found = [each for part in parts for each in _alternatives(part)]
            _check_count(len(found))
            return found
        case ["<=" | "<", one, other]:
            return [[_minus(_linear(one), _linear(other))]]
        case [">=" | ">", one, other]:
            return [[_minus(_linear(other), _linear(one))]]
        case _:
            raise _unreadable(expression)


def _both(first: list[list[Constraint]], second: list[list[Constraint]]) -> list[list[Constraint]]:
    _check_count(len(first) * len(second))
    if len(second) == 1:  # as most assertions are, of which there may be thousands
        for one in first:
            one.extend(second[0])
        return first
    return [[*one, *other] for one in first for other in second]


def _check_count(count: int) -> None:
    if count > MOST_CASES:
        raise UserError(f"the property has more than {MOST_CASES:,} cases: split it")


def _linear(expression: Expression) -> Linear:
    """A linear expression of variables and numbers."""
    match expression:
        case str(word) if _VARIABLE.fullmatch(word):
            return {word: 1.0}, 0.0
        case str(word):
            try:
                value = float(word)
            except ValueError:
                raise _unreadable(word) from None
            if not math.isfinite(value):
                raise _unreadable(word)
            return {}, value
        case ["+", *parts] if parts:
            total: Linear = ({}, 0.0)
            for part in parts:
                total = _minus(total, _times(_linear(part), -1.0))
            return total
        case ["-", one]:
            return _times(_linear(one), -1.0)
        case ["-", one, other]:
            return _minus(_linear(one), _linear(other))
        case ["*", one, other]:
            first, second = _linear(one), _linear(other)
            if first[0] and second[0]:
                raise _unreadable(expression)
            return _times(first, second[1]) if first[0] else _times(second, first[1])
        case _:
            raise _unreadable(expression)


def _times(linear: Linear, factor: float) -> Linear:
    return {name: factor * value for name, value in linear[0].items()}, factor * linear[1]


def _minus(one: Linear, other: Linear) -> Linear:
    terms = dict(one[0])
    for name, value in other[0].items():
        terms[name] = terms.get(name, 0.0) - value
    return terms, one[1] - other[1]


def _case(constraints: list[Constraint], inputs: int, outputs: int) -> Case:
    lower, upper = np.full(inputs, -np.inf), np.full(inputs, np.inf)
    rows: list[Array] = []
    limits: list[float] = []
    for terms, constant in constraints:
        kinds = {name[0] for name, value in terms.items() if value}
        if kinds == {"X"} and len(terms) == 1:
            ((name, factor),) = terms.items()
            i, bound = _index(name, inputs), -constant / factor
            if factor > 0:
                upper[i] = min(upper[i], bound)
            else:
                lower[i] = max(lower[i], bound)
        elif kinds == {"Y"}:
            row = np.zeros(outputs)
            for name, factor in terms.items():
                row[_index(name, outputs)] += factor
            rows.append(row)
            limits.append(-constant)
        else:
            names = ", ".join(sorted(terms)[:4]) or "no variable"
            raise UserError(f"the property has an inequality of {names}: bounds need one input, or outputs only")
    unbounded = np.flatnonzero(~(np.isfinite(lower) & np.isfinite(upper)))
    if len(unbounded):
        raise UserError(f"the property does not bound X_{unbounded[0]} from both sides: add both bounds")
    if not rows:
        raise UserError("the property says nothing of the outputs: add an inequality of Y_0, Y_1, ...")
    return Case(lower, upper, np.array(rows), np.array(limits))


def _index(name: str, count: int) -> int:
    i = int(name[2:])
    if i >= count:
        raise UserError(f"the property uses {name}, which it does not declare: declare it")
    return i


def _unreadable(expression: Expression) -> UserError:
    def shown(part: Expression) -> str:
        return part if isinstance(part, str) else f"({' '.join(map(shown, part[:4]))})"

    return UserError(
        f"'{shown(expression)[:60]}' is not of the part of VNN-LIB that is read: declare-const, assert, and, or, <=, "
        ">=, linear terms of X_i or Y_j"
    )
