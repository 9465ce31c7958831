"""Recipes of GANs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.base.schedules import Schedule
from rivals.recipes.against import AgainstConfig
from rivals.recipes.base import NONE, PRECISIONS, MicroBatches, check_micro_batches, check_range, flag
from rivals.recipes.inverting import InvertConfig

AUGMENTS = ("none", "diff", "ada")


OF_ADA = ("augment_p", "augment_target", "augment_color")


@dataclass(frozen=True)
class Config(AgainstConfig, InvertConfig):
    """How a GAN is trained. A SCHEDULE is a number, or START -> END in N images."""

    net: str = "dcgan"
    """Networks of both players: mlp, dcgan, sngan or r3."""
    latent_dim: int = 64
    """Dimension of the latent vector z."""
    generator_widths: tuple[int, ...] = ()
    """Channels of the generator's stages from the lowest resolution up; the net's own by default."""
    discriminator_widths: tuple[int, ...] = ()
    """Channels of the discriminator's stages from the highest resolution down; the net's own by default."""
    groups: int | None = None
    """Groups of the 3x3 convolutions (r3 only); groups of 16 channels by default."""
    dropout: float | None = None
    """Dropout in the discriminator (mlp only)."""
    discriminator_norm: str | None = None
    """Normalization in the discriminator, batch or none (dcgan only)."""
    generator_upsample: str | None = None
    """Upsampling in the generator, transposed or nearest (dcgan only); nearest leaves no checkerboard."""
    conditional: bool = False
    """Condition both players on the class of each image."""
    loss: str = "relativistic"
    """minimax, nonsaturating, least-squares, hinge, wasserstein or relativistic."""
    label_smoothing: float = 0.0
    """One-sided label smoothing: the label of real images is 1 minus this."""
    r1: Schedule = NONE
    """Gamma of the R1 penalty on real images, which is gamma / 2 times the squared norm of the gradient."""
    r2: Schedule = NONE
    """Gamma of the R2 penalty on generated images."""
    gp: Schedule = NONE
    """Weight of the WGAN-GP penalty between real and generated images."""
    fd_r1: Schedule = NONE
    """Gamma of R1 by a finite difference: as strong as --r1, noisier, and such steps compile; no dropout."""
    fd_r2: Schedule = NONE
    """Gamma of R2 by a finite difference, on generated images."""
    cr: Schedule = NONE
    """Weight of consistency regularization: equal logits for an image and its flipped and shifted copy."""
    lecam: Schedule = NONE
    """Weight of the LeCam regularization, for discriminators with few training images."""
    penalty_every: int = 1
    """Lazy regularization: R1, R2 (also by differences) and WGAN-GP on every k-th step only, k times as strong."""
    instance_noise: Schedule = NONE
    """Standard deviation of noise added to all images of the discriminator, for images in [-1, 1]."""
    augment: str = "none"
    """Augmentation of all images of the discriminator, for small data: none, diff (DiffAugment) or ada."""
    augment_p: Schedule = NONE
    """Probability of each augmentation by ada; its initial value if --augment-target is given."""
    augment_color: float = 1.0
    """Probability of color augmentations, relative to --augment-p."""
    augment_target: float | None = None
    """Adapt ada's probability so that the mean sign of the logits of real images stays at this, such as 0.6."""
    flip: bool = False
    """Flip real images horizontally at random."""
    discriminator_turns: int = 1
    """Turns of the discriminator per turn of the generator."""
    batch_size: int = 64
    """Images per turn."""
    micro_batches: MicroBatches = 1
    """Equal parts of a batch, a power of two, played one after the other or by several processes; auto takes as many as
    memory needs. Gradients and batch statistics are averaged over them."""
    generator_lr: Schedule = Schedule(2e-4, 2e-4)  # noqa: RUF009 - frozen
    """Learning rate of the generator."""
    discriminator_lr: Schedule = Schedule(2e-4, 2e-4)  # noqa: RUF009 - frozen
    """Learning rate of the discriminator."""
    beta1: float = 0.0
    """Adam's beta1 for both players."""
    beta2: Schedule = Schedule(0.99, 0.99)  # noqa: RUF009 - frozen
    """Adam's beta2 for both players."""
    ema: Schedule = NONE
    """Half-life of the EMA of the generator's weights, in images; 0 for no EMA."""
    ema_rampup: float = 0.05
    """The half-life is at most this fraction of the images seen, to forget the initial weights; 0 for no limit."""
    precision: str = "auto"
    """Of matrix products in training: fp32, bf16, or auto: bf16 where the hardware is faster in it."""
    compile: bool = False
    """Compile both networks by torch.compile, which takes a minute; steps with a gradient penalty stay uncompiled."""
    weights: str = ""
    """Start from the networks of this run, or from a generator's .safetensors file. Their architecture is taken."""
    freeze_d: int = 0
    """FreezeD: do not train this many of the discriminator's blocks, those next to the image; needs --weights."""
    hold_out: int = 0
    """Images held out from training, to evaluate the game on; leave it at 0 if the data have test images."""
    sample_grid: int = 64
    """Images in a sample grid."""
    until: str = "20 epochs"
    """Length of the run from its very start: N images, epochs, steps, minutes or hours, where N may end in k or M."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_inversion()
        if self.invert and (self.against or self.weights or self.robust_steps):
            raise UserError("--invert trains an encoder alone: leave --against, --weights and --robust-steps out")
        Duration.parse(self.until, "a value of --until")
        for name, least, most in (
            ("latent_dim", 1, 65536),
            ("penalty_every", 1, 100_000),
            ("discriminator_turns", 1, 100),
            ("batch_size", 2, 65536),
            ("sample_grid", 1, 1024),
            ("hold_out", 0, 1_000_000),
            ("freeze_d", 0, 1000),
            ("augment_color", 0, 1),
            ("ema_rampup", 0, 1),
        ):
            check_range(self, name, least, most)
        check_micro_batches(self.batch_size, self.micro_batches)
        for name in ("r1", "r2", "gp", "fd_r1", "fd_r2", "cr", "lecam", "instance_noise", "ema"):
            schedule = getattr(self, name)
            if min(schedule.start, schedule.end) < 0:
                raise UserError(f"{flag(name)} {schedule} is negative: take 0 (none) or more")
        if self.freeze_d and not self.weights:
            raise UserError(
                f"--freeze-d {self.freeze_d} would freeze blocks that have learned nothing: add --weights RUN"
            )
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.augment not in AUGMENTS:
            raise unknown("augmentation", self.augment, AUGMENTS)
        if not 0 <= min(self.augment_p.start, self.augment_p.end) <= self.augment_p.peak <= 1:
            raise UserError(f"--augment-p {self.augment_p} is not a probability: take 0 to 1")
        if self.augment != "ada" and (self.augment_p.peak or self.augment_target is not None):
            raise UserError(f"--augment-p and --augment-target need --augment ada, not {self.augment}")
        if self.augment != "ada" and self.augment_color != Config.augment_color:
            raise UserError(f"--augment-color needs --augment ada, not {self.augment}: leave it out")
        if self.augment == "ada" and not self.augment_p.peak and self.augment_target is None:
            raise UserError("--augment ada changes nothing at a probability of 0: add --augment-p or --augment-target")
        if self.augment_target is not None:
            check_range(self, "augment_target", -1, 1)
            if self.loss in ("relativistic", "wasserstein"):
                raise UserError(
                    f"--augment-target needs logits with a meaningful sign, which the loss {self.loss} does not have: "
                    "give a schedule by --augment-p"
                )
        if not all(0 < width <= 65536 for width in self.generator_widths + self.discriminator_widths):
            raise UserError("widths must be integers from 1 to 65536, such as --generator-widths 256 128 64")

    def changed(self, **settings: Any) -> Self:
        """As :meth:`Settings.changed`; another net resets the settings that belong to the one before."""
        if settings.get("net", self.net) != self.net:
            fresh = {
                "groups": None,
                "dropout": None,
                "discriminator_norm": None,
                "generator_upsample": None,
                "generator_widths": (),
                "discriminator_widths": (),
            }
            settings = fresh | settings
        if self.augment == "ada" != settings.get("augment", "ada"):  # what is ADA's alone
            settings = {name: getattr(Config, name) for name in OF_ADA} | settings
        return super().changed(**settings)


def mlp_classic() -> Config:
    """The original GAN of tutorials: fully connected layers, binary cross-entropy, Adam at 2e-4, batch size 100.

    On CIFAR-10 its discriminator wins and its generator collapses, and alarms say so. The recipe ``mlp`` trains the
    same networks without collapse.
    """
    return Config(
        net="mlp",
        latent_dim=100,
        dropout=0.3,
        loss="nonsaturating",
        batch_size=100,
        beta1=0.9,
        beta2=Schedule.parse(0.999),
        precision="fp32",
        sample_grid=48,
    )


def mlp() -> Config:
    """The networks of ``mlp-classic``, stabilized: relativistic loss, lazy R1 and R2, EMA.

    lr 1e-3: at 2e-4 the generator ignores z for too long. Momentum is lower, too.
    """
    return dataclasses.replace(
        mlp_classic(),
        loss="relativistic",
        r1=Schedule.parse(1),
        r2=Schedule.parse(1),
        penalty_every=8,
        generator_lr=Schedule.parse(1e-3),
        discriminator_lr=Schedule.parse(1e-3),
        beta1=0.5,
        beta2=Schedule.parse(0.99),
        ema=Schedule.parse("10k"),
        sample_grid=64,
    )


def dcgan() -> Config:
    """DCGAN (Radford et al. 2016): strided convolutions, batch norm in both players, Adam 2e-4 (0.5, 0.999)."""
    return Config(
        net="dcgan",
        latent_dim=100,
        discriminator_norm="batch",
        loss="nonsaturating",
        batch_size=128,
        beta1=0.5,
        beta2=Schedule.parse(0.999),
        until="50 epochs",
    )


def sngan() -> Config:
    """SNGAN (Miyato et al. 2018): residual networks, spectral norm, hinge loss, five turns of D per turn of G."""
    return Config(
        net="sngan",
        latent_dim=128,
        loss="hinge",
        discriminator_turns=5,
        beta2=Schedule.parse(0.9),
        ema=Schedule.parse("50k"),
        until="10M images",
    )


def r3() -> Config:
    """R3GAN (Huang et al. 2024): its blocks at widths for small machines, relativistic loss with R1 and R2."""
    return Config(
        net="r3",
        loss="relativistic",
        r1=Schedule.parse(0.05),
        r2=Schedule.parse(0.05),
        penalty_every=8,
        ema=Schedule.parse("50k"),
        until="2M images",
    )


def _published(
    gamma: str, p: str, half_life: str, *, batch_size: int, widths: tuple[int, ...], **settings: Any
) -> Config:
    """R3GAN as published (Huang et al. 2024, table 8): cosine schedules over 20M images, or 200M for ImageNet."""
    span = "200M images" if "ImageNet" in settings.pop("data") else "20M images"
    lr = Schedule.parse(f"2e-4 -> 5e-5 in {span}")
    return Config(
        net="r3",
        generator_widths=widths,
        discriminator_widths=widths[::-1],
        loss="relativistic",
        r1=Schedule.parse(f"{gamma} in {span}"),
        r2=Schedule.parse(f"{gamma} in {span}"),
        augment="ada",
        augment_p=Schedule.parse(f"{p} in {span}"),
        augment_color=0.5,
        flip=True,
        batch_size=batch_size,
        generator_lr=lr,
        discriminator_lr=lr,
        beta2=Schedule.parse(f"0.9 -> 0.99 in {span}"),
        ema=Schedule.parse(f"{half_life} in {span}"),
        ema_rampup=0,
        until=span,
        **settings,
    )


def r3_cifar10() -> Config:
    """R3GAN's own settings for CIFAR-10: 20.8M and 21.3M parameters, published FID 1.96, for eight GPUs."""
    widths = (768,) * 4
    return _published(
        "0.05 -> 0.005", "0 -> 0.55", "0 -> 5M", data="CIFAR-10", batch_size=512, widths=widths, conditional=True
    )


