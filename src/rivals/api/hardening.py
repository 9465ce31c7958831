"""``harden``: adversarial training, the game of a classifier against an attack, solved afresh for every batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.learning import (
    Asked,
    ClassifierRun,
    Course,
    Verb,
    Watching,
    accuracy,
    learn,
    learner,
    looks,
    pupil,
    test_looks,
)
from rivals.api.networks import load
from rivals.base.errors import UserError
from rivals.base.fractions import radius
from rivals.recipes import HARDENING, HardenConfig
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rivals.base.balls import Ball
    from rivals.data.imageset import ImageSet
    from rivals.game.game import Batches, Game
    from rivals.game.lesson import Attack
    from rivals.game.play import Moment
    from rivals.nets.classifier import Classifier
else:
    Ball = Any  # the command line evaluates the signature, and must not wait for torch

HELD = 1000  # images kept aside, on which robust accuracy is watched
WATCHED = 500  # of them, attacked at a look during the run
PGD_STEPS = 10  # of the attack at a look
GREY, COLOUR = 0.3, 8 / 255  # radii in Linf, where none was asked for
EXTRA = 50_000  # images drawn by a generator that is to give extra images


def harden(
    data: str | None = None,
    ball: Ball | None = None,
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
    against: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> ClassifierRun:
    """Harden a classifier by adversarial training.

    Args:
        data: A data set's name, a folder with a sub-folder for each class or a zip; mnist5k if none is given.
        ball: Where the attack may look, as Linf(8 / 255), in Python; it is the settings norm and eps.
        recipe: Named preset to start from: cnn or resnet; the first for grey images, the second for others.
        out: Folder of the run; the next free runs/DATA-RECIPE-N if none is given.
        resume: Go on with the run in --out, exactly as if it had never stopped.
        seed: What all randomness of the run follows from; 0 if none is given.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        size: Side to resize the images to, in pixels; as they are if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        checkpoint_every: Time between checkpoints, written as --until; one minute if none is given.
        against: A run or classifier to show beside this one in the report; that of --weights if none is given.
        quiet: Print nothing on the way.
        **settings: Any setting of the recipe, as method="trades"; rivals.HardenConfig lists them.

    Returns:
        The run, with ``.classifier``: the state that stood best against PGD on images kept aside.

    Raises:
        UserError: something the user can fix; nothing was written over.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    if ball is not None:
        settings |= {"norm": type(ball).__name__.lower(), "eps": repr(float(ball.eps))}
    asked = Asked(
        *(data, recipe, out, resume, seed, device, size, crop, skip_bad, checkpoint_every, quiet, settings), against
    )
    verb = Verb("harden", HardenConfig(), HARDENING, _batches, _build, _watching, aside=HELD, facts=_facts)
    return learn(verb, asked)


def _ball(course: Course[HardenConfig]) -> Ball:
    from rivals.base.balls import L1, L2, Linf

    config = course.config
    if not config.eps and config.norm != "linf":
        raise UserError(f"--norm {config.norm} needs a radius: add --eps, in the unit of images in [0, 1]")
    custom = GREY if course.images.channels == 1 else COLOUR
    eps = radius(config.eps) if config.eps else custom
    kinds: dict[str, Callable[[float], Ball]] = {"linf": Linf, "l2": L2, "l1": L1}
    return kinds[config.norm](eps)


def _facts(course: Course[HardenConfig]) -> Record:
    """What the run and the network's file say of how it was hardened."""
    ball = _ball(course)
    return {"hardened": {"norm": course.config.norm, "eps": float(ball.eps), "method": course.config.method}}


def _batches(course: Course[HardenConfig]) -> Batches:
    from rivals.data import stream
    from rivals.data.blend import Blended, Replayed

    config = course.config
    knobs: Record = {"seed": course.seed, "flip": config.flip, "shift": config.shift}
    batches: Batches
    if config.extra:
        count = min(max(1, round(config.batch * config.extra_share)), config.batch - 1)
        own = stream.Batches(course.images, config.batch - count, **knobs)
        batches = Blended(own, stream.Batches(_extra(config.extra, course.images), count, **knobs))
    else:
        batches = stream.Batches(course.images, config.batch, **knobs)
    return Replayed(batches, config.replays) if config.resolved.attack == "free" else batches


def _extra(source: str, images: ImageSet) -> ImageSet:
    """Labelled images like those of the run: of a folder or a zip, or drawn by a conditional generator.

    Raises:
        UserError: they have no classes, or other ones, or another form.
    """
    import numpy as np

    from rivals.data.imageset import ImageSet as Set
    from rivals.data.load import load as load_images

    path = Path(source)
    if (path / "run.json").exists() or path.suffix == ".safetensors":
        generator = load(source)
        if not getattr(generator, "classes", 0) or not hasattr(generator, "sample"):
            raise UserError(f"'{source}' draws no classes, which extra images need: train it with --conditional")
        labels = np.arange(EXTRA, dtype=np.int64) % generator.classes
        names = tuple(generator.about.get("classes") or map(str, range(generator.classes)))
        pixels = generator.sample(EXTRA, seed=0, labels=labels.tolist()).numpy()
        extra = Set(path.stem, "generated", pixels, labels, names)
    else:
        extra = load_images(source)
    if extra.labels is None:
        raise UserError(f"the extra images '{source}' have no classes: put them into one sub-folder per class")
    if extra.images.shape[1:] != images.images.shape[1:]:
        theirs, own = ("x".join(map(str, each.images.shape[1:])) for each in (extra, images))
        raise UserError(f"the extra images '{source}' are {theirs} and the run's {own}: give images of the same form")
    if extra.classes != images.classes:
        raise UserError(
            f"the extra images '{source}' have the classes {', '.join(extra.classes[:5])} and the run's "
            f"{', '.join(images.classes[:5])}: give the same ones, of the same names"
        )
    return extra


