"""One evaluation: the signs of gradient masking, the attack itself, the report."""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from torch import Tensor

from rivals.api.robustness.adv_store import AdvStore
from rivals.api.robustness.attack_loop import MEMORY, AttackLoop, EvalModels
from rivals.api.robustness.attack_records import CleanRecord, ProbeRecord, StageRecord
from rivals.api.robustness.attack_spec import is_gradient_free, sees_labels_only
from rivals.api.robustness.beats import beat_on_forward, remedy
from rivals.api.robustness.defense import NAIVE
from rivals.api.robustness.masking_probe import probe_masking, stages_for
from rivals.api.robustness.surrogates import without_early_stop
from rivals.api.robustness.target import Notes, Target
from rivals.attacks.ensemble import Stage
from rivals.attacks.frozen_model import FrozenModel, freeze
from rivals.attacks.input_checks import ONE_LOGIT
from rivals.attacks.model_rng import own_randomness
from rivals.base import devices
from rivals.base.errors import Interrupted, ProcessLost
from rivals.base.norm_balls import L0, Ball
from rivals.base.process_group import ProcessGroup
from rivals.base.rng import derive
from rivals.base.run_folder import Record, Run
from rivals.base.signals import interrupt_on_signal
from rivals.base.typed_json import conforms
from rivals.console.attack_progress import AttackProgress
from rivals.metrics import gradient_masking
from rivals.metrics.gradient_masking import Alarm
from rivals.metrics.robust_accuracy import EvalState, Robustness
from rivals.nets.wrappers import EOTModel
from rivals.recipes.options import AttackConfig

NO_START = (
    "an attack by labels alone starts from noise that the model takes for the target class; where there is none, the "
    "image counts as robust: attack with logits or gradients as well"
)
VOTES = 10  # forward passes whose majority decides on a randomized model, or as many as --eot if those are more


@dataclasses.dataclass(frozen=True)
class _Begun:
    """An evaluation that is ready to attack: the loop, the probe's record, other records, their time, the display."""

    loop: AttackLoop
    probe: Record
    done: dict[int, Record]
    seconds: float
    bar: AttackProgress


