"""Runs that the page starts, stops, resumes and extends: each a process of its own, which outlives the page."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from rivals.base.duration import Duration
from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.hashing import key_hash
from rivals.base.run_folder import Run
from rivals.recipes import CLASSIFIERS, HARDENING, RECIPES
from rivals.studio.data_sources import DataSources

COMMANDS = {"train": list(RECIPES), "classify": list(CLASSIFIERS), "harden": list(HARDENING), "translate": []}
RESUMABLE = (*COMMANDS, "demo")
SCALE = 2  # by which a translator learns to enlarge images
NAME = re.compile(r"\w[\w.-]{0,80}")


@dataclass(frozen=True)
class RunRequest:
    """What a user fills in to start a run.

    Attributes:
        command: train, classify, harden or translate.
        data: One of the page's data sources.
        recipe: One of the command's; empty for its default.
        until: Length of the run; empty for the recipe's.
        eps: Radius of the training attack (harden only); empty for the data's usual one.
        name: Of the run's folder.
    """

    command: str
    data: str
    recipe: str | None
    until: str | None
    eps: str | None
    name: str

    def arguments(self, folder: Path, sources: DataSources) -> list[str]:
        """The command line that starts the run in ``folder``, on data of the ``sources``.

        Raises:
            UserError: a field is invalid.
        """
        data, recipes = sources.check(self.data), COMMANDS.get(self.command)
        if recipes is None:
            raise UserError(f"'{self.command}' cannot be started here: choose {', '.join(COMMANDS)}")
        arguments = [self.command, data, f"--out={folder.resolve()}"]
        if self.recipe:
            if self.recipe not in recipes:
                raise UserError(f"'{self.recipe}' is not a recipe of {self.command}: choose {', '.join(recipes)}")
            arguments += ["--recipe", self.recipe]
        if self.until and self.until.strip():
            arguments += ["--until", str(Duration.parse(self.until))]
        if self.eps and self.eps.strip() and self.command == "harden":
            parse_eps(self.eps)  # which refuses what is not a radius
            arguments += ["--eps", self.eps.strip()]
        if self.command == "translate":
            arguments += ["--scale", str(SCALE)]
        return arguments


class RunProcesses:
    """The processes that the page has started, by the folder of their run.

    Args:
        logs: A folder for what they print.
        sources: The data that they may read.
    """

    def __init__(self, logs: Path, sources: DataSources) -> None:
        self._processes: dict[Path, subprocess.Popen[bytes]] = {}
        self._logs = logs
        self._sources = sources
        self._lock = threading.Lock()

    def start(self, root: Path, request: RunRequest) -> str:
        """Start a run in a new folder of ``root``; a message about it.

        Raises:
            UserError: the request is invalid, or the folder exists.
        """
        name = request.name.strip()
        if not NAME.fullmatch(name):
            raise UserError(f"'{request.name}' cannot be the name of a run: use letters, digits, dots and hyphens")
        folder = root / name
        arguments = request.arguments(folder, self._sources)
        Run.check_free(folder)
        self._launch(folder, arguments)
        return f"'{name}' has started; it appears in the list once its images are read."

    def resume(self, folder: Path, until: str | None = None) -> str:
        """Resume a run, to its planned end or to ``until``; a message about it.

        Raises:
            UserError: it cannot be resumed, is running already, or the new end is invalid.
        """
        info = Run.open(folder).info
        command = info.get("command")
        if command not in RESUMABLE:
            raise UserError(f"a run of '{command}' cannot be resumed here: choose one of {', '.join(RESUMABLE)}")
        if info.get("state") == "finished" and not (until and until.strip()):
            raise UserError(f"'{folder.name}' is finished: to extend it, give its new length, such as '2M images'")
        arguments = [command, "--resume", f"--out={folder.resolve()}"]
        if until and until.strip():
            if command == "demo":
                raise UserError("a demo cannot be extended: resume it without a new length")
            arguments += ["--until", str(Duration.parse(until))]
        self._launch(folder, arguments)
        return f"'{folder.name}' resumes from its last checkpoint."

    def stop(self, folder: Path) -> str:
        """Ask a run to finish its step, save and exit; a message about it.

        Raises:
            UserError: the page has not started it, or it has ended.
        """
        process = self._processes.get(folder.resolve())
        if process is None:
            raise UserError(f"'{folder.name}' was not started from this page: stop it by Ctrl-C in its terminal")
        if process.poll() is not None:
            raise UserError(f"'{folder.name}' is not running any more")
        process.send_signal(signal.SIGTERM)
        return f"'{folder.name}' was asked to stop: it finishes its step, saves, and can be resumed."

    def is_running(self, folder: Path) -> bool:
        """Whether the page has started it and it is still running."""
        process = self._processes.get(folder.resolve())
        return process is not None and process.poll() is None

    def alive(self) -> list[Path]:
        """The folders of all that are running."""
        return [folder for folder in list(self._processes) if self.is_running(folder)]

    def failures(self) -> dict[Path, str]:
        """The last message of each run that was refused or failed."""
        # One that is asked to stop before its training has begun is ended by the signal itself.
        success = (None, 0, 130, -signal.SIGTERM)
        return {
            folder: self._last_message(folder)
            for folder, process in list(self._processes.items())
            if process.poll() not in success
        }

    def _launch(self, folder: Path, arguments: list[str]) -> None:
        home = folder.resolve()
        with self._lock:
            if self.is_running(home):
                raise UserError(f"'{folder.name}' is running already")
            self._logs.mkdir(parents=True, exist_ok=True)
            with self._log(home).open("wb") as log:
                # A session of its own, so that Ctrl-C in the studio's terminal does not reach the run.
                self._processes[home] = subprocess.Popen(
                    [sys.executable, "-m", "rivals", *arguments, "--quiet"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )

    def _log(self, folder: Path) -> Path:
        # Runs of one name lie in several folders.
        return self._logs / f"{folder.name[:100]}-{key_hash(str(folder.resolve()))}.log"

    def _last_message(self, folder: Path) -> str:
        try:
            lines = self._log(folder).read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1].removeprefix("rivals: ") if lines else "it ended without a message"
