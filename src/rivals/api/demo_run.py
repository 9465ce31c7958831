"""``demo``: train a GAN, then a classifier, then harden it; all on this machine in minutes, in one report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.resume import TrainingInfo, check_same, reserve_folder
from rivals.api.training.adversarial import HardenJob
from rivals.api.training.classifier import ClassifierRun, classify
from rivals.api.training.gan import GanJob, GanRun
from rivals.api.training.job import DEFAULT_DATA, Request
from rivals.api.training.runner import run_job
from rivals.base.duration import Duration
from rivals.base.errors import Interrupted, UserError
from rivals.base.run_folder import Record, Resume, Run, resumes, wrong_command
from rivals.base.typed_json import read_json
from rivals.recipes.base import restored

if TYPE_CHECKING:
    from rivals.game.callbacks import Callback

NET: Record = {"recipe": "cnn", "widths": (16, 32)}
STANDARD_SHARE = 0.5  # length of the standard training, as a fraction of the hardening's
# N-FGSM: by far the cheapest training attack that gives accuracy under PGD.
ATTACK: Record = {"method": "fgsm", "start": "nfgsm", "step_size": 1.0, "eps": "0.2"}

DEFAULTS: Record = {"until": "4 minutes", "hardening": "10 epochs", "seed": 0}
HARDENING = "harden_until"  # the entry of run.json that says how long the hardening is
GRID_SHARE = 0.05  # of the GAN's time, for sample grids: more than of other runs, as they are what is watched


class DemoInfo(TrainingInfo):
    """What ``run.json`` must hold to resume a demo."""

    harden_until: str


class DemoRun(GanRun):
    """The folder of a demo: the run of a GAN, which holds those of two classifiers."""

    @property
    def plain(self) -> ClassifierRun:
        """The classifier before it was hardened."""
        return ClassifierRun.open(self.folder / "plain")

    @property
    def hard(self) -> ClassifierRun:
        """The hardened classifier."""
        return ClassifierRun.open(self.folder / "hard")

    def result(self) -> Record:
        """The results of the GAN, and robust accuracy before and after hardening, as plain values."""
        from rivals.reports.history import FIX
        from rivals.reports.sections.before_after import NUMBERS, BeforeAfterFile

        compared = read_json(self.folder / "hard" / NUMBERS, BeforeAfterFile, FIX)
        before, after = compared["sides"]
        attacked = {"eps": compared["protocol"]["eps"][-1], "n": compared["protocol"]["n"]}
        attacked |= {"robust_before": before["robust"]["value"], "robust_after": after["robust"]["value"]}
        return super().result() | {"attacked": attacked}


def demo(
    *,
    until: str | None = None,
    hardening: str | None = None,
    out: str | Path | None = None,
    resume: Resume = False,
    seed: int | None = None,
) -> DemoRun:
    """Train a GAN on digits; then train a classifier, attack it and harden it; and show the results.

    Args:
        until: Length of the GAN training: N images, epochs, steps, minutes or hours; 4 minutes by default.
        hardening: Length of the adversarial training, likewise; 10 epochs by default.
        out: Run folder; by default the next free runs/demo-N.
        resume: Continue the demo in --out with its own settings; auto starts it if it is not there yet.
        seed: Seed of everything random; 0 by default.

    Raises:
        UserError: bad input, in one line.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    from rivals.api.demo_page import RELOAD, RELOAD_SECONDS, live_page, say
    from rivals.reports.report import write_report

    resume = resumes(resume, out)
    asked: Record = {"until": until, "hardening": hardening, "seed": seed}
    asked = {name: value for name, value in asked.items() if value is not None}
    settings = {**DEFAULTS, **asked}
    if resume:
        settings = _settings_of(out)
        check_same(settings, asked)
    until, hardening, seed = settings["until"], settings["hardening"], settings["seed"]
    length = Duration.parse(hardening)
    Duration.parse(until)
    standard = str(Duration(length.amount * STANDARD_SHARE, length.unit))
    with reserve_folder(out, "demo") as folder, live_page(folder, resume):
        try:
            _run_or_resume(partial(train_gan, hardening), folder, resume, until=until, seed=seed)
            run = DemoRun.open(folder)
            run.update(**{RELOAD: RELOAD_SECONDS})
            write_report([run], run.report)
            say("part 2 of 2: a classifier learns the digits, is attacked, and learns to resist")
            _run_or_resume(classify, folder / "plain", resume, until=standard, seed=seed, lr=2e-3, **NET)
            plain = str((folder / "plain").resolve())
            _run_or_resume(harden, folder / "hard", resume, until=hardening, seed=seed, weights=plain, **NET, **ATTACK)
        except (Interrupted, KeyboardInterrupt):
            if not (folder / "run.json").exists():
                raise
            raise Interrupted(
                f"stopped and saved: continue with rivals demo --resume --out {shlex.quote(str(folder))}"
            ) from None
    return run


