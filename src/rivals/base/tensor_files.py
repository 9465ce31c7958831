"""Tensors in safetensors files, with a digest that is verified when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.base.typed_json import parse_json

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, Sequence[int]]

_SHOWN = 60  # characters of a tensor's name in a message


class DamagedFile(UserError):
    """A file of tensors that must not be used: it is damaged, cut short, or holds NaN or infinite values."""


def sign(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about tensors as JSON has them, and under ``digest`` the SHA-256 of both; :func:`verify` checks it."""
    content: dict[str, Any] = json.loads(json.dumps(facts))
    return {**content, "digest": _digest(tensors, content)}


def verify(tensors: Mapping[str, Tensor], signed: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The facts in what :func:`sign` returned for these tensors.

    Raises:
        DamagedFile: tensors or facts have changed since, or there is no digest; the message calls them ``what``.
    """
    facts = {key: value for key, value in signed.items() if key != "digest"}
    if signed.get("digest") != _digest(tensors, facts):
        raise DamagedFile(f"{what} is damaged: its content does not match its digest")
    return facts


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    import torch

    # SHA-256 is twice as fast as BLAKE2b where the processor has instructions for it.
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, values in sorted(tensors.items()):
        digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts about them, as JSON in the metadata, with their digest.

    Raises:
        UserError: the file cannot be written; an older one is intact.
    """
    from safetensors.torch import save

    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    # One entry: safetensors writes several in a random order.
    write_atomically(path, save(contiguous, {"facts": json.dumps(sign(contiguous, facts))}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts in a file of :func:`save_tensors`.

    Raises:
        DamagedFile: it cannot be read, its content differs from its digest, or a value is not finite.
    """
    tensors, metadata = read_tensors(path)
    try:
        signed = parse_json(metadata.get("facts", "{}"), dict[str, Any], "its metadata", "write it anew")
    except UserError as error:
        raise DamagedFile(f"'{path}' is damaged: {error}") from None
    return tensors, verify(tensors, signed, f"'{path}'")


def read_tensors(path: Path, shapes: Shapes | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a safetensors file, and its metadata.

    Args:
        path: The file.
        shapes: The shapes of the tensors that it should hold, by name: another header is refused before any value is
            read. None takes all tensors there are.

    Raises:
        DamagedFile: it cannot be read, holds other tensors, or a value is not finite.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # a pipe would be waited for, forever
        raise DamagedFile(f"'{path}' is not a file")
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            if shapes is not None:
                problem = shape_mismatch({name: file.get_slice(name).get_shape() for name in names}, shapes)
                if problem is not None:
                    raise DamagedFile(f"'{path}' does not fit its description: {problem}")
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = dict(file.metadata() or {})
    except SafetensorError:
        raise DamagedFile(f"'{path}' is damaged or cut short: it is no safetensors file") from None
    except OSError as error:
        raise DamagedFile(f"'{path}' cannot be read: {error.strerror or error}") from None
    check_finite(tensors, str(path))
    return tensors, metadata


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that no network can use.

    Raises:
        DamagedFile: a value is NaN or infinite.
    """
    for name, values in tensors.items():
        # torch tells it of no float of 8 bits.
        finite = (values.float() if values.itemsize == 1 else values).isfinite()
        if not finite.all():
            raise DamagedFile(f"'{where}' holds {int((~finite).sum()):,} NaN or infinite values in {_shown(name)}")


def shape_mismatch(found: Shapes, expected: Shapes) -> str | None:
    """The first difference between the shapes of tensors by name, as part of a message; None if there is none."""
    for name, shape in expected.items():
        if name not in found:
            return f"it has no {_shown(name)}"
        if list(found[name]) != list(shape):
            return f"{_shown(name)} is {_size(found[name])} and should be {_size(shape)}"
    more = [name for name in found if name not in expected]
    return f"it has {_shown(more[0])} too" if more else None


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _shown(name: str) -> str:
    """The name of a tensor on one line."""
    text = json.dumps(name)[1:-1]
    return f"'{text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}'"
