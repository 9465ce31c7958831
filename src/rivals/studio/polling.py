"""Whether there is anything new to show, answered so cheaply that every page may ask each second."""

from __future__ import annotations

import threading
import time
from typing import Any

from rivals.base.files import stat_key
from rivals.studio.processes import RunProcesses
from rivals.studio.run_store import RunStore

REFRESH_COST = 0.05  # processor seconds that one refresh of a page costs, about
MAX_LOAD = 0.05  # of one core, for the refreshes of all pages together
MIN_WAIT = 2.0  # seconds between refreshes of a page for new records
CACHE_SECONDS = 0.5  # for which an answer is reused
PAGE_TIMEOUT = 5.0  # seconds without a request after which a page counts as closed


class UpdateChecker:
    """Tells pages when to refresh.

    A refresh is expensive and a question is cheap, so a page asks every second and refreshes only if it must: at once
    when runs appear, disappear, end or write their first sample grid; for new records the less often, the more pages
    are open.
    """

    def __init__(self, store: RunStore, processes: RunProcesses) -> None:
        self._store = store
        self._processes = processes
        self._lock = threading.Lock()
        self._last_request: dict[str, float] = {}
        self._answer: dict[str, str] = {}
        self._valid_until = 0.0

    def __call__(self, page: str) -> dict[str, Any]:
        """The answer to a page.

        Args:
            page: An identifier of the page.

        Returns:
            ``runs`` and ``records``, strings that change with the runs and with their records, and ``wait``, the least
            seconds between refreshes for new records.
        """
        now = time.monotonic()
        with self._lock:
            self._last_request = {name: at for name, at in self._last_request.items() if now - at < PAGE_TIMEOUT}
            self._last_request[page[:40]] = now
            if now >= self._valid_until:
                self._answer = self._read()
                self._valid_until = time.monotonic() + CACHE_SECONDS
            return {**self._answer, "wait": max(MIN_WAIT, len(self._last_request) * REFRESH_COST / MAX_LOAD)}

    def _read(self) -> dict[str, str]:
        runs: list[Any] = [self._processes.alive(), self._processes.failures()]
        records = []
        for name in self._store.names():
            folder = self._store.root / name
            size, modified = stat_key(folder / "metrics.jsonl")
            # A sample grid is written before its record: it counts once the record is there.
            has_grid = 0 < stat_key(folder / "samples")[1] <= modified
            runs.append((name, stat_key(folder / "run.json"), has_grid, stat_key(folder / "equilibrium.json")))
            records.append((name, size, modified))
        return {"runs": f"{hash(str(runs)):x}", "records": f"{hash(str(records)):x}"}
