"""The result of ``equilibrium``: every value with its protocol."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rivals.base.run_folder import Record


@dataclass(frozen=True)
class Equilibrium:
    """How far a GAN is from its equilibrium.

    Attributes:
        run: Its folder.
        images: Training images seen.
        values: Records, each with ``name``, ``value`` with ``low`` and ``high`` (95%; None where there is no
            interval), its ``unit``, its value at ``equilibrium`` (None where the loss leaves it open), ``n_real``,
            ``n_fake``, ``split``, ``seed``, the ``discriminator`` and ``generator`` evaluated, and the training
            ``budget``.
        history: The class entropy of each sample grid, if a classifier was given.
    """

    run: str
    images: int
    values: list[Record]
    history: list[Record]

    def as_dict(self) -> Record:
        """All of it as plain values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = []
        for record in self.values:
            interval = "" if record["low"] is None else f" ({record['low']:.4g} to {record['high']:.4g})"
            level = "" if record["equilibrium"] is None else f", at equilibrium {record['equilibrium']:.4g}"
            lines.append(f"{record['name']}: {record['value']:.4g}{interval} {record['unit']}".rstrip() + level)
            rest = {key: value for key, value in record.items() if key not in SHOWN and value != ""}
            lines.append("    " + ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in rest.items()))
        return "\n".join(lines)


SHOWN = ("name", "value", "low", "high", "unit", "equilibrium")
