"""Values with everything they depend on: a number without its protocol cannot be compared with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Protocol = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """A value of a metric.

    Attributes:
        metric: What was asked for, as ``fd``.
        name: What it is called, as ``FD-lite0``.
        says: What it tells.
        value: The number.
        error: Its standard error, or None where there is none.
        unit: What it is in; empty for a number of no unit.
        settings: The metric's own, as k.
        protocol: All else that it depends on, as plain values.
        notes: What makes it less than it seems.
    """

    metric: str
    name: str
    value: float
    error: float | None = None
    unit: str = ""
    settings: Protocol = field(default_factory=dict)
    protocol: Protocol = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    says: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the protocol's beside the value's own."""
        own = {
            "metric": self.metric,
            "name": self.name,
            "says": self.says,
            "value": self.value,
            "error": self.error,
            "unit": self.unit,
        }
        return {**own, "settings": dict(self.settings), **self.protocol, "notes": list(self.notes)}


@dataclass(frozen=True)
class Scores:
    """What ``score`` found.

    Attributes:
        values: The values, in the order they were asked for.
        missing: What could not be had, each in one line with what to do about it.
        sheet: Where the sheet of nearest neighbours lies, if it was kept.
    """

    values: Sequence[Value]
    missing: Sequence[str] = ()
    sheet: str | None = None

    def __getitem__(self, metric: str) -> Value:
        """The value of a metric, by what was asked for or by its name."""
        for value in self.values:
            if metric in (value.metric, value.name):
                return value
        raise KeyError(metric)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "values": [value.as_dict() for value in self.values],
            "missing": list(self.missing),
            "sheet": self.sheet,
        }

    def __str__(self) -> str:
        """The values in lines, below each kind the protocol that they have in common."""
        lines: list[str] = []
        width = max((len(value.name) for value in self.values), default=0)
        for protocol in _distinct([value.protocol for value in self.values]):
            for value in self.values:
                if value.protocol == protocol:
                    number = f"{told(value.value, value.error)} {value.unit}"
                    lines.append(f"{value.name:<{width}}  {number:<20}  {_plain(value.settings)}".rstrip())
                    lines += [f"  {note}" for note in value.notes]
            lines += [f"  {key}: {_plain(entry)}" for key, entry in protocol.items()]
        lines += [f"missing: {each}" for each in self.missing]
        if self.sheet is not None:
            lines.append(f"nearest neighbours: {self.sheet}")
        return "\n".join(lines)


def told(value: float, error: float | None) -> str:
    """A value with its standard error, to the digits that mean something."""
    number = f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return number if error is None else f"{number} ± {error:.2g}"


def _distinct(protocols: Sequence[Protocol]) -> list[Protocol]:
    found: list[Protocol] = []
    for protocol in protocols:
        if protocol not in found:
            found.append(protocol)
    return found


def _plain(entry: Any) -> str:
    return (
        ", ".join(f"{key} {_plain(value)}" for key, value in entry.items())
        if isinstance(entry, Mapping)
        else str(entry)
    )
