"""Tar shards in WebDataset's layout: images with their labels beside them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, product
from pathlib import Path

import numpy as np

from rivals.base.errors import UserError
from rivals.base.files import stat_stamp
from rivals.base.registry import unknown
from rivals.base.typed_json import parse_json
from rivals.data.classes import class_order
from rivals.data.imageset import Labels
from rivals.data.listing import Listing, no_images, skipped_files
from rivals.data.shard_index import Label, ShardIndex, read_bytes, read_description, shard_index
from rivals.data.splits import Description, files_of_split, select_split, split_of, wrapper_of

MOST_SHARDS = 1_000_000
BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_FIX = "write it anew, or leave it out"


def is_pattern(source: str) -> bool:
    """Whether a source is written with braces, as ``shards/{000..127}.tar``."""
    return bool(BRACES.search(source)) and source.lower().endswith(".tar")


def expand(pattern: str) -> list[str]:
    """The names that a pattern stands for: ``{000..127}`` for numbers of as many digits, ``{a,b}`` for words.

    Raises:
        UserError: a range is empty or wrong, or they are more than a million.
    """
    parts: list[Sequence[str]] = []
    at = 0
    for found in BRACES.finditer(pattern):
        parts += [[pattern[at : found.start()]], _choices(pattern, found[1])]
        at = found.end()
    names = list(islice(map("".join, product(*parts, [pattern[at:]])), MOST_SHARDS + 1))
    if len(names) > MOST_SHARDS:
        raise UserError(f"'{pattern}' stands for more than {MOST_SHARDS:,} shards: write a smaller range")
    return names


def _choices(pattern: str, inside: str) -> Sequence[str]:
    if "," in inside:
        return inside.split(",")
    numbers = _RANGE.fullmatch(inside)
    if not numbers or len(inside) > 40:
        raise UserError(f"'{pattern}' has braces without a range: write {{000..127}} for numbers, or {{a,b}}")
    low, high = int(numbers[1]), int(numbers[2])
    if low > high or high - low >= MOST_SHARDS:
        raise UserError(f"'{pattern}' has the range {inside}: write the smaller number first, at most a million")
    width = max(len(numbers[1]), len(numbers[2])) if "0" in (numbers[1][0], numbers[2][0]) else 0
    return [f"{number:0{width}}" for number in range(low, high + 1)]


def from_shards(
    title: str,
    shards: Sequence[Path],
    split: str,
    only: Callable[[str], bool] | None = None,
    description: bytes | None = None,
    root: Path | None = None,
) -> Listing:
    """List the images of some shards, in the order of the shards and of the files in them.

    Files of the same name up to the first dot are one sample (WebDataset). Its image may have a ``.cls`` beside it,
    with the number or name of a class, or a ``.json`` with that as ``label``; ``.cls`` takes precedence. The names of
    numbered classes are those of ``classes`` in a ``dataset.json``, in a shard or in the folder of the shards. Without
    labels the rules of folders hold: :func:`rivals.data.readers.from_path`.

    Args:
        title: Of the source in messages.
        shards: Paths, in order.
        split: As of :func:`rivals.data.readers.from_path`. If the names of all shards of a folder say one, as
            ``train-000.tar`` does, that is the split of their images.
        only: Filter of names.
        description: Content of a ``dataset.json`` in the folder of the shards.
        root: That folder; None if the shards were named one by one, and are one set.

    Raises:
        UserError: a shard cannot be read, is cut short or damaged; there are no images; labels are missing or do not
            fit; or there is no such split.
    """
    twice = next((path for path, count in Counter(shards).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{title} names the shard '{twice}' twice: name each once")
    every = [(path, shard_index(path)) for path in shards]
    chosen, inside = _of_split(title, every, split, root)
    others = [name for _, index in chosen for name in index.others]
    images = _Images(chosen, only)
    if not images.names:
        raise no_images(f"set of shards {title}", others)
    in_folders = any("/" in name for name in images.names)
    wrapper = wrapper_of(set(images.names)) if in_folders else ""
    inner = dict(zip(images.files, [name.removeprefix(wrapper) for name in images.names], strict=True))
    for path, index in chosen:
        description = description or read_description(path, index)
    numbers: Labels | None
    files = images.files
    positions: Sequence[int] = range(len(files))
    if any(label is not None for label in images.labels):
        if in_folders or inside not in ("train", "all"):
            files = list(files_of_split(title, inner, inside))
            positions = images.positions(files)
        numbers, classes = _classes(title, files, [images.labels[i] for i in positions], description)
    else:
        files, numbers, classes = select_split(title, inner, inside, description)
        positions = images.positions(files)
    stamps = [stat_stamp(path) for path, _ in chosen]
    return Listing(
        title,
        files,
        numbers,
        classes,
        stamp=repr(([str(path.resolve()) for path, _ in chosen], stamps, split, len(files))),
        newest=max(max(stamp[1:3]) for stamp in stamps),
        read=lambda i: images.read(positions[i]),
        whole=_Whole(every),
        skipped=skipped_files([name.removeprefix(wrapper) for name in others], inner, files),
        special=[name for _, index in chosen for name in index.special],
    )


class _Images:
    """The images of some shards: their names, with that of the shard, their places and labels."""

    def __init__(self, shards: Sequence[tuple[Path, ShardIndex]], only: Callable[[str], bool] | None) -> None:
        self.shards = [path for path, _ in shards]
        self.files: list[str] = []
        self.names: list[str] = []
        self.labels: list[Label | None] = []
        self._places: list[tuple[int, int, int]] = []  # number of the shard, offset, size
        alike = len({path.name for path in self.shards}) < len(shards)  # in several folders
        for number, (path, index) in enumerate(shards):
            kept = [i for i, name in enumerate(index.names) if only is None or only(name)]
            prefix = f"{path}/" if alike else f"{path.name}/"
            names = [index.names[i] for i in kept]
            self.names += names
            self.files += [prefix + name for name in names]
            self.labels += [index.labels[i] for i in kept]
            self._places += [(number, index.offsets[i], index.sizes[i]) for i in kept]

    def positions(self, files: list[str]) -> Sequence[int]:
        """Which of the images some files are."""
        if files == self.files:
            return range(len(files))
        known = {file: position for position, file in enumerate(self.files)}
        return [known[file] for file in files]

    def read(self, position: int) -> bytes:
        """The content of an image's file."""
        number, offset, size = self._places[position]
        return read_bytes(self.shards[number], offset, size)