@dataclasses.dataclass
class Evaluator:
    """One evaluation of a classifier under attack.

    Attributes:
        target: The classifier and the images.
        ball: Its norm and bounds count here.
        radii: The radii, rising.
        stages: The attacks, in order.
        config: All other options.
        notes: What the reader of the result should know.
        folder: The run folder, if there is one.
        processes: Those that share the images. The first one looks for gradient masking and writes the report.
    """

    target: Target
    ball: Ball
    radii: list[float]
    stages: tuple[Stage, ...]
    config: AttackConfig
    notes: Notes
    folder: Run | None
    processes: ProcessGroup

    def run(self) -> Robustness:
        """Everything from the first forward pass to the report.

        Raises:
            UserError: the model and the images do not fit each other, or memory does not suffice.
            Interrupted: stopped after saving.
        """
        folder, state = self.folder, EvalState(self.target.data.labels, self.radii)
        with contextlib.ExitStack() as stack:
            if folder is not None and self.processes.first:
                stack.enter_context(folder.lock())
            stack.enter_context(devices.explain_out_of_memory(MEMORY))
            self.processes.remedy = remedy(folder)
            begun: _Begun | None = None
            try:
                with interrupt_on_signal():
                    begun = self._begin(stack)
                    begun.loop.run(state, begun.done, begun.seconds, begun.bar)
            except ProcessLost:
                if folder is not None and self.processes.first:
                    folder.update(state="interrupted")
                raise
            except KeyboardInterrupt:
                self.processes.stop()
                if folder is None:
                    raise
                if self.processes.size > 1:  # images that several processes had taken are no first part
                    if self.processes.first:
                        folder.update(state="interrupted")
                    raise Interrupted(f"stopped: {remedy(folder)}") from None
                if begun is None:
                    folder.update(state="interrupted")
                else:
                    self._finish(begun.loop, state, begun.probe, "interrupted")
                raise Interrupted(
                    f"stopped and saved after {folder.info.get('images', 0):,} of {len(self.target.data):,} images: "
                    f"continue with {folder.command_to_resume}"
                ) from None
            assert begun is not None
            return self._finish(begun.loop, state, begun.probe, "finished")

    def _begin(self, stack: contextlib.ExitStack) -> _Begun:
        """All that precedes the attack: the frozen model, the records to resume, and the signs of gradient masking."""
        target, folder = self.target, self.folder
        models, warned = self._freeze(stack)
        stack.enter_context(beat_on_forward(self.processes, models.exact.run, models.attacked.run))
        target.check_classes(models.exact.classes, self.notes)
        if target.data.targets is not None and any(map(sees_labels_only, self.stages)):
            self.notes(NO_START)
        store = AdvStore(
            None if folder is None else folder.folder,
            self.config.save,
            target.data.order,
            target.data.labels,
            self.processes.rank,
        )
        with self.processes.together():
            known = self._records_to_resume() if self.processes.first else {}
            if self.processes.first and (problem := store.resume(known)):
                self.notes(problem)
        done = {record["step"]: record for record in self.processes.share([*known.values()])}
        seconds = max((record["seconds"] for record in done.values()), default=0.0)
        bar = stack.enter_context(
            AttackProgress(len(target.data), lambda: models.attacked.forwards, quiet=self.notes.quiet)
        )
        loop = AttackLoop(
            target, models, self.ball, self.radii, self.stages, self.config, folder, store, self.processes
        )
        probe = done.pop(0, None)
        if probe is None:
            with self.processes.together(patient=True):
                if self.processes.first:
                    probe = probe_masking(loop, self.notes, warned)
                    if folder is not None:
                        folder.append([probe])
            probe = self.processes.share(probe)
        else:
            for text in probe["notes"]:
                self.notes(text)
        # Not before the probes: they look for flaws of the gradient, and bf16 has some of its own.
        models.attacked.bf16 = self.config.precision == "bf16"
        loop.stages = stages_for(probe["gradient"], self.stages, self.ball)
        if models.votes > 1:  # one pass that happens to fool is no reason to stop: the vote decides
            loop.stages = tuple(
                stage
                if is_gradient_free(stage)
                else dataclasses.replace(stage, attack=without_early_stop(stage.attack))
                for stage in loop.stages
            )
        for alarm in probe["alarms"]:
            bar.print(f"{alarm['message']}: {alarm['remedy']}")
        if folder is not None and self.processes.first:
            folder.update(state="running", source=target.source, processes=self.processes.size)
        return _Begun(loop, probe, done, seconds, bar)

    def _freeze(self, stack: contextlib.ExitStack) -> tuple[EvalModels, bool]:
        """The model ready to be evaluated and attacked, and whether it seems to return probabilities."""
        sample, eot = self.target.images(0, 2), self.config.eot
        losses = self.config.eot_average == "losses"
        # The report says it if the model returns probabilities.
        exact = stack.enter_context(freeze(self.target.model, sample, fold=False, channels_last=False, warn=False))
        attacked = EOTModel(exact.run, eot) if eot > 1 and not losses else self.target.model
        frozen = stack.enter_context(freeze(attacked, sample, compiled=self.config.compiled, warn=False))
        if exact.one_logit:
            self.notes(ONE_LOGIT)
        frozen.passes = eot if losses else 1
        return EvalModels(exact, frozen, self._votes(exact, sample)), exact.probabilities

    def _votes(self, exact: FrozenModel, sample: Tensor) -> int:
        """How many forward passes decide on an image: several if two passes of the same images differ."""
        seed, eot = self.config.seed, self.config.eot
        logits = []
        for turn in ("first", "second"):
            with own_randomness(derive(seed, turn), sample.device):
                logits.append(exact.logits(sample))
        if torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5):
            if eot > 1:
                self.notes(f"the model is not randomized: --eot {eot} only costs time")
            return 1
        votes = max(VOTES, eot)
        mean = f"attacked by the mean {self.config.eot_average} of {eot} forward passes"
        how = mean if eot > 1 else "attacked one forward pass at a time"
        self.notes(f"the model is randomized: {how}, and classified by a majority of {votes} forward passes")
        return votes

    def _records_to_resume(self) -> dict[int, Record]:
        """The records of an earlier part of the run by step, the probe's under 0."""
        if self.folder is None:
            return {}
        # A step whose record is damaged is repeated.
        records = self.folder.merge_logs(self._is_intact)
        if 0 not in records:
            records = {}
            self.folder.rewind(-1)
        return records

    def _is_intact(self, record: Record) -> bool:
        """Whether the attack can go on from a record of the probe, or of a stage, as from its own."""
        if not record["step"]:
            return conforms(record, ProbeRecord)
        if not conforms(record, CleanRecord | StageRecord):
            return False
        last = max((*record["fooled"], *record["fooled_8bit"]), default=0)
        return last < len(self.target.data) and record["eps_index"] <= len(self.radii)

    def _finish(self, loop: AttackLoop, state: EvalState, probe: Record, outcome: str) -> Robustness:
        """The report; in a run folder also as a page, with the adversarial examples in one file."""
        alarms, followed = list(probe["alarms"]), False
        fooled = {True: 0, False: 0}
        for stage in loop.stages:
            free = is_gradient_free(stage)
            # What a gradient-free stage fools before any gradient-based one has seen it says nothing of gradients.
            if stage.name in state.stages and (not free or followed):
                fooled[free] += state.stages[stage.name].fooled
            followed = followed or not free
        if self.config.alarms and not all(is_gradient_free(stage) for stage in loop.stages):
            late = gradient_masking.gradient_free_alarm(fooled[True], fooled[False], state.done)
            names = {alarm["alarm"] for alarm in alarms}
            alarms += [alarm.as_dict() for alarm in late if alarm.alarm not in names]
        alarms += [alarm.as_dict() for alarm in self._weak_attack(state, probe)]
        unverified = sum(count.unverified for count in state.stages.values())
        if unverified:
            self.notes(f"{unverified:,} successes that an attack claimed were not confirmed, and do not count")
        count = len(self.target.data)
        if outcome == "interrupted":
            self.notes.texts.append(f"interrupted: these numbers are of the first {state.done:,} of {count:,} images")
        folder = self.folder if self.processes.first else None
        if folder is not None:
            folder.merge_logs(self._is_intact)
            loop.store.merge_examples(len(loop.schedule))
        times = [] if folder is None else [record["seconds"] for record in folder.records() if "seconds" in record]
        seconds = max(times, default=sum(count.seconds for count in state.stages.values()))
        report = state.report(
            self.target.data.classes,
            alarms=alarms,
            notes=list(dict.fromkeys(self.notes.texts)),
            protocol=self._protocol(loop, probe),
            seconds=seconds,
            naive=NAIVE if self.config.defense else None,
        )
        if folder is None:
            return report
        from rivals.reports.report import write_report
        from rivals.reports.robustbench import write_entry

        saved = loop.store.merge() if outcome == "finished" else None
        folder.update(
            state=outcome,
            images=state.done,
            step=max((record["step"] for record in folder.records()), default=0),
            seconds=round(seconds, 1),
            alarms=alarms,
            results=report.as_dict(),
            adversarial_examples=saved.name if saved is not None else None,
        )
        if outcome == "finished":
            loop.store.clear()
            write_entry(folder)
        write_report([folder], folder.report)
        return dataclasses.replace(report, run=str(folder.folder))

    def _weak_attack(self, state: EvalState, probe: Record) -> list[Alarm]:
        """An alarm if the attack left many images that the probes fooled."""
        fooled = [image for image in probe["probe"].get("fooled_by_any", ()) if image < state.done]
        left = int((state.fooled_at[fooled] < 0).sum())
        return gradient_masking.weak_attack_alarm(left, min(probe["probe"]["n"], state.done))

    def _protocol(self, loop: AttackLoop, probe: Record) -> Record:
        """How the numbers were made."""
        return {
            "attack": self.config.attack,
            "surrogate": self.config.surrogate or None,
            "target": self.config.target if self.target.data.targets is not None else None,
            "stages": [stage.name for stage in loop.stages],
            "norm": type(self.ball).__name__,
            "masked": None if self.ball.mask is None else round(float(self.ball.mask.float().mean()), 6),
            "pixels": isinstance(self.ball, L0) and self.ball.pixels,
            "eps": self.radii,
            "bounds": [torch.as_tensor(bound).tolist() for bound in self.ball.bounds],
            "eps_scale": None if self.ball.scale is None else self.ball.scale.tolist(),
            "seed": self.config.seed,
            "batch_size": self.config.batch_size,
            "precision": self.config.precision,
            "eot": self.config.eot,
            "eot_average": self.config.eot_average if self.config.eot > 1 else None,
            "votes": loop.models.votes,
            "alarms": self.config.alarms,
            "probed": probe["probe"]["n"] if self.config.alarms else 0,
            "defense": self.config.defense or None,
            "folded": loop.models.attacked.folded,
            **self.target.protocol(),
        }
