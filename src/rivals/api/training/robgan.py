"""``train --recipe robgan``: a generator and a robust classifier from one game (Rob-GAN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rivals.api.common.network_io import save_network
from rivals.api.common.resume import load_images, note_printer
from rivals.api.common.robust_game import ball_of
from rivals.api.training.gan import GanJob
from rivals.api.training.held_out import check_unchanged
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.base.schedules import Schedule
from rivals.recipes.auto_rules import budget
from rivals.recipes.gan import robgan

if TYPE_CHECKING:
    from torch import nn

    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Callback, Progress

EVALUATIONS = 10  # of robust accuracy over a run
HELD_OUT = 1000  # training images kept aside where there are no test images
RAMP = 0.4  # of the run, in which eps grows: under all of it the discriminator learns nothing of gray images at first
UNREAD = (
    *("r1", "r2", "gp", "fd_r1", "fd_r2", "cr", "lecam", "penalty_every", "instance_noise"),
    *("augment", "augment_p", "augment_color", "augment_target", "groups", "dropout", "discriminator_norm", "compile"),
)


class RobGanJob(GanJob):
    """A run of ``rivals train --recipe robgan``: its folder ends with a generator, and a classifier."""

    test: ImageSet

    def load_data(self) -> None:
        """Load the images, and labeled ones to evaluate the classifier on."""
        from rivals.api.training.held_out import check_same_shape
        from rivals.data.classes import match_classes
        from rivals.data.load import evaluation_split
        from rivals.data.splits import hold_out

        if not self.config.robust_steps:
            raise UserError("--robust-steps 0 leaves the recipe robgan without its attack: take 1 or more")
        if self.config.weights:
            raise UserError("--weights cannot be combined with the recipe robgan: leave it out")
        self.config.refuse_changes(robgan(), UNREAD, "in Rob-GAN, whose regularization is its attack")
        super().load_data()
        if split := evaluation_split(self.source):
            quiet = self.request.quiet
            test = load_images(self.source, self.data_options, quiet=quiet, split=split)
            self.test = match_classes(test, self.images.classes, "the training set", note_printer(quiet))
            check_same_shape(self.images, self.test)
        elif self.held_out is not None:
            self.test = self.held_out
        else:
            count = max(1, min(HELD_OUT, len(self.images) // 10))
            self.images, self.test = hold_out(self.images, count, self.seed)

    def resolve_config(self) -> None:
        """As of any GAN; eps grows over a share of the run."""
        super().resolve_config()
        if not self.resuming and "eps_ramp" not in self.config_settings:
            images = budget(self.config, len(self.images))
            length, unit = (self.until.amount, "minutes") if images is None else (images, "images")
            self.config = self.config.changed(eps_ramp=Schedule(0.0, 1.0, RAMP * length, unit))

    def make_callbacks(self) -> Sequence[Callback]:
        """As of any GAN, and the accuracy of the class head: clean, under FGSM and under PGD."""
        from rivals.api.training.callbacks import RobustAccuracy
        from rivals.nets.two_heads import ClassHead

        discriminator: Any = self.game.players["discriminator"]
        every = Duration(self.until.amount / EVALUATIONS, self.until.unit)
        head: Any = _Headed(ClassHead(discriminator.net))
        robust = RobustAccuracy(every, head, self.test, ball_of(self.config, self.images.channels))
        return [*super().make_callbacks(), robust]

    def open_run(self) -> Run:
        run = super().open_run()
        check_unchanged(self.stored, "test", self.test.hash)
        return run

    def run_facts(self) -> Record:
        """As of any GAN, how the classifier is made robust, and on what it is judged."""
        ball = ball_of(self.config, self.images.channels)
        hardened = {"norm": self.config.norm, "eps": float(ball.eps), "method": "robgan"}
        test = {"split": self.test.split, "n": len(self.test), "hash": self.test.hash}
        facts = super().run_facts()
        # The losses have a term of the classes, which has no fixed level; the outputs of D have theirs.
        equilibrium = {name: level if name == "d" else None for name, level in facts["equilibrium"].items()}
        return {**facts, "equilibrium": equilibrium, "hardened": hardened, "test": test}

    def on_trained(self, net: nn.Module, end: Progress) -> None:
        """Save the class head as a classifier, too."""
        super().on_trained(net, end)
        discriminator: Any = self.game.players["discriminator"].net
        facts = {"data": self.loaded.name, "classes": list(self.loaded.classes), "images": end.images}
        facts |= {"seed": self.seed, "white": self.data_options.white}
        save_network(discriminator.classifier(), self.folder / "classifier.safetensors", facts)

    def final_evaluation(self, net: nn.Module) -> str | None:
        """The classifier under attack, for the report."""
        from rivals.api.robustness.before_after import Comparison

        discriminator: Any = self.game.players["discriminator"].net
        ball = ball_of(self.config, self.images.channels)
        return Comparison(Run(self.folder).folder, self.test, ball, None, self.seed)(discriminator.classifier().eval())


class _Headed:
    """A player that is evaluated by its class head."""

    def __init__(self, net: nn.Module) -> None:
        self.net = self.eval_net = net
