"""Randomized smoothing of one image after the other, each with a certificate and an attack."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rivals.api.certification.image_loop import ImageLoop
from rivals.api.robustness.beats import beat_on_forward
from rivals.attacks.frozen_model import FrozenModel, freeze
from rivals.attacks.input_checks import ONE_LOGIT, NoGradientError
from rivals.attacks.model_rng import own_randomness
from rivals.attacks.pgd import pgd
from rivals.base.rng import on_device, streams
from rivals.base.run_folder import Record
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

CONFIRM_SAMPLES = 500  # fresh noise samples that confirm a successful attack


@dataclasses.dataclass
class SmoothingLoop(ImageLoop[CertifiedRobustness]):
    """The loop over the images of a certification by randomized smoothing.

    An image is certified first. At each radius that its certificate does not reach, in rising order, PGD on the mean
    probabilities of a few noisy copies searches for a point where the smoothed classifier is wrong; it counts if fresh
    samples confirm it.

    Attributes:
        radii: The radii, rising from 0.
    """

    radii: list[float]
    attackable: bool = True
    folded: bool = False
    exact: FrozenModel = dataclasses.field(init=False)
    smoothed: FrozenModel = dataclasses.field(init=False)

    @property
    def schema(self) -> type[Any]:
        """That of the report."""
        from rivals.reports.sections.certification import CertifiedImage

        return CertifiedImage

    def begin(self, stack: contextlib.ExitStack) -> AttackProgress:
        """Freeze the model and the smoothed one."""
        self.exact, self.smoothed = exact, smoothed = self._freeze(stack)
        draws = self.config.draws
        return AttackProgress(
            len(self.target.data),
            lambda: exact.forwards + draws * smoothed.forwards,
            quiet=self.notes.quiet,
            description="certifying the first image",
        )

    def certify(self, numbers: list[int]) -> list[Record]:
        """The records of these images: certificates, and the smallest radius at which an attack succeeded."""
        labels = self.target.data.labels
        return [self._image(self.exact, self.smoothed, self.target.images(i, i + 1), int(labels[i])) for i in numbers]

    def is_fooled(self, record: Mapping[str, Any]) -> bool:
        """Whether an attack succeeded at some radius."""
        return record["adversarial_radius"] is not None

    def describe(self, record: Mapping[str, Any]) -> str:
        """The certified radius."""
        return f"radius {record['radius']:.3f}" if record["radius"] else "abstained"

    def report(self, records: list[Record], notes: list[str], seconds: float, run: str | None) -> CertifiedRobustness:
        """Both bounds at each radius."""
        config = self.config
        report = certified_robustness(
            records,
            self.radii,
            upper=config.upper,
            largest=certified_radius(config.samples, config.samples, config.sigma, config.alpha),
            notes=notes,
            protocol=self._protocol(),
            seconds=seconds,
        )
        return dataclasses.replace(report, run=run)

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
