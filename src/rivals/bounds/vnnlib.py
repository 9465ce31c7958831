"""Properties of networks in VNN-LIB (https://www.vnnlib.org), the format of the verification competition VNN-COMP."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError

Array = npt.NDArray[np.float64]

MOST_CHARACTERS = 100_000_000
MOST_VARIABLES = 1_000_000
MOST_CASES = 10_000
DEEPEST = 100  # nesting of parentheses
LONGEST = 1000  # characters of a number

_TOKEN = re.compile(r"\s+|;[^\n]*|(?P<token>[()]|[^\s();]+)")
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,6})")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_FACTORS = Fraction(1, 10**9), Fraction(10**9)
"""Absolute coefficients of outputs: beyond, products with weights could leave float32."""


@dataclass(frozen=True)
class Constraint:
    """An inequality: ``sum(factor * variable) + constant <= 0``, or ``< 0``; no factor is 0.

    Attributes:
        terms: The factors by variable.
        constant: The constant.
        strict: Whether it is ``< 0``.
    """

    terms: dict[str, Fraction]
    constant: Fraction
    strict: bool

    def holds(self, inputs: Sequence[float], outputs: Sequence[float]) -> bool:
        """Whether it is true of the numbers that are written for these: 0.1 is one tenth."""
        total = self.constant
        for name, factor in self.terms.items():
            total += factor * _written((inputs if name[0] == "X" else outputs)[int(name[2:])])
        return total < 0 if self.strict else total <= 0


@dataclass(frozen=True)
class Case:
    """A way to violate a property: an input in a box whose output satisfies all inequalities.

    The constraints are exact. The arrays are rounded outward: they hold of all that satisfies the constraints.

    Attributes:
        constraints: All of them.
        lower: The smallest value of each input (n,).
        upper: The largest.
        coefficients: Of the outputs, one row for each inequality (r, m).
        limits: ``coefficients @ outputs <= limits`` (r,).
        strict: Which of the inequalities are ``<`` (r,).
    """

    constraints: tuple[Constraint, ...]
    lower: Array
    upper: Array
    coefficients: Array
    limits: Array
    strict: npt.NDArray[np.bool_]

    def inside(self) -> tuple[Array, Array]:
        """The smallest and largest float64 input that, as it is written, satisfies the bounds, each (n,).

        Where there is none the smallest is above the largest.
        """
        lower, upper = _box(self.constraints, len(self.lower))
        # Without the sign an upper bound is a lower one.
        negative = [None if each is None else (-each[0], 1 - each[1]) for each in upper]
        return np.array([_smallest(each) for each in lower]), -np.array([_smallest(each) for each in negative])

    def holds(self, inputs: Sequence[float], outputs: Sequence[float]) -> bool:
        """Whether these, as they are written, satisfy all constraints exactly."""
        return all(each.holds(inputs, outputs) for each in self.constraints)


@dataclass(frozen=True)
class Property:
    """A property: no input and output satisfy any of the cases.

    Attributes:
        inputs: Number of inputs, n.
        outputs: Number of outputs, m.
        cases: The cases that have inputs; without any, no input satisfies the bounds of the inputs.
    """

    inputs: int
    outputs: int
    cases: tuple[Case, ...]


Expression = str | list["Expression"]
Linear = tuple[dict[str, Fraction], Fraction]
"""Coefficients of variables, and a constant."""
Bound = tuple[Fraction, int] | None
"""Of an input: sorted as bounds are, x > 1 after x >= 1, and x < 1 before x <= 1."""


def read_property(text: str) -> Property:
    """Parse a property: declarations of X_i and Y_j, and assertions of linear inequalities, ``and`` and ``or``.

    An inequality has input variables or output variables, not both; of input variables one, as the bound of a box.
    Numbers are read as they are written, as fractions.

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
    return Property(sizes["X"], sizes["Y"], tuple(case for case in made if case is not None))


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
        case ["<=" | "<" as sign, one, other]:
            return [[_constraint(expression, _minus(_linear(one), _linear(other)), sign == "<")]]
        case [">=" | ">" as sign, one, other]:
            return [[_constraint(expression, _minus(_linear(other), _linear(one)), sign == ">")]]
        case _:
            raise _unreadable(expression)


def _constraint(expression: Expression, difference: Linear, strict: bool) -> Constraint:
    constant = difference[1]
    made = Constraint({name: factor for name, factor in difference[0].items() if factor}, constant, strict)
    if not made.terms:
        always = "always" if made.holds((), ()) else "never"
        raise UserError(f"the inequality {_shown(expression)} says nothing, for it is {always} true: leave it out")
    return made


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
            return {word: Fraction(1)}, Fraction(0)
        case str(word):
            if len(word) > LONGEST or not _NUMBER.fullmatch(word) or not math.isfinite(float(word)):
                raise _unreadable(word)
            return {}, Fraction(word)
        case ["+", *parts] if parts:
            total: Linear = ({}, Fraction(0))
            for part in parts:
                total = _minus(total, _times(_linear(part), Fraction(-1)))
            return total
        case ["-", one]:
            return _times(_linear(one), Fraction(-1))
        case ["-", one, other]:
            return _minus(_linear(one), _linear(other))
        case ["*", one, other]:
            first, second = _linear(one), _linear(other)
            if first[0] and second[0]:
                raise _unreadable(expression)
            return _times(first, second[1]) if first[0] else _times(second, first[1])
        case _:
            raise _unreadable(expression)


