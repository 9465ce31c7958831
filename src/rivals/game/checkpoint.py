"""Checkpoints: one safetensors file each, written so that a kill or a full disk at any instant leaves a good one."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.files import make_folder
from rivals.base.tensor_files import DamagedFile, load_tensors, save_tensors

if TYPE_CHECKING:
    from rivals.game.callbacks import Progress
    from rivals.game.game import Game

MAX_KEPT = 2
END = "-end"


class Checkpoints:
    """Checkpoints of one run: ``STEP.safetensors`` in ``folder``, the last two kept.

    The state in which a process ends is in ``STEP-end.safetensors``. It is there to continue from, and counts for
    nothing else: it pushes out no other, and the next of the others replaces it. So a run that was stopped in between
    keeps, and returns to, the same checkpoints as one that was not.

    Args:
        folder: Where they are.
        others: Checkpoints of the same run that it may return to. The newest one here no later than each of those is
            kept too: after the return it is the newest again.
    """

    def __init__(self, folder: Path, others: Checkpoints | None = None) -> None:
        self.folder = folder
        self.others = others
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}  # used again and again: fresh memory takes five times as long to fill

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            UserError: a checkpoint could not be written; the earlier ones are intact.
        """
        if self._writing is not None:
            try:
                self._writing.result()
            finally:
                self._writing = None

    def paths(self) -> list[Path]:
        """The files, oldest first."""
        self.wait()
        return self._files()

    def _files(self) -> list[Path]:
        found = {path: path.stem.removesuffix(END) for path in self.folder.glob("*.safetensors")}
        return sorted((path for path, step in found.items() if step.isdecimal()), key=found.__getitem__)

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, end: bool = False) -> None:
        """Copy the checkpoint of ``step``; a thread writes it, then removes those no longer needed.

        Args:
            step: The step.
            tensors: The state.
            facts: What else to know of it, as JSON has it.
            end: Whether it is saved only because the process ends.

        Raises:
            UserError: the checkpoint before this one could not be written; the earlier ones are intact.
        """
        self.wait()  # until then the copies belong to the thread
        name = f"{step:012d}"
        if not (end and (self.folder / f"{name}.safetensors").exists()):
            self._copies = {key: _copy(value, self._copies.get(key)) for key, value in tensors.items()}
            self._writing = self._writer.submit(self._write, name + END * end, self._copies, {**facts, "step": step})

    def save_game(self, game: Game, progress: Progress, *, end: bool = False) -> None:
        """Save the state of ``game`` as it is at ``progress``; see :meth:`save`."""
        self.save(progress.step, game.state(), {"progress": asdict(progress), "lr_scale": game.lr_scale}, end=end)

    def _write(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        make_folder(self.folder)
        save_tensors(self.folder / f"{name}.safetensors", tensors, facts)
        for old in [*self._outdated(), *self.folder.glob(".*.tmp")]:  # the latter left by a kill
            old.unlink(missing_ok=True)

    def _outdated(self) -> set[Path]:
        files = self._files()
        paths = [path for path in files if not _is_end(path)]
        steps = [_step(path) for path in paths]
        others = [] if self.others is None else self.others._written()
        no_later = [bisect_right(steps, _step(other)) for other in others]  # how many of ours are no later than each
        kept = {*paths[-MAX_KEPT:], *(paths[n - 1] for n in no_later if n), *files[-1:]}
        return {*files} - kept

    def _written(self) -> list[Path]:
        """The files, with the one that is being written; if that fails, its own :meth:`wait` says so."""
        if (writing := self._writing) is not None:
            wait_for([writing])
        return self._files()

    def drop_end(self) -> None:
        """Remove the state in which an earlier process ended, if there are other checkpoints."""
        paths = self.paths()
        for path in paths:
            if _is_end(path) and len(paths) > 1:
                path.unlink(missing_ok=True)

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        for path in self.paths():
            if _step(path) > step:
                path.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The newest intact checkpoint's tensors and facts; newer ones that are damaged are named on standard error.

        Raises:
            UserError: there is none, or none that is intact.
        """
        problems: list[str] = []
        for path in reversed(self.paths()):
            try:
                tensors, facts = load_tensors(path)
                if facts.get("step") != _step(path):
                    raise DamagedFile(f"'{path}' is not the checkpoint of its step")
            except DamagedFile as error:
                problems.append(str(error))
                continue
            for problem in problems:
                print(f"{problem}: an earlier checkpoint, of step {facts['step']:,}, is taken", file=sys.stderr)
            return tensors, facts
        found = f"no intact checkpoint in '{self.folder}'{f' ({problems[0]})' if problems else ''}"
        raise UserError(f"{found}: put one back, or start a new run with another --out")


def _copy(value: Tensor, into: Tensor | None) -> Tensor:
    """A copy of ``value`` on the CPU, in the memory of an earlier one if that fits."""
    if into is None or (into.shape, into.dtype, into.stride()) != (value.shape, value.dtype, value.stride()):
        into = torch.empty_like(value, device="cpu", requires_grad=False)
    return into.copy_(value.detach())


def _step(path: Path) -> int:
    return int(path.stem.removesuffix(END))


def _is_end(path: Path) -> bool:
    return path.stem.endswith(END)
