"""``train``, ``demo`` and ``report``: a game from its configuration, played in a run folder."""

from __future__ import annotations

import shlex
import sys
import webbrowser
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivals import recipes
from rivals.api.assemble import build_game
from rivals.api.networks import keep, load
from rivals.base import devices
from rivals.base.errors import Interrupted, UserError
from rivals.base.spans import Span
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.game import Game
    from rivals.nets.generator import Generator

SHEETS = 40  # sample sheets over a run
DATA = "mnist5k"


class TrainedRun(Run):
    """A run folder whose generator is at hand."""

    @property
    def generator(self) -> Generator:
        """The finished generator, on the CPU, ready to ``sample``."""
        return load(self.folder)

    def result(self) -> Record:
        """How the run stands, as plain values."""
        last: Record = {}
        for record in self.records():
            if "loss/discriminator" in record:
                last = record
        shown = ("loss/discriminator", "loss/generator", "d_real", "d_fake")
        return {
            "run": str(self.folder),
            **{key: self.about[key] for key in ("state", "images", "step", "epochs", "seconds", "alarms")},
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
    seed: int = 0,
    device: str = "auto",
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    sample_every: str | None = None,
    checkpoint_every: str = "1 minutes",
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
        seed: What all randomness of the run follows from.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        size: Side to resize the images to, in pixels; as they are if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        sample_every: Time between sample sheets, written as --until; a fortieth of the run if none is given.
        checkpoint_every: Time between checkpoints, written as --until.
        on_nonfinite: When a value is no finite number: stop, or go back to the last checkpoint and halve the rates.
        quiet: Print nothing on the way.
        **settings: Any field of :class:`rivals.recipes.Config`, over the recipe's, as until="2M images".

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
        recipe, config, source = _as_before(kept, data=data, recipe=recipe, size=size, crop=crop, settings=settings)
        seed = kept["seed"]
    else:
        recipe = recipe or recipes.DEFAULT
        config = recipes.RECIPES[recipe]().changed(**settings)
        source = {"source": data or DATA, "size": size, "crop": crop, "skip_bad": skip_bad}
    length = Span.parse(config.until)
    sheets = Span.parse(sample_every) if sample_every else Span(length.amount / SHEETS, length.unit)
    saves = Span.parse(checkpoint_every)
    folder = Path(out) if out is not None else _free(Path("runs"), f"{Path(source['source']).stem}-{recipe}")
    if not resume:
        TrainedRun.check_free(folder)  # before the images are read, which may take a while

    images = _images(source, config, quiet)
    place = devices.pick(device)
    game = build_game(
        config,
        size=images.size,
        channels=images.channels,
        classes=len(images.classes),
        device=place,
        seed=seed,
    )
    if resume:
        if kept["data"]["hash"] != images.hash:
            raise UserError(f"the images of '{source['source']}' have changed since: restore them to resume")
        run = TrainedRun.open(folder)
        run.update(state="running", config=config.written())
    else:
        about = _about(recipe, config, source, images, game, seed)
        run = TrainedRun.create(folder, about)
    _play(run, game, images, config, length, sheets, saves, seed, resume, on_nonfinite == "rollback", quiet)
    return run


def demo(*, until: str = "4 minutes", out: str | Path | None = None, seed: int = 0) -> TrainedRun:
    """Learn to draw digits on this machine, and show how it went.

    Args:
        until: Length of the training: N images, N epochs, N steps or N minutes.
        out: Folder of the run; the next free runs/demo-N if none is given.
        seed: What all randomness of the run follows from.
    """
    run = train(DATA, until=until, out=out or _free(Path("runs"), "demo"), seed=seed)
    if sys.stdout.isatty():
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
    default = opened[0].report if len(opened) == 1 else Path("report.html")
    return write_report(opened, Path(out) if out is not None else default)


def _free(home: Path, name: str) -> Path:
    """The first of NAME-1, NAME-2, ... that does not exist in ``home``."""
    number = 1
    while (home / f"{name}-{number}").exists():
        number += 1
    return home / f"{name}-{number}"


def _as_before(
    kept: Record,
    *,
    data: str | None,
    recipe: str | None,
    size: int | None,
    crop: bool,
    settings: Record,
) -> tuple[str, recipes.Config, Record]:
    """Recipe, configuration and source of a run that is resumed; what is asked anew must not differ.

    Raises:
        UserError: it differs, or the run was made by another verb.
    """
    if kept["verb"] != "train":
        raise UserError(f"this is a run of '{kept['verb']}', not of 'train': resume it by 'rivals {kept['verb']}'")
    config = recipes.Config().changed(**kept["config"])
    source = kept["data"]["source"]
    asked: Record = {"data": data, "recipe": recipe, "size": size, "crop": crop or None}
    before: Record = {"recipe": kept["recipe"], "data": source["source"], "size": source["size"]}
    before["crop"] = source["crop"]
    for name, value in asked.items():
        if value is not None and value != before[name]:
            raise UserError(
                f"cannot resume with another {name}: it was {before[name]}, now {value}: leave it out, or start anew"
            )
    changed = config.changed(**settings)
    old, new = config.written(), changed.written()
    for name in old:
        if name != "until" and old[name] != new[name]:
            raise UserError(
                f"cannot resume with another {name}: it was {old[name]}, now {new[name]}: leave it out, or start anew"
            )
    return kept["recipe"], changed, source


def _images(source: Record, config: recipes.Config, quiet: bool) -> ImageSet:
    from rivals.data.imageset import require_classes
    from rivals.data.load import load as load_images

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    images = load_images(
        source["source"],
        size=source["size"],
        crop=source["crop"],
        skip_bad=source["skip_bad"],
        on_note=say,
    )
    if config.conditional:
        require_classes(images)
    return images


def _about(
    recipe: str,
    config: recipes.Config,
    source: Record,
    images: ImageSet,
    game: Game,
    seed: int,
) -> Record:
    """What ``run.json`` says of a new run."""
    from rivals.api import surroundings
    from rivals.losses.gan import make_loss

    loss = make_loss(config.loss, config.smoothing)
    return {
        "verb": "train",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["rivals", *sys.argv[1:]]) if Path(sys.argv[0]).name == "rivals" else "",
        "seed": seed,
        "device": str(game.device),
        "recipe": recipe,
        "config": config.written(),
        "data": {
            "name": images.name,
            "split": images.split,
            "n": len(images),
            "size": images.size,
            "channels": images.channels,
            "classes": list(images.classes),
            "hash": images.hash,
            "source": source,
        },
        "players": {
            name: {"net": config.net, "parameters": sum(w.numel() for w in player.net.parameters())}
            for name, player in game.players.items()
        },
        "equilibrium": loss.equilibrium,
        "d_unit": loss.unit,
        "versions": surroundings.versions(),
        "hardware": surroundings.hardware(game.device),
        "git": surroundings.git_state(),
    }