def r3_ffhq64() -> Config:
    """R3GAN's own settings for faces at 64 px, for eight GPUs."""
    return _published("2 -> 0.2", "0 -> 0.3", "0 -> 500k", data="FFHQ", batch_size=256, widths=(*(768,) * 4, 384))


def r3_ffhq256() -> Config:
    """R3GAN's own settings for faces at 256 px, for eight GPUs."""
    widths = (*(768,) * 4, 384, 192, 96)
    return _published("150 -> 15", "0 -> 0.3", "0 -> 500k", data="FFHQ", batch_size=256, widths=widths)


def r3_imagenet32() -> Config:
    """R3GAN's own settings for ImageNet at 32 px, for 32 GPUs."""
    settings: dict[str, Any] = {"data": "ImageNet", "batch_size": 4096, "conditional": True, "groups": 96}
    return _published("0.5 -> 0.05", "0 -> 0.5", "0 -> 50M", widths=(1536,) * 4, **settings)


def r3_imagenet64() -> Config:
    """R3GAN's own settings for ImageNet at 64 px, for 64 GPUs."""
    settings: dict[str, Any] = {"data": "ImageNet", "batch_size": 4096, "conditional": True, "groups": 96}
    return _published("1 -> 0.1", "0 -> 0.4", "0 -> 50M", widths=(1536,) * 5, **settings)


