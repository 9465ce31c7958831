"""What all verbs that train a classifier share: from what was asked to a run that has ended."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from rivals.api.networks import load
from rivals.api.session import Session, about
from rivals.api.sources import as_before, found, free, images_of, unchanged
from rivals.base import devices, seeds
from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.recipes import ClassifierConfig, HardenConfig
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rivals.data.imageset import ImageSet
    from rivals.game.checkpoint import Checkpoints
    from rivals.game.game import Batches, Game
    from rivals.game.guard import Guard
    from rivals.game.play import Interlude, Moment
    from rivals.game.players import Player
    from rivals.nets.classifier import Classifier

DATA = "mnist5k"
LOOKS = 10  # measurements over a run
PROBE = 4  # rounds timed to find how far a run of minutes will come
ASIDE = 10  # of data without test images, one in so many is kept aside
MOST_ASIDE = 10_000
GLANCE = 1000  # test images of a measurement during the run; its last one takes all
BLOCK = 500  # images judged at a time

C = TypeVar("C", ClassifierConfig, HardenConfig)


class ClassifierRun(Run):
    """A run folder whose classifier is at hand."""

    @property
    def classifier(self) -> Classifier:
        """The finished classifier, on the CPU: images in [0, 1] to logits."""
        net: Classifier = load(self.folder)
        return net

    def result(self) -> Record:
        """How the run stands, as plain values."""
        about = self.about
        last: Record = {}
        for record in self.records():
            last |= {key: value for key, value in record.items() if key.startswith("accuracy/") or key == "test_n"}
        return {
            "run": str(self.folder),
            **{key: about[key] for key in ("state", "images", "step", "epochs", "seconds")},
            **last,
            "classifier": str(self.folder / "classifier.safetensors"),
            "report": str(self.report),
        }


@dataclass(frozen=True)
class Asked:
    """What a user asks of a verb that trains a classifier; see :func:`rivals.classify`."""

    data: str | None
    recipe: str | None
    out: str | Path | None
    resume: bool
    seed: int | None
    device: str
    size: int | None
    crop: bool
    skip_bad: bool
    checkpoint_every: str | None
    quiet: bool
    settings: Record
    against: str | Path | None = None


@dataclass(frozen=True)
class Course(Generic[C]):
    """What a classifier is to go through.

    Attributes:
        config: The settings.
        images: What it learns from.
        held: Images kept aside from those, to watch by; None where that was not asked for.
        test: What it is judged by in the end.
        horizon: Images that the whole run will see.
        device: Where to play.
        seed: What all randomness follows from.
        folder: Of the run.
        against: A classifier that it is to be compared with in the end; empty for none.
    """

    config: C
    images: ImageSet
    held: ImageSet | None
    test: ImageSet
    horizon: int
    device: torch.device
    seed: int
    folder: Path
    against: str = ""


@dataclass(frozen=True)
class Watching:
    """What goes on beside the game: interludes, a watch, and where the best state is kept, if one is.

    ``last`` is what is measured of the network that the run keeps, once it is over; it says what it found.
    """

    interludes: Sequence[Interlude]
    watch: Guard | None = None
    best: Checkpoints | None = None
    last: Callable[[nn.Module], str] | None = None


@dataclass(frozen=True)
class Verb(Generic[C]):
    """A verb that trains a classifier.

    Attributes:
        name: As it is called.
        plain: A configuration of its kind.
        presets: Its recipes.
        batches: What the game is played on.
        build: The game, with freshly drawn or loaded weights.
        watching: What goes on beside it.
        aside: Images kept aside from those to learn from; none if the set is less than ten times as large.
    """

    name: str
    plain: C
    presets: Mapping[str, Callable[[], C]]
    batches: Callable[[Course[C]], Batches]
    build: Callable[[Course[C]], Game]
    watching: Callable[[Course[C], Game], Watching]
    aside: int = 0
    facts: Callable[[Course[C]], Record] = field(default=lambda course: {})


def learn(verb: Verb[C], asked: Asked) -> ClassifierRun:
    """Train a classifier as a verb has it.

    Raises:
        UserError: something the user can fix; nothing was written over.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    kept: Record = {}
    recipe, seed, out = asked.recipe, asked.seed or 0, asked.out
    if asked.resume:
        if out is None:
            raise UserError("--resume needs the run to go on with: add --out RUN")
        kept = ClassifierRun.open(out).about
        recipe, config, source, seed = _resumed(verb, kept, asked)
    else:
        source = {"data": found(asked.data or DATA), "size": asked.size, "crop": asked.crop, "skip_bad": asked.skip_bad}
        if out is not None:
            ClassifierRun.check_free(Path(out))  # before the images are read, which may take a while
    place = devices.pick(asked.device)
    images, test = _with_test(source, asked.quiet, seed)
    if recipe is None:
        recipe = "cnn" if images.channels == 1 else "resnet"
    if not asked.resume:
        config = verb.presets[recipe]().changed(**asked.settings)
        if config.precision == "auto":
            config = config.changed(precision=devices.precision(place))
    pace = asked.checkpoint_every or kept.get("pace", {}).get("checkpoint_every")
    saves = Span.parse(pace or "1 minutes")

    from rivals.data.holdout import hold_out

    whole, held = images, None
    if verb.aside:
        images, held = hold_out(images, min(verb.aside, max(1, len(images) // ASIDE)), seed)
    folder = Path(out) if out is not None else free(Path("runs"), f"{Path(source['data']).stem}-{recipe}")
    against = found(str(asked.against)) if asked.against else kept.get("against", "")
    course = Course(config, images, held, test, kept.get("horizon", config.batch), place, seed, folder, against)
    if not asked.resume:
        course = _planned(verb, course)
    game = verb.build(course)
    # Before anything is written: they may refuse what was asked.
    watching, batches = verb.watching(course, game), verb.batches(course)
    if asked.resume:
        run = ClassifierRun.open(folder)
        unchanged(kept, whole)
    else:
        judged = {"split": test.split, "n": len(test), "hash": test.hash}
        facts = {"horizon": course.horizon, "test": judged, **verb.facts(course)}
        run = ClassifierRun.create(folder, about(verb.name, recipe, config, source, whole, game, seed, **facts))
    with run.alone():
        compared = {"against": against} if against else {}
        run.update(state="running", config=config.written(), pace={"checkpoint_every": pace}, says="", **compared)
        session = Session(
            *(run, game, batches, Span(course.horizon, "images"), seed),
            keeps="classifier",
            kept={"data": whole.name, "classes": list(whole.classes), **verb.facts(course)},
            interludes=watching.interludes,
            watch=watching.watch,
            best=watching.best,
            last=watching.last,
            quiet=asked.quiet,
        )
        session.play(saves, resume=asked.resume, rollback=watching.best is not None)
    return run


def pupil(course: Course[C]) -> Classifier:
    """The classifier that a configuration describes, with freshly drawn weights, on the course's device."""
    import torch

    from rivals.nets.build import build_classifier

    config, images = course.config, course.images
    some = torch.from_numpy(images.images[:: max(1, len(images) // 10_000)]).float() / 255
    mean, std = some.mean((0, 2, 3)), some.std((0, 2, 3)).clamp_min(1 / 255)
    knobs: Record = {} if config.blocks is None else {"blocks": config.blocks}
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(course.seed, "weights"))
        net = build_classifier(
            config.net,
            size=images.size,
            channels=images.channels,
            classes=len(images.classes),
            widths=config.widths,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            **knobs,
        )
    return net.to(course.device)


def learner(course: Course[C], net: Classifier) -> Player:
    """The classifier as a player, with the optimiser and the average that a configuration asks for.

    Where an average is kept, it alone answers by images and mirror images; what learns needs one pass as before.
    """
    from rivals.base.schedules import Schedule
    from rivals.game.players import Player, adam, muon

    config = course.config
    kind = muon if config.optimizer == "muon" else adam
    falling = Schedule(config.lr, config.lr / 1000, course.horizon)
    net.spec["mirror"] = config.mirror
    player = Player(net, kind(falling, weight_decay=config.weight_decay), ema=config.ema)
    if player.average is not None:
        net.spec["mirror"] = False
    return player


def looks(course: Course[C]) -> Span:
    """How long it is from one look at the classifier to the next: never more than an epoch."""
    return Span(min(course.horizon / LOOKS, len(course.images)), "images")


def test_looks(course: Course[C], game: Game) -> Callable[[Moment], Iterator[Record]]:
    """What measures the accuracy on test images at a moment; on all of them at the end."""
    from rivals.data.holdout import hold_out

    player, test = game.players["classifier"], course.test
    glance = hold_out(test, GLANCE, 0)[1] if len(test) > GLANCE else test

    def look(moment: Moment) -> Iterator[Record]:
        judges = test if moment.images >= course.horizon else glance
        place = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
        yield place | {"accuracy/test": accuracy(player.shown.eval(), judges), "test_n": len(judges)}

    return look


def accuracy(net: nn.Module, images: ImageSet) -> float:
    """The share of labelled images that a classifier in evaluation mode has right."""
    import torch

    right, device = 0, next(net.parameters()).device
    assert images.labels is not None
    with torch.no_grad():
        for first in range(0, len(images), BLOCK):
            block = torch.from_numpy(images.images[first : first + BLOCK]).to(device) / 255
            said = net(block).argmax(1).cpu()
            right += int((said == torch.from_numpy(images.labels[first : first + BLOCK])).sum())
    return right / len(images)


def _resumed(verb: Verb[C], kept: Record, asked: Asked) -> tuple[str, C, Record, int]:
    before = kept.get("config", {}).get("until")
    if asked.settings.get("until", before) != before:
        raise UserError("a classifier's rate falls over its whole run, which cannot be lengthened: start anew")
    wishes = {"data": asked.data and found(asked.data), "recipe": asked.recipe, "size": asked.size}
    wishes |= {"crop": asked.crop or None, "seed": asked.seed}
    return as_before(verb.name, verb.plain, kept, wishes, asked.settings)


def _with_test(source: Record, quiet: bool, seed: int) -> tuple[ImageSet, ImageSet]:
    """The images to learn from, and those to be judged by."""
    from rivals.data.holdout import hold_out
    from rivals.data.imageset import require_classes
    from rivals.data.load import has_split

    images = images_of(source, quiet)
    require_classes(images)
    if has_split(source["data"], "test"):
        test = images_of(source, quiet, "test")
        if (test.classes, test.size, test.channels) != (images.classes, images.size, images.channels):
            raise UserError(
                f"the test images of '{images.name}' are {_form(test)}, those to learn from {_form(images)}: "
                "make them alike, or set the size by --size"
            )
        return images, test
    if len(images) < ASIDE:
        raise UserError(
            f"'{images.name}' has {len(images)} images, of which one in {ASIDE} is kept aside as a test: give "
            f"{ASIDE} or more"
        )
    return hold_out(images, min(len(images) // ASIDE, MOST_ASIDE), seed)


def _form(images: ImageSet) -> str:
    return f"{images.channels} x {images.size} x {images.size} of the classes {', '.join(images.classes[:5])}"


def _planned(verb: Verb[C], course: Course[C]) -> Course[C]:
    """The course with its horizon. For a run of minutes, a few rounds of a game like it are timed."""
    import torch

    config, until = course.config, Span.parse(course.config.until)
    if until.unit != "minutes":
        unit = {"images": 1, "epochs": len(course.images), "steps": config.batch}[until.unit]
        return dataclasses.replace(course, horizon=max(config.batch, round(until.amount * unit)))
    with torch.random.fork_rng():
        game, batches = verb.build(course), verb.batches(course)
        game.round(0, batches, seed=course.seed)
        start = time.perf_counter()
        for step in range(PROBE):
            game.round(step, batches, seed=course.seed)["loss/classifier"].item()
        pace = PROBE * game.images_a_round(batches) / (time.perf_counter() - start)
    return dataclasses.replace(course, horizon=max(config.batch, round(pace * until.amount * 60)))
