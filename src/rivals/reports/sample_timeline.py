"""The sample grids of a run as data URIs, thinned and compressed until they fit into a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from rivals.base.run_folder import Record
from rivals.reports.formatting import finite
from rivals.reports.history import History

T = TypeVar("T")

MAX_FRAMES = 60
# Compression levels, mildest first: (most grids, JPEG quality, longest side in pixels).
LEVELS = (
    (60, 90, 2048),
    (60, 75, 1536),
    (60, 60, 1024),
    (30, 60, 1024),
    (15, 50, 768),
    (6, 50, 512),
    (2, 40, 256),
    (2, 40, 128),
)
MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True)
class Frame:
    """A sample grid in a page: its bytes as a data URI, its size in pixels, and when it was made."""

    uri: str
    width: int
    height: int
    images: int
    seconds: float | None
    diversity: float | None


def pack_frames(history: History, max_bytes: int) -> list[Frame]:
    """The run's sample grids in order, always with the first and the last, in at most ``max_bytes``.

    Grids are embedded unchanged if they fit; else they become JPEG, smaller and fewer as needed. Grids that are
    missing, unreadable, or outside the run folder are left out.
    """
    found = [(path, record) for record in history.sample_grids if (path := _path_inside(history.folder, record))]
    chosen = thin(found, MAX_FRAMES)
    frames = [frame for path, record in chosen if (frame := _make_frame(path, record))]
    for level in LEVELS:
        if sum(len(frame.uri) for frame in frames) <= max_bytes:
            break
        most, quality, side = level
        chosen = thin(chosen, most)
        # Compress one grid to see whether the level can be enough, before spending the time on all of them.
        probe = _make_frame(*chosen[-1], quality=quality, max_side=side)
        if probe is None or len(probe.uri) * len(chosen) <= 1.2 * max_bytes or level is LEVELS[-1]:
            packed = (_make_frame(path, record, quality=quality, max_side=side) for path, record in chosen)
            frames = [frame for frame in packed if frame]
    return frames


def read_frame(history: History, record: Record) -> Frame | None:
    """The sample grid of a record, unchanged; None if it is missing, unreadable, or outside the run folder."""
    path = _path_inside(history.folder, record)
    return None if path is None else _make_frame(path, record)


def thin(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` (2 or more) of the items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(index)] for index in np.linspace(0, len(items) - 1, most)]


def _path_inside(folder: Path, record: Record) -> Path | None:
    """The file of a record's sample grid, or None if there is none or its name leads out of the folder."""
    try:
        path = (folder / record["sample_grid"]).resolve()
        return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):
        return None


def _make_frame(path: Path, record: Record, quality: int | None = None, max_side: int = 0) -> Frame | None:
    """A sample grid unchanged, or as JPEG with no side longer than ``max_side``; None if it cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            kind, size = opened.format, opened.size
            if quality is not None:
                picture = opened.convert("L" if opened.mode == "L" else "RGB")
                picture.thumbnail((max_side, max_side))
                file = io.BytesIO()
                picture.save(file, "JPEG", quality=quality, optimize=True)
                kind, size, content = "JPEG", picture.size, file.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if kind is None or kind not in MIME_TYPES:
        return None
    uri = f"data:{MIME_TYPES[kind]};base64,{base64.b64encode(content).decode()}"
    seconds, diversity = finite(record.get("seconds")), finite(record.get("diversity"))
    return Frame(uri, *size, int(record["images"]), seconds, diversity)
