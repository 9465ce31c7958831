"""Splits and classes of files, and hold-out sets."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Annotated, NamedTuple, NotRequired, TypedDict

import numpy as np

from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.rng import derive
from rivals.base.typed_json import Between, parse_json
from rivals.data.classes import class_order
from rivals.data.imageset import ImageSet, Labels
from rivals.data.selection import Selection

MOST_CLASSES = 100_000
MOST_DESCRIPTION = 1 << 28  # bytes of a dataset.json, which has about 40 an image

# The usual names of splits; words such as "set" or "images" may be added, in any case, as in "Test_Images".
_SPLITS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval"),
    "pred": ("pred", "predict", "prediction", "predictions", "inference"),
}
_SPLIT_OF = {name: split for split, names in _SPLITS.items() for name in names}
_ADDED = frozenset(("set", "data", "dataset", "image", "images", "img", "imgs", "seg", "split"))


class Description(TypedDict):
    """A ``dataset.json``: [file, class number] of each image, and the names of the classes."""

    labels: NotRequired[list[tuple[str, Annotated[int, Between(0, MOST_CLASSES - 1)]]] | None]
    classes: NotRequired[list[str | int] | None]


class SplitFiles(NamedTuple):
    """The files of a split with their classes, if it has any."""

    files: list[str]
    labels: Labels | None
    classes: tuple[str, ...]


def select_split(title: str, inner: dict[str, str], split: str, description: bytes | None) -> SplitFiles:
    """Select the files of a split and find their classes.

    Args:
        title: Name of the source in messages.
        inner: Name of each file within the source, in order.
        split: ``train``, ``test``, another that the source has, or ``all``.
        description: Content of ``dataset.json``, if there is one.

    Raises:
        UserError: there is no such split, or the classes do not follow from the names or the description.
    """
    selected = files_of_split(title, inner, split)
    if description is not None:
        return _described(title, selected, inner, description)
    files = list(selected)
    tops = [top_folder(name) for name in selected.values()]
    classes = class_order(set(tops))
    if classes == [""]:
        return SplitFiles(files, None, ())
    if "" in classes:
        folder = next(top for top in tops if top)
        raise UserError(
            f"{title} has images both at the top and in subfolders ('{files[tops.index('')]}' and '{folder}/'): "
            "put all of them into subfolders, one per class, or none"
        )
    _check_unrepeated(title, selected.values())
    index = {name: number for number, name in enumerate(classes)}
    return SplitFiles(files, np.array([index[top] for top in tops], np.int64), tuple(classes))


def split_of(folder: str) -> str | None:
    """The split that a folder's name means, like ``test`` for ``Testing`` or ``test_images``; None if it means none."""
    words = [word for word in re.split(r"[\W_]+", folder.casefold()) if word and word not in _ADDED]
    return _SPLIT_OF.get(words[0].removesuffix("set")) if len(words) == 1 else None


def top_folder(name: str) -> str:
    """The top-level folder of a name; empty if there is none."""
    return name.partition("/")[0] if "/" in name else ""


def files_of_split(title: str, inner: dict[str, str], split: str) -> dict[str, str]:
    """The files of a split, by their names inside of it.

    Raises:
        UserError: there is no such split.
    """
    tops = sorted({top_folder(name) for name in inner.values()})
    folders: dict[str, str] = {}
    for top in tops:
        named = split_of(top)
        if named is None:
            break
        if named in folders:
            raise UserError(f"{title} has two subfolders for one split, '{folders[named]}' and '{top}': merge them")
        folders[named] = top
    else:
        wanted = split_of(split) or split
        if wanted not in folders and wanted != "all":
            raise unknown(f"split of {title}", split, [*folders, "all"])
        chosen = folders.values() if wanted == "all" else [folders[wanted]]
        return {file: name for top in chosen for file, name in _inside(inner, top).items()}
    if split not in ("train", "all"):
        raise UserError(
            f"{title} has no split '{split}', being one set: put its images into subfolders train/ and {split}/"
        )
    return inner


