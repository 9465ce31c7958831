"""Whether there is something new to look at, answered so cheaply that every page may ask each second."""

from __future__ import annotations

import threading
import time
from typing import Any

from rivals.base.files import state
from rivals.studio.children import Children
from rivals.studio.shelf import Shelf

LOOK = 0.05  # processor seconds that a look of one page costs, about
SHARE = 0.05  # of one core, that all pages together may cost
SOONEST = 2.0  # seconds between a page's looks at records
FRESH = 0.5  # seconds that an answer is good for, whoever asks
GONE = 5.0  # seconds after which a page that has not asked is closed


class Pulse:
    """Tells pages when to look again.

    Looks are dear and questions are cheap, so a page asks every second and looks when it is told to: at once when runs
    come, go, end or draw their first sheet; at new records the more seldom, the more pages are open.
    """

    def __init__(self, shelf: Shelf, children: Children) -> None:
        self._shelf = shelf
        self._children = children
        self._lock = threading.Lock()
        self._asked: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._until = 0.0

    def __call__(self, page: str) -> dict[str, Any]:
        """What a page asks for.

        Args:
            page: What tells it from the others.

        Returns:
            ``news`` and ``records``, words that change when there are any, and ``wait``, the least seconds from one
            look at records to the next.
        """
        now = time.monotonic()
        with self._lock:
            self._asked = {name: at for name, at in self._asked.items() if now - at < GONE}
            self._asked[page[:40]] = now
            if now >= self._until:
                self._told = self._read()
                self._until = time.monotonic() + FRESH
            return {**self._told, "wait": max(SOONEST, len(self._asked) * LOOK / SHARE)}

    def _read(self) -> dict[str, str]:
        news: list[Any] = [self._children.alive(), self._children.failures()]
        records = []
        for name in self._shelf.names():
            folder = self._shelf.root / name
            size, recorded = state(folder / "metrics.jsonl")
            # A sheet is written before the record that tells of it.
            drawn = 0 < state(folder / "samples")[1] <= recorded
            news.append((name, state(folder / "run.json"), drawn, state(folder / "equilibrium.json")))
            records.append((name, size, recorded))
        return {"news": f"{hash(str(news)):x}", "records": f"{hash(str(records)):x}"}
