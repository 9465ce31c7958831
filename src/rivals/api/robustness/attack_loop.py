"""Runs attacks in chunks and logs one record per (chunk, eps, attack), so that it can resume.

Nothing of the size of the evaluation is held but a few small numbers per image. The records in ``metrics.jsonl`` are
all that is needed to resume: a step that is recorded is not recorded again, and the next finds everything as it would
have been. Where it starts from the best iterates of recorded stages, which are in no record, those stages are repeated
on the images of one chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rivals.api.robustness.adv_store import AdvStore, Attacked
from rivals.api.robustness.target import Target
from rivals.attacks.ensemble import Ensemble, Outcome, Stage
from rivals.attacks.frozen_model import FrozenModel
from rivals.attacks.model_rng import own_randomness
from rivals.base import devices
from rivals.base.norm_balls import Ball
from rivals.base.process_group import ProcessGroup
from rivals.base.rng import derive
from rivals.base.run_folder import Record, Run
from rivals.metrics.robust_accuracy import CLEAN, EvalState
from rivals.metrics.verification import predict, verify
from rivals.recipes.options import AttackConfig

Indices = npt.NDArray[np.int64]

MEMORY = "lower --batch-size"  # what to do without enough of it
BATCHES = 4  # in a chunk: few enough for memory, enough to keep the active batch full as images leave it


@dataclass(frozen=True)
class EvalModels:
    """The model of an evaluation.

    Attributes:
        exact: As it was given, in evaluation mode, with nothing folded: it alone decides what is misclassified.
        attacked: The same, folded, and averaged over forward passes with ``--eot``.
        votes: Forward passes of ``exact`` whose majority is its prediction: 1, or more for a randomized model.
    """

    exact: FrozenModel
    attacked: FrozenModel
    votes: int


@dataclass
class Chunk:
    """Images ``start`` to ``stop`` of the evaluation, with labels, targets, predictions and clean logits."""

    start: int
    stop: int
    x: Tensor
    y: Tensor
    targets: Tensor | None
    predicted: Tensor
    logits: Tensor


@dataclass
class AttackLoop:
    """The loop over chunks, radii and attacks.

    Attributes:
        target: The classifier and the images.
        models: What the classifier is evaluated and attacked by.
        ball: Its norm and bounds count here.
        radii: The radii, rising.
        stages: The attacks, in order.
        config: Seed and batch size.
        folder: Where records are written, or None.
        store: Where adversarial examples are stored.
        processes: Those that share the chunks.
    """

    target: Target
    models: EvalModels
    ball: Ball
    radii: list[float]
    stages: tuple[Stage, ...]
    config: AttackConfig
    folder: Run | None
    store: AdvStore
    processes: ProcessGroup

    @property
    def schedule(self) -> list[tuple[int, Stage | None]]:
        """The steps of a chunk: the clean images, then at each radius, by number from 1, each attack."""
        numbers = range(1, len(self.radii) + 1)
        return [(0, None), *((eps_index, stage) for eps_index in numbers for stage in self.stages)]

    def run(self, state: EvalState, done: dict[int, Record], seconds: float, show: Callable[[Record], None]) -> None:
        """All steps; those in ``done`` are taken from their records.

        Several processes take a chunk each, as long as there are any; in the end all know the records of all. The
        number of a step is a function of its chunk and of its place in the schedule.

        Args:
            state: Updated by every step.
            done: Records of earlier steps, by number.
            seconds: Time spent on them.
            show: Receives every new record, for display.
        """
        begun = time.perf_counter() - seconds
        made: list[Record] = []

        def keep(record: Record) -> None:
            record["seconds"] = round(time.perf_counter() - begun, 3)
            if self.folder is not None:
                self.folder.append([record])
            made.append(record)
            show({**record, "n_fooled": int(np.sum(state.fooled_at >= 0))})

        total = len(self.target.data)
        with self.processes.together(patient=True, fatal=True), devices.explain_out_of_memory(MEMORY):
            for number in self.processes.hand_out(-(-total // self.chunk_size)):
                self._attack_chunk(number, state, done, keep)
        if self.processes.size > 1:
            if self.folder is not None:
                self.folder.close_log()  # by which a network file system shows it to the first, which merges all
            parts = self.processes.gather(made)
            state.restart(done | {record["step"]: record for part in parts for record in part})
            state.done = total

    @property
    def chunk_size(self) -> int:
        """Images in a chunk."""
        return BATCHES * self.config.batch_size

    def _attack_chunk(
        self, number: int, state: EvalState, done: dict[int, Record], keep: Callable[[Record], None]
    ) -> None:
        """The steps of a chunk, until none of its images is robust. ``keep`` receives each new record."""
        start = number * self.chunk_size
        stop = min(start + self.chunk_size, len(self.target.data))
        schedule = self.schedule
        chunk: Chunk | None = None
        ensemble: Ensemble | None = None
        before: list[tuple[Stage, Indices]] = []  # earlier stages at the same radius, and which images they met
        for turn, (eps_index, stage) in enumerate(schedule):
            robust = state.still_robust(start, stop)
            if not len(robust):
                break
            step = number * len(schedule) + turn + 1
            if stage is self.stages[0]:
                ensemble, before = None, []
            if step in done:
                state.update(done[step])
                before += [] if stage is None else [(stage, robust)]
                continue
            chunk = chunk or self.read(start, stop)
            if stage is None:
                record = self._clean_record(chunk)
            else:
                ensemble = ensemble or self._ensemble(chunk, eps_index, before)
                # The folded model may misclassify an image that the exact one, but for rounding, does not: it is
                # not attacked, and stays among the robust ones.
                outcome = ensemble.run(stage, self._indices(robust - start))
                record = {"stage": stage.name, "n_attacked": 0, **_NOTHING}
                if outcome is not None:
                    record |= self._verified(outcome, chunk, eps_index, step)
            # An image that is still robust is through with this share of the schedule; a fooled one with all of it.
            ahead = (len(robust) - len(record["fooled"])) * (1 - (turn + 1) / len(schedule))
            eps = self.radii[eps_index - 1] if eps_index else 0.0
            record = {"images": int(stop - ahead), "step": step, "eps_index": eps_index, "eps": eps, **record}
            state.update(record)
            keep(record)
        state.done = stop

    def read(self, start: int, stop: int) -> Chunk:
        """Images of the evaluation, with what the exact model predicts."""
        x = self.target.images(start, stop)
        y = torch.from_numpy(self.target.data.labels[start:stop]).to(x.device)
        with own_randomness(derive(self.config.seed, "judge", start), x.device):
            predicted, logits = predict(
                self.models.exact.logits, x, batch_size=self.config.batch_size, votes=self.models.votes
            )
        # Of a randomized model the vote decides. Where the mean of the logits says otherwise, it trades the two
        # classes: attacks skip what the logits show to be misclassified.
        first, voted = logits.argmax(1, keepdim=True), predicted[:, None]
        traded = logits.scatter(1, first, logits.gather(1, voted)).scatter(1, voted, logits.gather(1, first))
        logits = torch.where(first == voted, logits, traded)
        targets = None
        if self.target.data.targets is not None:
            targets = torch.from_numpy(self.target.data.targets[start:stop]).to(x.device)
        return Chunk(start, stop, x, y, targets, predicted, logits)

    def _ensemble(self, chunk: Chunk, eps_index: int, before: Sequence[tuple[Stage, Indices]]) -> Ensemble:
        """The ensemble at a radius, as the stages ``before``, which an earlier part of the run recorded, left it."""
        ensemble = Ensemble(
            self.models.attacked,
            chunk.x,
            chunk.y,
            self._ball(eps_index, chunk.x.dtype),
            clean=chunk.logits,
            targets=chunk.targets,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
        )
        if any(stage.takes("best") for stage in self.stages[len(before) :]):
            for stage, robust in before:
                ensemble.run(stage, self._indices(robust - chunk.start))
        return ensemble

    def _indices(self, positions: Indices) -> Tensor:
        return torch.from_numpy(positions).to(self.target.device)

    def _ball(self, eps_index: int, dtype: torch.dtype) -> Ball:
        return self.ball.with_eps(torch.tensor(self.radii[eps_index - 1], dtype=dtype))

    def _clean_record(self, chunk: Chunk) -> Record:
        wrong = (chunk.start + (chunk.predicted != chunk.y).nonzero()[:, 0]).tolist()
        return {"stage": CLEAN, "n_attacked": chunk.stop - chunk.start, "fooled": wrong, "fooled_8bit": wrong}

    def _verified(self, outcome: Outcome, chunk: Chunk, eps_index: int, step: int) -> Record:
        """The record of an attack: only what the exact model confirms counts as fooled; it is stored.

        Args:
            outcome: Of the attack.
            chunk: The images that its indices count.
            eps_index: The radius, by number from 1.
            step: The number of the record.
        """
        ball, votes, size = self._ball(eps_index, chunk.x.dtype), self.models.votes, self.config.batch_size
        claimed = outcome.fooled if votes == 1 else torch.ones_like(outcome.fooled)
        indices, x_adv = outcome.indices[claimed], outcome.x_adv[claimed]
        with own_randomness(derive(self.config.seed, "verify", step), chunk.x.device):
            fooled, fooled_8bit, predicted = verify(
                self.models.exact.logits,
                chunk.x[indices],
                chunk.y[indices],
                x_adv,
                ball,
                batch_size=size,
                votes=votes,
                targets=None if chunk.targets is None else chunk.targets[indices],
            )
        positions = chunk.start + indices[fooled].cpu().numpy()
        still = ~torch.isin(outcome.indices, indices[fooled])
        rest = chunk.start + outcome.indices[still].cpu().numpy()
        self.store.add(
            step,
            self.radii[eps_index - 1],
            Attacked(chunk.x[indices[fooled]], x_adv[fooled], positions, predicted[fooled].cpu().numpy()),
            Attacked(chunk.x[outcome.indices[still]], outcome.x_adv[still], rest, self.target.data.labels[rest]),
        )
        queries: Record = {}
        if outcome.queries is not None:
            queries["queries"] = outcome.queries[claimed][fooled].tolist()
        return {
            **queries,
            "n_attacked": len(outcome.indices),
            "fooled": positions.tolist(),
            "fooled_8bit": (chunk.start + indices[fooled_8bit].cpu().numpy()).tolist(),
            "n_unverified": int((outcome.fooled[claimed] & ~fooled).sum()),
            "forwards": outcome.forwards,
            "backwards": outcome.backwards,
            "stage_seconds": round(outcome.seconds, 3),
        }


_NOTHING: Record = {
    "fooled": [],
    "fooled_8bit": [],
    "n_unverified": 0,
    "forwards": 0,
    "backwards": 0,
    "stage_seconds": 0.0,
}
