"""Runs that the page begins, stops, resumes and extends: each a process of its own, which outlives the page."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from rivals.base.errors import UserError
from rivals.base.fractions import radius
from rivals.base.spans import Span
from rivals.recipes import CLASSIFIERS, HARDENING, RECIPES
from rivals.reports.run import Run

VERBS = {"train": list(RECIPES), "classify": list(CLASSIFIERS), "harden": list(HARDENING)}
RESUMABLE = (*VERBS, "demo")
NAME = re.compile(r"\w[\w.-]{0,80}")


class Children:
    """The processes that the page has begun, by the folder of their run."""

    def __init__(self) -> None:
        self._processes: dict[Path, subprocess.Popen[bytes]] = {}
        self._logs = Path(tempfile.mkdtemp(prefix="rivals-studio-"))
        self._lock = threading.Lock()

    def start(
        self, root: Path, verb: str, data: str, recipe: str | None, until: str | None, eps: str | None, name: str
    ) -> str:
        """Begin a run in ``root / name``.

        Args:
            root: The folder of runs.
            verb: train, classify or harden.
            data: A data set's name, a folder or a zip.
            recipe: One of the verb's, or nothing for its default.
            until: How long; the recipe's own length if nothing.
            eps: The radius to harden against (harden only); the data's usual one if nothing.
            name: What the run's folder is to be called.

        Returns:
            What was done, in one sentence.

        Raises:
            UserError: something is wrong with what was asked, or there is such a run already.
        """
        if verb not in VERBS:
            raise UserError(f"'{verb}' begins no run: choose {', '.join(VERBS)}")
        if not NAME.fullmatch(name.strip()):
            raise UserError(f"'{name}' cannot be the name of a run: write letters, digits, dots and hyphens")
        if not data.strip() or data.strip().startswith("-"):
            raise UserError(f"'{data}' names no data: give a data set's name, a folder or a zip")
        folder = root / name.strip()
        Run.check_free(folder)
        words = [verb, data.strip(), f"--out={folder.resolve()}"]
        if recipe:
            if recipe not in VERBS[verb]:
                raise UserError(f"'{recipe}' is no recipe of {verb}: choose {', '.join(VERBS[verb])}")
            words += ["--recipe", recipe]
        if until and until.strip():
            words += ["--until", str(Span.parse(until))]
        if eps and eps.strip() and verb == "harden":
            radius(eps)
            words += ["--eps", eps.strip()]
        self._launch(folder, words)
        return f"'{name.strip()}' has begun; it appears in the list as soon as its images are read."

    def resume(self, folder: Path, until: str | None = None) -> str:
        """Go on with a run, to its end as it was planned or, where ``until`` is given, to that.

        Raises:
            UserError: it is no such run, is running already, or the new end is none.
        """
        about = Run.open(folder).about
        verb = about.get("verb")
        if verb not in RESUMABLE:
            raise UserError(f"a run of '{verb}' cannot be resumed from here: choose one of {', '.join(RESUMABLE)}")
        if about.get("state") == "finished" and not (until and until.strip()):
            raise UserError(f"'{folder.name}' is finished: to extend it, write how long it is to be, as '2M images'")
        words = [verb, "--resume", f"--out={folder.resolve()}"]
        if until and until.strip():
            if verb == "demo":
                raise UserError("a demo has its own length: resume it without another")
            words += ["--until", str(Span.parse(until))]
        self._launch(folder, words)
        return f"'{folder.name}' goes on from its last checkpoint."

    def stop(self, folder: Path) -> str:
        """Ask a run to finish its step, save and leave.

        Raises:
            UserError: the page has not begun it, or it has ended.
        """
        process = self._processes.get(folder.resolve())
        if process is None:
            raise UserError(f"'{folder.name}' was not begun from this page: stop it by Ctrl-C where it runs")
        if process.poll() is not None:
            raise UserError(f"'{folder.name}' is not running any more")
        process.send_signal(signal.SIGTERM)
        return f"'{folder.name}' was asked to stop: it finishes its step, saves, and can be resumed."

    def running(self, folder: Path) -> bool:
        """Whether the page has begun it and it is still at work."""
        process = self._processes.get(folder.resolve())
        return process is not None and process.poll() is None

    def alive(self) -> list[Path]:
        """The folders of all that are at work."""
        return [folder for folder in list(self._processes) if self.running(folder)]

    def failures(self) -> dict[Path, str]:
        """What those said last that were refused or failed."""
        # One that is asked to stop before it has begun to play ends by the signal itself.
        well = (None, 0, 130, -signal.SIGTERM)
        return {
            folder: self._last_words(folder)
            for folder, process in list(self._processes.items())
            if process.poll() not in well
        }

    def _launch(self, folder: Path, words: list[str]) -> None:
        home = folder.resolve()
        with self._lock:
            if self.running(home):
                raise UserError(f"'{folder.name}' is running already")
            with self._log(home).open("wb") as log:
                # A session of its own: Ctrl-C for the page is none for the run.
                self._processes[home] = subprocess.Popen(
                    [sys.executable, "-m", "rivals", *words, "--quiet"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )

    def _log(self, folder: Path) -> Path:
        return self._logs / f"{folder.name}.log"

    def _last_words(self, folder: Path) -> str:
        try:
            lines = self._log(folder).read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1].removeprefix("rivals: ") if lines else "it ended without a word"
