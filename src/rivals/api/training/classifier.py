"""``classify``: a classifier by standard training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypedDict, TypeVar

from rivals.api.common.network_io import load
from rivals.api.common.resume import Hashed, TrainingInfo, load_images, note_printer
from rivals.api.training.job import Request, TrainingJob
from rivals.api.training.runner import run_job
from rivals.base import devices, rng
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Resume, Run
from rivals.base.typed_json import Between, conforms
from rivals.recipes import CLASSIFIERS, ClassifierConfig, HardenConfig

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Callback, Progress
    from rivals.game.game import Batches, Game
    from rivals.nets.classifier import Classifier

EVALUATIONS = 10  # over a run
PROBE_ROUNDS = 4  # timed to find out how many images a run of minutes will see
TEST_FRACTION = 10  # of data without test images, one in so many is held out
MAX_TEST = 10_000
LEARNED = 0.1  # of the way from guessing to no error; below, a classifier has hardly learned

C = TypeVar("C", ClassifierConfig, HardenConfig)


class ClassifierRun(Run):
    """A run of ``rivals classify`` or ``rivals harden``."""

    @property
    def classifier(self) -> Classifier:
        """The trained classifier, on the CPU: images in [0, 1] to logits."""
        net: Classifier = load(self.folder)
        return net

    def result(self) -> Record:
        """The state of the run and the accuracies of the classifier that it saved, as plain values."""
        from rivals.api.training.saved_state import measured_of_saved

        info = self.info
        accuracies = measured_of_saved(self, "classifier", lambda key: key.startswith("accuracy/") or key == "n_test")
        return {
            "run": str(self.folder),
            **{key: info[key] for key in ("state", "images", "step", "epochs", "seconds")},
            **accuracies,
            "classifier": str(self.folder / "classifier.safetensors"),
            "report": str(self.report),
        }


def classify(
    data: str | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: Resume = False,
    seed: int | None = None,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> ClassifierRun:
    """Train a classifier.

    Args:
        data: A data set's name, a folder with one subfolder per class, a zip or shards; mnist5k by default.
        recipe: A preset: cnn (the default for gray images) or resnet (for others).
        out: Run folder; by default the next free runs/DATA-RECIPE-N.
        resume: Continue the run in --out, exactly as if it had never stopped; auto starts it if it is not there yet.
        seed: Seed of everything random; 0 by default.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.ClassifierConfig`, :class:`rivals.DataOptions` and
            :class:`rivals.recipes.RunOptions`, such as ``until="5 epochs"``.

    Returns:
        The run, with ``.classifier``. Its accuracy is that on the test images of the data; if they have none, a tenth
        of the images is held out.

    Raises:
        UserError: bad input, in one line; or training failed.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    run = run_job(ClassifierJob(Request(data, recipe, out, resume, seed, device, quiet, settings)))
    return ClassifierRun(run.folder)


class ClassifierInfo(TrainingInfo):
    """What ``run.json`` must hold to resume the training of a classifier."""

    total_images: Annotated[int, Between(1, 2**53)]
    test: Hashed


TestRecord = TypedDict("TestRecord", {"accuracy/test": float})  # a measurement on test images


class ClassifierJobBase(TrainingJob[C], Generic[C]):
    """What ``classify`` and ``harden`` share: test images, recipes by channels, a length in images or minutes."""

    network = "classifier"

    test: ImageSet
    start: Classifier | None = None
    stored_schema: ClassVar[type[Any]] = ClassifierInfo
    total_images: int
    """Images that the whole run will see; an estimate if its length is a time."""

    @property
    def until(self) -> Duration:
        """Length of the run in images or minutes, over which the learning rate decays."""
        until = Duration.parse(self.config.until)
        return until if until.unit == "minutes" else Duration(self.total_images, "images")

    def _resume_options(self) -> None:
        before = self.stored["config"]["until"]
        if self.config_settings.get("until", before) != before:
            raise UserError(
                f"cannot extend: the learning-rate schedule spans the original --until '{before}': start a new run"
            )
        super()._resume_options()
        self.total_images = self.stored["total_images"]

    def load_data(self) -> None:
        """Load the images to train on and to test on."""
        from rivals.api.training.start_weights import check_shape, load_classifier
        from rivals.base.hashing import weights_hash
        from rivals.data.classes import match_classes

        weights = self.config_settings.get("weights", self.config.weights)
        start: Any = load_classifier("weights", weights, self.device) if weights else None
        self.loaded, self.test = self._load_with_test(start and start.about.get("white"))
        if start is not None:
            self.note_content("weights", weights, weights_hash(start))
            # The order of the logits is that of the weights.
            names, note = start.about.get("classes") or self.loaded.classes, note_printer(self.request.quiet)
            self.loaded, self.test = (
                match_classes(images, names, f"the classifier '{weights}'", note) for images in (self.loaded, self.test)
            )
            check_shape("weights", weights, start.spec, self.loaded)
            self.start = start
        self.images = self.loaded

    def choices(self) -> Record:
        """Also the length in images."""
        return {**super().choices(), "total_images": self.total_images}

    def take_choices(self, choices: Record) -> None:
        """Also the length in images."""
        super().take_choices(choices)
        self.total_images = choices["total_images"]

    def new_network(self) -> Classifier:
        """The network at the start of the run: that of --weights, or a new one."""
        from rivals.api.training.classifier_factory import build_network
        from rivals.api.training.start_weights import fresh_copy

        if self.start is not None:
            return fresh_copy(self.start, self.device)
        return build_network(self.config, self.images, self.device, self.seed)

    def resolve_config(self) -> None:
        """Choose the recipe by the channels; find or estimate the length of the run in images."""
        from rivals.api.training.start_weights import adopt_architecture

        self.recipe = self.recipe or ("cnn" if self.images.channels == 1 else "resnet")
        if self.start is not None:
            theirs = {"net": self.start.spec["net"], "widths": list(self.start.spec["widths"])}
            theirs |= {"blocks": self.start.spec["blocks"]} if "blocks" in self.start.spec else {}
            weights = self.config_settings["weights"]
            self.config_settings = adopt_architecture(weights, theirs, self.config_settings, self.default_config)
        self.config = self.recipes[self.recipe]().changed(**self.config_settings)
        if self.config.precision == "auto":
            self.config = self.config.changed(precision=devices.fastest_precision(self.device))
        until, per_step = Duration.parse(self.config.until), self.images_per_step
        if until.unit == "minutes":
            images = self._images_per_second() * until.amount * 60
        else:
            images = until.amount * {"images": 1, "epochs": len(self.images), "steps": per_step}[until.unit]
        self.total_images = max(per_step, round(images))

    @property
    def images_per_step(self) -> int:
        """Images that a step shows to the classifier."""
        return self.config.batch_size

    def _images_per_second(self) -> float:
        """The speed of a game like this one, measured in a few rounds of this process: all have about the same."""

        self.total_images = self.config.batch_size  # for the schedules of the probe
        with rng.fork(self.device):
            game, batches = self.build_game(), self.make_batches()
            game.round(0, batches, seed=self.seed)  # the first one is slow
            start = time.perf_counter()
            for step in range(PROBE_ROUNDS):
                game.round(step, batches, seed=self.seed)["loss/classifier"].item()
            alone = PROBE_ROUNDS * game.images_per_round(batches) / (time.perf_counter() - start)
        return self.processes.size * alone

    @property
    def evaluate_every(self) -> Duration:
        """Time between two evaluations: never more than an epoch."""
        return Duration(min(self.total_images / EVALUATIONS, len(self.images)), "images")

    def test_accuracy(self) -> Callback:
        """The callback that measures the accuracy on test images."""
        from rivals.api.training.callbacks import TestAccuracy

        return TestAccuracy(self.evaluate_every, self.game.players["classifier"], self.test, self.until)

    def open_run(self) -> Run:
        from rivals.api.training.held_out import check_unchanged

        run = super().open_run()
        check_unchanged(self.stored, "test", self.test.hash)
        return run

    def shortfall(self, end: Progress) -> str | None:
        """What to say of a classifier that is about as good as guessing."""
        accuracies = [record["accuracy/test"] for record in Run(self.folder).records() if conforms(record, TestRecord)]
        guessing = 1 / max(1, len(self.images.classes))
        if not accuracies or accuracies[-1] >= guessing + LEARNED * (1 - guessing):
            return None
        return (
            f"{end.images:,} images: too few to learn. Accuracy on test images is {accuracies[-1]:.1%}, and that of "
            f"guessing {guessing:.1%}. Start a new run with a longer --until, as the learning rate has decayed."
        )

    def run_facts(self) -> Record:
        """The length in images, the test images."""
        test = {"split": self.test.split, "n": len(self.test), "hash": self.test.hash}
        return {"total_images": self.total_images, "test": test}

    def _load_with_test(self, white: int | None) -> tuple[ImageSet, ImageSet]:
        from rivals.api.training.held_out import check_same_shape
        from rivals.data.classes import match_classes
        from rivals.data.imageset import require_classes
        from rivals.data.load import evaluation_split
        from rivals.data.splits import hold_out

        quiet = self.request.quiet
        images = self.read_images(white)
        require_classes(images)
        if split := evaluation_split(self.source):
            test = load_images(self.source, self.data_options, quiet=quiet, split=split)
            test = match_classes(test, images.classes, "the training set", note_printer(quiet))
            check_same_shape(images, test)
            return images, test
        if len(images) < TEST_FRACTION:
            raise UserError(
                f"'{images.name}' has {len(images)} images, of which one in {TEST_FRACTION} is held out for the test: "
                f"give {TEST_FRACTION} or more"
            )
        return hold_out(images, min(len(images) // TEST_FRACTION, MAX_TEST), self.seed)


class ClassifierJob(ClassifierJobBase[ClassifierConfig]):
    """A run of ``rivals classify``."""

    command = "classify"
    recipes = CLASSIFIERS
    default_config = ClassifierConfig()

    def make_batches(self) -> Batches:
        """Batches of the images."""
        from rivals.data import batches

        config = self.config
        return batches.Batches(
            self.images,
            config.batch_size,
            seed=self.seed,
            micro_batches=self.micro_batches,
            flip=config.flip,
            shift=config.shift,
        )

    def build_game(self) -> Game:
        """A game of one player, with the cross-entropy loss."""
        from rivals.api.training.classifier_factory import build_player
        from rivals.game.classifier_step import ClassifierStep
        from rivals.game.game import Game, Turn
        from rivals.losses.classification import cross_entropy, readings

        config = self.config
        return Game(
            {"classifier": build_player(config, self.new_network(), self.until)},
            [Turn("classifier", cross_entropy(config.label_smoothing), readings=readings)],
            make_step=ClassifierStep,
            precision=config.precision,
        )

    def make_callbacks(self) -> Sequence[Callback]:
        """Test accuracy."""
        return [self.test_accuracy()]
