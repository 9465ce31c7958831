"""The page of a demo: there from the first second, and written anew as the demo goes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from rivals.base.duration import Duration
from rivals.base.errors import UserError, printable
from rivals.base.files import make_folder
from rivals.base.run_folder import Record, Run
from rivals.game.callbacks import Callback, Progress

RELOAD = "reload"  # the entry of run.json by which the page reloads itself
RELOAD_SECONDS = 5
PAUSE_FACTOR = 20  # a page that took t seconds is kept for 20 t, so that pages cost training at most 5%


class LivePage(Callback):
    """Writes the page of a run before the first step and then every few seconds.

    Args:
        run: The run, whose ``run.json`` has the entry ``reload``.
    """

    def __init__(self, run: Run) -> None:
        self.every = Duration(RELOAD_SECONDS / 60, "minutes")
        self.run = run
        self._next: float | None = None  # when a page may be written, in seconds of the monotonic clock

    def measure(self, progress: Progress) -> Iterator[Record]:
        """No records."""
        from rivals.reports.report import write_report

        start = time.monotonic()
        if self._next is not None and start < self._next:
            return
        with contextlib.suppress(UserError):  # a page that cannot be written is no reason to end a run
            write_report([self.run], self.run.report)
        # The first one imports Matplotlib, which is needed at the end anyway: it says nothing of the others.
        end = time.monotonic()
        self._next = end if self._next is None else end + PAUSE_FACTOR * (end - start)
        yield from ()


@contextlib.contextmanager
def live_page(folder: Path, resume: bool) -> Iterator[None]:
    """A page that is there at once, is named and opened, and reloads itself until the demo has ended in whatever way.

    Args:
        folder: Of the demo.
        resume: Whether it is there already.

    Raises:
        UserError: the folder cannot take a new demo, or cannot be written.
    """
    from rivals.reports.report import write_waiting_report

    page, was_there = Run(folder).report, folder.exists()
    if not resume:
        Run.check_free(folder)
        make_folder(folder, parents=True)
        title, text = "A demo is about to begin", "The digits are read, and networks are chosen that suit this machine."
        write_waiting_report(page, title, text, RELOAD_SECONDS)
    say(f"open {page} now: it shows the digits as they improve, and reloads itself until all is done")
    has_display = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if sys.stdout.isatty() and has_display:  # without a display a text browser would take over the terminal
        webbrowser.open(page.resolve().as_uri())
    try:
        yield
    except BaseException:
        with contextlib.suppress(UserError, OSError):  # what has happened matters more
            if (folder / "run.json").exists():
                _write_last_page(folder)
            elif not resume:  # it has not begun: nothing is left
                page.unlink(missing_ok=True)
                if not was_there:
                    folder.rmdir()
        raise
    _write_last_page(folder)


def _write_last_page(folder: Path) -> None:
    """Write the page that reloads itself no more."""
    from rivals.reports.report import write_report

    run = Run.open(folder)
    run.update(**{RELOAD: None})
    write_report([run], run.report)


def say(text: str) -> None:
    """Print a line about the demo on standard error, at once."""
    print(printable(f"demo: {text}"), file=sys.stderr, flush=True)