def quick() -> Config:
    """The best samples in a few minutes on two cores: small DCGAN networks, relativistic loss, lazy R1 and R2."""
    return Config(
        net="dcgan",
        discriminator_norm="none",
        loss="relativistic",
        r1=Schedule.parse(0.3),
        r2=Schedule.parse(0.3),
        penalty_every=8,
        generator_lr=Schedule.parse(1e-3),
        discriminator_lr=Schedule.parse(1e-3),
        ema=Schedule.parse("10k"),
        until="4 minutes",
    )


def advgan() -> Config:
    """AdvGAN (Xiao et al. 2018): a generator of perturbations against the classifier of ``--against``, held constant.

    Least squares as in the paper. The generator learns fastest by many small steps at a high lr, which decays so that
    the last perturbations settle.
    """
    lr = Schedule.parse("3e-3 -> 1e-4 in 200k images")
    return Config(
        net="dcgan",
        discriminator_norm="none",
        loss="least-squares",
        batch_size=32,
        beta1=0.5,
        generator_lr=lr,
        discriminator_lr=Schedule.parse(2e-4),
        sample_grid=64,
        until="200k images",
    )


def robgan() -> Config:
    """Rob-GAN (Liu & Hsieh 2019): a discriminator with a class head that is trained on PGD examples of real images."""
    return Config(
        net="dcgan",
        conditional=True,
        loss="hinge",
        robust_steps=5,
        beta1=0.5,
        generator_lr=Schedule.parse(1e-3),
        discriminator_lr=Schedule.parse(1e-3),
        ema=Schedule.parse("10k"),
        until="20 epochs",
    )


def encoder() -> Config:
    """GAN inversion (Zhu et al. 2016): an encoder of the generator of ``--invert``, which is held constant."""
    return Config(batch_size=128, beta1=0.9, beta2=Schedule.parse(0.999), until="200k images")


def auto() -> Config:
    """Fitted to data, budget and machine by :mod:`rivals.recipes.auto_rules`, starting from these values."""
    return dataclasses.replace(quick(), until="10 minutes")


RECIPES: Registry[Callable[[], Config]] = Registry(
    "recipe",
    {
        "auto": auto,
        "quick": quick,
        "mlp-classic": mlp_classic,
        "mlp": mlp,
        "dcgan": dcgan,
        "sngan": sngan,
        "r3": r3,
        "advgan": advgan,
        "robgan": robgan,
        "encoder": encoder,
        "r3-cifar10": r3_cifar10,
        "r3-ffhq64": r3_ffhq64,
        "r3-ffhq256": r3_ffhq256,
        "r3-imagenet32": r3_imagenet32,
        "r3-imagenet64": r3_imagenet64,
    },
)
DEFAULT = "auto"

PUBLISHED = tuple(name for name in RECIPES if name.startswith("r3-"))
"""Recipes with the settings of a paper, made for accelerators."""
