"""``harden``: adversarial training, a game of a classifier against an attack."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.resume import note_printer, resolve_source
from rivals.api.training.classifier import TEST_FRACTION, ClassifierJobBase, ClassifierRun
from rivals.api.training.job import Request
from rivals.api.training.runner import run_job
from rivals.base import devices, rng
from rivals.base.duration import Duration
from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Resume
from rivals.recipes import HARDENING, METHODS, HardenConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rivals.attacks.training_attack import Solver
    from rivals.base.norm_balls import Ball
    from rivals.base.schedules import Clock
    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Callback
    from rivals.game.classifier_step import Attack
    from rivals.game.game import Batches, Game
    from rivals.nets.classifier import Classifier
else:
    Ball = Any  # the command line evaluates the signature, and must not wait for torch

HELD_OUT = 1000  # images on which robust accuracy is measured
EPS_GRAY, EPS_COLOR = 0.3, 8 / 255  # default radii in Linf
WIDE_EPS = 0.5  # in Linf: with more, every image can be made uniformly gray


def harden(
    data: str | None = None,
    ball: Ball | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: Resume = False,
    seed: int | None = None,
    device: str = "auto",
    against: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> ClassifierRun:
    """Train a classifier adversarially.

    Args:
        data: A data set's name, a folder with one subfolder per class, a zip or shards; mnist5k by default.
        ball: The ball of the attack, such as Linf(8 / 255), in Python; it replaces the settings norm and eps.
        recipe: A preset: cnn (the default for gray images), resnet (for others) or certified (for --method ibp,
            crown-ibp, sabr and mtl-ibp).
        out: Run folder; by default the next free runs/DATA-RECIPE-N.
        resume: Continue the run in --out, exactly as if it had never stopped; auto starts it if it is not there yet.
        seed: Seed of everything random; 0 by default.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        against: A run or classifier to compare with in the report; that of --weights by default.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.HardenConfig`, :class:`rivals.DataOptions` and
            :class:`rivals.recipes.RunOptions`, such as ``method="trades"``.

    Returns:
        The run, with ``.classifier``: the state with the highest accuracy under PGD on held-out images, or of certified
        training the highest certified accuracy there.

    Raises:
        UserError: bad input, in one line; or training failed.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    if ball is not None:
        from rivals.api.common.ball_settings import ball_settings

        settings |= ball_settings(ball, "runs of adversarial training")
    request = Request(data, recipe, out, resume, seed, device, quiet, settings)
    return ClassifierRun(run_job(HardenJob(request, against)).folder)


class HardenJob(ClassifierJobBase[HardenConfig]):
    """A run of ``rivals harden``.

    Args:
        request: The arguments of the command.
        against: A run or classifier to compare with in the report.
    """

    command = "harden"
    recipes = HARDENING
    default_config = HardenConfig()
    movable = ("weights", "extra", "extra_teacher")

    held_out: ImageSet

    def __init__(self, request: Request, against: str | Path | None = None) -> None:
        super().__init__(request)
        self.against: str = resolve_source(str(against)) if against else self.stored.get("against", "")
        self.before: tuple[str, nn.Module] | None = None

    def load_data(self) -> None:
        """Load the images; hold some of the training images out."""
        from rivals.data.splits import hold_out

        super().load_data()
        count = min(HELD_OUT, max(1, len(self.loaded) // TEST_FRACTION))
        self.images, self.held_out = hold_out(self.loaded, count, self.seed)

    def resolve_config(self) -> None:
        """As of any classifier; the recipe of certified training for its methods."""
        if METHODS[self.config_settings.get("method", self.config.method)].kappa is not None:
            self.recipe = self.recipe or "certified"
        super().resolve_config()

    @property
    def images_per_step(self) -> int:
        """Images that a step shows to the classifier, replays included."""
        return self.config.batch_size * (self.config.replays if self.config.resolved.attack == "free" else 1)

    def new_network(self) -> Classifier:
        """As of any classifier; a new network for certified training has the weights of Shi et al. 2021."""
        net = super().new_network()
        if self.config.certified and self.start is None:
            from rivals.nets.ibp_init import initialize_for_ibp

            with rng.fork(self.device):
                rng.reseed(self.device, self.seed)
                initialize_for_ibp(net)
        return net

    @property
    def ball(self) -> Ball:
        """The ball of the attack at its full radius.

        Raises:
            UserError: the norm needs a radius and none is given, or it is not one.
        """
        from rivals.base.norm_balls import ball_for

        config = self.config
        if not config.eps and config.norm != "linf":
            raise UserError(f"--norm {config.norm} needs a radius: add --eps, in the unit of images in [0, 1]")
        default = EPS_GRAY if self.images.channels == 1 else EPS_COLOR
        return ball_for(config.norm, parse_eps(config.eps) if config.eps else default)

    @property
    def eps_warmup(self) -> Duration | None:
        """Images or minutes over which eps grows to its full value."""
        until, share = self.until, self.config.eps_warmup
        return Duration(share * until.amount, until.unit) if share else None

    def make_batches(self) -> Batches:
        """Batches of the images, with extra images mixed in, or repeated for free adversarial training."""
        from rivals.api.training.extra_images import extra_batches
        from rivals.data.batches import Batches as ImageBatches
        from rivals.data.mixing import MixedBatches, RepeatedBatches
        from rivals.data.taught_batches import TaughtBatches

        config = self.config
        parts = self.micro_batches
        options: dict[str, Any] = {
            "seed": self.seed,
            "micro_batches": parts,
            "flip": config.flip,
            "shift": config.shift,
        }
        batches: ImageBatches | MixedBatches
        if config.extra:
            in_part = config.batch_size // parts
            n_extra = parts * min(max(1, round(in_part * config.extra_share)), in_part - 1)
            batches = ImageBatches(self.images, config.batch_size - n_extra, **options)
            teach = self._teacher() if config.extra_teacher else None
            critic = config.extra_judge == "critic"
            drawn = n_extra if critic else parts * math.ceil(n_extra / parts / config.extra_keep)
            extra, content = extra_batches(
                config.extra,
                self.images,
                self.data_options,
                drawn,
                self.device,
                labeled=teach is None,
                critic_keeps=config.extra_keep if critic else 1.0,
                **options,
            )
            self.note_content("extra", config.extra, content)
            batches = MixedBatches(batches, extra if teach is None else TaughtBatches(extra, teach, n_extra))
        else:
            batches = ImageBatches(self.images, config.batch_size, **options)
        return RepeatedBatches(batches, config.replays) if config.resolved.attack == "free" else batches

    def _teacher(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The classifier that labels extra images: uint8 images to labels and margins.

        Raises:
            UserError: it does not fit the data.
        """
        import torch

        from rivals.api.training.start_weights import check_shape, load_classifier
        from rivals.base.hashing import weights_hash

        source = self.config.extra_teacher
        net = load_classifier("extra-teacher", source, self.device)
        check_shape("extra-teacher", source, net.spec, self.images)
        self.note_content("extra-teacher", source, weights_hash(net))
        ordered = self._in_our_order(net, source)

        def teach(images: Tensor) -> tuple[Tensor, Tensor]:
            # In float32 also where the loss is not, so that the labels do not depend on who draws the batch, or when.
            with torch.no_grad(), devices.autocast(self.device, False):
                top = ordered(images.to(self.device) / 255).topk(2, dim=1)
            return top.indices[:, 0], top.values[:, 0] - top.values[:, 1]

        return teach

    def build_game(self) -> Game:
        """The game of the classifier against its attack."""
        from functools import partial

        from torch import nn

        from rivals.api.training.classifier_factory import build_player
        from rivals.game.classifier_step import ClassifierStep
        from rivals.game.game import Game, Turn
        from rivals.losses.adversarial import awp, madry, mart, readings, trades

        config, method, solver = self.config, self.config.resolved, self._solver()
        player = build_player(config, self.new_network(), self.until)
        if method.attack == "generator":
            from rivals.api.training.generator_game import generator_game

            place: Any = {"device": self.device, "seed": self.seed}
            return generator_game(config, player, self.images, self.ball, self.ramp, **place)
        if config.certified:
            from rivals.api.training.certified import attacked_ball, certified_game, check_eps_factor

            devices.check_float64(self.device, "bounds")
            check_eps_factor(config, self.ball)
            attack = self._attack(solver, attacked_ball(config, self.ball))
            return certified_game(config, player, self.ball, attack, self.ramp)
        if method.loss == "madry":
            loss = madry(config.adversarial_weight, config.label_smoothing)
        else:
            assert method.beta is not None
            loss = trades(method.beta, config.label_smoothing) if method.loss == "trades" else mart(method.beta)
        if config.awp:
            loss = awp(loss, config.awp)
        return Game(
            {"classifier": player},
            [Turn("classifier", loss, times=config.replays if method.attack == "free" else 1, readings=readings)],
            make_step=partial(ClassifierStep, attack=self._attack(solver, self.ball)),
            modules={"attack": solver} if isinstance(solver, nn.Module) else {},
            precision=config.precision,
        )

    def _solver(self) -> Solver:
        """The attack of the method, without the warm-up."""
        from rivals.attacks.training_attack import (
            FreeAttack,
            TrainingPGD,
            no_attack,
            random_augmentation,
            uniform_noise,
        )

        config, method, images = self.config, self.config.resolved, self.images
        if method.attack == "steps":
            assert method.step_size is not None
            return TrainingPGD(method.steps, method.step_size, method.start, divergence=method.loss == "trades")
        if method.attack in ("none", "generator"):  # the latter's is a player of its own
            return no_attack
        if method.attack == "free":
            return FreeAttack((config.batch_size, images.channels, *images.size)).to(self.device)
        return uniform_noise if method.attack == "noise" else random_augmentation

    def ramp(self, clock: Clock) -> float:
        """Eps in the step at ``clock`` as a share of its full value."""
        warmup = self.eps_warmup
        return 1.0 if warmup is None else min(1.0, warmup.share(clock.images + self.config.batch_size, clock.seconds))

    def _attack(self, solve: Solver, ball: Ball) -> Attack:
        """The attack as the other player: its radius grows during the warm-up to that of the ball."""
        from rivals.attacks.training_attack import FreeAttack
        from rivals.base.norm_balls import Linf

        if isinstance(ball, Linf) and float(ball.eps) > WIDE_EPS:
            warnings.warn(
                f"an eps of {float(ball.eps):g} is more than half the images' range: every image can be made gray",
                stacklevel=2,
            )

        def attack(net: nn.Module, x: Tensor, y: Tensor, clock: Clock) -> Tensor:
            share = self.ramp(clock)
            current = ball if share == 1 else type(ball)(share * float(ball.eps))
            if isinstance(solve, FreeAttack):  # it remembers the perturbation of each place in the batch
                return solve.forward(net, x, y, current, clock.micro_batch)
            return solve(net, x, y, current)

        return attack

    def _in_our_order(self, net: Classifier, source: str) -> nn.Module:
        """A classifier whose logits are in the order of this run's classes.

        Raises:
            UserError: it has classes of other names.
        """
        from rivals.data.classes import find_classes
        from rivals.nets.wrappers import ReorderedModel

        about: Any = net.about
        names = about.get("classes") or self.images.classes
        if tuple(names) == self.images.classes:
            return net
        whose, note = f"the classifier '{source}'", note_printer(self.request.quiet)
        return ReorderedModel(net, find_classes(self.images.classes, names, f"'{self.images.name}'", whose, note))

    def make_callbacks(self) -> Sequence[Callback]:
        """Robust accuracy on held-out images, test accuracy, and the most robust checkpoint."""
        from rivals.api.training.callbacks import RobustAccuracy
        from rivals.api.training.start_weights import check_shape, check_white, load_classifier
        from rivals.game.checkpoint import Checkpoints
        from rivals.game.robust_checkpoint import RobustCheckpoint

        option, source = ("against", self.against) if self.against else ("weights", self.config.weights)
        if source:
            other = load_classifier(option, source, self.device)
            check_shape(option, source, other.spec, self.images)
            if self.against:
                check_white(source, other, self.images)
            self.before = (source, self._in_our_order(other, source))
        self.best = Checkpoints(self.folder / "best", others=self.checkpoints)
        if self.config.certified:
            from rivals.api.training.certified import CertifiedAccuracy
            from rivals.game.best_checkpoint import BestCheckpoint

            player = self.game.players["classifier"]
            return [
                CertifiedAccuracy(self.evaluate_every, player, self.held_out, self.ball),
                self.test_accuracy(),
                BestCheckpoint(self.game, self.best, "accuracy/certified", above=0.0),
            ]
        return [
            RobustAccuracy(self.evaluate_every, self.game.players["classifier"], self.held_out, self.ball),
            self.test_accuracy(),
            RobustCheckpoint(self.game, self.best, len(self.images.classes), self.eps_warmup),
        ]

    def run_facts(self) -> Record:
        """As of any classifier, and how it was hardened."""
        return {**super().run_facts(), **self.network_facts()}

    def network_facts(self) -> Record:
        """How the network was hardened."""
        config = self.config
        return {"hardened": {"norm": config.norm, "eps": float(self.ball.eps), "method": config.method}}

    def changeable_facts(self) -> Record:
        """The classifier to compare with, which may be named later."""
        return {"against": self.against} if self.against else {}

    def final_evaluation(self, net: nn.Module) -> str | None:
        """Compare with the classifier before, on test images under attack."""
        from rivals.api.robustness.before_after import Comparison

        return Comparison(self.folder, self.test, self.ball, self.before, self.seed)(net)
