"""``train --against``: a generator that learns to fool a classifier (AdvGAN)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rivals import recipes
from rivals.api.common.model_zoo import NamedModel, find_model
from rivals.api.common.resume import note_printer
from rivals.api.training.held_out import keep_some_aside
from rivals.api.training.job import Request, TrainingJob
from rivals.base import devices, rng
from rivals.base.duration import Duration
from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.run_folder import Record, Run
from rivals.base.typed_json import conforms
from rivals.recipes import Config, GanRunOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rivals.base.norm_balls import Ball
    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Callback, Progress
    from rivals.game.game import Batches, Game
    from rivals.losses.gan import GanLoss

RECIPE = "advgan"
EVALUATIONS = 10  # over a run: at fixed points, as they decide on the best state
EPS_GRAY, EPS_COLOR = 0.3, 8 / 255  # default radii in Linf, as for harden
NARROWEST = 8  # channels of the discriminator's first stage, doubled in each: C8, C16, C32 (Xiao et al. 2018, sec. 4)
FEW, FEW_TARGETS = 0.5, 0.2  # images fooled, and targets reached; below, the generator has hardly learned
ACCURACY = "accuracy/generator"  # of the classifier on perturbed images
UNREAD = (
    *("latent_dim", "groups", "dropout", "r1", "r2", "gp", "fd_r1", "fd_r2", "cr", "lecam", "penalty_every"),
    *("instance_noise", "augment", "augment_p", "augment_color", "augment_target", "generator_upsample"),
)


class AdvGanJob(TrainingJob[Config]):
    """A run of ``rivals train --against``."""

    command = "train"
    network = "generator"
    recipes = recipes.RECIPES
    default_config = Config()
    default_run_options = GanRunOptions()
    movable = ("against", "weights")
    run_options: GanRunOptions

    held_out: ImageSet
    named: NamedModel
    target: int | None = None

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if self.resuming:
            return
        if request.recipe not in (None, RECIPE):
            raise UserError(f"--recipe {request.recipe} has no classifier to fool: leave it out beside --against")
        self.recipe = RECIPE
        self.config = recipes.RECIPES[RECIPE]().changed(**self.config_settings)
        if not self.config.against:
            raise UserError("the recipe advgan fools a classifier: name one by --against MODEL")
        if self.config.weights or self.config.freeze_d:
            raise UserError("--weights and --freeze-d cannot be combined with --against: leave them out")
        self.config.refuse_changes(recipes.RECIPES[RECIPE](), UNREAD, "beside --against")
        if self.config.conditional:
            raise UserError("--conditional has no meaning beside --against: write --condition label or target")
        if self.config.black_box and self.config.micro_batches != 1:
            raise UserError("--black-box counts its queries for one micro-batch: leave --micro-batches out")

    @property
    def rollback(self) -> bool:
        """Whether to return to a checkpoint at a value that is not finite, as ``--on-nonfinite`` says."""
        return self.run_options.on_nonfinite == "rollback"

    def load_data(self) -> None:
        """Load the classifier and the images; keep some of them aside."""
        from rivals.base.hashing import weights_hash
        from rivals.data.classes import class_index, match_classes
        from rivals.data.imageset import require_classes

        config = self.config
        self.named = find_model(config.against)
        model = self.named.model.to(self.device).eval().requires_grad_(False)
        self.note_content("against", config.against, weights_hash(model))
        if self.data_options.size is None and self.named.size and self.named.channels != 1:
            self.data_options = self.data_options.changed(size=self.named.size)
        self.loaded = self.read_images(self.named.white)
        require_classes(self.loaded)
        if self.named.classes:
            note = note_printer(self.request.quiet)
            self.loaded = match_classes(self.loaded, self.named.classes, f"the classifier '{config.against}'", note)
        self._check_fit(model)
        if config.target is not None:
            names = self.loaded.classes
            self.target = class_index(config.target, names, len(names))
            if self.target is None:
                raise unknown("target class", config.target, names)
        self.images, self.held_out = keep_some_aside(self.loaded, config.hold_out, self.seed)

    def _check_fit(self, model: nn.Module) -> None:
        """Refuse a classifier of other images or classes.

        Raises:
            UserError: it is.
        """
        import torch

        images = self.loaded
        shape = (images.channels, *images.size)
        theirs = (self.named.channels, *(self.named.size or (None, None)))
        wrong = any(each is not None and each != ours for each, ours in zip(theirs, shape, strict=True))
        if not wrong:
            like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
            with torch.no_grad():
                try:
                    logits = model(torch.zeros(2, *shape, dtype=like.dtype, device=like.device))
                except (RuntimeError, AssertionError, ValueError):  # of a layer that was given another size
                    wrong = True
        if wrong:
            told = " x ".join("?" if each is None else str(each) for each in theirs)
            raise UserError(
                f"--against {self.config.against} does not fit this data: it takes images of {told}, not "
                f"{' x '.join(map(str, shape))}: give a classifier of such images, or their --size"
            )
        if logits.ndim != 2 or logits.shape[1] != len(images.classes):
            raise UserError(
                f"--against {self.config.against} has {logits.shape[-1]} classes and '{images.name}' "
                f"{len(images.classes)}: give data of the same classes"
            )

    def resolve_config(self) -> None:
        """Choose the precision; check that training can work."""
        from rivals.api.training.preflight import check_trainable, refuse_unread

        if not self.resuming:
            refuse_unread(self.config, self.request.settings)
        if self.config.precision == "auto":
            self.config = self.config.changed(precision=devices.fastest_precision(self.device))
        check_trainable(self.config, self.images)

    @property
    def ball(self) -> Ball:
        """The ball of the perturbations."""
        from rivals.base.norm_balls import ball_for

        default = EPS_GRAY if self.images.channels == 1 else EPS_COLOR
        return ball_for(self.config.norm, parse_eps(self.config.eps) if self.config.eps else default)

    @property
    def condition(self) -> str:
        """What the generator is told beside the image: none, label or target."""
        if self.config.condition != "auto":
            return self.config.condition
        return "none" if self.config.target is not None or self.config.universal else "label"

    @property
    def norm_bound(self) -> float:
        """The L2 norm at which the hinge begins: a share of the largest of the ball, without the box."""
        radius, features = float(self.ball.eps), self.images.channels * self.images.size.area
        return self.config.norm_bound * (radius * features**0.5 if self.config.norm == "linf" else radius)

    def build_game(self) -> Game:
        """The generator against the classifier and a discriminator; with a black box, a surrogate learns as well."""
        import torch

        from rivals.game.advgan_step import AdvGanStep
        from rivals.game.game import Game, Turn
        from rivals.game.player import Player, adam
        from rivals.losses.adversarial import readings
        from rivals.losses.advgan import advgan
        from rivals.nets.factory import build_discriminator, build_perturber
        from rivals.nets.padding import PaddedSize

        config, images, ball = self.config, self.images, self.ball
        shape: dict[str, Any] = {"size": images.size, "channels": images.channels}
        norm: dict[str, Any] = {} if config.discriminator_norm is None else {"norm": config.discriminator_norm}
        with rng.fork(self.device):
            torch.manual_seed(rng.derive(self.seed, "weights"))
            generator = build_perturber(
                classes=0 if self.condition == "none" else len(images.classes),
                condition=self.condition,
                widths=config.generator_widths,
                norm=config.norm,
                eps=float(ball.eps),
                target=self.target,
                universal=config.universal,
                **shape,
            )
            stages = PaddedSize.of(images.size).stages
            # As narrow as the perturber, for the net whose stages we know; others have widths of their own.
            narrow = tuple(NARROWEST << stage for stage in range(stages)) if config.net == "dcgan" else ()
            widths = config.discriminator_widths or narrow
            discriminator = build_discriminator(config.net, widths=widths, **shape, **norm)
        betas: Any = {"beta1": config.beta1, "beta2": config.beta2}
        loss = self._loss()
        fool = advgan(
            loss.generator,
            confidence=config.confidence,
            gan_weight=config.gan_weight,
            norm_weight=config.norm_weight,
            norm_bound=self.norm_bound,
        )
        players = {
            "generator": Player(
                generator.to(self.device),
                adam(config.generator_lr, **betas),
                ema=config.ema,
                ema_rampup=config.ema_rampup or None,
            ),
            "discriminator": Player(discriminator.to(self.device), adam(config.discriminator_lr, **betas)),
        }
        turns = [
            Turn("discriminator", loss.discriminator, times=config.discriminator_turns, readings=loss.readings),
            Turn("generator", fool, readings=readings),
        ]
        make_step = partial(AdvGanStep, classifier=self.named.model)
        if config.black_box:
            players["classifier"], turn = self._surrogate()
            turns.insert(0, turn)
            make_step = partial(AdvGanStep, teacher=self._answer)
        return Game(players, turns, make_step=make_step, precision=config.precision, compile=config.compile)

    def _surrogate(self) -> tuple[Any, Any]:
        """The player that learns what the black box answers, on images and on perturbed ones, and its turn."""
        from rivals.api.training.classifier_factory import build_network
        from rivals.game.game import Turn
        from rivals.game.player import Player, adam
        from rivals.losses.advgan import distillation
        from rivals.recipes import ClassifierConfig

        kind = ClassifierConfig(net="cnn" if self.images.channels == 1 else "resnet")
        net = build_network(kind, self.images, self.device, self.seed)
        return Player(net, adam(1e-3, weight_decay=0.01)), Turn("classifier", distillation)

    def _answer(self, images: Tensor) -> Tensor:
        """The labels that the black box gives to images (B, C, H, W), (B,): all that is learned of it."""
        import torch

        with torch.no_grad():
            labels: Tensor = self.named.model(images).argmax(1)
        return labels

    def make_batches(self) -> Batches:
        """Batches of the images."""
        from rivals.data.batches import Batches as ImageBatches

        config = self.config
        return ImageBatches(
            self.images, config.batch_size, seed=self.seed, micro_batches=self.micro_batches, flip=config.flip
        )

    def make_callbacks(self) -> Sequence[Callback]:
        """Accuracy of the classifier on perturbed images that were kept aside, and the checkpoint that fools most."""
        from rivals.api.training.callbacks import PerturbedAccuracy
        from rivals.game.best_checkpoint import BestCheckpoint
        from rivals.game.checkpoint import Checkpoints

        every = Duration(self.until.amount / EVALUATIONS, self.until.unit)
        if self.run_options.sample_every:
            every = Duration.parse(self.run_options.sample_every)
        if self.run_options.score_every:
            raise UserError("--score-every compares generated images with real ones, and --against has none: drop it")
        generator: Any = self.game.players["generator"].eval_net
        self.best = Checkpoints(self.folder / "best", others=self.checkpoints)
        accuracy = PerturbedAccuracy(
            every, Run(self.folder), generator, self.named.model, self.held_out, self.config.sample_grid
        )
        if self.target is not None or self.condition == "target":
            return [accuracy, BestCheckpoint(self.game, self.best, "targets_reached", above=0.0)]
        return [accuracy, BestCheckpoint(self.game, self.best, ACCURACY)]

    def _loss(self) -> GanLoss:
        from rivals.losses.gan import make_loss

        return make_loss(self.config.loss, self.config.label_smoothing)

    def run_facts(self) -> Record:
        """The unit of the discriminator, the images kept aside, and what is fooled."""
        held = self.held_out
        return {
            "d_unit": self._loss().unit,
            "held_out": {"split": held.split, "n": len(held), "hash": held.hash},
            **self.network_facts(),
        }

    def network_facts(self) -> Record:
        """What the generator was trained to fool, and in which ball."""
        config = self.config
        fooled = {"model": self.named.name, "norm": config.norm, "eps": float(self.ball.eps)}
        names = self.images.classes
        fooled |= {"target": None if self.target is None else names[self.target], "condition": self.condition}
        fooled |= {"universal": config.universal}
        return {"fools": fooled | {"black_box": config.black_box}}

    def changeable_facts(self) -> Record:
        """Nothing beyond what all runs have."""
        return {}

    def shortfall(self, end: Progress) -> str | None:
        """What to say of a generator that fools few images, or reaches few targets."""
        values = [record for record in Run(self.folder).records() if conforms(record.get(ACCURACY), float)]
        if not values:
            return None
        best = min(values, key=lambda record: float(record[ACCURACY]))
        clean, left = best["accuracy/held_out"], best[ACCURACY]
        if self.target is not None or self.condition == "target":
            share = max(float(record["targets_reached"]) for record in values)
            if share >= FEW_TARGETS:
                return None
            return (
                f"the generator reaches the target on {share:.1%} of the images that were kept aside: a target is "
                "harder than any wrong class: try a longer --until or a larger --eps"
            )
        if not clean or 1 - left / clean >= FEW:
            return None
        return (
            f"the generator fools the classifier on {1 - left / clean:.1%} of the images that were kept aside: the "
            "classifier may be robust in this ball, or the run too short: try a longer --until or a lower --gan-weight"
        )
