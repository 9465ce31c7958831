"""Arrays in ``.npz`` files that others may have written, checked when they are read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError
from rivals.base.typed_json import read_small_file

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Column:
    """What an array must be.

    Attributes:
        kinds: Letters of ``dtype.kind``: b, i and u, f.
        ndim: Number of dimensions; None for any from 1.
    """

    kinds: str
    ndim: int | None = 1


INTEGERS, NUMBERS, FLAGS = Column("iu"), Column("f"), Column("b")
IMAGES = Column("f", None)


def read_arrays(path: Path, columns: Mapping[str, Column], fix: str, *, max_bytes: int = 2**30) -> dict[str, Array]:
    """Some arrays of a file, all of one length, without NaN and infinite values.

    Args:
        path: The file.
        columns: The arrays by name; others in the file are not read.
        fix: What to do about a damaged file: the end of the message.
        max_bytes: A larger file is refused.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, or an array is missing or of another kind or length.
    """
    content = read_small_file(path, max_bytes)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            missing = next((name for name in columns if name not in file), None)
            arrays = {name: np.asarray(file[name]) for name in columns} if missing is None else {}
    except Exception:  # zip, zlib and NumPy's header parser raise nearly anything on arbitrary bytes
        raise UserError(f"'{path}' is damaged: its arrays cannot be read: {fix}") from None
    if missing is not None:
        raise UserError(f"'{path}' is damaged: it has no array '{missing}': {fix}")
    length = next(iter(arrays.values())).shape[:1]
    for name, values in arrays.items():
        column = columns[name]
        fits = values.dtype.kind in column.kinds and column.ndim in (None, values.ndim)
        if not fits or not values.ndim or values.shape[:1] != length:
            described = f"{values.dtype} of shape {values.shape}"
            raise UserError(f"'{path}' is damaged: its array '{name}' is {described}: {fix}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UserError(f"'{path}' is damaged: its array '{name}' has values that are not finite: {fix}")
    return arrays
