"""``train --invert``: an encoder that learns to invert a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from rivals import recipes
from rivals.api.common.network_io import generator_of, save_network
from rivals.api.training.held_out import keep_some_aside
from rivals.api.training.job import Request, TrainingJob
from rivals.base import devices, rng
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.base.size import resizing
from rivals.recipes import Config, GanRunOptions
from rivals.recipes.inverting import InvertConfig

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Callback
    from rivals.game.game import Batches, Game
    from rivals.nets.generator import Generator

RECIPE = "encoder"
EVALUATIONS = 10  # over a run: at fixed points, as they decide on the best state
READ = {each.name for each in fields(InvertConfig)} | {
    *("flip", "batch_size", "micro_batches", "beta1", "beta2", "ema", "ema_rampup", "precision", "compile"),
    *("hold_out", "sample_grid", "until", "against", "weights", "robust_steps"),  # the last three are refused by Config
}


class EncoderJob(TrainingJob[Config]):
    """A run of ``rivals train --invert``: its folder ends with the encoder, and a copy of the generator."""

    command = "train"
    network = "encoder"
    recipes = recipes.RECIPES
    default_config = Config()
    default_run_options = GanRunOptions()
    movable = ("invert",)
    run_options: GanRunOptions

    held_out: ImageSet
    generator: Generator

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if self.resuming:
            return
        if request.recipe not in (None, RECIPE):
            raise UserError(f"--recipe {request.recipe} has no generator to invert: leave it out beside --invert")
        self.recipe = RECIPE
        self.config = recipes.RECIPES[RECIPE]().changed(**self.config_settings)
        names = [each.name for each in fields(Config) if each.name not in READ]
        self.config.refuse_changes(recipes.RECIPES[RECIPE](), names, "beside --invert")
        if not self.config.invert:
            raise UserError("the recipe encoder inverts a generator: name its run by --invert RUN")

    @property
    def rollback(self) -> bool:
        """Whether to return to a checkpoint at a value that is not finite, as ``--on-nonfinite`` says."""
        return self.run_options.on_nonfinite == "rollback"

    def load_data(self) -> None:
        """Load the generator and the images; keep some of them aside."""
        from rivals.base.hashing import weights_hash

        config = self.config
        self.generator = generator_of(config.invert, device=str(self.device)).requires_grad_(False)
        self.note_content("invert", config.invert, weights_hash(self.generator))
        if self.generator.classes:
            raise UserError(
                f"--invert {config.invert} makes images of {self.generator.classes} classes, which an encoder does not "
                "tell: give a generator without classes, trained without --conditional"
            )
        self.loaded = self.read_images(self.generator.about.get("white"))
        theirs, ours = (" x ".join(map(str, (each.channels, *each.size))) for each in (self.generator, self.loaded))
        if theirs != ours:
            size = self.generator.size
            resized = f", or add {resizing(size, self.loaded.size)}" if size != self.loaded.size else ""
            raise UserError(
                f"--invert {config.invert} makes images of {theirs}, and these are {ours}: give such images{resized}"
            )
        self.images, self.held_out = keep_some_aside(self.loaded, config.hold_out, self.seed)

    def resolve_config(self) -> None:
        """Choose the precision; check that training can work."""
        from rivals.api.training.preflight import check_trainable, refuse_unread

        if not self.resuming:
            refuse_unread(self.config, self.request.settings)
        if self.config.precision == "auto":
            self.config = self.config.changed(precision=devices.fastest_precision(self.device))
        check_trainable(self.config, self.images)

    def build_game(self) -> Game:
        """The encoder alone; the generator is held constant."""
        import torch

        from rivals.game.game import Game, Turn
        from rivals.game.inversion_step import ENCODER, InversionStep
        from rivals.game.player import Player, adam
        from rivals.losses.inversion import inversion
        from rivals.nets.factory import build_encoder

        config, generator = self.config, self.generator
        with rng.fork(self.device):
            torch.manual_seed(rng.derive(self.seed, "weights"))
            encoder = build_encoder(
                size=generator.size,
                channels=generator.channels,
                latent_dim=generator.latent_dim,
                widths=config.encoder_widths,
            )
        optimizer = adam(config.encoder_lr, beta1=config.beta1, beta2=config.beta2)
        player = Player(encoder.to(self.device), optimizer, ema=config.ema, ema_rampup=config.ema_rampup or None)
        return Game(
            {ENCODER: player},
            [Turn(ENCODER, inversion(config.latent_weight))],
            make_step=partial(InversionStep, generator=generator),
            precision=config.precision,
            compile=config.compile,
        )

    def make_batches(self) -> Batches:
        """Batches of the images."""
        from rivals.data.batches import Batches as ImageBatches

        config = self.config
        return ImageBatches(
            self.images, config.batch_size, seed=self.seed, micro_batches=self.micro_batches, flip=config.flip
        )

    def make_callbacks(self) -> Sequence[Callback]:
        """The error of reconstructed images that were kept aside, and the checkpoint with the lowest."""
        from rivals.api.training.reconstruction import ERROR, ReconstructionError
        from rivals.game.best_checkpoint import BestCheckpoint
        from rivals.game.checkpoint import Checkpoints

        every = Duration(self.until.amount / EVALUATIONS, self.until.unit)
        if self.run_options.sample_every:
            every = Duration.parse(self.run_options.sample_every)
        if self.run_options.score_every:
            raise UserError("--score-every is for a generator that learns, and that of --invert does not: drop it")
        self.best = Checkpoints(self.folder / "best", others=self.checkpoints)
        encoder = self.game.players["encoder"].eval_net
        error = ReconstructionError(
            every, Run(self.folder), encoder, self.generator, self.held_out, self.config.sample_grid
        )
        return [error, BestCheckpoint(self.game, self.best, ERROR)]

    def on_start(self) -> None:
        """Copy the generator into the run, which is then all that a defense needs."""
        about = {key: value for key, value in self.generator.about.items() if key not in ("format", "spec")}
        save_network(self.generator, self.folder / "generator.safetensors", about)

    def run_facts(self) -> Record:
        """The images kept aside, and the generator."""
        held = self.held_out
        return {
            "held_out": {"split": held.split, "n": len(held), "hash": held.hash},
            "inverts": {"run": self.config.invert, "generator": self.contents["invert"]},
        }

    def network_facts(self) -> Record:
        """Which generator the encoder inverts."""
        return {"inverts": self.contents["invert"]}
