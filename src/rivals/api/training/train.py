"""``train``: a generator against a discriminator, a classifier, or both."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from rivals.api.training import advgan, encoder
from rivals.api.training.advgan import AdvGanJob
from rivals.api.training.encoder import EncoderJob
from rivals.api.training.gan import GanJob, GanRun
from rivals.api.training.job import Request, TrainingJob
from rivals.api.training.robgan import RobGanJob
from rivals.api.training.runner import run_job
from rivals.base import launcher
from rivals.base.errors import UserError
from rivals.base.run_folder import Resume, Run, resumes
from rivals.recipes import Config


def train(
    data: str | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: Resume = False,
    seed: int | None = None,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> GanRun:
    """Train a generator against a discriminator.

    Args:
        data: A data set's name, a folder of images (subfolders are classes) or a zip; mnist5k by default.
        recipe: auto (the default), which is fitted to the data, --until and this machine; or a preset: quick,
            mlp-classic, mlp, dcgan, sngan, r3, robgan or one of R3GAN's own. With --against it is advgan,
            with --invert encoder.
        out: Run folder; by default the next free runs/DATA-RECIPE-N.
        resume: Continue the run in --out, exactly as if it had never stopped; auto starts it if it is not there yet.
        seed: Seed of everything random; 0 by default.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.Config`, :class:`rivals.DataOptions` and
            :class:`rivals.recipes.GanRunOptions`, such as ``until="2M images"``.

    Returns:
        The run, with ``.generator``.

    Raises:
        UserError: bad input, in one line; or training failed.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    request = Request(data, recipe, out, resume, seed, device, quiet, settings)
    return GanRun(run_job(_kind(request)(request)).folder)


def _kind(request: Request) -> type[TrainingJob[Config]]:
    """What kind of run a request begins or resumes."""
    inverts = request.settings.get("invert")
    recipe = request.recipe or (advgan.RECIPE if request.settings.get("against") else None)
    processes = launcher.current()
    with processes.together():
        if processes.first and request.out is not None and resumes(request.resume, request.out):
            with contextlib.suppress(UserError):  # which the job raises too
                recipe = str(Run.open(request.out).info.get("recipe"))
    recipe = processes.share(recipe)
    if recipe == advgan.RECIPE or request.settings.get("against"):
        return AdvGanJob
    if recipe == encoder.RECIPE or inverts:
        return EncoderJob
    return RobGanJob if recipe == "robgan" else GanJob
