"""Ways to mangle bytes, JSON, zips, arrays and words; each draws from the generator that it is given."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

FORGED = "FORGED"  # a line that begins with it was printed by a name
NAMES = (
    f"line\n{FORGED}",
    "\x1b[2J\x1b[31mred",
    "\x07\x08\x9b31m",
    "left\u202etfel",
    "para\u2029graph",
    "long" * 60,
    "  spaces  ",
    "[bold]markup[/bold]",
    "{0}%s%n",
    "<script>alert(1)</script>",
    "日本語",
    "-n",
    "~",
    "~nobody-here",
    "CON",
)
TEXTS = (*NAMES, "", " ", "\0", "\ud800", "\udcff", "x" * 70_000, "../../x", "/dev/zero", "nan", "0x10", "1_000", "２")
NUMBERS = (
    "-1",
    "0",
    "1",
    "0.5",
    "3",
    "1e-320",
    "1e308",
    "1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    str(2**31),
    str(2**63),
    str(2**64),
    "9" * 400,
    "9" * 5000,
)


class _Payload:
    """What runs ``print`` when it is unpickled; the judge sees any unpickling that looks for a function."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return print, ("unpickled",)


PICKLE = pickle.dumps(_Payload())
FOREIGN = (b"", b"\0", PICKLE, b"<html>404</html>", b"\x89PNG\r\n\x1a\n", b"PK\x05\x06" + bytes(18), b"\xff" * 300)


def mangle_bytes(rng: Random, content: bytes) -> bytes:
    """The content cut short, with flipped bits, lost, doubled, zeroed or added bytes, or another file's content."""
    at, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 4, 16, 64, 512))
    match rng.randrange(9):
        case 0:
            return content[:at]
        case 1:
            return flip_bits(rng, content, 1)
        case 2:
            return flip_bits(rng, content, 20)
        case 3:
            return content[:at] + content[at + length :]
        case 4:
            return content[: at + length] + content[at:]
        case 5:
            return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]
        case 6:
            return content[:at] + rng.randbytes(length) + content[at:]
        case 7:
            return content + rng.randbytes(length)
        case _:
            return rng.choice(FOREIGN)


