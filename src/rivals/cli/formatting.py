"""A result as plain lines on standard output, or as one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rivals.base.errors import printable

HIDDEN = "found"  # paths by split, in the list of data sets: only in JSON


def as_json(result: Any) -> str:
    """A result as one JSON object."""
    return json.dumps(result.as_dict() if hasattr(result, "as_dict") else _plain(result))


def as_text(result: Any) -> str:
    """A result in lines: a list as a table, a mapping as its entries, anything else as its ``str``."""
    return printable(_lines(_plain(result)), keep="\n")


def _lines(result: Any) -> str:
    if isinstance(result, list):
        keys = [key for key in result[0] if key != HIDDEN]
        rows = [keys, *([_cell(row[key]) for key in keys] for row in result)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)
    if isinstance(result, dict):
        width = max(map(len, result))
        return "\n".join(f"{key:<{width}}  {_cell(value)}" for key, value in result.items())
    return str(result)


def _plain(result: Any) -> Any:
    if isinstance(result, Path):
        return {"report": str(result)}
    return result.result() if hasattr(result, "result") else result


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    if isinstance(value, list):
        return (
            "; ".join(each["message"] if isinstance(each, dict) else printable(str(each)) for each in value) or "none"
        )
    return printable(str(value))
