"""Adversarial images on their way to the disk: a piece a step, at the end one file; and a handful to look at."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.files import explained, write_atomically

Array = npt.NDArray[Any]

FELLED, STANDING = 8, 4  # examples to look at: most that fell, and most that stand
SMALL = ("index", "label", "said", "eps")


@dataclass
class Trophies:
    """What becomes of the adversarial images.

    Attributes:
        folder: The run's, or None to keep nothing.
        save: ``npz``, ``png`` or ``none``.
        order: Which image of the source each place of the evaluation is.
        labels: The class of each place.
    """

    folder: Path | None
    save: str
    order: Array
    labels: Array
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def pieces(self) -> Path | None:
        """Where they lie, one file a step (npz) or an image (png)."""
        return None if self.folder is None else self.folder / "adversarial"

    def take(
        self,
        step: int,
        eps: float,
        x: Tensor,
        x_adv: Tensor,
        places: Array,
        said: Array,
        rest: tuple[Tensor, Tensor, Array],
    ) -> None:
        """Keep what a step felled, before the step is recorded; ``rest`` is what it attacked in vain."""
        if self.folder is None:
            return
        self._exemplify(step, eps, x, x_adv, places, said, rest)
        if not len(places) or self.pieces is None:
            return
        if self.save == "npz":
            small: dict[str, Any] = {"index": self.order[places], "label": self.labels[places], "said": said}
            file = io.BytesIO()
            images = x_adv.float().cpu().numpy()
            np.savez(file, x_adv=images, eps=np.full(len(places), eps), **small)
            write_atomically(self.pieces / f"{step:06d}.npz", file.getvalue())
        elif self.save == "png":
            with explained(self.pieces):
                self.pieces.mkdir(exist_ok=True)
                for place, image, answer in zip(places, to_bytes(x_adv), said, strict=True):
                    # Not synced one by one, which takes long: a step that is done again writes the very same.
                    name = f"{self.order[place]:06d}-{self.labels[place]}-as-{answer}.png"
                    _picture(image).save(self.pieces / name)

    def _exemplify(
        self,
        step: int,
        eps: float,
        x: Tensor,
        x_adv: Tensor,
        places: Array,
        said: Array,
        rest: tuple[Tensor, Tensor, Array],
    ) -> None:
        room = FELLED - sum(example["fell"] for example in self.examples)
        more = list(_some(room, step, eps, x, x_adv, places, said, fell=True)) if room > 0 else []
        # Those who fell to this step no longer stand.
        gone = set(places.tolist())
        kept = [each for each in self.examples if each["fell"] or each["place"] not in gone]
        if not any(not each["fell"] for each in kept):
            more += _some(STANDING, step, eps, *rest[:2], rest[2], self.labels[rest[2]], fell=False)
        if more or len(kept) != len(self.examples):
            self.examples = kept + more
            self._write_examples()

    def _write_examples(self) -> None:
        if self.folder is None or not self.examples:
            return
        file = io.BytesIO()
        columns: dict[str, Any] = {key: np.array([each[key] for each in self.examples]) for key in self.examples[0]}
        index, label = self.order[columns["place"]], self.labels[columns["place"]]
        np.savez(file, **columns, index=index, label=label)
        write_atomically(self.folder / "examples.npz", file.getvalue())

    def resume(self, step: int) -> None:
        """Forget what was kept of steps after ``step``: they are done again."""
        if self.folder is None or self.pieces is None:
            return
        for piece in self.pieces.glob("[0-9]*.npz"):
            if int(piece.stem) > step:
                piece.unlink()
        path = self.folder / "examples.npz"
        if path.exists():
            with np.load(path) as kept:
                columns = {key: kept[key] for key in ("step", "eps", "x", "x_adv", "place", "said", "fell")}
            rows = [{key: values[i] for key, values in columns.items()} for i in range(len(columns["step"]))]
            self.examples = [row for row in rows if row["step"] <= step]

    def merge(self) -> Path | None:
        """Make the pieces one ``adversarial.npz``, holding one at a time; its path, or None if there is none."""
        if self.folder is None or self.pieces is None or self.save == "none":
            return None
        if self.save == "png":
            return self.pieces if self.pieces.exists() else None
        paths = sorted(self.pieces.glob("[0-9]*.npz")) if self.pieces.exists() else []
        dest = self.folder / "adversarial.npz"
        if not paths:
            return dest if dest.exists() else None
        aside = dest.with_name(f".{dest.name}.tmp")
        small = {key: np.concatenate([_read(path, key) for path in paths]) for key in SMALL}
        first = _read(paths[0], "x_adv")
        shape = (len(small["index"]), *first.shape[1:])
        with explained(dest), zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            for key, values in small.items():
                with archive.open(f"{key}.npy", "w") as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)
            with archive.open("x_adv.npy", "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for path in paths:
                    file.write(np.ascontiguousarray(_read(path, "x_adv")).tobytes())
        with explained(dest):
            aside.replace(dest)
        return dest

    def clear(self) -> None:
        """Remove the pieces of a finished run, which are in one file now."""
        if self.save == "npz" and self.pieces is not None:
            shutil.rmtree(self.pieces, ignore_errors=True)


def check_save(save: str, shape: tuple[int, ...]) -> None:
    """Refuse a way to keep images that cannot be.

    Raises:
        UserError: as said.
    """
    if save == "png" and (len(shape) != 3 or shape[0] not in (1, 3, 4)):
        raise UserError(f"images of shape {shape} are no pictures to save as png: take --save npz")


def to_bytes(x: Tensor) -> npt.NDArray[np.uint8]:
    """Images in [0, 1] as uint8, rounded to nearest: cut short, as a cast does, an attack may die."""
    rounded: npt.NDArray[np.uint8] = (x.detach().float().cpu() * 255).round().clamp(0, 255).byte().numpy()
    return rounded


def _some(
    count: int, step: int, eps: float, x: Tensor, x_adv: Tensor, places: Array, said: Array, *, fell: bool
) -> Iterable[dict[str, Any]]:
    """The first few as examples."""
    for i in range(min(count, len(places))):
        pair = {"x": x[i].float().cpu().numpy(), "x_adv": x_adv[i].float().cpu().numpy()}
        yield {"step": step, "eps": eps, **pair, "place": int(places[i]), "said": int(said[i]), "fell": fell}


def _read(path: os.PathLike[str], key: str) -> Array:
    with np.load(path, allow_pickle=False) as piece:
        values: Array = piece[key]
        return values


def _picture(image: npt.NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
