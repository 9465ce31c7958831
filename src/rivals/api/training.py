"""``train`` and ``report``: a game from its configuration, played in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivals import recipes
from rivals.api.assemble import build_game
from rivals.api.beside import neighbours
from rivals.api.live import SECONDS, LiveScore
from rivals.api.networks import load
from rivals.api.session import Session, about
from rivals.api.sources import as_before, found, free, images_of, unchanged
from rivals.base import devices
from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    import torch

    from rivals.data.imageset import ImageSet
    from rivals.game.play import Moment
    from rivals.nets.generator import Generator

DATA = "mnist5k"
SHEETS = 40  # sample sheets over a run, if nothing else was asked for


class TrainedRun(Run):
    """A run folder whose generator is at hand."""

    @property
    def generator(self) -> Generator:
        """The finished generator, on the CPU, ready to ``sample``."""
        generator: Generator = load(self.folder)
        return generator

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
            **self._best(),
            "generator": str(self.folder / "generator.safetensors"),
            "report": str(self.report),
        }

    def _best(self) -> Record:
        """The lowest score of the run and when it was, if it was scored on the way."""
        metric = self.about.get("score", {}).get("metric")
        scored = [record for record in self.records() if f"score/{metric}" in record and record["step"]]
        best = min(scored, key=lambda record: float(record[f"score/{metric}"]), default=None)
        return {} if best is None else {"best": {metric: best[f"score/{metric}"], "images": best["images"]}}


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
    score_every: str | None = None,
    score_seconds: float | None = None,
    on_nonfinite: Literal["stop", "rollback"] = "stop",
    quiet: bool = False,
    **settings: Any,
) -> TrainedRun:
    """Train a generator against a discriminator.

    Args:
        data: A data set's name, a folder of images (sub-folders are classes) or a zip; mnist5k if none is given.
        recipe: auto (the default), which fits the data, --until and this machine, or a preset as it is: quick,
            mlp-classic, mlp, dcgan, sngan, r3 or one of R3GAN's own.
        out: Folder of the run; the next free runs/DATA-RECIPE-N if none is given.
        resume: Go on with the run in --out, exactly as if it had never stopped.
        seed: What all randomness of the run follows from; 0 if none is given.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        size: Side to resize the images to, in pixels; as they are if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        sample_every: Time between sample sheets, written as --until; a fortieth of the run if none is given.
        checkpoint_every: Time between checkpoints, written as --until; one minute if none is given.
        score_every: Time between scores, written as --until, by which the best state is kept; none if none is given.
        score_seconds: Budget of one score; 10 if none is given.
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
        asked = {"data": data and found(data), "recipe": recipe, "size": size, "crop": crop or None, "seed": seed}
        recipe, config, source, seed = as_before("train", recipes.Config(), kept, asked, settings)
    else:
        seed = seed or 0
        recipe = recipe or recipes.DEFAULT
        config = recipes.RECIPES[recipe]().changed(**settings)
        source = {"data": found(data or DATA), "size": size, "crop": crop, "skip_bad": skip_bad}
    paces: Record = {"sample_every": sample_every, "checkpoint_every": checkpoint_every}
    paces |= {"score_every": score_every, "score_seconds": score_seconds}
    pace: Record = {name: asked or kept.get("pace", {}).get(name) for name, asked in paces.items()}
    length = Span.parse(config.until)
    sheets = Span.parse(pace["sample_every"]) if pace["sample_every"] else Span(length.amount / SHEETS, length.unit)
    saves = Span.parse(pace["checkpoint_every"] or "1 minutes")
    scored = Span.parse(pace["score_every"]) if pace["score_every"] else None
    if score_seconds is not None and scored is None:
        raise UserError("--score-seconds is the budget of a score, and there are none: add --score-every")
    folder = Path(out) if out is not None else free(Path("runs"), f"{Path(source['data']).stem}-{recipe}")
    if not resume:
        TrainedRun.check_free(folder)  # before the images are read, which may take a while

    import torch

    from rivals.api.judging import LOOKS, hold_aside, looks, pixel_entropy
    from rivals.data.imageset import require_classes
    from rivals.data.load import to_stderr
    from rivals.data.stream import Batches
    from rivals.game.best import Best
    from rivals.game.checkpoint import Checkpoints
    from rivals.game.health import Health
    from rivals.game.play import Interlude
    from rivals.losses.gan import make_loss

    place = devices.pick(device)
    if config.precision == "auto":
        config = config.changed(precision="fp32" if resume else devices.precision(place))
    whole = images_of(source, quiet)
    if config.conditional:
        require_classes(whole)
    images, held = hold_aside(whole, source, config.hold_out, seed, quiet)
    fitted: Record = {}
    said: list[str] = []
    if not resume:
        config, fitted, said = _fitted(recipe, config, images, settings, place, seed)
    shape = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    game = build_game(config, **shape, device=place, seed=seed)
    shown: Any = game.players["generator"].shown
    live: LiveScore | None = None
    if scored is not None:
        budget = pace["score_seconds"] or SECONDS
        live = LiveScore(shown, images, scored, budget, seed=seed, device=place, kept=kept.get("score"))
    if resume:
        run = TrainedRun.open(folder)
        unchanged(kept, whole)
    else:
        loss = make_loss(config.loss, config.smoothing)
        ends: Record = {"equilibrium": loss.equilibrium, "d_unit": loss.unit}
        ends["data_entropy"] = pixel_entropy(torch.from_numpy(images.images[:: max(1, len(images) // 1000)]))
        ends["held_out"] = held and {"split": held.split, "n": len(held), "hash": held.hash}
        run = TrainedRun.create(folder, about("train", recipe, config, source, whole, game, seed, **ends, **fitted))
    for line in [] if quiet else said:
        to_stderr(line)
    with run.alone():
        run.update(state="running", config=config.written(), pace=pace, says="")
        judged = Span(length.amount / LOOKS, length.unit)
        health = Health(run.about["equilibrium"])
        best: Best | None = None
        if live is not None:
            run.update(score=live.about)
            states = Checkpoints(run.folder / "best", beside=Checkpoints(run.checkpoints))
            best = live.best = Best(game, states, live.key, health)
        session = Session(
            *(run, game, Batches(images, config.batch, seed=seed, flip=config.flip), length, seed),
            keeps="generator",
            kept={"data": images.name, "classes": list(images.classes)},
            interludes=[
                Interlude(sheets, _sheets(run, shown, images, config.sheet, seed)),
                *([Interlude(judged, looks(game, images, held, seed))] if held is not None else []),
                *([Interlude(live.every, live)] if live is not None else []),
            ],
            watch=best or health,
            best=None if best is None else best.checkpoints,
            drawn=neighbours(run, images, config.sheet, seed),
            quiet=quiet,
        )
        session.play(saves, resume=resume, rollback=on_nonfinite == "rollback")
    return run


def _fitted(
    recipe: str,
    config: recipes.Config,
    images: ImageSet,
    settings: dict[str, Any],
    place: torch.device,
    seed: int,
) -> tuple[recipes.Config, Record, list[str]]:
    """The settings of a new run, what is kept of how they were chosen, and what is to be said of them."""
    from rivals.api.automatic import choose
    from rivals.api.cautions import cautions, playable

    playable(config, images)
    if recipe != "auto":
        return config, {}, cautions(config, images)
    choice = choose(images, settings, place, seed)
    return choice.config, {"auto": choice.written()}, choice.lines(images) + cautions(choice.config, images)


def _sheets(run: Run, generator: Any, images: ImageSet, count: int, seed: int) -> Callable[[Moment], Iterator[Record]]:
    """What draws the sample sheet of a moment: the same latents each time, with their diversity and entropy."""
    import torch

    from rivals.api.judging import pixel_entropy
    from rivals.metrics.diversity import Diversity
    from rivals.reports import sheet

    latents = generator.latents(count, seed)
    labels = torch.arange(count) % generator.classes if generator.classes else None
    diversity = Diversity(images.images, count)

    def draw(moment: Moment) -> Iterator[Record]:
        drawn = generator.draw(latents, labels)
        path = run.samples / f"{moment.images:09d}.png"
        sheet.save_png(sheet.grid(drawn.numpy()), path)
        place = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
        facts = {"diversity": diversity(drawn), "entropy/pixels": pixel_entropy(drawn)}
        yield place | {"sheet": f"samples/{path.name}"} | facts

    return draw


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