class _Whole(Sequence[Callable[[], bytes]]):
    """Reads each image of some shards."""

    def __init__(self, shards: Sequence[tuple[Path, ShardIndex]]) -> None:
        self.places = [(path, *each) for path, index in shards for each in zip(index.offsets, index.sizes, strict=True)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Callable[[], bytes]:  # type: ignore[override]  # no slices are needed
        return partial(read_bytes, *self.places[index])


def _of_split(
    title: str, shards: list[tuple[Path, ShardIndex]], split: str, root: Path | None
) -> tuple[list[tuple[Path, ShardIndex]], str]:
    """The shards of a split, and which split to look for inside of them."""
    if root is None:
        return shards, split
    named = [_named_split(path.relative_to(root)) for path, _ in shards]
    if None in named:
        return shards, split
    wanted = split_of(split) or split
    if wanted != "all" and wanted not in named:
        raise unknown(f"split of {title}", split, [*sorted({name for name in named if name}), "all"])
    return [each for each, name in zip(shards, named, strict=True) if wanted in (name, "all")], "all"


def _named_split(path: Path) -> str | None:
    """The one split that the words in the name of a shard, or of its folders, mean."""
    words = re.split(r"[\W\d_]+", path.with_suffix("").as_posix())
    found = {split for word in words if word and (split := split_of(word))}
    return found.pop() if len(found) == 1 else None


def _classes(
    title: str, files: list[str], labels: list[Label | None], description: bytes | None
) -> tuple[Labels, tuple[str, ...]]:
    """Classes and their names, of images with labels."""
    bare = next((file for file, label in zip(files, labels, strict=True) if label is None), None)
    if bare is not None:
        raise UserError(f"'{bare}' of {title} has no label, and others have: give it one, in a .cls or .json beside it")
    classes = tuple(_class_names(title, description))
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        count = max(numbers) + 1
        classes = classes or tuple(map(str, range(count)))
        if len(classes) < count:
            raise UserError(f"{title} has labels up to {count - 1}, more than the classes of its dataset.json: {_FIX}")
        return np.array(numbers, np.int64), classes
    if numbers:
        (number, one), (name, other) = (
            next((label, file) for label, file in zip(labels, files, strict=True) if isinstance(label, kind))
            for kind in (int, str)
        )
        raise UserError(
            f"{title} has numbers and names as labels, {number} of '{one}' and '{name}' of '{other}': write all in one "
            "way"
        )
    names = [str(label) for label in labels]
    classes = classes or tuple(class_order(set(names)))
    index = {name: number for number, name in enumerate(classes)}
    lost = next((name for name in names if name not in index), None)
    if lost is not None:
        raise UserError(f"{title} has the label '{lost}', which is not among the classes of its dataset.json: {_FIX}")
    return np.array([index[name] for name in names], np.int64), classes


def _class_names(title: str, description: bytes | None) -> Iterator[str]:
    if description is not None:
        found = parse_json(description, Description, f"the dataset.json of {title}", _FIX)
        yield from map(str, found.get("classes") or ())
