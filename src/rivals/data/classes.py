"""Names of classes: their order, and how those of images are matched with those of a model."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.data.imageset import ImageSet

SHOWN = 20  # names of classes in a message
FIX = "give data of the same classes under the same names"
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


def class_order(names: Iterable[str]) -> list[str]:
    """The names of classes in the order of their indices: as numbers if all are whole numbers, else as text.

    Raises:
        UserError: a name is not Unicode.
    """
    names = list(names)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:  # bytes of another encoding, which no JSON file can hold
            raise UserError(f"the class {name!a} has a name that is not Unicode: rename its folder") from None
    if all(map(_WHOLE_NUMBER.fullmatch, names)):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def class_index(label: str, names: Sequence[str], count: int) -> int | None:
    """The index of a class by its name, or by its number if no class is named by a number; None if there is none.

    Args:
        label: What the user wrote.
        names: Of the classes, in order; empty if they have none.
        count: Number of classes.
    """
    if label in names:
        return list(names).index(label)
    numbered = any(map(_WHOLE_NUMBER.fullmatch, names))
    return int(label) if label.isdecimal() and int(label) < count and not numbered else None


def find_classes(
    wanted: Sequence[str], names: Sequence[str], title: str, whose: str, note: Callable[[str], None], fix: str = FIX
) -> list[int]:
    """The index in ``names`` of each of the ``wanted`` names.

    Names that differ in case, in the form of their Unicode or in leading zeros match if there is only one candidate,
    and ``note`` is called.

    Args:
        wanted: Classes of images.
        names: The classes of a model, in the order of its logits.
        title: Who has the former, as "'photos'".
        whose: Who has the latter, as "the model".
        note: Receives what the user should know.
        fix: What the user may do where a name fits none.

    Raises:
        UserError: a class is not among ``names``.
    """
    index: list[int] = []
    respelled: list[str] = []
    for name in wanted:
        found = [i for i, each in enumerate(names) if each == name]
        if not found:
            found = [i for i, each in enumerate(names) if _folded(each) == _folded(name)]
            respelled += [f"'{name}' as '{names[found[0]]}'"] if found else []
        if len(found) != 1 or found[0] in index:
            problem = "fits no class" if not found else "fits no single class"
            raise UserError(
                f"the class '{name}' of {title} {problem} of {whose}: {title} has {_listed(wanted)}; {whose} has "
                f"{_listed(names)}: {fix}"
            )
        index.append(found[0])
    if respelled:
        note(f"classes of {title} are spelled differently than those of {whose}, and are taken: {_listed(respelled)}")
    return index


def match_classes(
    images: ImageSet, names: Sequence[str], whose: str, note: Callable[[str], None], fix: str = FIX
) -> ImageSet:
    """Images whose labels are indices into ``names``, each class having been found by its name.

    As :func:`find_classes`; classes without images are not looked for.

    Raises:
        UserError: there are no labels, or a class is not among ``names``.
    """
    if images.labels is None:
        raise UserError(
            f"'{images.name}' has no classes, and {whose} has {_listed(names)}: put its images into one subfolder per "
            "class"
        )
    if images.classes == tuple(names):
        return images
    title = f"'{images.name}'" if images.split == "train" else f"'{images.name}' ({images.split})"
    present = np.unique(images.labels)
    index = np.full(len(images.classes), -1, np.int64)
    index[present] = find_classes([images.classes[i] for i in present], names, title, whose, note, fix)
    return dataclasses.replace(images, labels=index[images.labels], classes=tuple(names))


def write_class_names(names: Any) -> str:
    """The names of a model's classes as a JSON list, the form in which settings hold them.

    Args:
        names: A file with one name per line or a JSON list; or, in Python, the names themselves.

    Raises:
        UserError: the file cannot be read, or the names are not names.
    """
    if isinstance(names, str | Path) and not str(names).startswith("["):
        text = _read(expand_user(names))
        where = f"the file '{names}'"
        content = _json_list(text, where) if text.lstrip().startswith("[") else text.splitlines()
    else:
        where, content = "classes", _json_list(names, "classes") if isinstance(names, str) else names
    if not isinstance(content, list | tuple) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{where} holds no class names: give one per line, in the order of the model's logits")
    stripped = [unicodedata.normalize("NFC", name.strip()) for name in content]
    while stripped and not stripped[-1]:
        stripped.pop()
    wrong = next((name for name in stripped if not name or stripped.count(name) > 1), None)
    if wrong is not None or not stripped:
        problem = "no names" if not stripped else f"'{wrong}' twice" if wrong else "an empty line"
        raise UserError(f"{where} holds {problem}: give one name per class, in the order of the model's logits")
    return json.dumps(stripped, ensure_ascii=False)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read the class names in '{path}': {error.strerror}: check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"the class names in '{path}' are not text in UTF-8: save them as such") from None


def _json_list(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not a JSON list ({error}): write one name per line instead") from None


def _folded(name: str) -> str:
    """A name without what file systems and people change: case, the form of its Unicode, leading zeros."""
    plain = unicodedata.normalize("NFKC", name).casefold().strip()
    return str(int(plain)) if _WHOLE_NUMBER.fullmatch(plain) else plain


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
