"""What a run measured of the network that it saved, which may be an earlier state than its last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NotRequired, TypedDict

from rivals.api.common.network_io import FIX
from rivals.base.run_folder import Record, Run
from rivals.base.typed_json import Between, read_json


class Saved(TypedDict):
    """Of which step a network is, if the best state was saved."""

    step: NotRequired[Annotated[int, Between(0, 2**53)]]


def measured_of_saved(run: Run, network: str, wanted: Callable[[str], bool]) -> Record:
    """The wanted values of the records: those of the state that was saved, or, of what it has none, the last ones."""
    path = run.folder / f"{network}.json"
    saved = read_json(path, Saved, FIX).get("step") if path.exists() else None
    last: Record = {}
    chosen: Record = {}
    for record in run.records():
        values = {key: value for key, value in record.items() if wanted(key)}
        last |= values
        if record.get("step") == saved:
            chosen |= values
    return last | chosen
