"""The file of a run's scores, and what several processes know of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.base.files import make_folder, write_atomically
from rivals.base.run_folder import Record, Run
from rivals.base.typed_json import read_json
from rivals.metrics.results import Scores, Value

if TYPE_CHECKING:
    from rivals.base.process_group import ProcessGroup

NUMBERS, GRID = "scores.json", "neighbors.png"


@dataclass(frozen=True, eq=False)
class GroupResult:
    """The result of a group of metrics: values, what could not be computed, and a grid of nearest training images."""

    values: Sequence[Value]
    missing: Sequence[str]
    grid: Any = None


def finish(results: Sequence[GroupResult], folder: Path | None, run: Run | None) -> Scores:
    """The scores, saved if there is a folder for them.

    Raises:
        UserError: no value could be computed, or they cannot be written.
    """
    values = [value for each in results for value in each.values]
    missing = [line for each in results for line in each.missing]
    if not values:
        raise UserError(missing[0])
    if folder is None:
        return Scores(values, missing)
    grids = [each.grid for each in results if each.grid is not None]
    return _save(folder, run, values, missing, grids)


def shared(scores: Scores | None, processes: ProcessGroup) -> Scores:
    """The scores of the first process, in all processes."""
    if processes.size == 1 and scores is not None:
        return scores
    values, missing, grid = processes.share(
        None if scores is None else [[*map(vars, scores.values)], list(scores.missing), scores.nearest_grid]
    )
    return scores or Scores([Value(**{**each, "notes": tuple(each["notes"])}) for each in values], missing, grid)


def _save(
    folder: Path, run: Run | None, values: Sequence[Value], missing: Sequence[str], grids: Sequence[Any]
) -> Scores:
    """Write the values and the grid into a folder, keeping what earlier scores of the same images left there.

    Raises:
        UserError: they cannot be written.
    """
    from rivals.reports import image_grid
    from rivals.reports.report import write_report

    make_folder(folder, parents=True)
    if grids:
        image_grid.save_png(grids[0], folder / GRID)
    path = folder / NUMBERS
    fresh = [value.as_dict() for value in values]
    before = [each for each in _read(path) if not any(_same(each, value) for value in fresh)]
    hashes = {value["fake_hash"] for value in fresh}
    rest = [each for each in before if each.get("fake_hash") in hashes]
    content = {
        "format": 1,
        "values": [*rest, *fresh],
        "missing": list(missing),
        "nearest_grid": GRID if grids else None,
    }
    write_atomically(path, json.dumps(content, indent=2).encode() + b"\n")
    if run is not None:
        write_report([run], run.report)
    return Scores(values, missing, str(folder / GRID) if grids else None)


def _read(path: Path) -> list[Record]:
    from rivals.reports.history import FIX
    from rivals.reports.sections.scores import ScoresFile

    try:
        return [{**value} for value in read_json(path, ScoresFile, FIX)["values"]]
    except (FileNotFoundError, UserError):  # a damaged file is replaced
        return []


def _same(one: Record, other: Record) -> bool:
    """Whether two records are of one metric by one protocol, whatever their values."""
    loose = {"value", "error", "notes", "description"}
    keys = (one.keys() | other.keys()) - loose
    return all(one.get(key) == other.get(key) for key in keys)
