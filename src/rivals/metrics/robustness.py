"""How a classifier fares under attack: counts with their intervals, and the judge who believes no attack.

What is known of an evaluation is a row of small numbers an image and one of counts a part. Both are made from the
records of its steps alone, so that a resumed evaluation, and an old one, tell the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rivals.base.balls import Ball

Answer = Callable[[Tensor], Tensor]  # images (n, ...) to logits (n, K)
Record = dict[str, Any]

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
DOUBTS = ("randomised", "probabilities")  # alarms that alone show no masked gradients, but an attack may fail by
CLEAN = "clean"  # the part that attacks nothing, and only looks at the originals


@dataclass(frozen=True)
class Share:
    """``count`` of ``of``, with the 95 % interval of Wilson (1927), which holds for small counts and for 0 too."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.count / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """``(p + z^2/2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n)``, z = 1.96; all of [0, 1] of nothing."""
        if not self.of:
            return 0.0, 1.0
        n, p, square = self.of, self.value, Z95**2
        middle = p + square / (2 * n)
        reach = Z95 * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
        low = (middle - reach) / (1 + square / n) if self.count else 0.0  # exactly, not but for rounding
        return low, (middle + reach) / (1 + square / n) if self.count < n else 1.0

    def as_dict(self) -> Record:
        """The share as plain values; of nothing, null."""
        low, high = self.interval
        value = self.value if self.of else None
        return {"value": value, "low": low, "high": high, "count": self.count, "of": self.of}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})" if self.of else "–"


@dataclass
class PartCount:
    """What one part of an attack did, over all images and radii."""

    attacked: int = 0
    felled: int = 0
    unverified: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0

    def as_dict(self) -> Record:
        """As plain values."""
        return {**vars(self), "seconds": round(self.seconds, 3)}


@dataclass
class Tally:
    """The standing of an evaluation under way, made from the records of its steps.

    Attributes:
        labels: The class of each image (n,).
        radii: The radii, rising.
        fell: At which radius each image fell (n,): 0 at none at all (misclassified as it is), k at ``radii[k - 1]``,
            -1 where it stands.
        whole: Whether each fallen image still fools when rounded to 8 bits (n,).
        done: How many images are through with everything, from the first on.
    """

    labels: npt.NDArray[np.int64]
    radii: Sequence[float]
    fell: npt.NDArray[np.int16] = field(init=False)
    whole: npt.NDArray[np.bool_] = field(init=False)
    parts: dict[str, PartCount] = field(default_factory=dict)
    done: int = 0

    def __post_init__(self) -> None:
        self.fell = np.full(len(self.labels), -1, np.int16)
        self.whole = np.zeros(len(self.labels), np.bool_)

    def take(self, record: Record) -> None:
        """Enter a step: who fell, at what radius (``level``, 0 for the originals), to which part, at what cost."""
        fallen = np.asarray(record["felled"], np.int64)
        self.fell[fallen] = record["level"]
        self.whole[np.asarray(record["whole"], np.int64)] = True
        if record["part"] == CLEAN:
            return
        count = self.parts.setdefault(record["part"], PartCount())
        count.felled += len(fallen)
        for name in ("attacked", "unverified", "forwards", "backwards"):
            setattr(count, name, getattr(count, name) + record[name])
        count.seconds += record["part_seconds"]

    def standing(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Which of the images from ``start`` to ``stop`` still stand."""
        return start + np.flatnonzero(self.fell[start:stop] < 0)

    def report(
        self,
        classes: Sequence[str],
        *,
        alarms: Sequence[Mapping[str, str]],
        notes: Sequence[str],
        protocol: Mapping[str, Any],
        seconds: float,
    ) -> Robustness:
        """What can be said of the images that are through with everything."""
        fell, labels, whole = self.fell[: self.done], self.labels[: self.done], self.whole[: self.done]
        top, n = len(self.radii), len(fell)

        def stands(level: int, chosen: npt.NDArray[np.bool_] | None = None) -> Share:
            some = fell if chosen is None else fell[chosen]
            return Share(int(np.sum((some < 0) | (some > level))), len(some))

        rows = []
        for number in np.unique(labels).tolist():
            own = labels == number
            name = classes[number] if number < len(classes) else str(number)
            rows.append(ClassShare(name, stands(0, own), stands(top, own)))
        return Robustness(
            clean=stands(0),
            robust=stands(top),
            rounded=Share(n - int(np.sum(whole)), n),
            curve=tuple((eps, stands(level)) for level, eps in enumerate([0.0, *self.radii])),
            classes=tuple(rows),
            parts=dict(self.parts),
            alarms=tuple(dict(alarm) for alarm in alarms),
            notes=tuple(notes),
            protocol=dict(protocol),
            seconds=seconds,
        )


@dataclass(frozen=True)
class ClassShare:
    """A class: how many of its images are classified rightly as they are, and under attack."""

    name: str
    clean: Share
    robust: Share


