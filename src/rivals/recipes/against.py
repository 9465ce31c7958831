"""Settings of a GAN with a classifier in its game: the one to fool (AdvGAN), or the one that it trains (Rob-GAN)."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.schedules import Schedule
from rivals.recipes.base import Settings, check_range, flag
from rivals.recipes.options import DENSE_NORMS

CONDITIONS = ("auto", "label", "target", "none")


@dataclass(frozen=True)
class AgainstConfig(Settings):
    """The classifier in the game, and the ball of the perturbations."""

    against: str = ""
    """AdvGAN: train the generator to fool this classifier: a run, a classifier.safetensors, torchvision:NAME,
    timm:NAME, onnx:FILE or hf:NAME."""
    norm: str = "linf"
    """Norm of the ball of the perturbations: linf, l2 or l1 (--against and the recipe robgan)."""
    eps: str = ""
    """Radius of the ball, for images in [0, 1], such as 8/255; by default in linf 0.3 for gray images, else 8/255."""
    target: str | None = None
    """Class, by name or number, that --against has to fool the classifier into; any wrong one by default."""
    condition: str = "auto"
    """What the generator of --against is told beside the image: its label, the target class, or none; auto tells the
    label, except to a generator with --target or --universal."""
    universal: bool = False
    """One perturbation for all images, which the generator of --against makes without seeing them."""
    black_box: bool = False
    """Learn only from the labels that the classifier of --against answers, by a surrogate that is trained on them."""
    confidence: float = 5.0
    """Margin of the fooling loss, in logits: an image that is fooled by so much counts no more (--against)."""
    gan_weight: float = 0.1
    """Weight of the discriminator's part in the loss of --against: perturbed images are to look real."""
    norm_weight: float = 0.1
    """Weight of the hinge on the norm of the perturbation in the loss of --against."""
    norm_bound: float = 0.8
    """Where that hinge begins, as a share of the longest perturbation in the ball."""
    robust_steps: int = 0
    """Rob-GAN: steps of PGD on the real images that the discriminator sees; 0 for a GAN without attack."""
    eps_ramp: Schedule = Schedule(1.0, 1.0)  # noqa: RUF009 - frozen
    """Rob-GAN: a factor of eps; by default it grows from 0 to 1 in the first 40% of the run."""
    class_weight: float = 1.0
    """Weight of the class losses of Rob-GAN."""

    def __post_init__(self) -> None:
        if self.norm not in DENSE_NORMS:
            raise unknown("norm", self.norm, DENSE_NORMS)
        if self.eps and parse_eps(self.eps) == 0:
            raise UserError("an eps of 0 leaves nothing to perturb: give one above 0, such as 8/255")
        for name, most in (("confidence", 1e6), ("gan_weight", 1e6), ("norm_weight", 1e6), ("norm_bound", 1)):
            check_range(self, name, 0, most)
        check_range(self, "robust_steps", 0, 1000)
        check_range(self, "class_weight", 0, 1e6)
        if not 0 <= min(self.eps_ramp.start, self.eps_ramp.end) <= self.eps_ramp.peak <= 1:
            raise UserError(
                f"--eps-ramp {self.eps_ramp} leaves 0 to 1: give a factor of eps, as '0 -> 1 in 50k images'"
            )
        given = {each.name: getattr(self, each.name) != each.default for each in fields(AgainstConfig)}
        if self.condition not in CONDITIONS:
            raise unknown("condition", self.condition, CONDITIONS)
        if self.universal and self.condition in ("label", "target"):
            raise UserError(
                "--universal makes one perturbation for all images, and --condition "
                f"{self.condition} one for each class: leave one out"
            )
        if self.condition == "target" and self.target is not None:
            raise UserError("--condition target is trained for all targets: leave --target out")
        for name in (
            "target",
            "condition",
            "universal",
            "black_box",
            "confidence",
            "gan_weight",
            "norm_weight",
            "norm_bound",
        ):
            if given[name] and not self.against:
                raise UserError(f"{flag(name)} has no meaning without a classifier to fool: add --against MODEL")
        if self.norm != "linf" and not self.eps:
            raise UserError(f"--norm {self.norm} needs a radius: add --eps, in the unit of images in [0, 1]")
        if self.robust_steps and self.against:
            raise UserError("--robust-steps trains a classifier and --against fools one: leave one out")
        for name in ("eps_ramp", "class_weight"):
            if given[name] and not self.robust_steps:
                raise UserError(
                    f"{flag(name)} has no meaning without an attack on the discriminator: add --recipe robgan"
                )
        for name in ("norm", "eps"):
            if given[name] and not (self.against or self.robust_steps):
                raise UserError(f"{flag(name)} has no meaning in a GAN without a classifier: add --against MODEL")
