"""Certifies and attacks one image after the other, and logs one record for each, so that it can resume."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import torch
from torch import Tensor

from rivals.api.robustness.attack_loop import MEMORY
from rivals.api.robustness.beats import beat_on_forward, remedy
from rivals.api.robustness.target import Notes, Target
from rivals.attacks.frozen_model import FrozenModel, freeze
from rivals.attacks.input_checks import ONE_LOGIT, NoGradientError
from rivals.attacks.model_rng import own_randomness
from rivals.attacks.pgd import pgd
from rivals.base import devices
from rivals.base.errors import Interrupted, ProcessLost
from rivals.base.norm_balls import Ball
from rivals.base.process_group import ProcessGroup
from rivals.base.rng import on_device, streams
from rivals.base.run_folder import Record, Run
from rivals.base.signals import interrupt_on_signal
from rivals.base.typed_json import conforms
from rivals.console.attack_progress import AttackProgress
from rivals.metrics.certified_curve import CertifiedRobustness, certified_robustness
from rivals.metrics.randomized_smoothing import (
    ABSTAIN,
    Certificate,
    certified_radius,
    certify,
    outvoted,
    sample_under_noise,
)
from rivals.nets.wrappers import SmoothedClassifier
from rivals.recipes.options import CertifyConfig

CONFIRM_SAMPLES = 500  # fresh noise samples that confirm a successful attack


@dataclasses.dataclass
class SmoothingLoop:
    """The loop over the images of a certification.

    An image is certified first. At each radius that its certificate does not reach, in rising order, PGD on the mean
    probabilities of a few noisy copies searches for a point where the smoothed classifier is wrong; it counts if fresh
    samples confirm it.

    Attributes:
        target: The classifier and the images.
        ball: An L2 ball with the bounds of the images.
        radii: The radii, rising from 0.
        config: All other options.
        notes: What the reader of the result should know.
        folder: The run folder, or None.
        processes: Those that share the images. The first one writes the report.
    """

    target: Target
    ball: Ball
    radii: list[float]
    config: CertifyConfig
    notes: Notes
    folder: Run | None
    processes: ProcessGroup
    attackable: bool = True
    folded: bool = False

    def run(self) -> CertifiedRobustness:
        """All images that are not done yet, and the report."""
        with contextlib.ExitStack() as stack:
            if self.folder is not None and self.processes.first:
                stack.enter_context(self.folder.lock())
            stack.enter_context(devices.explain_out_of_memory(MEMORY))
            self.processes.remedy = remedy(self.folder)
            exact, smoothed = self._freeze(stack)
            return self._images(exact, smoothed, stack.enter_context(self._live(exact, smoothed)))

    def _images(self, exact: FrozenModel, smoothed: FrozenModel, live: AttackProgress) -> CertifiedRobustness:
        folder, total = self.folder, len(self.target.data)
        with self.processes.together():
            known = self._merged_records() if self.processes.first else []
            if folder is not None and self.processes.first:
                folder.update(state="running", source=self.target.source, processes=self.processes.size)
        records: list[Record] = self.processes.share(known)
        left = sorted({*range(total)} - {record["step"] - 1 for record in records})
        made: list[Record] = []
        begun = time.perf_counter() - max((record["seconds"] for record in records), default=0.0)
        n_fooled = sum(record["adversarial_radius"] is not None for record in records)
        try:
            with (
                interrupt_on_signal(),
                self.processes.together(patient=True),
                devices.explain_out_of_memory(MEMORY),
            ):
                for i in map(left.__getitem__, self.processes.hand_out(len(left))):
                    x = self.target.images(i, i + 1)
                    found = self._image(exact, smoothed, x, int(self.target.data.labels[i]))
                    seconds = round(time.perf_counter() - begun, 3)
                    record = {"images": i + 1, "step": i + 1, "seconds": seconds, **found}
                    if folder is not None:
                        folder.append([record])
                    made.append(record)
                    n_fooled += record["adversarial_radius"] is not None
                    certificate = f"radius {record['radius']:.3f}" if record["radius"] else "abstained"
                    live({**record, "n_fooled": n_fooled, "stage": certificate, "eps": 0})
        except ProcessLost:
            if folder is not None and self.processes.first:
                self._finish(self._merged_records(), "interrupted")
            raise
        except KeyboardInterrupt:
            if folder is None:
                raise
            done = len(records) + len(made)
            if self.processes.first:
                done = self._finish(self._merged_records(), "interrupted").n
            raise Interrupted(
                f"stopped and saved after {done:,} of {total:,} images: continue with {folder.command_to_resume}"
            ) from None
        records += [record for part in self.processes.gather(made) for record in part]
        if self.processes.first:
            self._merged_records()
        return self._finish(sorted(records, key=lambda record: int(record["step"])), "finished")

    def _freeze(self, stack: contextlib.ExitStack) -> tuple[FrozenModel, FrozenModel]:
        """The model as it was given, which alone is certified, and the smoothed one, which is attacked."""
        config, sample = self.config, self.target.images(0, 2)
        # No warning of probabilities: only the order of the logits counts here, and probabilities have the same.
        exact = stack.enter_context(freeze(self.target.model, sample, fold=False, warn=False))
        inner = stack.enter_context(freeze(self.target.model, sample, warn=False))
        smooth = SmoothedClassifier(inner.run, config.sigma, config.draws, config.seed)
        smoothed = stack.enter_context(freeze(smooth, sample, fold=False, warn=False))
        stack.enter_context(beat_on_forward(self.processes, exact.run, inner.run))
        if exact.one_logit:
            self.notes(ONE_LOGIT)
        self.target.check_classes(exact.classes, self.notes)
        self.folded = inner.folded
        self.attackable = config.upper and self._has_gradient(smoothed, sample)
        return exact, smoothed

    def _has_gradient(self, smoothed: FrozenModel, sample: Tensor) -> bool:
        """Whether the model can be attacked. Without a gradient it is certified all the same."""
        try:
            leaf, logits = smoothed.trace(sample[:1])
            smoothed.gradient(logits[:, 0], leaf)
        except NoGradientError:
            self.notes("the model gives no gradient, so nothing is attacked: the upper curve is that of radius 0")
            return False
        return True

    def _live(self, exact: FrozenModel, smoothed: FrozenModel) -> AttackProgress:
        draws = self.config.draws
        return AttackProgress(
            len(self.target.data),
            lambda: exact.forwards + draws * smoothed.forwards,
            quiet=self.notes.quiet,
            description="certifying the first image",
        )

    def _image(self, exact: FrozenModel, smoothed: FrozenModel, x: Tensor, label: int) -> Record:
        """The record of one image (1, ...): its certificate, and the smallest radius at which an attack succeeded."""
        config = self.config
        (own,) = streams(x, [0], config.seed, "model")
        with own_randomness(own.initial_seed(), self.target.device):
            (found,) = certify(
                exact.logits,
                x,
                config.sigma,
                guesses=config.guesses,
                samples=config.samples,
                alpha=config.alpha,
                seed=config.seed,
                batch_size=config.batch_size,
            )
            adversarial_radius = self._adversarial_radius(exact, smoothed, x, label, found) if config.upper else None
        return {
            "label": label,
            "prediction": found.label,
            "radius": found.radius,
            "adversarial_radius": adversarial_radius,
        }

    def _adversarial_radius(
        self, exact: FrozenModel, smoothed: FrozenModel, x: Tensor, label: int, certificate: Certificate
    ) -> float | None:
        """The smallest radius at which the smoothed classifier is shown to be wrong; None if there is none."""
        if certificate.label not in (label, ABSTAIN):
            return 0.0  # misclassified as it is
        certified = certificate.radius if certificate.label == label else -1.0
        for level, eps in enumerate(self.radii):
            if eps <= certified:
                continue
            x_adv: Tensor | None = x
            if level:
                x_adv = self._attack(smoothed, x, label, eps) if self.attackable else None
            if x_adv is not None and self._confirm(exact, x, x_adv, label, level):
                return eps
        return None

    def _attack(self, smoothed: FrozenModel, x: Tensor, label: int, eps: float) -> Tensor | None:
        """The best adversarial example at this radius; None if the mean prediction stays correct."""
        y = torch.tensor([label], device=self.target.device)
        ball = self.ball.with_eps(torch.tensor(eps, dtype=x.dtype))
        # It continues where the mean is wrong already: the vote over fresh samples must be lost too, and clearly.
        options: dict[str, Any] = {"seed": self.config.seed, "batch_size": 1, "stop_when_fooled": False}
        x_adv = pgd(smoothed, x, y, ball, steps=self.config.steps, random_start=False, **options)
        wrong = bool(smoothed.logits(x_adv).argmax(1) != y)
        return x_adv if wrong and bool(x_adv.isfinite().all()) and bool(ball.contains(x_adv, x)) else None

    def _confirm(self, exact: FrozenModel, x: Tensor, x_adv: Tensor, label: int, level: int) -> bool:
        """Whether fresh noise samples confirm that ``x_adv`` is misclassified."""
        (source,) = streams(x, [level], self.config.seed, "looks")
        generator = on_device(source, x.device)
        counts = sample_under_noise(
            exact.logits, x_adv[0], self.config.sigma, CONFIRM_SAMPLES, generator, batch_size=self.config.batch_size
        )
        return outvoted(counts, label, self.config.alpha)

    def _merged_records(self) -> list[Record]:
        """The records of the images that are done, by all processes, in order. Damaged ones are dropped."""
        if self.folder is None:
            return []
        from rivals.reports.sections.certification import CertifiedImage

        return [*self.folder.merge_logs(lambda record: conforms(record, CertifiedImage)).values()]

    def _finish(self, records: list[Record], state: str) -> CertifiedRobustness:
        """The report; in a run folder also as a page."""
        config, notes = self.config, list(self.notes.texts)
        if state == "interrupted":
            notes.append(f"interrupted: these numbers are of {len(records):,} of the {len(self.target.data):,} images")
        seconds = max((record["seconds"] for record in records), default=0.0)
        report = certified_robustness(
            records,
            self.radii,
            upper=config.upper,
            largest=certified_radius(config.samples, config.samples, config.sigma, config.alpha),
            notes=list(dict.fromkeys(notes)),
            protocol=self._protocol(),
            seconds=seconds,
        )
        if self.folder is None or not self.processes.first:
            return report
        from rivals.reports.report import write_report

        done = len(records)
        self.folder.update(
            state=state, images=done, step=done, seconds=round(seconds, 1), alarms=[], results=report.as_dict()
        )
        write_report([self.folder], self.folder.report)
        return dataclasses.replace(report, run=str(self.folder.folder))

    def _protocol(self) -> Record:
        """How the numbers were made."""
        names = ("sigma", "samples", "guesses", "alpha", "upper", "draws", "steps", "seed", "batch_size")
        return {
            **{name: getattr(self.config, name) for name in names},
            "confirm_samples": CONFIRM_SAMPLES,
            "noise": f"drawn on {self.target.device.type}",
            "norm": "L2",
            "radii": self.radii,
            "folded": self.folded,
            **self.target.protocol(),
        }
