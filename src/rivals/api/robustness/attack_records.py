"""The records of an attack, as a resumed one needs them."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from rivals.base.run_schema import AlarmFacts, Count, Seconds
from rivals.base.typed_json import Between

Places = list[Count]  # of images in the evaluation


class Probe(TypedDict):
    """What the probes counted; ``fooled_by_any`` unless nothing was probed."""

    n: Count
    fooled_by_any: NotRequired[Places]


class ProbeRecord(TypedDict):
    """Step 0: signs of gradient masking."""

    probe: Probe
    gradient: Literal["usable", "zero", "none"]
    alarms: list[AlarmFacts]
    notes: list[str]


class CleanRecord(TypedDict):
    """A step without an attack: the images that are misclassified as they are."""

    stage: Literal["clean"]
    eps_index: Annotated[int, Between(0, 0)]
    fooled: Places
    fooled_8bit: Places


class StageRecord(TypedDict):
    """A step of one attack at one radius, whose number counts from 1."""

    stage: str
    eps_index: Annotated[int, Between(1, 10**4)]
    n_attacked: Count
    fooled: Places
    fooled_8bit: Places
    n_unverified: Count
    forwards: Count
    backwards: Count
    stage_seconds: Seconds
    queries: NotRequired[list[Annotated[int, Between(-1, 2**31)]]]  # that each of the fooled took, if they are counted
