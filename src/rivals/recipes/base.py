"""Configurations as frozen data classes, every field of which can be set by name, in Python and by a flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.schedules import Schedule

NONE = Schedule(0.0, 0.0)
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Settings:
    """What every configuration can do."""

    def changed(self, **settings: Any) -> Self:
        """A copy with some settings changed; schedules may be given as numbers or in their written form.

        Raises:
            UserError: no setting has that name, or a value cannot work.
        """
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name, value in settings.items():
            if name not in fields:
                raise unknown("setting", name, fields)
            settings[name] = _READ[str(fields[name].type)](name, value)
        return dataclasses.replace(self, **settings)

    def written(self) -> dict[str, Any]:
        """The settings as plain values, which ``changed(**values)`` reads back."""
        values = dataclasses.asdict(self)
        for name in values:
            value = getattr(self, name)
            if isinstance(value, Schedule):
                values[name] = str(value)
            elif isinstance(value, tuple):
                values[name] = list(value)
        return values


def _schedule(name: str, value: Any) -> Schedule:
    return Schedule.parse(value)


def _widths(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(type(width) is int for width in value):
        raise UserError(f"{name} {value!r} are no widths: give whole numbers, as (256, 128, 64)")
    return tuple(value)


def _exactly(*kinds: type) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        if float in kinds and type(value) is int:
            return float(value)
        if type(value) not in kinds:
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise UserError(f"{name} {value!r} is of the wrong type: give {wanted}")
        return value

    return read


_READ: dict[str, Callable[[str, Any], Any]] = {
    "Schedule": _schedule,
    "tuple[int, ...]": _widths,
    "bool": _exactly(bool),
    "int": _exactly(int),
    "float": _exactly(float),
    "str": _exactly(str),
    "int | None": _exactly(int, type(None)),
    "float | None": _exactly(float, type(None)),
    "str | None": _exactly(str, type(None)),
}


def flag(name: str) -> str:
    """A field's name as the command line writes it."""
    return "--" + name.replace("_", "-")


def check_range(settings: Settings, name: str, least: float, most: float) -> None:
    """Refuse a field out of range.

    Raises:
        UserError: it is below ``least`` or above ``most``, or NaN.
    """
    value = getattr(settings, name)
    if not least <= value <= most:
        raise UserError(f"{flag(name)} {value} cannot work: take {least} to {most}")
