"""The bracket of robust accuracy: a share of images is certified, a share is broken by an attack, the rest is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rivals.base.run_folder import Record
from rivals.metrics.proportion import Proportion


@dataclass(frozen=True)
class Bracket:
    """The result of ``certify`` by deterministic bounds. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        clean: Images classified correctly.
        certified: Images classified correctly for every perturbation in the ball, which is proven: a lower bound of
            robust accuracy.
        unbroken: Images without a known misclassified point in the ball: an upper bound of robust accuracy. Without an
            attack, those classified correctly.
        open: Images that are neither certified nor broken.
        notes: What else the reader should know.
        protocol: How the numbers were made: method, norm, eps, attack, images, versions.
        seconds: Time spent.
        run: The run folder, if there is one.
    """

    clean: Proportion
    certified: Proportion
    unbroken: Proportion
    open: Proportion
    notes: tuple[str, ...]
    protocol: Record
    seconds: float
    run: str | None = None

    @property
    def n(self) -> int:
        """How many images were evaluated."""
        return self.clean.of

    def as_dict(self) -> Record:
        """As plain values, as ``--json`` prints them and ``run.json`` stores them."""
        return {
            **{name: getattr(self, name).as_dict() for name in ("clean", "certified", "unbroken", "open")},
            "n": self.n,
            "notes": list(self.notes),
            "protocol": self.protocol,
            "seconds": round(self.seconds, 3),
            **({} if self.run is None else {"run": self.run}),
        }

    def __str__(self) -> str:
        protocol = self.protocol
        attack = protocol.get("attack") or "no attack"
        lines = [
            f"{protocol.get('method')} in {protocol.get('norm')} eps {protocol.get('eps', 0):.4g}, {self.n:,} images",
            f"clean            {self.clean}",
            f"certified        {self.certified}   robust accuracy is at least this",
            f"not broken       {self.unbroken}   and at most this ({attack})",
            f"open             {self.open}",
        ]
        lines += [f"note             {note}" for note in self.notes]
        return "\n".join(lines if self.run is None else [*lines, f"run              {self.run}"])


def bracket(
    records: Sequence[Mapping[str, Any]], *, notes: Sequence[str], protocol: Mapping[str, Any], seconds: float
) -> Bracket:
    """The report made from the records of the images.

    Args:
        records: One per image: ``label``, ``prediction``, ``certified``, and ``broken``: whether a point of the ball is
            misclassified, the image itself included.
        notes: As of :class:`Bracket`, like the following.
    """
    n = len(records)
    return Bracket(
        clean=Proportion(sum(each["prediction"] == each["label"] for each in records), n),
        certified=Proportion(sum(each["certified"] for each in records), n),
        unbroken=Proportion(sum(not each["broken"] for each in records), n),
        open=Proportion(sum(not each["broken"] and not each["certified"] for each in records), n),
        notes=tuple(notes),
        protocol=dict(protocol),
        seconds=seconds,
    )