def flip_bits(rng: Random, content: bytes, count: int) -> bytes:
    """The content with ``count`` bits flipped."""
    changed = bytearray(content)
    for _ in range(count if content else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mangle_json(rng: Random, content: bytes) -> bytes:
    """JSON whose entries have other types, values or names, or are missing; or text that is hardly JSON."""
    if rng.random() < 0.15:
        return mangle_bytes(rng, content)
    if rng.random() < 0.1:
        return rng.choice(
            (
                b"[" * 100_000,
                b'{"a":' * 50_000,
                content.decode().encode("utf-16"),
                b"\xef\xbb\xbf" + content,
                content + content,
                *(text.encode() for text in ("null", "true", "3", "[]", "{}", '"x"', "[[[]]]", "9" * 5000, "NaN")),
            )
        )
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        tree = _mangle_tree(rng, tree)
    text = json.dumps(tree)
    for number, literal in enumerate(NUMBERS):  # of which not all are numbers to Python
        text = text.replace(f'"#{number}#"', literal)
    return text.replace('"#deep#"', "[" * 5000 + "]" * 5000).encode()


def _mangle_tree(rng: Random, tree: Any) -> Any:
    places = [(tree, key) for tree in _branches(tree) for key in (tree if isinstance(tree, dict) else range(len(tree)))]
    if not places or rng.random() < 0.02:
        return _odd_value(rng)
    branch, key = rng.choice(places)
    match rng.randrange(10):
        case 0:
            del branch[key]
        case 1 if isinstance(branch, dict):
            branch[rng.choice(TEXTS)] = branch.pop(key)
        case 2 if isinstance(branch, dict):
            branch[rng.choice(TEXTS)] = _odd_value(rng)
        case 3 if isinstance(branch, list):
            branch.insert(key, branch[key])
        case 4:
            branch[key] = [branch[key]]
        case 5 if type(branch[key]) in (int, float):
            branch[key] = rng.choice((-branch[key], branch[key] * 1000, branch[key] + 0.5, str(branch[key])))
        case _:
            branch[key] = _odd_value(rng)
    return tree


def _branches(tree: Any) -> list[Any]:
    if not isinstance(tree, dict | list):
        return []
    below = tree.values() if isinstance(tree, dict) else tree
    return [tree, *(branch for each in below for branch in _branches(each))]


def _odd_value(rng: Random) -> Any:
    if rng.random() < 0.4:
        return f"#{rng.randrange(len(NUMBERS))}#"
    if rng.random() < 0.4:
        return rng.choice(TEXTS)
    return rng.choice((None, True, False, [], {}, [1], [[]], {"a": 1}, [None] * 3, "#deep#", [{}], ["x"] * 2000))


def mangle_lines(rng: Random, content: bytes) -> bytes:
    """Lines of JSON, one of them mangled, lost, doubled or out of order."""
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.randrange(8):
        case 0:
            return mangle_bytes(rng, content)
        case 1:
            rng.shuffle(lines)
        case 2:
            lines[at:at] = [lines[at]] * 3
        case 3:
            del lines[at]
        case _:
            lines[at] = mangle_json(rng, lines[at]).replace(b"\n", b" ") + b"\n"
    return b"".join(lines)


def mangle_npz(rng: Random, content: bytes) -> bytes:
    """Arrays of other shapes, types or values, a pickled one among them, or a damaged file of them."""
    if rng.random() < 0.3:
        return mangle_bytes(rng, content)
    with np.load(io.BytesIO(content)) as found:
        arrays = dict(found)
    key = rng.choice(list(arrays))
    array = arrays[key]
    match rng.randrange(9):
        case 0:
            del arrays[key]
        case 1:
            arrays[key] = array[: len(array) // 2] if array.ndim else array.reshape(1)
        case 2:
            arrays[key] = array.reshape(-1)
        case 3:
            arrays[key] = array[None]
        case 4:
            arrays[key] = np.full(array.shape, rng.choice((np.nan, np.inf, -1.0, 1e30)))
        case 5:
            arrays[key] = np.full(array.shape, "x")
        case 6:
            arrays[key] = np.array([_Payload()] * max(1, len(array) if array.ndim else 1), object)
        case 7:
            arrays[key] = np.zeros((0, 3))
        case _:
            arrays[rng.choice(("extra", "../x", "x" * 200))] = array
    written = io.BytesIO()
    np.savez(written, allow_pickle=True, **arrays)
    return written.getvalue()


def mangle_safetensors(rng: Random, content: bytes) -> bytes:
    """A file of tensors that is damaged, or whose header says something else."""
    if rng.random() < 0.6:
        return mangle_bytes(rng, content)
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    match rng.randrange(4):
        case 0:  # values that are not finite, or other values
            data = bytearray(data)
            at = rng.randrange(max(1, len(data) // 4)) * 4
            data[at : at + 4] = np.float32(rng.choice((np.nan, np.inf, -np.inf, 1e30, 0))).tobytes()
        case 1:  # a header of any length
            return rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little") + header + data
        case _:
            header = mangle_json(rng, header)
    return len(header).to_bytes(8, "little") + header + bytes(data)


def mangle_zip(rng: Random, content: bytes) -> bytes:
    """An archive whose entries are named, packed or marked in other ways, or that is damaged."""
    if rng.random() < 0.35:
        return mangle_bytes(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    at = rng.randrange(len(entries))
    name, entry = entries[at]
    method = zipfile.ZIP_STORED
    match rng.randrange(8):
        case 0:
            odd = rng.choice((*NAMES, "..", "/top", "a/../..", "C:", "a//b", "a/./b", "a\\b", "__MACOSX/x", ".hidden"))
            entries[at] = (f"{odd}/{name}"[:60_000], entry)
        case 1:
            entries[at] = (name, mangle_bytes(rng, entry))
        case 2:
            method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        case 3:
            del entries[at]
        case 4:
            entries.append((name, entry[: len(entry) // 2]))
        case 5:
            entries[at] = (name, bytes(1 << 26))  # 64 MB that pack into 64 kB
            method = zipfile.ZIP_DEFLATED
        case 6:
            entries = [(f"{each}/", b"") for each, _ in entries]
        case _:
            pass
    changed = bytearray(_packed(entries, method))
    if rng.random() < 0.5:
        _mark(rng, changed)
    return mangle_bytes(rng, bytes(changed)) if method and rng.random() < 0.7 else bytes(changed)


def _packed(entries: list[tuple[str, bytes]], method: int) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that come twice
        for name, entry in entries:
            info = zipfile.ZipInfo(name.replace("\0", ""))
            info.compress_type = method
            archive.writestr(info, entry)
    return written.getvalue()


def _mark(rng: Random, content: bytearray) -> None:
    """Change one field of an entry's headers, as an archive has it that needs what Python has not."""
    offset, value = rng.choice(((6, 0x0001), (4, 99), (8, 97), (14, 12345), (18, 7), (22, 2**31), (26, 60_000)))
    at = -1
    places = []
    while (at := content.find(b"PK", at + 1)) >= 0:
        if content[at + 2 : at + 4] in (b"\x03\x04", b"\x01\x02"):
            places.append(at + offset + (2 if content[at + 2] == 1 else 0))
    size = 2 if offset < 14 or offset == 26 else 4
    for place in places[:1] + places[len(places) // 2 :][:1] if rng.random() < 0.5 else places:
        content[place : place + size] = value.to_bytes(size, "little")


def mangle_tar(rng: Random, content: bytes) -> bytes:
    """A tar whose files are named, labeled or marked in other ways, or that is damaged."""
    if rng.random() < 0.35:
        return mangle_bytes(rng, content)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    at = rng.randrange(len(members))
    member, entry = members[at]
    match rng.randrange(6):
        case 0:
            odd = rng.choice((*NAMES, "..", "/top", "a/../..", "a//b", "a/./b", ".hidden"))
            member.name = f"{odd}/{member.name}".replace("\0", "")[:60_000]
        case 1:
            members[at] = (member, mangle_bytes(rng, entry))
        case 2:
            kinds = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
            member.type, member.linkname = rng.choice(kinds), rng.choice(("/etc/passwd", member.name, "nowhere"))
        case 3:
            del members[at]
        case 4:
            members.append((member, entry[: len(entry) // 2]))
        case _:
            label = tarfile.TarInfo(member.name.partition(".")[0] + ".json")
            members.append((label, mangle_json(rng, b'{"label": 1}')))
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", errors="surrogateescape") as tar:
        for each, data in members:
            each.size = len(data) if each.isreg() else 0
            tar.addfile(each, io.BytesIO(data))
    changed = bytearray(written.getvalue())
    if rng.random() < 0.5:
        _mark_tar(rng, changed)
    return bytes(changed)


def _mark_tar(rng: Random, content: bytearray) -> None:
    """Change one field of a header, with a checksum that fits."""
    headers = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(headers)
    sizes = (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"1x", b"7777777\0")
    kinds = (b"x", b"g", b"L", b"K", b"S", b"V", b"7", b"\0")
    start, value = rng.choice([*((124, size) for size in sizes), *((156, kind) for kind in kinds)])
    content[at + start : at + start + len(value)] = value
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
