"""Whether all processes work on the same: code, versions, data, weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rivals.base.errors import UserError

if TYPE_CHECKING:
    from rivals.base.process_group import ProcessGroup


def check_alike(processes: ProcessGroup, facts: Mapping[str, str]) -> None:
    """Check that all processes have the same code, the same versions and the same ``facts``, by what they are of.

    Raises:
        UserError: one of them differs, in all processes.
    """
    if processes.size == 1:
        return
    import torch

    from rivals import __version__

    own = {
        "version of rivals": __version__,
        "version of torch": torch.__version__,
        "code of rivals": _code_hash(),
        **facts,
    }
    about: list[dict[str, str]] = processes.gather(own)
    first = about[0]
    for rank, other in enumerate(about):
        for what in first | other:
            mine, theirs = first.get(what, "none"), other.get(what, "none")
            if mine != theirs:
                raise UserError(
                    f"process {rank} has another {what} than process 0, {theirs} instead of {mine}: start all "
                    "processes with the same"
                )


def _code_hash() -> str:
    """16 hexadecimal digits (BLAKE2b) of this package's own files."""
    import rivals

    home = Path(rivals.__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(home.rglob("*.py")):
        digest.update(str(path.relative_to(home)).encode() + path.read_bytes())
    return digest.hexdigest()
