"""Robust accuracy: the state of an evaluation under attack, and its report.

The state is a few numbers per image and per stage of the attack. It is made from the records of the steps alone, so a
resumed evaluation reports the same as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rivals.base.eps import describe_eps
from rivals.base.run_folder import Record
from rivals.metrics.proportion import Proportion

QUERY_BUDGETS = tuple(digit * 10**power for power in range(7) for digit in (1, 2, 5))
UNKNOWN_8BIT = "unknown: not all that a smaller eps fooled survives rounding; attack at the largest alone"
CLEAN = "clean"  # the stage that attacks nothing: predictions for the clean images
# Alarms that do not show masked gradients by themselves, but that an attack may fail because of.
NOT_MASKING = ("randomized", "probabilities", "weak-attack", "batch-dependent")


@dataclass
class StageCount:
    """What one stage of an attack did, over all images and radii.

    Attributes:
        attacked: Images attacked.
        fooled: Images misclassified afterward, as verified.
        unverified: Successes that the attack claimed and that verification did not confirm.
        seconds: Time spent.
        forwards: Images in forward passes.
        backwards: Images in backward passes.
    """

    attacked: int = 0
    fooled: int = 0
    unverified: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0

    def as_dict(self) -> Record:
        """As plain values."""
        return {**vars(self), "seconds": round(self.seconds, 3)}


@dataclass
class EvalState:
    """The state of an evaluation, updated by the record of each step.

    Attributes:
        labels: The class of each image (n,).
        radii: The radii, rising.
        fooled_at: The smallest radius at which each image was fooled (n,), by number: 0 if it is misclassified without
            an attack, k for ``radii[k - 1]``, -1 if it is still robust.
        fooled_8bit: Whether its adversarial example is still misclassified when rounded to 8 bits (n,).
        fooled_by: The stage that fooled each image (n,), or "".
        stages: What each stage did so far.
        queries: Of stages that count them: how many each image that it fooled took, by its number.
        done: How many images, from the first on, all steps are done for.
    """

    labels: npt.NDArray[np.int64]
    radii: Sequence[float]
    fooled_at: npt.NDArray[np.int16] = field(init=False)
    fooled_8bit: npt.NDArray[np.bool_] = field(init=False)
    fooled_by: npt.NDArray[Any] = field(init=False)
    stages: dict[str, StageCount] = field(default_factory=dict)
    queries: dict[str, dict[int, int]] = field(default_factory=dict)
    done: int = 0

    def __post_init__(self) -> None:
        self.fooled_at = np.full(len(self.labels), -1, np.int16)
        self.fooled_8bit = np.zeros(len(self.labels), np.bool_)
        self.fooled_by = np.full(len(self.labels), "", np.object_)

    def update(self, record: Record) -> None:
        """Add the record of a step: the images fooled, the radius (``eps_index``), the stage and its cost."""
        fooled = np.asarray(record["fooled"], np.int64)
        self.fooled_at[fooled] = record["eps_index"]
        self.fooled_8bit[np.asarray(record["fooled_8bit"], np.int64)] = True
        if record["stage"] == CLEAN:
            return
        self.fooled_by[fooled] = record["stage"]
        count = self.stages.setdefault(record["stage"], StageCount())
        if "queries" in record:
            self.queries.setdefault(record["stage"], {}).update(zip(fooled.tolist(), record["queries"], strict=True))
        count.fooled += len(fooled)
        count.attacked += record["n_attacked"]
        count.unverified += record["n_unverified"]
        count.forwards += record["forwards"]
        count.backwards += record["backwards"]
        count.seconds += record["stage_seconds"]

    def restart(self, records: Mapping[int, Record]) -> None:
        """Forget everything, then add the records of these steps, by number."""
        self.stages.clear()
        self.queries.clear()
        self.__post_init__()
        for step in sorted(records):
            self.update(records[step])

    def still_robust(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Indices of the images from ``start`` to ``stop`` that no step has fooled."""
        return start + np.flatnonzero(self.fooled_at[start:stop] < 0)

    def report(
        self,
        classes: Sequence[str],
        *,
        alarms: Sequence[Mapping[str, str]],
        notes: Sequence[str],
        protocol: Mapping[str, Any],
        seconds: float,
        naive: str | None = None,
    ) -> Robustness:
        """The report on the first ``done`` images; ``naive`` is the stage that does not see a defense."""
        fooled_at, labels = self.fooled_at[: self.done], self.labels[: self.done]
        fooled_8bit = self.fooled_8bit[: self.done]
        top, n = len(self.radii), len(fooled_at)
        # An image that a smaller radius fooled, but not when rounded, is not attacked again: what the largest radius
        # would do to it in 8 bits is not known.
        in_floats_below = bool(np.any((fooled_at > 0) & (fooled_at < top) & ~fooled_8bit))

        def accuracy(eps_index: int, chosen: npt.NDArray[np.bool_] | None = None) -> Proportion:
            smallest = fooled_at if chosen is None else fooled_at[chosen]
            return Proportion(int(np.sum((smallest < 0) | (smallest > eps_index))), len(smallest))

        rows = []
        for label in np.unique(labels).tolist():
            own = labels == label
            name = classes[label] if label < len(classes) else str(label)
            rows.append(ClassAccuracy(name, accuracy(0, own), accuracy(top, own)))
        return Robustness(
            clean=accuracy(0),
            robust=accuracy(top),
            robust_8bit=None if in_floats_below else Proportion(n - int(np.sum(fooled_8bit)), n),
            curve=tuple((eps, accuracy(i)) for i, eps in enumerate([0.0, *self.radii])),
            classes=tuple(rows),
            stages=dict(self.stages),
            queries=self._query_curves(n - int(np.sum(fooled_at == 0)), n),
            naive=None if naive is None else Proportion(int(np.sum((fooled_at != 0) & ~self._by(naive))), n),
            alarms=tuple(dict(alarm) for alarm in alarms),
            notes=tuple(notes),
            protocol=dict(protocol),
            seconds=seconds,
        )

    def _by(self, stage: str) -> npt.NDArray[np.bool_]:
        """Which of the first ``done`` images the stage has fooled."""
        fooled: npt.NDArray[np.bool_] = self.fooled_by[: self.done] == stage
        return fooled

    def _query_curves(self, correct: int, n: int) -> dict[str, tuple[tuple[int, Proportion], ...]]:
        """Robust accuracy after so many queries of a stage, with all that the stages before it fooled."""
        curves = {}
        for name in self.stages:
            if needed := [made for image, made in self.queries.get(name, {}).items() if image < self.done]:
                budgets = [made for made in QUERY_BUDGETS if made < max(needed)] + [max(needed)]
                curves[name] = tuple(
                    (made, Proportion(correct - sum(each <= made for each in needed), n)) for made in budgets
                )
            correct -= int(np.sum(self._by(name)))
        return curves


