"""The sample sheets of a run, thinned and packed so that they fit into a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from rivals.reports.history import History, number
from rivals.reports.run import Record

T = TypeVar("T")

MOST = 60
# How far to go to stay within a budget, mildest first: (most sheets, JPEG quality, longest side in pixels).
RUNGS = (
    (60, 90, 2048),
    (60, 75, 1536),
    (60, 60, 1024),
    (30, 60, 1024),
    (15, 50, 768),
    (6, 50, 512),
    (2, 40, 256),
    (2, 40, 128),
)
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True)
class Frame:
    """One sheet, ready for a page: its bytes as a data URI, its size in pixels and its place in the run."""

    uri: str
    width: int
    height: int
    images: int
    seconds: float | None
    diversity: float | None


def frames(history: History, budget: int) -> list[Frame]:
    """The run's sheets in order, the first and the last always among them, in at most ``budget`` bytes.

    Sheets pass as they are when they fit; else they are packed as JPEG, and thinned further, no more than
    needed. Sheets that are missing, unreadable, or outside the run folder are left out.
    """
    sheets = [(path, record) for record in history.sheets if (path := _within(history.folder, record["sheet"]))]
    chosen = thin(sheets, MOST)
    found = [frame for path, record in chosen if (frame := _pack(path, record))]
    for rung in RUNGS:
        if sum(len(frame.uri) for frame in found) <= budget:
            break
        most, quality, side = rung
        chosen = thin(chosen, most)
        # One sheet tells whether the rung can do; only then is it worth the time to pack them all.
        sample = _pack(*chosen[-1], quality=quality, side=side)
        if sample is None or len(sample.uri) * len(chosen) <= 1.2 * budget or rung is RUNGS[-1]:
            packed = (_pack(path, record, quality=quality, side=side) for path, record in chosen)
            found = [frame for frame in packed if frame]
    return found


def frame(history: History, record: Record) -> Frame | None:
    """The sheet of one record as it is, or None if it is missing, unreadable, or outside the run folder."""
    path = _within(history.folder, record["sheet"])
    return None if path is None else _pack(path, record)


def thin(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` (2 or more) of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, most)]


def _within(folder: Path, name: str) -> Path | None:
    """The file ``name`` of the folder, or None if there is no such file or the name leads out of it."""
    try:
        path = (folder / name).resolve()
        return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):
        return None


def _pack(path: Path, record: Record, quality: int | None = None, side: int = 0) -> Frame | None:
    """A sheet as it is, or as JPEG with no side longer than ``side``; None if it cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            kind, size = opened.format, opened.size
            if quality is not None:
                picture = opened.convert("L" if opened.mode == "L" else "RGB")
                picture.thumbnail((side, side))
                file = io.BytesIO()
                picture.save(file, "JPEG", quality=quality, optimize=True)
                kind, size, content = "JPEG", picture.size, file.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if kind is None or kind not in TYPES:
        return None
    uri = f"data:{TYPES[kind]};base64,{base64.b64encode(content).decode()}"
    seconds, diversity = number(record.get("seconds")), number(record.get("diversity"))
    return Frame(uri, *size, int(record["images"]), seconds, diversity)
