"""Options as frozen dataclasses: every field can be set by name, in Python and by a flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.schedules import Schedule
from rivals.base.size import Size

NONE = Schedule(0.0, 0.0)
PRECISIONS = ("auto", "fp32", "bf16")
MicroBatches = int | Literal["auto"]


@dataclass(frozen=True)
class Settings:
    """Base class of all options."""

    def changed(self, **settings: Any) -> Self:
        """A copy with some settings changed. Schedules and sizes may be numbers or in their written form.

        Raises:
            UserError: there is no setting of that name, or a value cannot work.
        """
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name, value in settings.items():
            if name not in fields:
                raise unknown("setting", name, fields)
            settings[name] = _READ[str(fields[name].type)](name, value)
        return dataclasses.replace(self, **settings)

    def refuse_changes(self, recipe: Self, names: Iterable[str], place: str) -> None:
        """Refuse settings that differ from a recipe's where nothing reads them.

        Args:
            recipe: The settings of the recipe.
            names: The fields that are not read.
            place: Where they are not, such as "beside --against".

        Raises:
            UserError: there is one.
        """
        for name in names:
            if getattr(self, name) != getattr(recipe, name):
                raise UserError(f"{flag(name)} has no meaning {place}: leave it out")

    def differences(self) -> dict[str, Any]:
        """The settings that are not the defaults."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}

    def written(self) -> dict[str, Any]:
        """The settings as plain values, which ``changed(**values)`` reads back."""
        values = dataclasses.asdict(self)
        for name in values:
            value = getattr(self, name)
            if isinstance(value, Schedule):
                values[name] = str(value)
            elif isinstance(value, Size):
                values[name] = value.written
            elif isinstance(value, tuple):
                values[name] = list(value)
        return values


def split_settings(settings: Mapping[str, Any], *options: Settings) -> list[dict[str, Any]]:
    """The ``settings`` that are fields of each of some options objects.

    Raises:
        UserError: a setting is a field of none of them.
    """
    fields = [{field.name for field in dataclasses.fields(each)} for each in options]
    for name in settings:
        if not any(name in names for names in fields):
            raise unknown("setting", name, sorted(set().union(*fields)))
    return [{name: value for name, value in settings.items() if name in names} for names in fields]


def distribute(settings: Mapping[str, Any], *options: Settings) -> list[Any]:
    """Copies of some options objects, each changed by those of the ``settings`` that are its fields.

    Raises:
        UserError: a setting is a field of none of them, or has a value that cannot work.
    """
    parts = split_settings(settings, *options)
    return [each.changed(**own) for each, own in zip(options, parts, strict=True)]


def restored(written: Mapping[str, Any], *options: Settings) -> list[Any]:
    """Options objects as a run has written them. A default of today is no substitute for a setting that is not there.

    Raises:
        UserError: a setting is missing, unknown, or has a value that cannot work.
    """
    for each in options:
        if missing := [field.name for field in dataclasses.fields(each) if field.name not in written]:
            raise UserError(
                f"the run's settings lack '{missing[0]}': restore its run.json, if that was changed, or start a new run"
            )
    return distribute(written, *options)


def _schedule(name: str, value: Any) -> Schedule:
    return Schedule.parse(value)


def _schedule_or_none(name: str, value: Any) -> Schedule | None:
    return None if value is None else Schedule.parse(value)


def _size(name: str, value: Any) -> Size | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, str, Size))):
        raise UserError(f"{name} {value!r} is of the wrong type: give the side of squares, such as 64, or '96x64'")
    return None if value is None else Size.parse(value)


def _widths(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(type(width) is int for width in value):
        raise UserError(f"{name} {value!r} is not a list of widths: give integers, such as (256, 128, 64)")
    return tuple(value)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not all(type(each) in (int, float) for each in value):
        raise UserError(f"{name} {value!r} is not a list of numbers: give one per channel, such as (0.5, 0.5, 0.5)")
    return tuple(map(float, value))


def _exactly(*kinds: type) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        if float in kinds and type(value) is int:
            return float(value)
        if type(value) not in kinds:
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise UserError(f"{name} {value!r} has the wrong type: give {wanted}")
        return value

    return read


def _micro_batches(name: str, value: Any) -> MicroBatches:
    if value == "auto":
        return "auto"
    if type(value) is not int or value < 1 or value & (value - 1):
        raise UserError(f"{flag(name)} {value} cannot work: take 1, 2, 4 or another power of two, or auto")
    return value


_READ: dict[str, Callable[[str, Any], Any]] = {
    "Schedule": _schedule,
    "Schedule | None": _schedule_or_none,
    "Size | None": _size,
    "tuple[int, ...]": _widths,
    "tuple[float, ...]": _numbers,
    "MicroBatches": _micro_batches,
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
    return f"-{name}" if len(name) == 1 else "--" + name.replace("_", "-")


def check_micro_batches(batch_size: int, micro_batches: MicroBatches, what: str = "--batch-size") -> None:
    """Refuse a batch that cannot be cut into equal micro-batches.

    Raises:
        UserError: their number does not divide it, or leaves less than 2 images to each.
    """
    if micro_batches != "auto" and (batch_size % micro_batches or batch_size < 2 * micro_batches):
        raise UserError(
            f"{what} {batch_size} cannot be cut into {micro_batches} micro-batches of 2 images or more: take a "
            f"multiple of {micro_batches}, {2 * micro_batches} or more, or fewer --micro-batches"
        )


def check_range(settings: Settings, name: str, least: float, most: float) -> None:
    """Refuse a field out of range.

    Raises:
        UserError: it is below ``least`` or above ``most``, or NaN.
    """
    value = getattr(settings, name)
    if not least <= value <= most:
        raise UserError(f"{flag(name)} {value} cannot work: take {least:,} to {most:,}")