def _settings_of(out: str | Path | None) -> Record:
    """The settings of the demo that is to be resumed."""
    if out is None:
        raise UserError("--resume needs the demo to continue: add --out RUN")
    run = Run.open(out)
    if HARDENING not in run.info:
        raise wrong_command(out, "demo")
    info = run.read_info(DemoInfo)
    (config,) = restored(info["config"], GanJob.default_config)
    return {"until": config.until, "hardening": info["harden_until"], "seed": info["seed"]}


class DemoHardenJob(HardenJob):
    """The hardening of a demo, which the page follows, too."""

    def make_callbacks(self) -> Sequence[Callback]:
        """As of any hardening, and the page of the demo."""
        from rivals.api.demo_page import LivePage

        return [*super().make_callbacks(), LivePage(Run(self.folder.parent))]


class DemoGanJob(GanJob):
    """The GAN of a demo: its ``run.json`` holds from the first moment all that was asked of the demo.

    Args:
        request: The arguments of ``train``.
        hardening: Length of the adversarial training.
    """

    def __init__(self, request: Request, hardening: str) -> None:
        super().__init__(request)
        self.hardening = hardening

    def run_facts(self) -> Record:
        """As of any GAN, and what the demo does next."""
        return {**super().run_facts(), "sub_runs": ["hard"], HARDENING: self.hardening}

    def changeable_facts(self) -> Record:
        """As of any GAN, and that the page reloads itself."""
        from rivals.api.demo_page import RELOAD, RELOAD_SECONDS

        return {**super().changeable_facts(), RELOAD: RELOAD_SECONDS}

    def make_callbacks(self) -> Sequence[Callback]:
        """As of any GAN, with more sample grids, and the page that shows them."""
        from rivals.api.demo_page import LivePage
        from rivals.api.training.callbacks import SampleGrid

        callbacks = super().make_callbacks()
        for each in callbacks:
            if isinstance(each, SampleGrid):
                each.max_share = GRID_SHARE
        return [*callbacks, LivePage(Run(self.folder))]


def train_gan(
    hardening: str,
    data: str | None = None,
    *,
    out: Path,
    resume: bool = False,
    seed: int | None = None,
    **settings: Any,
) -> None:
    """Train the GAN of a demo; see :func:`rivals.train`."""
    from rivals.api.demo_page import say

    say("part 1 of 2: a generator learns to draw digits")
    run_job(DemoGanJob(Request(data, None, out, resume, seed, "auto", False, settings), hardening))


def harden(
    data: str | None = None,
    *,
    recipe: str | None = None,
    out: Path,
    resume: bool = False,
    seed: int | None = None,
    **settings: Any,
) -> None:
    """Harden the classifier of a demo; see :func:`rivals.harden`."""
    run_job(DemoHardenJob(Request(data, recipe, out, resume, seed, "auto", False, settings)))


def _run_or_resume(command: Callable[..., Any], folder: Path, resume: bool, **settings: Any) -> None:
    """Start a run, or continue it if it exists and is not finished."""
    if not (resume and (folder / "run.json").exists()):
        command(DEFAULT_DATA, out=folder, **settings)
    elif Run.open(folder).info["state"] != "finished":
        command(out=folder, resume=True)