def _times(linear: Linear, factor: Fraction) -> Linear:
    return {name: factor * value for name, value in linear[0].items()}, factor * linear[1]


def _minus(one: Linear, other: Linear) -> Linear:
    terms = dict(one[0])
    for name, value in other[0].items():
        terms[name] = terms.get(name, Fraction(0)) - value
    return terms, one[1] - other[1]


def _case(constraints: list[Constraint], inputs: int, outputs: int) -> Case | None:
    """The case of these constraints; None if no input satisfies its bounds."""
    rows: list[Array] = []
    limits: list[float] = []
    strict: list[bool] = []
    for each in constraints:
        kinds = {name[0] for name in each.terms}
        if kinds == {"Y"}:
            row = np.zeros(outputs)
            for name, factor in each.terms.items():
                if not _FACTORS[0] <= abs(factor) <= _FACTORS[1]:
                    raise UserError(f"the property multiplies {name} by {_float(factor):g}: keep within 1e-9 and 1e9")
                row[_index(name, outputs)] = float(factor)
            rows.append(row)
            limits.append(-_below(each.constant))
            strict.append(each.strict)
        elif kinds == {"X"} and len(each.terms) == 1:
            _index(next(iter(each.terms)), inputs)
        else:
            names = ", ".join(sorted(each.terms)[:4])
            raise UserError(f"the property has an inequality of {names}: bounds need one input, or outputs only")
    lower, upper = _box(constraints, inputs)
    lowest, highest, empty = np.full(inputs, np.nan), np.full(inputs, np.nan), False
    for i, (least, most) in enumerate(zip(lower, upper, strict=True)):
        if least is None or most is None:
            raise UserError(f"the property does not bound X_{i} from both sides: add both bounds")
        empty |= least[0] > most[0] or (least[0] == most[0] and (least[1] == 1 or most[1] == 0))
        lowest[i], highest[i] = _below(least[0]), -_below(-most[0])
    if not rows:
        raise UserError("the property says nothing of the outputs: add an inequality of Y_0, Y_1, ...")
    if empty:
        return None
    return Case(tuple(constraints), lowest, highest, np.array(rows), np.array(limits), np.array(strict))


def _box(constraints: Sequence[Constraint], inputs: int) -> tuple[list[Bound], list[Bound]]:
    """The largest lower and the smallest upper bound of each input."""
    lower: list[Bound] = [None] * inputs
    upper: list[Bound] = [None] * inputs
    for each in constraints:
        ((name, factor), *_) = each.terms.items()
        if name[0] == "Y":
            continue
        i, bound = int(name[2:]), -each.constant / factor
        if factor > 0:
            new, old = (bound, 0 if each.strict else 1), upper[i]
            upper[i] = new if old is None else min(old, new)
        else:
            new, old = (bound, 1 if each.strict else 0), lower[i]
            lower[i] = new if old is None else max(old, new)
    return lower, upper


def _float(value: Fraction) -> float:
    """The nearest float64."""
    try:
        return float(value)
    except OverflowError:
        raise UserError("the property computes a number beyond 1e308: write smaller ones") from None


def _below(value: Fraction) -> float:
    """The largest float64 that is not above a value."""
    nearest = _float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)


def _written(value: float) -> Fraction:
    """The decimal that is written for a float64: the shortest one that is read as it."""
    return Fraction(repr(value))


def _smallest(bound: Bound) -> float:
    """The smallest float64 that, as it is written, satisfies a lower bound."""
    assert bound is not None
    limit, strict = bound
    value = _float(limit)
    while math.isfinite(value) and (_written(value) < limit or (strict and _written(value) == limit)):
        value = math.nextafter(value, math.inf)
    return value


def _index(name: str, count: int) -> int:
    i = int(name[2:])
    if i >= count:
        raise UserError(f"the property uses {name}, which it does not declare: declare it")
    return i


def _shown(expression: Expression) -> str:
    def shown(part: Expression) -> str:
        return part if isinstance(part, str) else f"({' '.join(map(shown, part[:4]))})"

    return shown(expression)[:60]


def _unreadable(expression: Expression) -> UserError:
    return UserError(
        f"'{_shown(expression)}' is not of the part of VNN-LIB that is read: declare-const, assert, and, or, <=, <, "
        ">=, >, linear terms of X_i or Y_j"
    )
