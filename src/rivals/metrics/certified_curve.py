"""Certified accuracy against radius, with accuracy under attack as an upper bound: the robust accuracy is between them.

At radius r, the robust accuracy of the smoothed classifier is at least the share of images certified correctly there
(certified accuracy), and at most the share without an adversarial example found there (accuracy under attack). Only
images that are not certified at r are attacked at r, so the curves cannot cross.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rivals.base.run_folder import Record
from rivals.metrics.proportion import Proportion
from rivals.metrics.randomized_smoothing import ABSTAIN


@dataclass(frozen=True)
class Point:
    """Both bounds on the robust accuracy at one radius.

    Attributes:
        radius: L2 radius, in the unit of the images.
        lower: Certified accuracy: images whose correct prediction is certified up to this radius.
        upper: Accuracy under attack: images with no adversarial example found up to this radius; None without an
            attack.
    """

    radius: float
    lower: Proportion
    upper: Proportion | None


@dataclass(frozen=True)
class CertifiedRobustness:
    """The result of ``certify``. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        curve: Both bounds at each radius, from 0 on.
        abstained: Images for which the samples do not determine the smoothed classifier's prediction.
        average_certified_radius: Mean of the certified radii, 0 for images without a correct certificate (ACR, Zhai et
            al. 2020).
        max_radius: The largest radius that this many samples can certify, if all agree.
        notes: What else the reader should know.
        protocol: How the numbers were made: sigma, samples, alpha, the attack's budget, seed, images, versions.
        seconds: Time spent.
        run: The run folder, if there is one.
    """

    curve: tuple[Point, ...]
    abstained: Proportion
    average_certified_radius: float
    max_radius: float
    notes: tuple[str, ...]
    protocol: Record
    seconds: float
    run: str | None = None

    @property
    def n(self) -> int:
        """How many images were evaluated."""
        return self.abstained.of

    def as_dict(self) -> Record:
        """As plain values, as ``--json`` prints them and ``run.json`` stores them."""
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
            "average_certified_radius": self.average_certified_radius if self.n else None,
            "max_radius": self.max_radius,
            "n": self.n,
            "notes": list(self.notes),
            "protocol": self.protocol,
            "seconds": round(self.seconds, 3),
            **({} if self.run is None else {"run": self.run}),
        }

    def __str__(self) -> str:
        protocol = self.protocol
        lines = [
            f"smoothed with noise of sigma {protocol.get('sigma', 0):g}, {self.n:,} images, "
            f"{protocol.get('samples', 0):,} samples, alpha {protocol.get('alpha', 0):g}",
            f"{'L2 radius':<12}{'certified':<28}{'under attack' if self.curve[0].upper else ''}".rstrip(),
        ]
        lines += [f"{point.radius:<12.5g}{point.lower!s:<28}{point.upper or ''}".rstrip() for point in self.curve]
        lines += [
            f"abstained        {self.abstained}",
            f"average radius   {self.average_certified_radius:.4f} (at most {self.max_radius:.4f} with these samples)",
        ]
        lines += [f"note             {note}" for note in self.notes]
        return "\n".join(lines if self.run is None else [*lines, f"run              {self.run}"])


def certified_robustness(
    records: Sequence[Mapping[str, Any]],
    radii: Sequence[float],
    *,
    upper: bool,
    largest: float,
    notes: Sequence[str] = (),
    protocol: Mapping[str, Any],
    seconds: float,
) -> CertifiedRobustness:
    """The report made from the records of the images.

    Args:
        records: One per image: ``label``, ``prediction`` (``ABSTAIN`` if it abstains), ``radius`` (certified) and
            ``adversarial_radius``, the smallest radius at which an attack succeeded, or None.
        radii: Radii of the curve, rising.
        upper: Whether images were attacked.
        largest: ``max_radius`` of :class:`CertifiedRobustness`, like the following.
    """
    n = len(records)
    certified = [float(each["radius"]) if each["prediction"] == each["label"] else -1.0 for each in records]
    adversarial = [each["adversarial_radius"] for each in records]
    points = [
        Point(
            radius,
            Proportion(sum(own >= radius for own in certified), n),
            Proportion(sum(own is None or own > radius for own in adversarial), n) if upper else None,
        )
        for radius in radii
    ]
    return CertifiedRobustness(
        curve=tuple(points),
        abstained=Proportion(sum(each["prediction"] == ABSTAIN for each in records), n),
        average_certified_radius=sum(max(own, 0.0) for own in certified) / n if n else math.nan,
        max_radius=largest,
        notes=tuple(notes),
        protocol=dict(protocol),
        seconds=seconds,
    )
