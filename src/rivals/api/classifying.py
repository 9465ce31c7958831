"""``classify``: a classifier from its configuration, trained in a run folder by the same loop as every game."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.learning import Asked, ClassifierRun, Course, Verb, Watching, learn, learner, looks, pupil, test_looks
from rivals.recipes import CLASSIFIERS, ClassifierConfig

if TYPE_CHECKING:
    from rivals.game.game import Batches, Game


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
    asked = Asked(data, recipe, out, resume, seed, device, size, crop, skip_bad, checkpoint_every, quiet, settings)
    return learn(Verb("classify", ClassifierConfig(), CLASSIFIERS, _batches, _build, _watching), asked)


def _batches(course: Course[ClassifierConfig]) -> Batches:
    from rivals.data import stream

    config = course.config
    return stream.Batches(course.images, config.batch, seed=course.seed, flip=config.flip, shift=config.shift)


def _build(course: Course[ClassifierConfig]) -> Game:
    """The game of one player."""
    from rivals.game.game import Game, Turn
    from rivals.game.lesson import Lesson
    from rivals.losses.classification import cross_entropy, readings

    config = course.config
    return Game(
        {"classifier": learner(course, pupil(course))},
        [Turn("classifier", cross_entropy(config.smoothing), readings=readings)],
        scene=Lesson,
        precision=config.precision,
    )


def _watching(course: Course[ClassifierConfig], game: Game) -> Watching:
    from rivals.game.play import Interlude

    return Watching([Interlude(looks(course), test_looks(course, game))])
