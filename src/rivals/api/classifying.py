"""``classify``: a classifier from its configuration, trained in a run folder by the same loop as every game."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals import recipes
from rivals.api.networks import load
from rivals.api.session import Session, about
from rivals.api.sources import as_before, found, free, images_of, unchanged
from rivals.base import devices, seeds
from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rivals.data.imageset import ImageSet
    from rivals.data.stream import Batches
    from rivals.game.game import Game
    from rivals.game.play import Moment
    from rivals.game.players import Player
    from rivals.nets.classifier import Classifier

DATA = "mnist5k"
LOOKS = 20  # measurements of the accuracy over a run
PROBE = 4  # rounds timed to find how far a run of minutes will come
ASIDE = 10  # of data without test images, one in so many is kept aside
MOST_ASIDE = 10_000
GLANCE = 1000  # test images of a measurement during the run; its last one takes all
BLOCK = 500  # images judged at a time


class ClassifierRun(Run):
    """A run folder whose classifier is at hand."""

    @property
    def classifier(self) -> Classifier:
        """The finished classifier, on the CPU: images in [0, 1] to logits."""
        net: Classifier = load(self.folder)
        return net

    def result(self) -> Record:
        """How the run stands, as plain values."""
        about, last = self.about, {}
        for record in self.records():
            if "accuracy/test" in record:
                last = record
        return {
            "run": str(self.folder),
            **{key: about[key] for key in ("state", "images", "step", "epochs", "seconds")},
            **{key: last[key] for key in ("accuracy/test", "test_n") if key in last},
            "classifier": str(self.folder / "classifier.safetensors"),
            "report": str(self.report),
        }


def classify(
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
    checkpoint_every: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> ClassifierRun:
    """Train a classifier.

    Args:
        data: A data set's name, a folder with a sub-folder for each class or a zip; mnist5k if none is given.
        recipe: Named preset to start from: cnn or resnet; the first for grey images, the second for others.
        out: Folder of the run; the next free runs/DATA-RECIPE-N if none is given.
        resume: Go on with the run in --out, exactly as if it had never stopped.
        seed: What all randomness of the run follows from; 0 if none is given.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        size: Side to resize the images to, in pixels; as they are if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        checkpoint_every: Time between checkpoints, written as --until; one minute if none is given.
        quiet: Print nothing on the way.
        **settings: Any setting of the recipe, as until="5 epochs"; rivals.ClassifierConfig lists them.

    Returns:
        The run, with ``.classifier``. Its accuracy is that on the data's test images or, where there are none, on a
        tenth of the images, which is kept aside.

    Raises:
        UserError: something the user can fix; nothing was written over.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    kept: Record = {}
    if resume:
        if out is None:
            raise UserError("--resume needs the run to go on with: add --out RUN")
        kept = ClassifierRun.open(out).about
        asked = {"data": data and found(data), "recipe": recipe, "size": size, "crop": crop or None, "seed": seed}
        if settings.get("until", kept["config"]["until"]) != kept["config"]["until"]:
            raise UserError("a classifier's rate falls over its whole run, which cannot be lengthened: start anew")
        plain = recipes.ClassifierConfig()
        recipe, config, source, seed = as_before("classify", plain, kept, asked, settings)
    else:
        seed = seed or 0
        source = {"data": found(data or DATA), "size": size, "crop": crop, "skip_bad": skip_bad}
        if out is not None:
            ClassifierRun.check_free(Path(out))  # before the images are read, which may take a while
    place = devices.pick(device)
    images, test = _with_test(source, quiet, seed)
    if recipe is None:
        recipe = "cnn" if images.channels == 1 else "resnet"
    if not resume:
        config = recipes.CLASSIFIERS[recipe]().changed(**settings)
    saves = Span.parse(checkpoint_every or kept.get("pace", {}).get("checkpoint_every") or "1 minutes")

    from rivals.data.stream import Batches
    from rivals.game.play import Interlude

    batches = Batches(images, config.batch, seed=seed, flip=config.flip, shift=config.shift)
    horizon = kept.get("horizon") or _horizon(config, images, batches, place, seed)
    game = build_lesson(config, images, horizon, device=place, seed=seed)
    folder = Path(out) if out is not None else free(Path("runs"), f"{Path(source['data']).stem}-{recipe}")
    if resume:
        run = ClassifierRun.open(folder)
        unchanged(kept, images)
    else:
        facts = {"horizon": horizon, "test": {"split": test.split, "n": len(test), "hash": test.hash}}
        run = ClassifierRun.create(folder, about("classify", recipe, config, source, images, game, seed, **facts))
    with run.alone():
        run.update(state="running", config=config.written(), pace={"checkpoint_every": checkpoint_every}, says="")
        looks = Interlude(Span(horizon / LOOKS, "images"), _looks(game.players["classifier"], test, horizon))
        session = Session(
            *(run, game, batches, Span(horizon, "images"), seed),
            keeps="classifier",
            kept={"data": images.name, "classes": list(images.classes)},
            interludes=[looks],
            watch=None,
            quiet=quiet,
        )
        session.play(saves, resume=resume, rollback=False)
    return run


