"""The classifiers that the page may attack: those of its runs, those that come with Rivals, and models by name."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.network_io import read_description
from rivals.base.errors import UserError
from rivals.base.files import stat_key
from rivals.data.builtin import DATASETS
from rivals.studio.input_images import is_ready
from rivals.studio.run_store import RunStore, onnx_files

if TYPE_CHECKING:
    from rivals.api.common.model_zoo import NamedModel

COMMITTED = Path(__file__).resolve().parents[3] / "benchmarks" / "models"  # of a checkout
PREFIX = "committed:"
# What may be typed into the page. No paths: a page that was tricked must not read files.
NAME = re.compile(r"(torchvision:[\w.-]{1,80}(:\w{1,80})?|timm:[\w.-]{1,120})", re.ASCII)
HUBS = ("torchvision", "timm", "hf")
MAX_TYPED = 8  # names kept in the menu


class ClassifierSources:
    """The classifiers that may be attacked.

    Args:
        store: The runs.
        named: Models that were named when the studio was started, as ``rivals attack`` takes them.
        committed: A folder of classifiers that come with Rivals; there is none in an installed package.
    """

    def __init__(self, store: RunStore, named: Iterable[str] = (), committed: Path = COMMITTED) -> None:
        self.store = store
        self._named = tuple(dict.fromkeys(named))
        self._committed = committed
        self._typed: list[str] = []
        self._lock = threading.Lock()

    def own(self) -> list[str]:
        """The classifiers of the runs, the newest of a finished run first."""
        return self.store.networks("classifier")

    def committed(self) -> list[str]:
        """Those that come with Rivals: whose data are on this machine first, and plain ones before robust ones."""
        found = []
        for file in sorted(self._committed.glob("*.safetensors")):
            try:
                about = _facts(file)
            except UserError:
                continue
            if about["spec"]["role"] == "classifier":
                rank = 0 if file.stem.endswith("-plain") else 2 if "certified" in file.stem else 1
                data = str(about.get("data"))
                ready = data in DATASETS and (is_ready(data) or (data == "mnist" and is_ready("mnist5k")))
                found.append((not ready, rank, file.stem))
        return [f"{PREFIX}{name}" for *_, name in sorted(found)]

    def choices(self) -> list[tuple[str, str]]:
        """All of them, those of the runs first: what the menu says, and what it gives."""
        runs = [(name, name) for name in (*self.own(), *(f"onnx:{name}" for name in onnx_files(self.store.root)))]
        others = [(name, name) for name in (*self._named, *self._typed)]
        ours = [(f"{name.removeprefix(PREFIX)} (comes with Rivals)", name) for name in self.committed()]
        return [*runs, *others, *ours]

    def type_in(self, text: str) -> str:
        """A model by the name that a user typed, loaded and kept in the menu.

        Raises:
            UserError: the name is not allowed here, or the model cannot be loaded.
        """
        name = text.strip()
        if name in (value for _, value in self.choices()):
            return name
        if not NAME.fullmatch(name):
            raise UserError(
                f"'{name[:80]}' cannot be loaded by the page: give torchvision:NAME or timm:NAME, put an ONNX file "
                "into the folder of runs, or start the studio with --model and any name that 'rivals attack' takes"
            )
        _by_name(name)
        with self._lock:
            self._typed = [*(each for each in self._typed if each != name), name][-MAX_TYPED:]
        return name

    def load(self, name: str) -> NamedModel:
        """The classifier of that name, loaded once.

        Raises:
            UserError: it is not among these, or cannot be loaded.
        """
        if name in self._typed or name in self._named:
            return _by_name(name)
        if name.startswith("onnx:"):
            file = self.store.folder(name.removeprefix("onnx:"))
            return dataclasses.replace(_by_name(f"onnx:{file}", stat_key(file)[1]), name=name)
        committed = self._committed_file(name)
        if committed:
            return _ours(_load(committed, committed.stat().st_mtime_ns), name)
        return _ours(self.store.network(name, "classifier"), name)

    def match(self, name: str | None) -> str | None:
        """A classifier of the same data to compare with: adversarially trained if the first is not, else the reverse.

        Those of the runs are compared with each other first.
        """
        if not name:
            return None
        found = dict(self._descriptions())
        if name not in found:
            return None
        is_hardened, data = "hardened" in found[name], found[name].get("data")
        others = [each for each in found if each != name and found[each].get("data") == data]
        return next((each for each in others if ("hardened" in found[each]) != is_hardened), next(iter(others), None))

    def _descriptions(self) -> Iterator[tuple[str, Any]]:
        for name in self.own():
            yield name, _facts(self.store.network_file(name, "classifier"))
        for name in self.committed():
            file = self._committed_file(name)
            if file:
                yield name, _facts(file)

    def _committed_file(self, name: str) -> Path | None:
        return self._committed / f"{name.removeprefix(PREFIX)}.safetensors" if name in self.committed() else None


def named_models(given: Iterable[str]) -> tuple[str, ...]:
    """The models that were named at the start. They are loaded when they are chosen.

    Raises:
        UserError: a file or folder is not there.
    """
    from rivals.api.common.model_zoo import HOW

    names = tuple(dict.fromkeys(given))
    for name in names:
        kind, _, rest = name.partition(":")
        if kind in HUBS:
            continue
        if not Path(rest if kind == "onnx" else name).expanduser().exists():
            raise UserError(f"there is no model '{name}': {HOW}")
    return names


def _facts(file: Path) -> dict[str, Any]:
    return dict(read_description(file))


@lru_cache(maxsize=4)
def _load(file: Path, modified: int) -> Any:
    """Load a network; the time of its file is part of the cache's key."""
    from rivals.api import load

    return load(file)


def _ours(net: Any, name: str) -> NamedModel:
    from rivals.api.common.model_zoo import find_model

    return dataclasses.replace(find_model(net), name=name)


@lru_cache(maxsize=4)
def _by_name(name: str, modified: float = 0) -> NamedModel:
    """Load a model; the time of its file, if it is one, is part of the cache's key."""
    from rivals.api.common.model_zoo import find_model

    found = find_model(name)
    kind, _, rest = found.name.partition(":")
    model, _, weights = rest.partition(":")
    if kind == "torchvision" and weights.lower() != "none":
        from torchvision.models import get_model_weights

        # For the eyes: `rivals attack` goes by the order of the classes, as data sets call them otherwise.
        known: Any = get_model_weights(model)
        return dataclasses.replace(found, classes=tuple(known[weights].meta.get("categories", ())))
    return found
