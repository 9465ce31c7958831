"""What the files of a run folder must hold: the types of ``run.json`` and of the records of ``metrics.jsonl``."""

from __future__ import annotations

from typing import Annotated, Any, Required, TypedDict

from rivals.base.typed_json import Between

FORMAT = 1
Count = Annotated[int, Between(0, 2**53)]
Seconds = Annotated[float, Between(0, 1e12)]
Finite = Annotated[float, Between(-1e300, 1e300)]


class AlarmFacts(TypedDict):
    """An alarm: its name, what it says, and what to do."""

    alarm: str
    message: str
    remedy: str


class AlarmRecord(AlarmFacts):
    """An alarm in ``metrics.jsonl``: whether it is raised or over."""

    raised: bool


class DataFacts(TypedDict, total=False):
    """The images of a run."""

    name: str
    split: str | None
    n: Count
    n_train: Count
    of: Count
    classes: list[str]
    hash: str


class ModelFacts(TypedDict, total=False):
    """The network that a run evaluates."""

    name: str
    parameters: Count
    hash: str


class ScoreFacts(TypedDict):
    """How the scores during a training are made."""

    metric: str
    extractor: str
    extractor_hash: str
    n_fake: Annotated[int, Between(2, 10**6)]


class ResultFacts(TypedDict, total=False):
    """What an evaluation found; its shares and curves are read by the report."""

    n: Count
    verdict: str
    notes: list[str]
    alarms: list[AlarmFacts]


class RunInfo(TypedDict, total=False):
    """``run.json`` of any run: what a report or a list of runs may read. A command that needs more asks for it."""

    format: Required[Annotated[int, Between(1, FORMAT)]]
    command: str
    state: str
    created: str
    command_line: str
    device: str
    versions: dict[str, str]
    hardware: dict[str, str | int | None]
    numerics: dict[str, str | bool]
    message: str
    shortfall: str | None
    recipe: str | None
    config: dict[str, Any]
    data_options: dict[str, Any]
    run_options: dict[str, Any]
    source: dict[str, Any]
    data: DataFacts
    model: ModelFacts
    players: dict[str, dict[str, Any]]
    equilibrium: dict[str, float | None]
    d_unit: str
    data_entropy: float | None
    hardened: dict[str, Any]
    score_protocol: ScoreFacts
    sub_runs: list[str]
    reload: Annotated[int, Between(1, 3600)] | None
    images: Count
    step: Count
    epochs: Seconds
    seconds: Seconds
    alarms: list[AlarmFacts]
    results: ResultFacts


class RecordFacts(TypedDict, total=False):
    """A record of ``metrics.jsonl``: what all have, and what those of sample grids and alarms have."""

    images: Required[Count]
    step: Required[Count]
    seconds: Required[Seconds]
    d_real: float
    d_fake: float
    diversity: float | None
    sample_grid: str
    alarm: str
    raised: bool
    message: str
    remedy: str