@dataclass(frozen=True)
class ClassAccuracy:
    """Clean and robust accuracy on the images of one class."""

    name: str
    clean: Proportion
    robust: Proportion


@dataclass(frozen=True)
class Robustness:
    """The result of an evaluation. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        clean: Clean accuracy.
        robust: Robust accuracy at the largest radius: images classified correctly, also after every stage.
        robust_8bit: The same where an adversarial example counts only if it is still misclassified when rounded to 8
            bits, as an image file does. None where an image was fooled at a smaller radius, but not when rounded: such
            images are not attacked again.
        curve: (eps, robust accuracy) for each radius, from 0 on.
        classes: Accuracies by class.
        stages: What each stage of the attack did, in order, over all radii.
        queries: Of each stage that counts its queries (forward passes of an image), robust accuracy after so many of
            them: (queries, robust accuracy), up to the most that an image took. Earlier stages count in full.
        alarms: Signs of gradient masking or of a weak attack: ``alarm``, ``message``, ``remedy``.
        notes: What else the reader should know.
        protocol: How the numbers were made: attack, norm, eps, seed, images, versions.
        seconds: Time spent.
        run: The run folder, if there is one.
        naive: With a defense, the robust accuracy under attacks that do not see it.
    """

    clean: Proportion
    robust: Proportion
    robust_8bit: Proportion | None
    curve: tuple[tuple[float, Proportion], ...]
    classes: tuple[ClassAccuracy, ...]
    stages: dict[str, StageCount]
    alarms: tuple[Record, ...]
    notes: tuple[str, ...]
    protocol: Record
    seconds: float
    queries: dict[str, tuple[tuple[int, Proportion], ...]] = field(default_factory=dict)
    run: str | None = None
    naive: Proportion | None = None

    @property
    def n(self) -> int:
        """How many images were evaluated."""
        return self.clean.of

    @property
    def verdict(self) -> str:
        """One line: whether the robust accuracy can be trusted."""
        if self.naive is None:
            return self._trust
        honest, naive = f"{self.robust.value:.1%}", f"{self.naive.value:.1%}"
        if self.robust.count < self.naive.count:
            believed = f"believe {honest}, from attacks through the defense, and not {naive}, which is of attacks that "
            return f"{believed}do not see it; {self._trust}"
        return (
            f"believe at most {honest}: attacks through the defense fooled no more images than those that do not see "
            f"it ({naive}); {self._trust}"
        )

    @property
    def _trust(self) -> str:
        if self.alarms:
            first, *more = self.alarms
            suspected = "the attack may be weak here" if first["alarm"] in NOT_MASKING else "possible gradient masking"
            others = f" (and {len(more)} more alarm{'s' if len(more) > 1 else ''})" if more else ""
            return f"{suspected}: {first['message']}{others}"
        if not self.protocol.get("alarms", True):
            return "not checked for gradient masking (--no-alarms)"
        if not self.protocol.get("probed", True):
            return "not checked for gradient masking: none of the first images is classified correctly"
        return "no sign of gradient masking"

    def as_dict(self) -> Record:
        """As plain values, as ``--json`` prints them and ``run.json`` stores them."""
        return {
            "clean": self.clean.as_dict(),
            "robust": self.robust.as_dict(),
            "robust_8bit": None if self.robust_8bit is None else self.robust_8bit.as_dict(),
            **({} if self.naive is None else {"naive": self.naive.as_dict()}),
            "n": self.n,
            "verdict": self.verdict,
            "curve": [{"eps": eps, **accuracy.as_dict()} for eps, accuracy in self.curve],
            "classes": [
                {"class": each.name, "clean": each.clean.as_dict(), "robust": each.robust.as_dict()}
                for each in self.classes
            ],
            "stages": [{"stage": name, **count.as_dict()} for name, count in self.stages.items()],
            "queries": [
                {"stage": name, "curve": [{"queries": made, **accuracy.as_dict()} for made, accuracy in curve]}
                for name, curve in self.queries.items()
            ],
            "alarms": list(self.alarms),
            "notes": list(self.notes),
            "protocol": self.protocol,
            "seconds": round(self.seconds, 3),
            **({} if self.run is None else {"run": self.run}),
        }

    def __str__(self) -> str:
        eps = describe_eps(f"{self.curve[-1][0]:.6g}", self.protocol.get("eps_scale") is not None)
        lines = [
            f"{self.protocol.get('attack', 'attack')}, {self.protocol.get('norm', '')} eps {eps}, {self.n:,} images",
            f"clean accuracy   {self.clean}",
            f"robust accuracy  {self.robust}",
            f"  in 8 bits      {self.robust_8bit or UNKNOWN_8BIT}",
        ]
        if self.naive is not None:
            lines.append(f"  naive          {self.naive}  (attacks that do not see the defense)")
        lines += [f"  at eps {eps:<8.5g} {accuracy}" for eps, accuracy in self.curve[1:-1]]
        for name, count in self.stages.items():
            lines.append(
                f"  {name:<14} fooled {count.fooled:,} of {count.attacked:,} in {count.seconds:.1f} s, "
                f"{count.forwards:,} forward, {count.backwards:,} backward"
                + (f"; {count.unverified:,} unverified" if count.unverified else "")
            )
        lines.append(f"verdict          {self.verdict}")
        lines += [f"  {alarm['message']}: {alarm['remedy']}" for alarm in self.alarms]
        lines += [f"note             {note}" for note in self.notes]
        return "\n".join(lines if self.run is None else [*lines, f"run              {self.run}"])
