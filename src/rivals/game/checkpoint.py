"""Checkpoints: one safetensors file each, written so that a kill or a full disk at any instant leaves a good one."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.files import write_atomically

KEPT = 2


class Checkpoints:
    """Checkpoints of one run: ``STEP.safetensors`` in ``folder``, the last two kept.

    Args:
        folder: Where they are.
        beside: Those that the game may go back to, if these here are others. What is the newest here at each of them is
            kept too: once the game has gone back, it is the newest again.
    """

    def __init__(self, folder: Path, beside: Checkpoints | None = None) -> None:
        self.folder = folder
        self.beside = beside

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        return sorted(self.folder.glob("*.safetensors"))

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Write the checkpoint of ``step``, then drop those no longer needed.

        Raises:
            UserError: it cannot be written; the earlier checkpoints are intact.
        """
        content = save(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            {"facts": json.dumps({**facts, "step": step})},
        )
        path = self.folder / f"{step:012d}.safetensors"
        write_atomically(path, content)
        for old in [*self._outdated(), *self.folder.glob(".*.tmp")]:  # the latter a kill left behind
            old.unlink(missing_ok=True)
        return path

    def _outdated(self) -> set[Path]:
        paths = self.paths()
        names = [path.name for path in paths]
        marks = [] if self.beside is None else self.beside.paths()
        behind = [bisect_right(names, mark.name) for mark in marks]  # how many are no later
        return {*paths} - {*paths[-KEPT:], *(paths[n - 1] for n in behind if n)}

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        for path in self.paths():
            if int(path.stem) > step:
                path.unlink()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The newest checkpoint's tensors and facts.

        Raises:
            UserError: there is none, or none that can be read.
        """
        for path in reversed(self.paths()):
            try:
                with safe_open(path, "pt") as file:
                    facts: dict[str, Any] = json.loads(file.metadata()["facts"])
                    return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
            except (SafetensorError, OSError, KeyError, ValueError):
                continue
        raise UserError(f"no readable checkpoint in '{self.folder}': start the run anew with another --out")
