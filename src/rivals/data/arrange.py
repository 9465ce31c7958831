"""Which of a source's files are of a split, and of which class each is."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.data.imageset import Labels

MOST_CLASSES = 100_000
_SPLITS = frozenset(("train", "test", "val", "valid", "validation"))


class Arranged(NamedTuple):
    """The files of a split with their classes; no labels and no classes where it has none."""

    files: list[str]
    labels: Labels | None
    classes: tuple[str, ...]


def arrange(title: str, inner: dict[str, str], split: str, description: bytes | None) -> Arranged:
    """Pick the files of a split, and find their classes.

    Args:
        title: what to call the source in errors.
        inner: each file's name within the source, in order.
        split: ``train``, ``test``, another that the source has, or ``all``.
        description: the content of its ``dataset.json``, if it has one.

    Raises:
        UserError: there is no such split, or the classes do not follow from the names or the description.
    """
    kept = _of_split(title, inner, split)
    if description is not None:
        return _described(title, kept, inner, description)
    files = list(kept)
    tops = [_top(name) for name in kept.values()]
    classes = sorted(set(tops))
    if classes == [""]:
        return Arranged(files, None, ())
    if classes[0] == "":
        raise UserError(
            f"{title} has images beside sub-folders ('{files[tops.index('')]}' beside '{classes[1]}/'): "
            "put all of them into sub-folders, one per class, or none"
        )
    index = {name: number for number, name in enumerate(classes)}
    return Arranged(files, np.array([index[top] for top in tops], np.int64), tuple(classes))


def _top(name: str) -> str:
    """The uppermost folder in a name; empty for a file that lies in none."""
    return name.partition("/")[0] if "/" in name else ""


def _of_split(title: str, inner: dict[str, str], split: str) -> dict[str, str]:
    tops = {_top(name) for name in inner.values()}
    if "train" in tops and len(tops) > 1 and tops <= _SPLITS:
        if split not in tops and split != "all":
            raise unknown(f"split of {title}", split, [*sorted(tops), "all"])
        return {file: name.partition("/")[2] for file, name in inner.items() if split in ("all", _top(name))}
    if split not in ("train", "all"):
        raise UserError(
            f"{title} has no split '{split}', being one set: put its images into sub-folders train/ and {split}/"
        )
    return inner


def _described(title: str, kept: dict[str, str], inner: dict[str, str], description: bytes) -> Arranged:
    def wrong(what: str) -> UserError:
        return UserError(f"the dataset.json of {title} {what}: write it anew, or leave it out")

    files = list(kept)
    try:
        content: Any = json.loads(description)
    except ValueError as error:
        raise wrong(f"is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise wrong("is not an object with labels")
    pairs = content.get("labels")
    if pairs is None:
        return Arranged(files, None, ())
    labels: dict[str, int] = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        match pair:
            case [str(file), int(label)] if 0 <= label < MOST_CLASSES and not isinstance(label, bool):
                labels[file] = label
            case _:
                raise wrong(f"has the label {json.dumps(pair)[:80]}, which is not [file, class number]")
    named = set(inner.values())
    if lost := next((file for file in labels if file not in named), None):
        raise wrong(f"has a label for '{lost}', which is not there")
    if bare := next((file for file in files if inner[file] not in labels), None):
        raise wrong(f"has no label for '{bare}'")
    count = max(labels.values()) + 1
    classes = content.get("classes") or [str(number) for number in range(count)]
    if not isinstance(classes, list) or len(classes) < count:
        raise wrong(f"has labels up to {count - 1}, more than it has classes")
    found = np.array([labels[inner[file]] for file in files], np.int64)
    return Arranged(files, found, tuple(str(name) for name in classes))
