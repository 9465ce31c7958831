"""``equilibrium``: how far a finished game is from the draw."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rivals.base.errors import UserError
from rivals.reports.run import Record, Run

LEAST = 50  # images: 25 parts for each of two halves


@dataclass(frozen=True)
class Equilibrium:
    """How far a run is from the draw.

    Attributes:
        run: Its folder.
        images: Images that it has seen.
        values: Records, each with ``name``, ``value`` with ``low`` and ``high`` (95 %; None where there is no
            interval), its ``unit``, its value at the ``draw`` (None where that is open), ``n_real``, ``n_fake``,
            ``split``, ``seed``, whose ``discriminator`` and ``generator``, and the ``budget``.
        along: The entropy of the classes on each sample sheet, if a classifier was asked.
    """

    run: str
    images: int
    values: list[Record]
    along: list[Record]

    def as_dict(self) -> Record:
        """All of it as plain values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = []
        for record in self.values:
            interval = "" if record["low"] is None else f" ({record['low']:.4g} to {record['high']:.4g})"
            draw = "" if record["draw"] is None else f", at the draw {record['draw']:.4g}"
            lines.append(f"{record['name']}: {record['value']:.4g}{interval} {record['unit']}".rstrip() + draw)
            rest = {key: value for key, value in record.items() if key not in SAID and value != ""}
            lines.append("    " + ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in rest.items()))
        return "\n".join(lines)


SAID = ("name", "value", "low", "high", "unit", "draw")


def equilibrium(
    run: str | Path,
    *,
    steps: int = 300,
    n: int = 2000,
    real: str | None = None,
    classifier: str | None = None,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Equilibrium:
    """Measure how far a run is from the draw, and say who is ahead.

    Args:
        run: Folder of a run of rivals train.
        steps: Turns that a fresh discriminator, and either player alone, may learn for: the budget of three values.
        n: Real images to judge by, and as many generated ones.
        real: Real images that the run has not learnt from: a data set's name, a folder or a zip; the data's test
            images, or those kept aside by --hold-out, if none is given.
        classifier: A classifier of the data's classes, to tell the classes that are drawn: as for rivals attack.
        seed: Which images are drawn, and what all randomness follows from.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        quiet: Print nothing on the way.

    Returns:
        Every value with its protocol; ``print`` shows them. The same is written to ``equilibrium.json`` in the run, and
        shown in its report.

    Raises:
        UserError: it is no such run, there are no images to judge by, or they do not fit.
    """
    from rivals.api import soundings

    if steps < 1 or n < LEAST:
        raise UserError(f"{steps} steps and {n} images tell nothing: give 1 step or more, and {LEAST} images or more")
    return Equilibrium(**soundings.sound(Run.open(run), steps, n, real, classifier, seed, device, quiet))