def build_lesson(
    config: recipes.ClassifierConfig, images: ImageSet, horizon: int, *, device: torch.device, seed: int
) -> Game:
    """The game of one player that a configuration describes, with freshly drawn weights.

    Args:
        config: The settings.
        images: What it will learn from; their mean and deviation are built into the network.
        horizon: Images the whole run will see, over which the rate falls.
        device: Where to play.
        seed: What the initial weights follow from.
    """
    import torch

    from rivals.base.schedules import Schedule
    from rivals.game.game import Game, Turn
    from rivals.game.lesson import Lesson
    from rivals.game.players import Player, adam
    from rivals.losses.classification import cross_entropy, readings
    from rivals.nets.build import build_classifier

    some = torch.from_numpy(images.images[:: max(1, len(images) // 10_000)]).float() / 255
    mean, std = some.mean((0, 2, 3)), some.std((0, 2, 3)).clamp_min(1 / 255)
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(seed, "weights"))
        net = build_classifier(
            config.net,
            size=images.size,
            channels=images.channels,
            classes=len(images.classes),
            widths=config.widths,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            **({} if config.blocks is None else {"blocks": config.blocks}),
        )
    rate = adam(Schedule(config.lr, config.lr / 1000, horizon), weight_decay=config.weight_decay)
    return Game(
        {"classifier": Player(net.to(device), rate, ema=config.ema)},
        [Turn("classifier", cross_entropy(config.smoothing), readings=readings)],
        scene=Lesson,
    )


def _with_test(source: Record, quiet: bool, seed: int) -> tuple[ImageSet, ImageSet]:
    """The images to learn from, and those to be judged by."""
    from rivals.data.holdout import hold_out
    from rivals.data.imageset import require_classes
    from rivals.data.names import NAMES

    images = images_of(source, quiet)
    require_classes(images)
    if source["data"] in NAMES and "test" in NAMES[source["data"]].counts:
        return images, images_of(source, quiet, "test")
    if len(images) < ASIDE:
        raise UserError(
            f"'{images.name}' has {len(images)} images, of which one in {ASIDE} is kept aside as a test: give "
            f"{ASIDE} or more"
        )
    return hold_out(images, min(len(images) // ASIDE, MOST_ASIDE), seed)


def _horizon(
    config: recipes.ClassifierConfig, images: ImageSet, batches: Batches, device: torch.device, seed: int
) -> int:
    """How many images the run will see. For one of minutes, a few rounds of a game like it are timed."""
    import torch

    until = Span.parse(config.until)
    if until.unit != "minutes":
        unit = {"images": 1, "epochs": len(images), "steps": config.batch}[until.unit]
        return max(config.batch, round(until.amount * unit))
    with torch.random.fork_rng():
        game = build_lesson(config, images, config.batch, device=device, seed=seed)
        game.round(0, batches, seed=seed)
        start = time.perf_counter()
        for step in range(PROBE):
            game.round(step, batches, seed=seed)["accuracy"].item()
        pace = PROBE * config.batch / (time.perf_counter() - start)
    return max(config.batch, round(pace * until.amount * 60))


def _looks(player: Player, test: ImageSet, horizon: int) -> Callable[[Moment], Iterator[Record]]:
    """What measures the accuracy at a moment."""
    import torch

    from rivals.data.holdout import hold_out

    glance = hold_out(test, min(GLANCE, len(test)), 0)[1] if len(test) > GLANCE else test

    @torch.no_grad()
    def look(moment: Moment) -> Iterator[Record]:
        judges = test if moment.images >= horizon else glance
        net = player.shown.eval()
        right = 0
        for first in range(0, len(judges), BLOCK):
            right += _right(net, judges, first, next(net.parameters()).device)
        place = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
        yield place | {"accuracy/test": right / len(judges), "test_n": len(judges)}

    return look


def _right(net: torch.nn.Module, images: ImageSet, first: int, device: torch.device) -> int:
    """How many of a block of images, from ``first`` on, are classified rightly."""
    import torch

    assert images.labels is not None
    block = torch.from_numpy(images.images[first : first + BLOCK]).to(device) / 255
    said: Tensor = net(block).argmax(1).cpu()
    return int((said == torch.from_numpy(images.labels[first : first + BLOCK])).sum())
