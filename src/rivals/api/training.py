"""``train``, ``demo`` and ``report``: a game from its configuration, played in a run folder."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivals import recipes
from rivals.api.assemble import build_game
from rivals.api.networks import load
from rivals.api.session import Session, about
from rivals.base import devices
from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.nets.generator import Generator

DATA = "mnist5k"


class TrainedRun(Run):
    """A run folder whose generator is at hand."""

    @property
    def generator(self) -> Generator:
        """The finished generator, on the CPU, ready to ``sample``."""
        return load(self.folder)

    def result(self) -> Record:
        """How the run stands, as plain values."""
        about, last = self.about, {}
        for record in self.records():
            if "loss/discriminator" in record:
                last = record
        shown = ("loss/discriminator", "loss/generator", "d_real", "d_fake")
        return {
            "run": str(self.folder),
            **{key: about[key] for key in ("state", "images", "step", "epochs", "seconds", "alarms")},
            **{key: last[key] for key in shown if key in last},
            "generator": str(self.folder / "generator.safetensors"),
            "report": str(self.report),
        }


def train(
    data: str | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int | None = None,
    device: str = "auto",
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    sample_every: str | None = None,
    checkpoint_every: str | None = None,
    on_nonfinite: Literal["stop", "rollback"] = "stop",
    quiet: bool = False,
    **settings: Any,
) -> TrainedRun:
    """Train a generator against a discriminator.

    Args:
        data: A data set's name, a folder of images (sub-folders are classes) or a zip; mnist5k if none is given.
        recipe: Named preset to start from: quick (the default), mlp-classic, mlp, dcgan, sngan or r3.
        out: Folder of the run; the next free runs/DATA-RECIPE-N if none is given.
        resume: Go on with the run in --out, exactly as if it had never stopped.
        seed: What all randomness of the run follows from; 0 if none is given.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        size: Side to resize the images to, in pixels; as they are if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        sample_every: Time between sample sheets, written as --until; a fortieth of the run if none is given.
        checkpoint_every: Time between checkpoints, written as --until; one minute if none is given.
        on_nonfinite: When a value is no finite number: stop, or go back to the last checkpoint and halve the rates.
        quiet: Print nothing on the way.
        **settings: Any setting of the recipe, as until="2M images"; rivals.Config lists them.

    Returns:
        The run, with ``.generator``.

    Raises:
        UserError: something the user can fix; nothing was written over.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    kept: Record = {}
    if resume:
        if out is None:
            raise UserError("--resume needs the run to go on with: add --out RUN")
        kept = Run.open(out).about
        asked = {"data": data and _source(data), "recipe": recipe, "size": size, "crop": crop or None, "seed": seed}
        recipe, config, source, seed = _as_before(kept, asked, settings)
    else:
        seed = seed or 0
        recipe = recipe or recipes.DEFAULT
        config = recipes.RECIPES[recipe]().changed(**settings)
        source = {"data": _source(data or DATA), "size": size, "crop": crop, "skip_bad": skip_bad}
    pace = {"sample_every": sample_every, "checkpoint_every": checkpoint_every}
    pace = {name: asked or kept.get("pace", {}).get(name) for name, asked in pace.items()}
    sheets = Span.parse(pace["sample_every"]) if pace["sample_every"] else None
    saves = Span.parse(pace["checkpoint_every"] or "1 minutes")
    folder = Path(out) if out is not None else _free(Path("runs"), f"{Path(source['data']).stem}-{recipe}")
    if not resume:
        TrainedRun.check_free(folder)  # before the images are read, which may take a while

    place = devices.pick(device)
    images = _images(source, config, quiet)
    shape = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    game = build_game(config, **shape, device=place, seed=seed)
    if resume:
        if kept["data"]["hash"] != images.hash:
            raise UserError(f"the images of '{source['data']}' have changed since: restore them to resume")
        run = TrainedRun.open(folder)
    else:
        run = TrainedRun.create(folder, about(recipe, config, source, images, game, seed))
    with run.alone():
        run.update(state="running", config=config.written(), pace=pace, says="")
        session = Session(run, game, images, config, seed, quiet)
        session.play(sheets, saves, resume=resume, rollback=on_nonfinite == "rollback")
    return run


