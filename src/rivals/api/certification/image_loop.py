"""The loop over the images of a certification: a few at a time, one record for each, so that it can resume."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rivals.api.robustness.attack_loop import MEMORY
from rivals.api.robustness.beats import remedy
from rivals.api.robustness.target import Notes, Target
from rivals.base import devices
from rivals.base.errors import Interrupted, ProcessLost
from rivals.base.norm_balls import Ball
from rivals.base.process_group import ProcessGroup
from rivals.base.run_folder import Record, Run
from rivals.base.signals import interrupt_on_signal
from rivals.base.typed_json import conforms
from rivals.console.attack_progress import AttackProgress
from rivals.recipes.options import CertifyConfig


class Report(Protocol):
    """A result with a number of images."""

    @property
    def n(self) -> int: ...
    def as_dict(self) -> Record: ...


R = TypeVar("R", bound=Report)


@dataclass
class ImageLoop(ABC, Generic[R]):
    """What the certifications share. A subclass certifies and attacks some images.

    Attributes:
        target: The classifier and the images.
        ball: The largest ball, with the bounds of the images.
        config: All other options.
        notes: What the reader of the result should know.
        folder: The run folder, or None.
        processes: Those that share the images. The first one writes the report.
    """

    target: Target
    ball: Ball
    config: CertifyConfig
    notes: Notes
    folder: Run | None
    processes: ProcessGroup

    @property
    def at_once(self) -> int:
        """Images in a piece of work."""
        return 1

    @property
    @abstractmethod
    def schema(self) -> type[Any]:
        """What the record of an image must hold to be kept when the run is resumed."""

    @abstractmethod
    def begin(self, stack: contextlib.ExitStack) -> AttackProgress:
        """Make the models ready, until the stack ends. Returns the progress to show."""

    @abstractmethod
    def certify(self, numbers: list[int]) -> list[Record]:
        """The records of these images, without their place and time."""

    @abstractmethod
    def is_fooled(self, record: Mapping[str, Any]) -> bool:
        """Whether an image is misclassified, with or without an attack."""

    @abstractmethod
    def describe(self, record: Mapping[str, Any]) -> str:
        """An image's result in a word or two, for the progress."""

    @abstractmethod
    def report(self, records: list[Record], notes: list[str], seconds: float, run: str | None) -> R:
        """The result."""

    def run(self) -> R:
        """All images that are not done yet, and the report."""
        with contextlib.ExitStack() as stack:
            if self.folder is not None and self.processes.first:
                stack.enter_context(self.folder.lock())
            stack.enter_context(devices.explain_out_of_memory(MEMORY))
            self.processes.remedy = remedy(self.folder)
            progress = self.begin(stack)
            return self._images(stack.enter_context(progress))

    def _images(self, live: AttackProgress) -> R:
        folder, total = self.folder, len(self.target.data)
        with self.processes.together():
            known = self._merged_records() if self.processes.first else []
            if folder is not None and self.processes.first:
                folder.update(state="running", source=self.target.source, processes=self.processes.size)
        records: list[Record] = self.processes.share(known)
        left = sorted({*range(total)} - {record["step"] - 1 for record in records})
        pieces = [left[start : start + self.at_once] for start in range(0, len(left), self.at_once)]
        made: list[Record] = []
        begun = time.perf_counter() - max((record["seconds"] for record in records), default=0.0)
        n_fooled = sum(self.is_fooled(record) for record in records)
        try:
            with (
                interrupt_on_signal(),
                self.processes.together(patient=True, fatal=True),
                devices.explain_out_of_memory(MEMORY),
            ):
                for piece in map(pieces.__getitem__, self.processes.hand_out(len(pieces))):
                    found = self.certify(piece)
                    seconds = round(time.perf_counter() - begun, 3)
                    new = [
                        {"images": i + 1, "step": i + 1, "seconds": seconds, **each}
                        for i, each in zip(piece, found, strict=True)
                    ]
                    if folder is not None:
                        folder.append(new)
                    made += new
                    n_fooled += sum(self.is_fooled(record) for record in new)
                    live({**new[-1], "n_fooled": n_fooled, "stage": self.describe(new[-1]), "eps": 0})
        except ProcessLost:
            if folder is not None and self.processes.first:
                self._finish(self._merged_records(), "interrupted")
            raise
        except KeyboardInterrupt:
            self.processes.stop()
            if folder is None:
                raise
            done = len(records) + len(made)
            if self.processes.first:
                done = self._finish(self._merged_records(), "interrupted").n
            raise Interrupted(
                f"stopped and saved after {done:,} of {total:,} images: continue with {folder.command_to_resume}"
            ) from None
        if folder is not None:
            folder.close_log()  # by which a network file system shows it to the first, which merges all
        records += [record for part in self.processes.gather(made) for record in part]
        if self.processes.first:
            self._merged_records()
        return self._finish(sorted(records, key=lambda record: int(record["step"])), "finished")

    def _merged_records(self) -> list[Record]:
        """The records of the images that are done, by all processes, in order. Damaged ones are dropped."""
        if self.folder is None:
            return []
        return [*self.folder.merge_logs(lambda record: conforms(record, self.schema)).values()]

    def _finish(self, records: list[Record], state: str) -> R:
        """The report; in a run folder also as a page."""
        notes = list(self.notes.texts)
        if state == "interrupted":
            notes.append(f"interrupted: these numbers are of {len(records):,} of the {len(self.target.data):,} images")
        notes = list(dict.fromkeys(notes))
        seconds = max((record["seconds"] for record in records), default=0.0)
        if self.folder is None or not self.processes.first:
            return self.report(records, notes, seconds, None)
        from rivals.reports.report import write_report

        done = len(records)
        self.folder.update(
            state=state,
            images=done,
            step=done,
            seconds=round(seconds, 1),
            alarms=[],
            results=self.report(records, notes, seconds, None).as_dict(),
        )
        write_report([self.folder], self.folder.report)
        return self.report(records, notes, seconds, str(self.folder.folder))
