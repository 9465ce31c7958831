"""A generator against a discriminator: the runs of ``train`` without a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rivals import recipes
from rivals.api.common.network_io import load
from rivals.api.common.resume import note_printer
from rivals.api.training.job import Request, TrainingJob
from rivals.base import devices
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.base.typed_json import conforms
from rivals.recipes import Config, GanRunOptions

if TYPE_CHECKING:
    from torch import nn

    from rivals.api.training.fid_callback import FidCallback
    from rivals.api.training.start_weights import GanWeights
    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Callback, Progress
    from rivals.game.game import Batches, Game
    from rivals.losses.gan import GanLoss
    from rivals.nets.generator import Generator

SAMPLE_GRIDS = 40  # over a run, by default
MAX_SHARE = 0.01  # of the run's time, for sample grids by default, and for evaluations of the discriminator
SCORE_OF_PATIENCE = 6  # the features of real images may take four times the time of a score
MEASURED = (
    *("accuracy/held_out", "accuracy/generator", "targets_reached"),
    *("accuracy/pgd", "accuracy/test", "score/reconstruction"),
)
ENTROPY_IMAGES = 1000  # of which the entropy of the data is estimated


class GanRun(Run):
    """A run of ``rivals train``."""

    @property
    def generator(self) -> Generator:
        """The trained generator, on the CPU, ready to ``sample``."""
        generator: Generator = load(self.folder)
        return generator

    def result(self) -> Record:
        """The state and the last values of the run, as plain values; what is measured, of the generator it saved."""
        from rivals.api.training.saved_state import measured_of_saved

        info, last = self.info, {}
        for record in self.records():
            if "loss/discriminator" in record:
                last = record
        keys = ("loss/discriminator", "loss/generator", "d_real", "d_fake")
        measured = measured_of_saved(self, "generator", MEASURED.__contains__)
        return {
            "run": str(self.folder),
            **{key: info[key] for key in ("state", "images", "step", "epochs", "seconds", "alarms")},
            **{key: last[key] for key in keys if key in last},
            **measured,
            **self._best(),
            "generator": str(self.folder / "generator.safetensors"),
            "report": str(self.report),
        }

    def _best(self) -> Record:
        """The lowest score during training, if there are scores."""
        metric = self.info.get("score_protocol", {}).get("metric")
        key = f"score/{metric}"
        scored = [record for record in self.records() if conforms(record.get(key), float) and record["step"]]
        best = min(scored, key=lambda record: float(record[key]), default=None)
        return {} if best is None else {"best": {metric: best[key], "images": best["images"]}}


class GanJob(TrainingJob[Config]):
    """A run of ``rivals train``."""

    command = "train"
    network = "generator"
    recipes = recipes.RECIPES
    default_config = Config()
    default_run_options = GanRunOptions()
    run_options: GanRunOptions

    held_out: ImageSet | None
    start: GanWeights | None = None
    fid: FidCallback | None = None

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.auto: Record = {}
        self.notes: list[str] = []
        if not self.resuming:
            self.recipe = request.recipe or recipes.DEFAULT
            self.config = recipes.RECIPES[self.recipe]().changed(**self.config_settings)

    @property
    def rollback(self) -> bool:
        """Whether to return to a checkpoint at a value that is not finite, as ``--on-nonfinite`` says."""
        return self.run_options.on_nonfinite == "rollback"

    def load_data(self) -> None:
        """Load the images; hold some out."""
        from rivals.api.equilibrium.discriminator_eval import held_out_images
        from rivals.api.training.start_weights import load_gan
        from rivals.data.imageset import require_classes

        if self.config.robust_steps and self.recipe != "robgan":
            raise UserError(
                f"--robust-steps {self.config.robust_steps} trains a classifier too, as the recipe robgan does: add "
                "--recipe robgan"
            )
        quiet = self.request.quiet
        self.start = load_gan(self.config.weights) if self.config.weights else None
        self.loaded = self.read_images(None if self.start is None else self.start.white)
        if self.start is not None:
            self._start_from(self.start)
        if self.config.conditional:
            require_classes(self.loaded)
        self.images, self.held_out = held_out_images(
            self.loaded, self.source, self.data_options, self.config.hold_out, seed=self.seed, quiet=quiet
        )

    def _start_from(self, start: GanWeights) -> None:
        """Check the networks to start from. A new run takes their architecture."""
        from rivals.api.training.start_weights import adopt_architecture, check_shape
        from rivals.data.classes import match_classes

        weights = self.config.weights
        self.note_content("weights", weights, start.hash)
        if not self.resuming:
            # The EMA of the start weights is worth keeping: no ramp-up, as in StyleGAN2-ADA's transfer learning.
            given = {"ema_rampup": 0, **self.config_settings}
            self.config_settings = adopt_architecture(weights, start.architecture, given, self.default_config)
            self.config = self.config.changed(**self.config_settings)
        if self.config.conditional and start.classes:
            note = note_printer(self.request.quiet)
            self.loaded = match_classes(self.loaded, start.classes, f"the GAN '{weights}'", note)
        check_shape("weights", weights, start.generator.spec, self.loaded)
        if start.discriminator is None and not self.config.freeze_d:
            self.notes.append(f"'{weights}' has no discriminator: a new one starts; a run folder would have its own")
        elif start.discriminator is None:
            raise UserError(f"--freeze-d needs a discriminator, and '{weights}' has none: give the folder of its run")

    def resolve_config(self) -> None:
        """Fit the recipe ``auto``, if it is that; check that training can work."""
        from rivals.api.training.auto_config import fit_config
        from rivals.api.training.preflight import check_trainable, memory_note, refuse_unread, warnings_for

        if self.config.precision == "auto":
            self.config = self.config.changed(precision=devices.fastest_precision(self.device))
        check_trainable(self.config, self.images)
        if self.recipe == "auto":
            fitted = fit_config(self.images, self.config_settings, self.device, self.seed, self.processes.size)
            self.config, self.auto = fitted.config, {"auto": fitted.written()}
            self.notes += fitted.lines(self.images)
        if not self.resuming:
            refuse_unread(self.config, self.request.settings)
        self.notes += warnings_for(self.config, self.images)
        if self.recipe in recipes.PUBLISHED:
            self.notes.append(memory_note(self.config, self.images, self.processes.size))

    def build_game(self) -> Game:
        """The game of generator and discriminator.

        Raises:
            UserError: the start weights do not fit, or more blocks are to be frozen than there are.
        """
        from rivals.api.common.game_factory import build_game

        images = self.images
        shape: dict[str, Any] = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
        game = build_game(self.config, **shape, device=self.device, seed=self.seed)
        if self.start is not None:
            self.start.start(game)
        if count := self.config.freeze_d:
            player: Any = game.players["discriminator"]
            blocks = player.net.blocks_from_image()
            if count > len(blocks):
                raise UserError(f"--freeze-d {count} is more than the discriminator's {len(blocks)} blocks: take fewer")
            player.freeze(part for block in blocks[:count] for part in block)
        return game

    def make_batches(self) -> Batches:
        """Batches of the images."""
        from rivals.data.batches import Batches as ImageBatches

        config = self.config
        return ImageBatches(
            self.images, config.batch_size, seed=self.seed, micro_batches=self.micro_batches, flip=config.flip
        )

    def make_callbacks(self) -> Sequence[Callback]:
        """Sample grids, evaluations of the discriminator on held-out images, scores, alarms."""
        from rivals.api.equilibrium.discriminator_eval import EVALUATIONS, equilibrium_probe
        from rivals.api.training.callbacks import SampleGrid
        from rivals.api.training.fid_callback import FidCallback
        from rivals.game.best_checkpoint import BestCheckpoint
        from rivals.game.callbacks import Every
        from rivals.game.checkpoint import Checkpoints
        from rivals.game.health_monitor import HealthMonitor

        run, options = Run(self.folder), self.run_options
        generator: Any = self.game.players["generator"].eval_net
        if options.score_every is not None:
            most = self.processes.patience / SCORE_OF_PATIENCE
            if (options.score_seconds or 0) > most:
                raise UserError(
                    f"with --score-seconds {options.score_seconds:g} the other processes would give the first one up "
                    f"while it computes a score: take at most {most:g}, or set RIVALS_TIMEOUT to more seconds"
                )
            self.fid = FidCallback(
                generator,
                self.images,
                Duration.parse(options.score_every),
                options.score_seconds,
                seed=self.seed,
                device=self.device,
                stored=self.stored.get("score_protocol"),
            )
        grids = options.sample_every
        every = Duration.parse(grids) if grids else Duration(self.until.amount / SAMPLE_GRIDS, self.until.unit)
        callbacks: list[Callback] = [
            SampleGrid(
                every,
                run,
                generator,
                self.images,
                self.config.sample_grid,
                self.seed,
                max_share=None if grids else MAX_SHARE,
            ),
        ]
        if self.held_out is not None:
            every = Duration(self.until.amount / EVALUATIONS, self.until.unit)
            callbacks.append(
                Every(every, equilibrium_probe(self.game, self.images, self.held_out, self.seed), MAX_SHARE)
            )
        loss = self._loss()
        health = HealthMonitor(loss.equilibrium, least=loss.least)
        if self.fid is None:
            return [*callbacks, health]
        self.best = Checkpoints(self.folder / "best", others=self.checkpoints)
        return [*callbacks, self.fid, health, BestCheckpoint(self.game, self.best, self.fid.key)]

    def _loss(self) -> GanLoss:
        from rivals.losses.gan import make_loss

        return make_loss(self.config.loss, self.config.label_smoothing)

    def open_run(self) -> Run:
        from rivals.api.training.held_out import check_unchanged

        run = super().open_run()
        check_unchanged(self.stored, "held_out", None if self.held_out is None else self.held_out.hash)
        return run

    def run_facts(self) -> Record:
        """Levels that the curves are compared with, the held-out images, the choices of ``auto``."""
        import torch

        from rivals.api.equilibrium.discriminator_eval import pixel_entropy

        loss, images, held_out = self._loss(), self.images, self.held_out
        some = torch.from_numpy(images.images[:: max(1, len(images) // ENTROPY_IMAGES)])
        return {
            "equilibrium": loss.equilibrium,
            "d_unit": loss.unit,
            "data_entropy": pixel_entropy(some),
            "held_out": held_out and {"split": held_out.split, "n": len(held_out), "hash": held_out.hash},
            **self.auto,
        }

    def network_facts(self) -> Record:
        """How many training images each class has, for scores of a conditional generator."""
        labels = self.images.labels
        if not self.config.conditional or labels is None:
            return {}
        return {"class_counts": [int((labels == index).sum()) for index in range(len(self.images.classes))]}

    def changeable_facts(self) -> Record:
        """The protocol of the scores."""
        return {} if self.fid is None else {"score_protocol": self.fid.protocol}

    def shortfall(self, end: Progress) -> str | None:
        """What to say of a run that saw too few images to learn."""
        from rivals.recipes.auto_rules import needed_images

        net: Any = self.game.players["generator"].net
        needed = needed_images(self.recipe, net.spec["widths"][0])
        if end.images >= needed or self.config.weights:
            return None
        return (
            f"{end.images:,} images: too few to learn, about {needed:,} are needed. Continue with "
            f"{Run(self.folder).command_to_resume} --until '{Duration(needed, 'images')}'."
        )

    def on_start(self) -> None:
        """Print what ``auto`` chose and what may disappoint."""
        from rivals.data.load import to_stderr

        for line in [] if self.request.quiet else self.notes:
            to_stderr(line)

    def on_trained(self, net: nn.Module, end: Progress) -> None:
        """Save generated images beside their nearest training images."""
        from rivals.api.training.nearest_train_images import save_nearest

        save_nearest(Run(self.folder), net, self.images, self.config.sample_grid, seed=self.seed, seconds=end.seconds)