def _build(course: Course[HardenConfig]) -> Game:
    """The game of a classifier against its attack."""
    from functools import partial

    from rivals.game.game import Game, Turn
    from rivals.game.lesson import Lesson
    from rivals.losses.robust import awp, madry, mart, readings, trades

    config, method = course.config, course.config.resolved
    if method.loss == "madry":
        loss = madry(config.mix, config.smoothing)
    else:
        assert method.beta is not None
        loss = trades(method.beta, config.smoothing) if method.loss == "trades" else mart(method.beta)
    if config.awp:
        loss = awp(loss, config.awp)
    times = config.replays if method.attack == "free" else 1
    return Game(
        {"classifier": learner(course, _beginner(course))},
        [Turn("classifier", loss, times=times, readings=readings)],
        scene=partial(Lesson, attack=_attack(course)),
        precision=config.precision,
    )


def _attack(course: Course[HardenConfig]) -> Attack:
    """The other player: its ball may grow over the first part of the run."""
    from rivals.attacks.inner import Free, Inner, Solver, augmented, noisy
    from rivals.base.balls import Linf

    method, ball = course.config.resolved, _ball(course)
    solve: Solver
    if method.attack == "steps":
        assert method.step is not None
        solve = Inner(method.steps, method.step, method.start, divergence=method.loss == "trades")
    else:
        simple: dict[str, Solver] = {"free": Free(), "noise": noisy, "augment": augmented}
        solve = simple[method.attack]
    if isinstance(ball, Linf) and float(ball.eps) > 0.5:
        warnings.warn(
            f"an eps of {float(ball.eps):g} is more than half the images' range: every image can be made grey",
            stacklevel=2,
        )
    ramp = course.config.ramp * course.horizon

    def attack(net: nn.Module, x: Tensor, y: Tensor, images: int) -> Tensor:
        share = min(1.0, (images + len(x)) / ramp) if ramp else 1.0
        return solve(net, x, y, ball if share == 1 else type(ball)(share * float(ball.eps)))

    return attack


def _beginner(course: Course[HardenConfig]) -> Classifier:
    """The classifier to begin with: freshly drawn, or another run's.

    Raises:
        UserError: the other one is no classifier, or of another form.
    """
    net = pupil(course)
    return _fitting(course, "weights", course.config.weights).train() if course.config.weights else net


def _fitting(course: Course[HardenConfig], flag: str, source: str) -> Classifier:
    """Another run's classifier for the same data.

    Raises:
        UserError: it is no classifier, or of another form.
    """
    net: Any = load(source, device=str(course.device))
    images = course.images
    form = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    if any(getattr(net, name, None) != value for name, value in form.items()) or hasattr(net, "sample"):
        wanted = ", ".join(f"{name} {value}" for name, value in form.items())
        raise UserError(f"--{flag} {source} does not fit this data: it takes a classifier of {wanted}")
    classifier: Classifier = net
    return classifier


def _before(course: Course[HardenConfig]) -> tuple[str, Classifier] | None:
    """The classifier to compare with and where it is from: that of --against, or that of --weights."""
    flag, source = ("against", course.against) if course.against else ("weights", course.config.weights)
    return (source, _fitting(course, flag, source)) if source else None


def _watching(course: Course[HardenConfig], game: Game) -> Watching:
    """Looks at clean and robust accuracy on images kept aside, and a guard that keeps the most robust state."""
    import torch

    from rivals.api.comparison import Comparison
    from rivals.attacks import fgsm, pgd
    from rivals.attacks.frozen import freeze
    from rivals.data.holdout import chosen
    from rivals.game.checkpoint import Checkpoints
    from rivals.game.guard import Guard
    from rivals.game.play import Interlude

    held, ball = course.held, _ball(course)
    assert held is not None and held.labels is not None
    watched = held if len(held) <= WATCHED else chosen(held, torch.arange(WATCHED).numpy())
    assert watched.labels is not None
    x = torch.from_numpy(watched.images).to(course.device) / 255
    y = torch.from_numpy(watched.labels).to(course.device)
    best = Checkpoints(course.folder / "best", beside=Checkpoints(Run(course.folder).checkpoints))
    guard = Guard(game, best, len(course.images.classes), course.config.ramp * course.horizon)

    def standing(net: nn.Module, attacked: Tensor) -> float:
        with torch.no_grad():
            return float((net(attacked).argmax(1) == y).float().mean())

    def look(moment: Moment) -> Iterator[Record]:
        net = game.players["classifier"].shown.eval()
        with freeze(net, x) as frozen:
            stepped = fgsm(frozen, x, y, ball)
            climbed = pgd(frozen, x, y, ball, steps=PGD_STEPS)
        record = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
        record |= {
            "accuracy/held": accuracy(net, watched),
            "accuracy/fgsm": standing(net, stepped),
            "accuracy/pgd": standing(net, climbed),
        }
        yield record
        guard.see(record, moment)

    last = Comparison(course.folder, course.test, ball, _before(course), course.seed)
    interludes = [Interlude(looks(course), look), Interlude(looks(course), test_looks(course, game))]
    return Watching(interludes, guard, best, last)