def wrapper_of(names: Collection[str]) -> str:
    """The folder, with a slash, that wraps all files; empty if there is none.

    It is the only one at the top, means no split, and holds only subfolders: several of them, or splits.
    """
    top, *others = {top_folder(name) for name in names}
    if others or not top or split_of(top):
        return ""
    below = {top_folder(name.removeprefix(f"{top}/")) for name in names}
    return f"{top}/" if "" not in below and (len(below) > 1 or any(map(split_of, below))) else ""


def _inside(inner: dict[str, str], top: str) -> dict[str, str]:
    """The files of a split's folder by their names inside of it, or of one more folder that it wraps."""
    found = {file: name.partition("/")[2] for file, name in inner.items() if top_folder(name) == top}
    (below, *others) = {top_folder(name) for name in found.values()}
    if not others and split_of(below) == split_of(top):
        return _inside(found, below)
    wrapper = wrapper_of(found.values())
    return {file: name.removeprefix(wrapper) for file, name in found.items()}


def _check_unrepeated(title: str, names: Iterable[str]) -> None:
    """Refuse top-level folders that hold the same subfolders: either of the two levels may be the classes."""
    below: dict[str, set[str]] = {}
    for name in names:
        top, *inside, _ = name.split("/")
        below.setdefault(top, set()).update(each.casefold() for each in inside[:1])
    first: dict[str, str] = {}
    for top, folders in sorted(below.items()):
        shared: dict[str, list[str]] = {}
        for folder in sorted(folders):
            if folder in first:
                shared.setdefault(first[folder], []).append(folder)
            first.setdefault(folder, top)
        for other, common in shared.items():
            if len(common) > 1:
                raise UserError(
                    f"the subfolders '{other}' and '{top}' of {title} both hold '{common[0]}' and '{common[1]}': if "
                    f"they are splits, name them train and test; if they are classes, put their images directly into "
                    "them"
                )


def _described(title: str, selected: dict[str, str], inner: dict[str, str], description: bytes) -> SplitFiles:
    def wrong(what: str) -> UserError:
        return UserError(f"the dataset.json of {title} {what}: write it anew, or leave it out")

    files = list(selected)
    content = parse_json(description, Description, f"the dataset.json of {title}", "write it anew, or leave it out")
    pairs = content.get("labels")
    if pairs is None:
        return SplitFiles(files, None, ())
    labels = {file.replace("\\", "/"): label for file, label in pairs}
    if len(labels) < len(pairs):
        twice = next(file for file, count in Counter(file for file, _ in pairs).items() if count > 1)
        raise wrong(f"has two labels for '{twice}'")
    named = set(inner.values())
    if lost := next((file for file in labels if file not in named), None):
        raise wrong(f"has a label for '{lost}', which is not there")
    if bare := next((file for file in files if inner[file] not in labels), None):
        raise wrong(f"has no label for '{bare}'")
    count = max(labels.values()) + 1
    classes = content.get("classes") or [str(number) for number in range(count)]
    if len(classes) < count:
        raise wrong(f"has labels up to {count - 1}, more than it has classes")
    found = np.array([labels[inner[file]] for file in files], np.int64)
    return SplitFiles(files, found, tuple(map(str, classes)))


def hold_out(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split off ``count`` random images.

    Args:
        images: More than ``count`` images.
        count: Size of the hold-out set.
        seed: Of the selection.

    Returns:
        The remaining images, in their order, and the held-out ones, in a random order; neither is a copy.
    """
    order = np.random.default_rng(derive(seed, "hold out")).permutation(len(images))
    return subset(images, np.sort(order[count:])), subset(images, order[:count])


def subset(images: ImageSet, indices: np.ndarray) -> ImageSet:
    """The images at ``indices``, int64 (n,), in that order, as a view."""
    labels = None if images.labels is None else images.labels[indices]
    return dataclasses.replace(images, images=Selection(images.images, indices), labels=labels)
