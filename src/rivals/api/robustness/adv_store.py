"""Stores adversarial examples: one file per step, merged into one at the end; and a few examples for the report."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rivals.base.array_files import FLAGS, IMAGES, INTEGERS, NUMBERS, Column, read_arrays
from rivals.base.errors import UserError
from rivals.base.files import explain_os_errors, make_folder, write_atomically
from rivals.base.images import to_pil

Array = npt.NDArray[Any]

MAX_FOOLED, MAX_ROBUST = 8, 4  # examples for the report
COLUMNS = {"index": INTEGERS, "label": INTEGERS, "prediction": INTEGERS, "eps": NUMBERS}  # besides the images
EXAMPLES = {  # columns of examples.npz that a resumed attack reads
    **{"step": INTEGERS, "place": INTEGERS, "prediction": INTEGERS},
    **{"eps": NUMBERS, "x": IMAGES, "x_adv": IMAGES, "is_adversarial": FLAGS},
}
PIECE_FIX = "remove it, which loses the adversarial examples of one step, then resume"


@dataclass(frozen=True)
class Attacked:
    """Images before and after an attack.

    Attributes:
        x: Clean images (m, ...).
        x_adv: The attack's results (m, ...).
        positions: Which images of the evaluation they are (m,).
        predictions: Their predicted classes after the attack (m,).
    """

    x: Tensor
    x_adv: Tensor
    positions: Array
    predictions: Array


@dataclass
class AdvStore:
    """The adversarial examples of an evaluation.

    Attributes:
        folder: The run folder, or None to store nothing.
        save: ``npz``, ``png`` or ``none``.
        order: Index in the data of each image of the evaluation (n,).
        labels: Their classes (n,).
        rank: Of this process: others than the first have a file of examples of their own.
    """

    folder: Path | None
    save: str
    order: Array
    labels: Array
    rank: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def pieces(self) -> Path | None:
        """The folder of the files: one per step (npz) or per image (png)."""
        return None if self.folder is None else self.folder / "adversarial"

    def add(self, step: int, eps: float, fooled: Attacked, robust: Attacked) -> None:
        """Store the adversarial examples of a step, before the step is recorded.

        Args:
            step: The number of the step.
            eps: The radius.
            fooled: The images that became adversarial examples.
            robust: Those that were attacked without success; a few are shown in the report.
        """
        if self.folder is None or self.pieces is None:
            return
        self._update_examples(step, eps, fooled, robust)
        positions = fooled.positions
        if not len(positions):
            return
        if self.save != "none":
            make_folder(self.pieces)
        if self.save == "npz":
            columns: dict[str, Any] = {"index": self.order[positions], "label": self.labels[positions]}
            columns |= {"prediction": fooled.predictions, "eps": np.full(len(positions), eps)}
            file = io.BytesIO()
            np.savez(file, x_adv=fooled.x_adv.float().cpu().numpy(), **columns)
            write_atomically(self.pieces / f"{step:06d}.npz", file.getvalue())
        elif self.save == "png":
            with explain_os_errors(self.pieces):
                for position, image, prediction in zip(
                    positions, to_bytes(fooled.x_adv), fooled.predictions, strict=True
                ):
                    # Not synced one by one, which is slow: a step that is repeated writes the same files.
                    name = f"{self.order[position]:06d}-{self.labels[position]}-as-{prediction}.png"
                    to_pil(image).save(self.pieces / name)

    def _update_examples(self, step: int, eps: float, fooled: Attacked, robust: Attacked) -> None:
        """Keep a few examples: the first that were fooled, and some that are still robust."""
        missing = MAX_FOOLED - sum(example["is_adversarial"] for example in self.examples)
        new = _examples(max(missing, 0), step, eps, fooled, is_adversarial=True)
        now_fooled = set(fooled.positions.tolist())
        kept = [each for each in self.examples if each["is_adversarial"] or each["place"] not in now_fooled]
        if all(each["is_adversarial"] for each in kept):
            new += _examples(MAX_ROBUST, step, eps, robust, is_adversarial=False)
        if new or len(kept) != len(self.examples):
            self.examples = kept + new
            self._write_examples()

    def _write_examples(self) -> None:
        if self.folder is None or not self.examples:
            return
        file = io.BytesIO()
        columns: dict[str, Any] = {key: np.array([each[key] for each in self.examples]) for key in EXAMPLES}
        index, label = self.order[columns["place"]], self.labels[columns["place"]]
        np.savez(file, **columns, index=index, label=label)
        name = f"examples-{self.rank}.npz" if self.rank else "examples.npz"
        write_atomically(self.folder / name, file.getvalue())

    def merge_examples(self, steps: int) -> None:
        """Merge the examples of all processes into those that one process would have kept.

        Args:
            steps: Of a chunk.
        """
        if self.folder is None:
            return
        others = sorted(self.folder.glob("examples-*.npz"))
        for path in others:
            self._read_examples(path)
            path.unlink()
        rows = sorted(self.examples, key=lambda row: int(row["step"]))
        robust = [row for row in rows if not row["is_adversarial"]]
        chunks = [(int(row["step"]) - 1) // steps for row in robust]
        first = [row for row, chunk in zip(robust, chunks, strict=True) if chunk == min(chunks)]
        self.examples = [row for row in rows if row["is_adversarial"]][:MAX_FOOLED] + first[:MAX_ROBUST]
        self._write_examples()

    def _read_examples(self, path: Path) -> None:
        """Add the examples of a file.

        Raises:
            FileNotFoundError: it is not there.
            UserError: it is damaged.
        """
        columns = read_arrays(path, EXAMPLES, "the report shows fewer examples")
        rows = [{name: values[i] for name, values in columns.items()} for i in range(len(columns["step"]))]
        self.examples += [row for row in rows if 0 <= row["place"] < len(self.labels)]

    def resume(self, done: Container[int]) -> str | None:
        """Drop what was stored of steps that are not ``done``: they are repeated. Returns what is damaged."""
        if self.folder is None or self.pieces is None:
            return None
        for piece in self.pieces.glob("[0-9]*.npz"):
            if int(piece.stem) not in done:
                piece.unlink()
        problem = None
        for path in (self.folder / "examples.npz", *sorted(self.folder.glob("examples-*.npz"))):
            try:
                self._read_examples(path)
            except FileNotFoundError:
                continue
            except UserError as error:
                problem = str(error)
            if path.name != "examples.npz":
                path.unlink()
        self.examples = [row for row in self.examples if int(row["step"]) in done]
        return problem

    def merge(self) -> Path | None:
        """Merge the files into one ``adversarial.npz``, one at a time in memory; its path, or None without any."""
        if self.folder is None or self.pieces is None or self.save == "none":
            return None
        if self.save == "png":
            return self.pieces if self.pieces.exists() else None
        paths = sorted(self.pieces.glob("[0-9]*.npz")) if self.pieces.exists() else []
        dest = self.folder / "adversarial.npz"
        if not paths:
            return dest if dest.exists() else None
        temporary = dest.with_name(f".{dest.name}.tmp")
        rows = [_read(path, COLUMNS) for path in paths]
        columns = {key: np.concatenate([each[key] for each in rows]) for key in COLUMNS}
        first = _read(paths[0], {"x_adv": IMAGES})["x_adv"]
        shape = (len(columns["index"]), *first.shape[1:])
        with explain_os_errors(dest), zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for key, values in columns.items():
                with archive.open(f"{key}.npy", "w") as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)
            with archive.open("x_adv.npy", "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for path in paths:
                    images = _read(path, {"x_adv": IMAGES})["x_adv"]
                    if (images.dtype, images.shape[1:]) != (first.dtype, first.shape[1:]):
                        raise UserError(f"'{path}' is damaged: its images are of another shape: {PIECE_FIX}")
                    file.write(np.ascontiguousarray(images).tobytes())
        with explain_os_errors(dest):
            temporary.replace(dest)
        return dest

    def clear(self) -> None:
        """Remove the files of a finished run, which are merged now."""
        if self.save == "npz" and self.pieces is not None:
            shutil.rmtree(self.pieces, ignore_errors=True)


def check_save(save: str, shape: tuple[int, ...]) -> None:
    """Refuse to save as png what is not an image.

    Raises:
        UserError: the images have another shape than (1, 3 or 4, H, W).
    """
    if save == "png" and (len(shape) != 3 or shape[0] not in (1, 3, 4)):
        raise UserError(f"images of shape {shape} are not pictures to save as png: take --save npz")


def to_bytes(x: Tensor) -> npt.NDArray[np.uint8]:
    """Images in [0, 1] as uint8, rounded to nearest: truncation, as by a cast, may undo an attack."""
    rounded: npt.NDArray[np.uint8] = (x.detach().float().cpu() * 255).round().clamp(0, 255).byte().numpy()
    return rounded


def _examples(count: int, step: int, eps: float, images: Attacked, *, is_adversarial: bool) -> list[dict[str, Any]]:
    """The first ``count`` images as rows of ``examples.npz``."""
    return [
        {
            "step": step,
            "eps": eps,
            "x": images.x[i].float().cpu().numpy(),
            "x_adv": images.x_adv[i].float().cpu().numpy(),
            "place": int(images.positions[i]),
            "prediction": int(images.predictions[i]),
            "is_adversarial": is_adversarial,
        }
        for i in range(min(count, len(images.positions)))
    ]


def _read(path: Path, columns: Mapping[str, Column]) -> dict[str, Array]:
    return read_arrays(path, columns, PIECE_FIX, max_bytes=2**40)
