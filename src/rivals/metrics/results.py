"""Values with their protocols: two values can be compared only if their protocols are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Protocol = Mapping[str, Any]


class Estimate(NamedTuple):
    """A value and its standard error in the same unit, or None where it is unknown."""

    value: float
    error: float | None


@dataclass(frozen=True)
class Value:
    """A value of a metric.

    Attributes:
        metric: The metric as requested, ``fd``.
        name: Its display name, ``FD-lite0``.
        description: What it measures.
        value: The number.
        error: Its standard error, or None where it is unknown.
        unit: Its unit; empty if it has none.
        settings: Options of the metric, as k.
        protocol: Everything else that it depends on, as plain values.
        notes: Reasons not to trust it.
    """

    metric: str
    name: str
    value: float
    error: float | None = None
    unit: str = ""
    settings: Protocol = field(default_factory=dict)
    protocol: Protocol = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    description: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As plain values, including those of the protocol."""
        own = {
            "metric": self.metric,
            "name": self.name,
            "description": self.description,
            "value": self.value,
            "error": self.error,
            "unit": self.unit,
        }
        return {**own, "settings": dict(self.settings), **self.protocol, "notes": list(self.notes)}


@dataclass(frozen=True)
class Scores:
    """The result of ``score``. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        values: The values, in the order requested.
        missing: Metrics that could not be computed, each in one line with the fix.
        nearest_grid: File of the grid of nearest training images, if one was written.
    """

    values: Sequence[Value]
    missing: Sequence[str] = ()
    nearest_grid: str | None = None

    def __getitem__(self, metric: str) -> Value:
        """The value of a metric, by its name as requested or as displayed."""
        for value in self.values:
            if metric in (value.metric, value.name):
                return value
        raise KeyError(metric)

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "values": [value.as_dict() for value in self.values],
            "missing": list(self.missing),
            "nearest_grid": self.nearest_grid,
        }

    def __str__(self) -> str:
        """One line per value, and below the values the protocol that they share."""
        lines: list[str] = []
        width = max((len(value.name) for value in self.values), default=0)
        for protocol in _distinct([value.protocol for value in self.values]):
            for value in self.values:
                if value.protocol == protocol:
                    number = f"{format_value(value.value, value.error)} {value.unit}"
                    lines.append(f"{value.name:<{width}}  {number:<20}  {_plain(value.settings)}".rstrip())
                    lines += [f"  {note}" for note in value.notes]
            lines += [f"  {key}: {_plain(entry)}" for key, entry in protocol.items()]
        lines += [f"missing: {each}" for each in self.missing]
        if self.nearest_grid is not None:
            lines.append(f"nearest neighbors: {self.nearest_grid}")
        return "\n".join(lines)


def format_value(value: float, error: float | None) -> str:
    """A value with its standard error, rounded to significant digits."""
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
