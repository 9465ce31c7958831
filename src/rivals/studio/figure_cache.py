"""Figures that are expensive to make, shared by all open pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from rivals.reports.html import Html

KEEP_FACTOR = 20  # a figure that took t seconds is kept for 20 t, so that figures cost a core at most 5%
MAX_FIGURES = 32


class FigureCache:
    """Makes a figure again only if its data have changed and the last one was kept long enough."""

    def __init__(self) -> None:
        self._figures: dict[Hashable, tuple[Hashable, float, Html]] = {}  # version, kept until, figure
        self._lock = threading.Lock()

    def __call__(self, key: Hashable, version: Hashable, make: Callable[[], Html]) -> Html:
        """The figure ``key``; ``version`` changes whenever its data do."""
        with self._lock:
            known = self._figures.get(key)
            if known is not None and (known[0] == version or time.monotonic() < known[1]):
                return known[2]
            start = time.monotonic()
            figure = make()
            end = time.monotonic()
            while len(self._figures) >= MAX_FIGURES:
                self._figures.pop(next(iter(self._figures)))
            self._figures[key] = version, end + KEEP_FACTOR * (end - start), figure
            return figure