@dataclass(frozen=True)
class Robustness:
    """The result of an evaluation. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        clean: Images classified rightly as they are.
        robust: Images that stand at the largest radius: classified rightly, and so after every part of the attack.
        rounded: The same where an image counts as fallen only if the adversarial one, rounded to 8 bits as a picture
            file does, still fools the model.
        curve: (eps, images that stand there), from 0 on.
        classes: The same for each class.
        parts: What each part of the attack did, in order, over all radii: ``attacked``, ``felled``, ``unverified``
            (it claimed to have fooled the model, the judge disagreed; not counted as felled), ``seconds``,
            ``forwards``, ``backwards`` (images).
        alarms: Signs that the numbers say more about the attack than about the model: ``alarm``, ``says``, ``remedy``.
        notes: What else the reader should know.
        protocol: What was done: attack, norm, eps, seed, images, versions.
        seconds: Time spent.
        run: The run folder, if there is one.
    """

    clean: Share
    robust: Share
    rounded: Share
    curve: tuple[tuple[float, Share], ...]
    classes: tuple[ClassShare, ...]
    parts: dict[str, PartCount]
    alarms: tuple[Record, ...]
    notes: tuple[str, ...]
    protocol: Record
    seconds: float
    run: str | None = None

    @property
    def n(self) -> int:
        """How many images were evaluated."""
        return self.clean.of

    @property
    def verdict(self) -> str:
        """One line: whether the robust accuracy can be believed."""
        if self.alarms:
            first, *more = self.alarms
            judged = "read these numbers with care" if first["alarm"] in DOUBTS else "this looks like gradient masking"
            others = f" (and {len(more)} more sign{'s' if len(more) > 1 else ''})" if more else ""
            return f"{judged}: {first['says']}{others}"
        if not self.protocol.get("alarms", True):
            return "no alarms were asked for, so nothing is said about gradient masking"
        return "no sign of gradient masking"

    def as_dict(self) -> Record:
        """Everything as plain values, as ``--json`` prints and ``run.json`` keeps it."""
        return {
            "clean": self.clean.as_dict(),
            "robust": self.robust.as_dict(),
            "rounded": self.rounded.as_dict(),
            "n": self.n,
            "verdict": self.verdict,
            "curve": [{"eps": eps, **share.as_dict()} for eps, share in self.curve],
            "classes": [
                {"class": each.name, "clean": each.clean.as_dict(), "robust": each.robust.as_dict()}
                for each in self.classes
            ],
            "parts": [{"part": name, **count.as_dict()} for name, count in self.parts.items()],
            "alarms": list(self.alarms),
            "notes": list(self.notes),
            "protocol": self.protocol,
            "seconds": round(self.seconds, 3),
            **({} if self.run is None else {"run": self.run}),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.protocol.get('attack', 'attack')}, {self.protocol.get('norm', '')} eps {self.curve[-1][0]:.6g}, "
            f"{self.n:,} images",
            f"clean accuracy   {self.clean}",
            f"robust accuracy  {self.robust}",
            f"  in 8 bits      {self.rounded}",
        ]
        lines += [f"  at eps {eps:<8.5g} {share}" for eps, share in self.curve[1:-1]]
        for name, count in self.parts.items():
            lines.append(
                f"  {name:<14} felled {count.felled:,} of {count.attacked:,} in {count.seconds:.1f} s, "
                f"{count.forwards:,} forward, {count.backwards:,} backward"
                + (f"; {count.unverified:,} not verified" if count.unverified else "")
            )
        lines.append(f"verdict          {self.verdict}")
        lines += [f"  {alarm['says']}: {alarm['remedy']}" for alarm in self.alarms]
        lines += [f"note             {note}" for note in self.notes]
        return "\n".join(lines if self.run is None else [*lines, f"run              {self.run}"])


def predict(answer: Answer, x: Tensor, *, batch_size: int, draws: int = 1) -> tuple[Tensor, Tensor]:
    """The class that most passes say (n,), of several such the one with the highest mean, and the mean logits (n, K).

    Args:
        answer: Images to logits, without a graph.
        x: Images (n, ...), one or more.
        batch_size: The most images in one pass.
        draws: Passes for each image. More than one has a meaning for a randomised model only.
    """
    said, means = [], []
    for some in torch.split(x, batch_size):
        logits = torch.stack([answer(some) for _ in range(draws)])
        votes = torch.nn.functional.one_hot(logits.argmax(2), logits.shape[2]).sum(0)
        means.append(logits.mean(0))
        # Less than a vote: it decides between classes with equally many.
        said.append((votes + means[-1].float().softmax(1).nan_to_num() / 2).argmax(1))
    return torch.cat(said), torch.cat(means)


def verify(
    answer: Answer, x: Tensor, y: Tensor, x_adv: Tensor, ball: Ball, *, batch_size: int, draws: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Judge adversarial images from outside the attack.

    Args:
        answer: The model as it was given, with nothing folded, images to logits.
        x: Originals (n, ...).
        y: Their labels (n,).
        x_adv: What an attack made of them (n, ...).
        ball: Where they must lie.
        batch_size: The most images in one pass.
        draws: Passes for each image; the class that most of them say is what the model says.

    Returns:
        Which really fool the model, in ball and box (n,); which of those do so still when rounded to 8 bits (n,), be it
        that this moves them out of the ball by half a step; and the class said of each, -1 where it does not count.
    """
    counts = x_adv.isfinite().flatten(1).all(1) & ball.contains(x_adv, x)
    said = torch.full_like(y, -1)
    whole = torch.zeros_like(counts)
    chosen = counts.nonzero()[:, 0]
    if len(chosen):
        said[chosen] = predict(answer, x_adv[chosen], batch_size=batch_size, draws=draws)[0]
    fooled = counts & (said != y)
    chosen = fooled.nonzero()[:, 0]
    if len(chosen):
        low, high = ball.bounds
        steps = (x_adv[chosen] - low) / (high - low) * 255
        rounded = (steps.round() / 255 * (high - low) + low).to(x.dtype)
        whole[chosen] = predict(answer, rounded, batch_size=batch_size, draws=draws)[0] != y[chosen]
    return fooled, whole, said