def _play(
    run: TrainedRun,
    game: Game,
    images: ImageSet,
    config: recipes.Config,
    length: Span,
    sheets: Span,
    saves: Span,
    seed: int,
    resume: bool,
    rollback: bool,
    quiet: bool,
) -> None:
    """Play the game in its folder; leave generator, report and the end's facts there, however it ends.

    Raises:
        UserError: a value stopped being finite.
        Interrupted: the user asked to stop.
    """
    import torch

    from rivals.data.stream import Batches
    from rivals.game.checkpoint import Checkpoints
    from rivals.game.health import Health
    from rivals.game.interrupt import asked_to_stop
    from rivals.game.ledger import NonFinite
    from rivals.game.play import Interlude, Moment, Saving, play
    from rivals.metrics.diversity import Diversity
    from rivals.reports import sheet
    from rivals.reports.terminal import Live

    generator: Any = game.players["generator"].shown
    latents = generator.latents(config.sheet, seed)
    labels = torch.arange(config.sheet) % generator.classes if generator.classes else None
    diversity = Diversity(images.images, config.sheet)

    def draw_sheet(moment: Moment) -> Iterator[Record]:
        drawn = generator.draw(latents, labels)
        path = run.samples / f"{moment.images:09d}.png"
        sheet.save_png(sheet.grid(drawn.numpy()), path)
        place = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
        yield place | {"sheet": f"samples/{path.name}", "diversity": diversity(drawn)}

    health = Health(run.about["equilibrium"])
    for record in run.records() if resume else ():
        health.recall(record)
    live = Live(length, len(images), quiet=quiet)
    state, trouble = "finished", None
    with asked_to_stop() as stop, live:
        try:
            end = play(
                game,
                Batches(images, config.batch, seed=seed, flip=config.flip),
                until=length,
                seed=seed,
                journal=run,
                saving=Saving(Checkpoints(run.checkpoints), saves, resume),
                interludes=[Interlude(sheets, draw_sheet)],
                watch=health,
                show=live,
                stop=stop,
                rollback=rollback,
            )
        except NonFinite as error:
            state, trouble = "stopped", error
        if stop():
            state = "interrupted"
    if trouble is not None:
        run.update(state=state, says=str(trouble))
        _draw(run)
        raise UserError(
            f"{trouble}; the last good checkpoint is kept in {run.checkpoints}: go on with --resume and "
            "--on-nonfinite rollback, or start anew with lower learning rates"
        )
    keep(
        generator,
        run.folder / "generator.safetensors",
        {"data": images.name, "classes": list(images.classes), "images": end.images, "seed": seed},
    )
    run.update(
        state=state,
        images=end.images,
        step=end.step,
        epochs=round(end.epochs, 3),
        seconds=round(end.seconds, 1),
        alarms=[{key: alarm[key] for key in ("alarm", "says", "remedy")} for alarm in health.active.values()],
    )
    _draw(run)
    if state == "interrupted":
        raise Interrupted(f"stopped and saved at {end.images:,} images: go on with --resume --out {run.folder}")


def _draw(run: Run) -> None:
    """The pictures and the page of a run, as far as it has come."""
    from rivals.reports.curves import draw_curves
    from rivals.reports.page import write_report

    draw_curves(run)
    write_report([run], run.report)