def demo(*, until: str = "4 minutes", out: str | Path | None = None, seed: int = 0) -> TrainedRun:
    """Learn to draw digits on this machine, and show how it went.

    Args:
        until: Length of the training: N images, N epochs, N steps or N minutes.
        out: Folder of the run; the next free runs/demo-N if none is given.
        seed: What all randomness of the run follows from.
    """
    run = train(DATA, until=until, out=out or _free(Path("runs"), "demo"), seed=seed)
    screen = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if sys.stdout.isatty() and screen:  # without a screen a browser of text would take over the terminal
        webbrowser.open(run.report.resolve().as_uri())
    return run


def report(*runs: str | Path, out: str | Path | None = None) -> Path:
    """Write the page that shows one run, or several side by side.

    Args:
        *runs: Run folders.
        out: The page's file; report.html in the run, or in the working folder for several runs.

    Returns:
        The page's path.
    """
    from rivals.reports.page import write_report

    if not runs:
        raise UserError("no run was named: give one or more run folders, as in 'rivals report runs/demo-1'")
    opened = [Run.open(run) for run in runs]
    if out is None and len(opened) == 1:
        return write_report(opened, opened[0].report)
    page = Path(out or "report.html")
    if page.exists():
        raise UserError(f"'{page}' exists already: remove it or choose another --out")
    return write_report(opened, page)


def _free(home: Path, name: str) -> Path:
    """The first of NAME-1, NAME-2, ... that does not exist in ``home``."""
    number = 1
    while (home / f"{name}-{number}").exists():
        number += 1
    return home / f"{name}-{number}"


def _source(data: str) -> str:
    """A name as it is, a path made absolute, so that a run may be resumed from another folder."""
    from rivals.data.names import NAMES

    try:
        path = Path(data).expanduser()
    except RuntimeError:
        raise UserError(f"'{data}' names a user that this machine does not know: write the path in full") from None
    return data if data in NAMES or not path.exists() else str(path.resolve())


def _as_before(kept: Record, asked: Record, settings: Record) -> tuple[str, recipes.Config, Record, int]:
    """Recipe, configuration, source and seed of a run that is resumed.

    Raises:
        UserError: what is asked now differs from it (only ``until`` may), or another verb made the run.
    """
    if kept.get("verb") != "train":
        raise UserError("this is not a run of 'rivals train', so it cannot be resumed by it: choose another --out")
    config = recipes.Config().changed(**kept["config"])
    changed = config.changed(**settings)
    source = kept["data"]["source"]
    before = {**config.written(), **source, "recipe": kept["recipe"], "seed": kept["seed"]}
    now = {
        **changed.written(),
        **{name: value for name, value in asked.items() if value is not None},
        "until": config.until,
    }
    for name, value in now.items():
        if value != before[name]:
            raise UserError(
                f"cannot resume with another {name}: it was {before[name]}, now {value}: leave it out, or start anew"
            )
    if changed.until != config.until and "step" in kept:
        come = Span.parse(changed.until).progress(
            images=kept["images"], epochs=kept["epochs"], steps=kept["step"], seconds=kept["seconds"]
        )
        if come > 1:
            raise UserError(
                f"the run has come to {kept['images']:,} images ({kept['step']:,} steps), past '{changed.until}': "
                "give a longer --until"
            )
    return kept["recipe"], changed, source, kept["seed"]


def _images(source: Record, config: recipes.Config, quiet: bool) -> ImageSet:
    from rivals.data.imageset import require_classes
    from rivals.data.load import load as load_images
    from rivals.data.load import to_stderr

    images = load_images(
        source["data"],
        size=source["size"],
        crop=source["crop"],
        skip_bad=source["skip_bad"],
        on_note=(lambda note: None) if quiet else to_stderr,
    )
    if config.conditional:
        require_classes(images)
    return images
