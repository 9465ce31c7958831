"""Deterministic certificates for a few images at a time, and an attack on those that are not certified."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.api.certification.image_loop import ImageLoop
from rivals.api.robustness.beats import beat_on_forward
from rivals.attacks.ensemble import Stage, run_ensemble
from rivals.attacks.frozen_model import FrozenModel, freeze
from rivals.base.devices import check_float64
from rivals.base.errors import UserError
from rivals.base.numerics import exact_float32
from rivals.base.run_folder import Record
from rivals.bounds.alpha_crown import alpha_crown_margins
from rivals.bounds.beta_crown import beta_crown_margins
from rivals.bounds.crown import crown_ibp_margins, crown_margins
from rivals.bounds.ibp import check_finite, interval_margins, smallest_margin
from rivals.bounds.network import Network
from rivals.bounds.regions import Region, region_of
from rivals.bounds.tracing import trace
from rivals.console.attack_progress import AttackProgress
from rivals.metrics.bracket import Bracket, bracket

AT_ONCE = {"ibp": 64, "crown-ibp": 64, "crown": 16, "alpha-crown": 8, "beta-crown": 1}
"""Images in a piece of work. Coefficients of CROWN are as many as units times units, and slopes are as many again."""
BETTER: dict[str, tuple[Callable[[Network, Region, Tensor], Tensor], ...]] = {
    "ibp": (),
    "crown-ibp": (crown_ibp_margins,),
    "crown": (crown_ibp_margins, crown_margins),
    "alpha-crown": (crown_ibp_margins, crown_margins, alpha_crown_margins),
    "beta-crown": (crown_ibp_margins, crown_margins, beta_crown_margins),
}
"""What follows IBP on the images that are left."""
TOLERANCE = 1e-4  # relative difference between the logits of a model and of its trace


@dataclasses.dataclass
class BoundsLoop(ImageLoop[Bracket]):
    """The loop over the images of a certification by bounds.

    Cheap bounds come first: an image that IBP certifies needs no CROWN, and one that CROWN certifies no optimization.
    The stages of the attack run on images that are classified correctly and not certified.

    Attributes:
        stages: The attack; none for no upper bound.
    """

    stages: tuple[Stage, ...]
    exact: FrozenModel = dataclasses.field(init=False)
    attacked: FrozenModel = dataclasses.field(init=False)
    network: Network = dataclasses.field(init=False)

    @property
    def at_once(self) -> int:
        """Images in a piece of work."""
        return min(AT_ONCE[self.config.method], self.config.batch_size)

    @property
    def schema(self) -> type[Any]:
        """That of the report."""
        from rivals.reports.sections.bracket import BracketedImage

        return BracketedImage

    def begin(self, stack: contextlib.ExitStack) -> AttackProgress:
        """Freeze the model, and trace it."""
        check_float64(self.target.device, "bounds")
        stack.enter_context(exact_float32(self.target.device))
        sample = self.target.images(0, 2)
        self.exact = exact = stack.enter_context(freeze(self.target.model, sample, fold=False, warn=False))
        self.attacked = attacked = stack.enter_context(freeze(self.target.model, sample, warn=False))
        if exact.one_logit:
            raise UserError("the model has one logit, and bounds need one for each class: let it return (0, z) instead")
        self.target.check_classes(exact.classes, self.notes)
        self.network = trace(exact.run, sample).frozen()
        self._compare(sample, exact.logits(sample))
        check_finite(self.network, region_of(sample, self.ball))
        stack.enter_context(beat_on_forward(self.processes, exact.run, attacked.run))
        return AttackProgress(
            len(self.target.data),
            lambda: exact.forwards + attacked.forwards,
            quiet=self.notes.quiet,
            description="certifying the first images",
        )

    def _compare(self, x: Tensor, logits: Tensor) -> None:
        """Refuse a trace that computes something else than the model for these images."""
        if not torch.allclose(self.network(x), logits, rtol=TOLERANCE, atol=TOLERANCE * float(logits.abs().max())):
            raise UserError(
                "the trace of the model has other logits than the model: bounds need a forward pass that is the same "
                "for every image, in one precision"
            )

    @torch.no_grad()
    def certify(self, numbers: list[int]) -> list[Record]:
        """The records of these images: whether each is certified or broken, and the smallest margin."""
        x = self.target.data.take(np.array(numbers)).to(self.target.device, self.target.dtype)
        y = torch.from_numpy(self.target.data.labels[numbers]).to(x.device)
        logits = self.exact.logits(x)
        self._compare(x, logits)
        predicted = logits.argmax(1)
        margin = self._margins(x, y, predicted == y)
        certified = (margin > 0) & (predicted == y)
        broken_by = self._attack(x, y, (predicted == y) & ~certified)
        return [
            {
                "label": int(y[i]),
                "prediction": int(predicted[i]),
                "certified": bool(certified[i]),
                "margin": float(margin[i]),
                "broken": bool(predicted[i] != y[i]) or broken_by[i] is not None,
                "broken_by": broken_by[i],
            }
            for i in range(len(numbers))
        ]

    def _margins(self, x: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
        """The smallest lower bound of ``z_y - z_k`` of each image (B,); of those wanted, by the best method."""
        region = region_of(x, self.ball)
        margin = smallest_margin(interval_margins(self.network, region, y), y)
        if not bool(margin.isfinite().all()):
            check_finite(self.network, region)
        for bound in BETTER[self.config.method]:
            left = (wanted & (margin <= 0)).nonzero()[:, 0]
            if len(left):
                better = smallest_margin(bound(self.network, region.part(left), y[left]), y[left])
                margin[left] = torch.maximum(margin[left], better.to(margin.dtype))
        return margin

    def _attack(self, x: Tensor, y: Tensor, wanted: Tensor) -> list[str | None]:
        """For each image the stage that broke it; each success is confirmed by the model as it was given."""
        names: list[str | None] = [None] * len(x)
        rows = wanted.nonzero()[:, 0]
        if not self.stages or not len(rows):
            return names
        options: Any = {"seed": self.config.seed, "batch_size": self.config.batch_size}
        for outcome in run_ensemble(self.attacked, x[rows], y[rows], self.ball, self.stages, **options):
            for place, x_adv in zip(outcome.indices[outcome.fooled], outcome.x_adv[outcome.fooled], strict=True):
                i = int(rows[place])
                inside = bool(self.ball.contains(x_adv[None], x[i : i + 1]))
                if inside and bool(self.exact.logits(x_adv[None]).argmax(1) != y[i]):
                    names[i] = outcome.stage
        return names

    def is_fooled(self, record: Mapping[str, Any]) -> bool:
        """Whether the image is broken."""
        return bool(record["broken"])

    def describe(self, record: Mapping[str, Any]) -> str:
        """Certified, broken or open."""
        return "certified" if record["certified"] else "broken" if record["broken"] else "open"

    def report(self, records: list[Record], notes: list[str], seconds: float, run: str | None) -> Bracket:
        """The bracket."""
        made = bracket(records, notes=notes, protocol=self._protocol(), seconds=seconds)
        return dataclasses.replace(made, run=run)

    def _protocol(self) -> Record:
        """How the numbers were made."""
        return {
            "method": self.config.method,
            "norm": type(self.ball).__name__,
            "eps": float(self.ball.eps),
            "attack": self.config.attack if self.stages else None,
            "seed": self.config.seed,
            "batch_size": self.config.batch_size,
            **self.target.protocol(),
        }
