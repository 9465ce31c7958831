"""``demo``: both games on this machine in minutes, and one page about them."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rivals.api.classifying import classify
from rivals.api.hardening import harden
from rivals.api.learning import ClassifierRun
from rivals.api.sources import free
from rivals.api.training import DATA, TrainedRun, train
from rivals.base.errors import Interrupted, UserError
from rivals.base.spans import Span
from rivals.reports.run import Record, Run, foreign

NET: Record = {"recipe": "cnn", "widths": (16, 32)}
PLAIN = 0.5  # of the hardening's length the plain classifier learns
# N-FGSM: of all that leaves something standing against PGD the cheapest by far.
ATTACK: Record = {"method": "fgsm", "start": "beyond", "step": 1.0, "eps": "0.2"}


class DemoRun(TrainedRun):
    """The folder of a demo: the run of a generator with those of two classifiers in it."""

    @property
    def plain(self) -> ClassifierRun:
        """The classifier before it was hardened."""
        return ClassifierRun.open(self.folder / "plain")

    @property
    def hard(self) -> ClassifierRun:
        """The hardened one."""
        return ClassifierRun.open(self.folder / "hard")

    def result(self) -> Record:
        """How the demo came out, as plain values."""
        compared = json.loads((self.folder / "hard" / "comparison.json").read_text())
        before, after = compared["sides"]
        fooled = {"eps": compared["protocol"]["eps"][-1], "n": compared["protocol"]["n"]}
        fooled |= {"standing_before": before["robust"]["value"], "standing_after": after["robust"]["value"]}
        return super().result() | {"attacked": fooled}


def demo(
    *,
    until: str = "4 minutes",
    hardening: str = "10 epochs",
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
) -> DemoRun:
    """Learn to draw digits on this machine; then to tell them apart, be fooled, and stand; and show how it went.

    Args:
        until: Length of the first act, in which two networks play: N images, N epochs, N steps or N minutes.
        hardening: Length of the hardening in the second act, likewise.
        out: Folder of the run; the next free runs/demo-N if none is given.
        resume: Go on with the demo in --out, as it was begun.
        seed: What all randomness of the run follows from.

    Raises:
        UserError: something the user can fix; nothing was written over.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    from rivals.reports.page import write_report

    if resume and out is None:
        raise UserError("--resume needs the demo to go on with: add --out RUN")
    length = Span.parse(hardening)
    folder = Path(out) if out is not None else free(Path("runs"), "demo")
    if resume:
        begun = Run.open(folder).about
        if begun.get("verb") != "train" or begun["data"]["source"]["data"] != DATA:
            raise foreign(folder, "demo")
        hardening = begun.get("hardening", hardening)
        length = Span.parse(hardening)
    first = str(Span(length.amount * PLAIN, length.unit))
    try:
        _act(train, folder, resume, until=until, seed=seed)
        run = DemoRun.open(folder)
        run.update(acts=["hard"], hardening=hardening)
        seed = run.about["seed"]
        _act(classify, folder / "plain", resume, until=first, seed=seed, lr=2e-3, **NET)
        _act(
            harden,
            folder / "hard",
            resume,
            until=hardening,
            seed=seed,
            weights=str((folder / "plain").resolve()),
            **NET,
            **ATTACK,
        )
    except Interrupted:
        raise Interrupted(f"stopped and saved: go on with rivals demo --resume --out {folder}") from None
    write_report([run], run.report)
    screen = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if sys.stdout.isatty() and screen:  # without a screen a browser of text would take over the terminal
        webbrowser.open(run.report.resolve().as_uri())
    return run


def _act(verb: Callable[..., Any], folder: Path, resume: bool, **settings: Any) -> None:
    """Begin a run, or go on with it if it is there and has not ended."""
    if not (resume and (folder / "run.json").exists()):
        verb(DATA, out=folder, **settings)
    elif Run.open(folder).about["state"] != "finished":
        verb(out=folder, resume=True)
