"""Between what is proven and what an attack can break lies the truth: accuracy against radius, bracketed.

At radius r the smoothed classifier's robust accuracy is at least the share of images that are certified there, and at
most the share that no attack has felled there. Only images that are not certified at r are attacked at r, so the two
curves cannot cross.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rivals.metrics.certification import ABSTAINS
from rivals.metrics.robustness import Share

Record = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """The bracket at one radius.

    Attributes:
        radius: In L2, in the unit of the images.
        lower: Images whose right answer is certified up to here.
        upper: Images that no attack has felled up to here; None if none was tried.
    """

    radius: float
    lower: Share
    upper: Share | None


@dataclass(frozen=True)
class Bracket:
    """The result of ``certify``. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        curve: The bracket at each radius, from 0 on.
        abstained: Images of which the counts do not tell what the smoothed classifier says.
        mean_radius: The mean of certified radii, an image without a right certificate counting as 0 (the average
            certified radius of Zhai et al. 2020).
        largest: The largest radius that so many samples can certify: where all of them agree.
        notes: What else the reader should know.
        protocol: What was done: sigma, samples, alpha, the attack's budget, seed, images, versions.
        seconds: Time spent.
        run: The run folder, if there is one.
    """

    curve: tuple[Point, ...]
    abstained: Share
    mean_radius: float
    largest: float
    notes: tuple[str, ...]
    protocol: Record
    seconds: float
    run: str | None = None

    @property
    def n(self) -> int:
        """How many images were certified or tried."""
        return self.abstained.of

    def as_dict(self) -> Record:
        """Everything as plain values, as ``--json`` prints and ``run.json`` keeps it."""
        return {
            "curve": [
                {
                    "radius": point.radius,
                    "lower": point.lower.as_dict(),
                    "upper": None if point.upper is None else point.upper.as_dict(),
                }
                for point in self.curve
            ],
            "abstained": self.abstained.as_dict(),
            "mean_radius": self.mean_radius if self.n else None,
            "largest": self.largest,
            "n": self.n,
            "notes": list(self.notes),
            "protocol": self.protocol,
            "seconds": round(self.seconds, 3),
            **({} if self.run is None else {"run": self.run}),
        }

    def __str__(self) -> str:
        told = self.protocol
        lines = [
            f"smoothed by noise of sigma {told.get('sigma', 0):g}, {self.n:,} images, "
            f"{told.get('samples', 0):,} samples, alpha {told.get('alpha', 0):g}",
            f"{'L2 radius':<12}{'certified':<28}{'stands under attack' if self.curve[0].upper else ''}".rstrip(),
        ]
        lines += [f"{point.radius:<12.5g}{point.lower!s:<28}{point.upper or ''}".rstrip() for point in self.curve]
        lines += [
            f"abstained        {self.abstained}",
            f"mean radius      {self.mean_radius:.4f} (these samples can give {self.largest:.4f} at most)",
        ]
        lines += [f"note             {note}" for note in self.notes]
        return "\n".join(lines if self.run is None else [*lines, f"run              {self.run}"])


def bracket(
    records: Sequence[Mapping[str, Any]],
    radii: Sequence[float],
    *,
    upper: bool,
    largest: float,
    notes: Sequence[str] = (),
    protocol: Mapping[str, Any],
    seconds: float,
) -> Bracket:
    """What the records of images tell.

    Args:
        records: One an image: ``truth``, ``label`` (``ABSTAINS`` where the counts do not tell), ``radius`` (certified),
            and ``fell``, the radius at which an attack felled it, or None.
        radii: Where to tell of the bracket, rising.
        upper: Whether an attack was tried.
        largest: This and the following: see :class:`Bracket`.
    """
    n = len(records)
    right = [float(each["radius"]) if each["label"] == each["truth"] else -1.0 for each in records]
    fell = [math.inf if each["fell"] is None else float(each["fell"]) for each in records]
    points = [
        Point(
            radius,
            Share(sum(reach >= radius for reach in right), n),
            Share(sum(broken > radius for broken in fell), n) if upper else None,
        )
        for radius in radii
    ]
    return Bracket(
        curve=tuple(points),
        abstained=Share(sum(each["label"] == ABSTAINS for each in records), n),
        mean_radius=sum(max(reach, 0.0) for reach in right) / n if n else math.nan,
        largest=largest,
        notes=tuple(notes),
        protocol=dict(protocol),
        seconds=seconds,
    )
