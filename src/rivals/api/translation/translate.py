"""``translate``: train a translator, or apply one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.training.job import Request
from rivals.api.training.runner import run_job
from rivals.api.translation.apply import apply_translator
from rivals.api.translation.job import TranslateJob, translator_of
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Resume, Run
from rivals.recipes.base import flag, split_settings
from rivals.recipes.options import DataOptions
from rivals.recipes.translation import ApplyConfig, TranslateConfig, TranslateRunOptions

if TYPE_CHECKING:
    from rivals.nets.translator import Translator


class TranslateRun(Run):
    """A run of ``rivals translate``."""

    @property
    def translator(self) -> Translator:
        """The trained translator, on the CPU: images in [0, 1] to images in [0, 1]."""
        return translator_of(str(self.folder))

    def result(self) -> Record:
        """The state of the run and its judgement on held-out images, as plain values."""
        info = self.info
        results: Any = info.get("results", {})
        return {
            "run": str(self.folder),
            **{key: info[key] for key in ("state", "images", "step", "epochs", "seconds", "alarms")},
            **({"n_held_out": results["n"], "held_out": results["values"]["translator"]} if results else {}),
            **{name: values for name, values in results.get("values", {}).items() if name != "translator"},
            "translator": str(self.folder / "generator.safetensors"),
            "report": str(self.report),
        }


def translate(
    data: str | None = None,
    images: str | None = None,
    *,
    out: str | Path | None = None,
    resume: Resume = False,
    seed: int | None = None,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> TranslateRun | Record:
    """Learn to enlarge images (--scale), or to translate those of A into those of B; or apply what was learned.

    Args:
        data: To train: with --scale a data set's name, a folder or a zip; else a folder with A/ and B/, or with images
            side by side. To apply: a run of rivals translate.
        images: To apply: an image, a folder or a zip of images of any size.
        out: Run folder; by default the next free runs/DATA-KIND-N. To apply: the folder to write, or the file.
        resume: Continue the run in --out, exactly as if it had never stopped; auto starts it if it is not there yet.
        seed: Seed of everything random; 0 by default.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.recipes.TranslateConfig`, :class:`rivals.DataOptions`,
            :class:`rivals.recipes.TranslateRunOptions` and, to apply, :class:`rivals.recipes.ApplyConfig`.

    Returns:
        The run, with ``.translator``; or where the translated images are.

    Raises:
        UserError: bad input, in one line; or training failed.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    plain = (TranslateConfig(), DataOptions(), TranslateRunOptions(), ApplyConfig())
    *others, applied = split_settings(settings, *plain)
    if images is None:
        for name in applied:
            raise UserError(f"{flag(name)} has no meaning in training: name the images to translate after the run")
        if data is None and not resume:
            raise UserError("no data were named: give a folder with A/ and B/, or any images and --scale 2")
        run = run_job(TranslateJob(Request(data, None, out, resume, seed, device, quiet, settings)))
        return TranslateRun(run.folder)
    if data is None:
        raise UserError(f"no run was named to apply to '{images}': name a run of rivals translate first")
    given = [name for part in others for name in part]
    given += [name for name, value in (("resume", resume), ("seed", seed)) if value not in (False, None)]
    for name in given:
        raise UserError(f"{flag(name)} has no meaning where a run is applied to '{images}': leave it out")
    if not Path(data).exists():
        raise UserError(f"there is no run '{data}' to apply to '{images}': name a run of rivals translate first")
    return apply_translator(data, images, ApplyConfig().changed(**applied), out=out, device=device, quiet=quiet)
