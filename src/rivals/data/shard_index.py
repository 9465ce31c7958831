"""What is in a shard: images, their labels, other files. It is kept in the cache: a shard is gone through once."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, NotRequired, TypedDict

from rivals.base.errors import UserError
from rivals.base.files import make_folder, stat_stamp, write_atomically
from rivals.base.hashing import key_hash
from rivals.base.typed_json import Between, parse_json
from rivals.data.cache_folder import cache_folder
from rivals.data.contents import SETTLING_NS
from rivals.data.listing import is_hidden, is_image
from rivals.data.splits import MOST_CLASSES, MOST_DESCRIPTION
from rivals.data.tar_index import Member, open_tar, read_members

_FORMAT = 1
_MOST_LABEL = 1 << 20  # bytes of a .cls or .json
_MOST_NAME = 1000  # characters of a class
_FIX = "write it anew, or remove it"

Label = int | str


class _Described(TypedDict):
    """A ``.json`` beside an image; without ``label`` it is no label."""

    label: NotRequired[Annotated[int, Between(0, MOST_CLASSES - 1)] | str]


@dataclass
class ShardIndex:
    """The images of a shard, and what else is in it.

    Attributes:
        names: Names of the images.
        offsets: Place of each, in bytes.
        sizes: Size of each, in bytes.
        labels: Class number or name of each; None without.
        others: Names of the other files, but labels.
        special: Names of links and devices.
        description: Place and size of ``dataset.json``, if there is one.
    """

    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[Label | None] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    description: list[int] | None = None


def shard_index(path: Path) -> ShardIndex:
    """The index of a shard, from the cache if its stamp (:func:`rivals.base.files.stat_stamp`) is the same.

    Raises:
        UserError: it cannot be read, is cut short or damaged; or a label is no label, or a sample has two images.
    """
    now, stamp = time.time_ns(), stat_stamp(path)
    known = cache_folder() / "shards" / f"{key_hash(_FORMAT, str(path.resolve()), stamp)}.json"
    with contextlib.suppress(OSError, ValueError):
        check, _, text = known.read_text().partition("\n")
        if check == key_hash(text):
            return ShardIndex(**json.loads(text))
    index = _go_through(path)
    if max(stamp[1:3]) < now - SETTLING_NS:
        text = json.dumps(asdict(index))
        with contextlib.suppress(UserError):
            make_folder(known.parent, parents=True)
            write_atomically(known, f"{key_hash(text)}\n{text}".encode())
    return index


def _go_through(path: Path) -> ShardIndex:
    index = ShardIndex()
    classes: dict[str, Label] = {}  # of samples, from .cls
    described: dict[str, Label | None] = {}  # from .json
    with open_tar(path) as file:
        for member in read_members(path, file):
            name = _plain(member.name)
            if member.special:
                index.special.append(name)
            elif name.rpartition("/")[2] == "dataset.json":
                index.description = [member.offset, member.size]
            elif is_image(name):
                index.names.append(name)
                index.offsets.append(member.offset)
                index.sizes.append(member.size)
            elif name.endswith(".cls") and not is_hidden(name):
                classes[_key(name)] = _read_class(path, file, member)
            elif name.endswith(".json") and not is_hidden(name):
                described[_key(name)] = _read_description(path, file, member)
            else:
                index.others.append(name)
    keys = [_key(name) for name in index.names]
    twice = next((key for key, count in Counter(keys).items() if count > 1), None)
    if twice is not None:
        first, second, *_ = (name for name, key in zip(index.names, keys, strict=True) if key == twice)
        raise UserError(
            f"the sample '{twice}' of the shard '{path}' has two images, '{first}' and '{second}': keep one in each "
            "sample, the files that have the same name up to the first dot"
        )
    index.labels = [classes.get(key, described.get(key)) for key in keys]
    index.others += [f"{key}.cls" for key in classes.keys() - {*keys}]
    index.others += [f"{key}.json" for key in described.keys() - {*keys}]
    index.others.sort()
    return index


def _plain(name: str) -> str:
    """A name without what leads nowhere, or out of a folder."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def _key(name: str) -> str:
    """What the files of a sample have in common: the name up to the first dot of its last part (WebDataset)."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _content(path: Path, file: BinaryIO, member: Member) -> bytes:
    if member.size > _MOST_LABEL:
        raise UserError(f"the label '{member.name}' of the shard '{path}' has {member.size:,} bytes: {_FIX}")
    file.seek(member.offset)
    return file.read(member.size)


def _read_class(path: Path, file: BinaryIO, member: Member) -> Label:
    try:
        text = _content(path, file, member).decode("utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if text.isascii() and text.isdigit():
        return _checked(int(text[:20]), path, member)
    return _checked(text, path, member)


def _read_description(path: Path, file: BinaryIO, member: Member) -> Label | None:
    content = _content(path, file, member)
    found = parse_json(content, _Described, f"the label '{member.name}' of the shard '{path}'", _FIX)
    label = found.get("label")
    return None if label is None else _checked(label, path, member)


def _checked(label: Label, path: Path, member: Member) -> Label:
    """A label of either kind, if it can be one.

    Raises:
        UserError: it cannot.
    """
    where = f"the label '{member.name}' of the shard '{path}' is"
    if isinstance(label, int):
        if label >= MOST_CLASSES:
            raise UserError(f"{where} {label}, which is too large: {_FIX}")
    elif not label.strip() or not label.isprintable() or len(label) > _MOST_NAME:
        raise UserError(f"{where} no class number or name: {_FIX}")
    return label


def read_bytes(path: Path, offset: int, size: int) -> bytes:
    """Some bytes of a shard.

    Raises:
        OSError: it cannot be read.
        ValueError: it has become shorter.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise ValueError(f"the shard ends at byte {offset + len(content):,}, and was longer before")
    return content


def read_description(path: Path, index: ShardIndex) -> bytes | None:
    """The ``dataset.json`` in a shard, if there is one.

    Raises:
        UserError: it is too large.
    """
    if index.description is None:
        return None
    offset, size = index.description
    if size > MOST_DESCRIPTION:
        raise UserError(f"the dataset.json of the shard '{path}' has {size:,} bytes: {_FIX}")
    return read_bytes(path, offset, size)
