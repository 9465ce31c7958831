"""The games of a generator and a discriminator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.base.schedules import Schedule
from rivals.base.spans import Span
from rivals.recipes.settings import NONE, PRECISIONS, Settings, check_range, flag

AUGMENTS = ("none", "diff", "ada")


@dataclass(frozen=True)
class Config(Settings):
    """Everything that decides how a game is played. A SCHEDULE is a number, or START -> END in N images."""

    net: str = "dcgan"
    """Networks of both players: mlp, dcgan, sngan or r3."""
    latent: int = 64
    """Length of the noise vector z."""
    generator_widths: tuple[int, ...] = ()
    """Channels of the generator's stages from the lowest resolution up; empty takes the net's own."""
    discriminator_widths: tuple[int, ...] = ()
    """Channels of the discriminator's stages from the highest resolution down; empty takes the net's own."""
    groups: int | None = None
    """Groups of the 3x3 convolutions (r3 only); without, groups have 16 channels."""
    dropout: float | None = None
    """Dropout in the discriminator (mlp only)."""
    norm: str | None = None
    """Normalisation in the discriminator, batch or none (dcgan only)."""
    conditional: bool = False
    """Tell both players the class of each image."""
    loss: str = "relativistic"
    """minimax, nonsaturating, least-squares, hinge, wasserstein or relativistic."""
    smoothing: float = 0.0
    """One-sided label smoothing: real images are labelled 1 minus this."""
    r1: Schedule = NONE
    """Gamma of the R1 penalty on real images, which is gamma / 2 times the gradient's squared length."""
    r2: Schedule = NONE
    """Gamma of the R2 penalty on generated images."""
    gp: Schedule = NONE
    """Weight of the WGAN-GP penalty between real and generated images."""
    cr: Schedule = NONE
    """Weight of consistency regularisation: the discriminator must answer alike to an image and to it moved."""
    lecam: Schedule = NONE
    """Weight of the LeCam term, which holds back a discriminator that has few images to learn from."""
    penalty_every: int = 1
    """Take the penalties on every this many steps, this many times as strong."""
    instance_noise: Schedule = NONE
    """Standard deviation of the noise on all images that the discriminator sees; images lie in [-1, 1]."""
    augment: str = "none"
    """Changes to all images that the discriminator sees, for small data: none, diff (DiffAugment) or ada."""
    augment_p: Schedule = NONE
    """Probability of each change by ada; where it starts if --augment-target is given."""
    augment_colour: float = 1.0
    """Share of that probability which changes of colour have."""
    augment_target: float | None = None
    """Let ada's probability follow the discriminator, to hold this mean sign of its answers to real images, as 0.6."""
    flip: bool = False
    """Mirror real images left to right at random."""
    discriminator_turns: int = 1
    """Turns of the discriminator for one of the generator."""
    batch: int = 64
    """Images a turn."""
    generator_lr: Schedule = Schedule(2e-4, 2e-4)  # noqa: RUF009 - frozen
    """Adam's rate for the generator."""
    discriminator_lr: Schedule = Schedule(2e-4, 2e-4)  # noqa: RUF009 - frozen
    """Adam's rate for the discriminator."""
    beta1: float = 0.0
    """Adam's beta1, for both."""
    beta2: Schedule = Schedule(0.99, 0.99)  # noqa: RUF009 - frozen
    """Adam's beta2, for both."""
    ema: Schedule = NONE
    """Half-life, in images, of the average of the generator's weights; 0 keeps none."""
    precision: str = "auto"
    """Of products while training: fp32, or bf16, which is faster; auto takes bf16 where it is built in. Rounds with a
    penalty on slopes are played in fp32."""
    compile: bool = False
    """Let torch.compile fuse both networks' operations, which takes a minute; rounds with such a penalty go without."""
    hold_out: int = 0
    """Images that neither player learns from, kept aside to judge the game by; 0 if the data has test images."""
    sheet: int = 64
    """Fixed noise vectors kept for the sample sheets."""
    until: str = "20 epochs"
    """Length of the run from its very start: N images, N epochs, N steps or N minutes, N with k or M if wanted."""

    def __post_init__(self) -> None:
        Span.parse(self.until)
        for name, least, most in (
            ("latent", 1, 65536),
            ("penalty_every", 1, 100_000),
            ("discriminator_turns", 1, 100),
            ("batch", 2, 65536),
            ("sheet", 1, 1024),
            ("hold_out", 0, 1_000_000),
            ("augment_colour", 0, 1),
        ):
            check_range(self, name, least, most)
        for name in ("r1", "r2", "gp", "cr", "lecam", "instance_noise", "ema"):
            schedule = getattr(self, name)
            if min(schedule.start, schedule.end) < 0:
                raise UserError(f"{flag(name)} {schedule} is negative: take 0 (none) or more")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.augment not in AUGMENTS:
            raise unknown("augmentation", self.augment, AUGMENTS)
        if not 0 <= min(self.augment_p.start, self.augment_p.end) <= self.augment_p.peak <= 1:
            raise UserError(f"--augment-p {self.augment_p} is no probability: take 0 to 1")
        if self.augment != "ada" and (self.augment_p.peak or self.augment_target is not None):
            raise UserError(f"--augment-p and --augment-target need --augment ada, not {self.augment}")
        if self.augment == "ada" and not self.augment_p.peak and self.augment_target is None:
            raise UserError("--augment ada changes nothing at a probability of 0: add --augment-p or --augment-target")
        if self.augment_target is not None:
            check_range(self, "augment_target", -1, 1)
            if self.loss in ("relativistic", "wasserstein"):
                raise UserError(
                    f"--augment-target reads the sign of the discriminator's answers, which the loss {self.loss} gives "
                    "no meaning: give a schedule by --augment-p"
                )
        if not all(0 < width <= 65536 for width in self.generator_widths + self.discriminator_widths):
            raise UserError("widths must be whole numbers from 1 to 65536, as --generator-widths 256 128 64")

    def changed(self, **settings: Any) -> Self:
        """As :meth:`Settings.changed`; another net forgets what the one before was told."""
        if settings.get("net", self.net) != self.net:
            fresh = {"groups": None, "dropout": None, "norm": None, "generator_widths": (), "discriminator_widths": ()}
            settings = fresh | settings
        return super().changed(**settings)


def mlp_classic() -> Config:
    """The article's game to the letter: fully connected layers, binary cross-entropy, Adam at 2e-4, batch 100.

    On CIFAR-10 its discriminator takes the lead for good and its generator repeats itself; the run says so. The
    recipe ``mlp`` is the same networks, cured.
    """
    return Config(
        net="mlp",
        latent=100,
        dropout=0.3,
        loss="nonsaturating",
        batch=100,
        beta1=0.9,
        beta2=Schedule.parse(0.999),
        precision="fp32",
        sheet=48,
    )


def mlp() -> Config:
    """The article's networks with what it takes not to collapse: relativistic pairing, lazy R1 and R2, an average.

    The rate is brave, as at 2e-4 the generator is slow to heed its latents, and the momentum is small.
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
        sheet=64,
    )


def dcgan() -> Config:
    """DCGAN (Radford et al. 2016): strided convolutions, batch norm in both players, Adam 2e-4 (0.5, 0.999)."""
    return Config(
        net="dcgan",
        latent=100,
        norm="batch",
        loss="nonsaturating",
        batch=128,
        beta1=0.5,
        beta2=Schedule.parse(0.999),
        until="50 epochs",
    )


def sngan() -> Config:
    """SNGAN (Miyato et al. 2018): residual nets, spectral norm, hinge loss, five turns of D for one of G."""
    return Config(
        net="sngan",
        latent=128,
        loss="hinge",
        discriminator_turns=5,
        beta2=Schedule.parse(0.9),
        ema=Schedule.parse("50k"),
        until="10M images",
    )


def r3() -> Config:
    """R3GAN (Huang et al. 2024): its blocks at widths for small machines, relativistic pairing with R1 and R2."""
    return Config(
        net="r3",
        loss="relativistic",
        r1=Schedule.parse(0.05),
        r2=Schedule.parse(0.05),
        penalty_every=8,
        ema=Schedule.parse("50k"),
        until="2M images",
    )


def _published(gamma: str, p: str, half_life: str, *, batch: int, widths: tuple[int, ...], **settings: Any) -> Config:
    """R3GAN as published (Huang et al. 2024, table 8): half-cosines over 20M images, or 200M for ImageNet."""
    span = "200M images" if "ImageNet" in settings.pop("data") else "20M images"
    rate = Schedule.parse(f"2e-4 -> 5e-5 in {span}")
    return Config(
        net="r3",
        generator_widths=widths,
        discriminator_widths=widths[::-1],
        loss="relativistic",
        r1=Schedule.parse(f"{gamma} in {span}"),
        r2=Schedule.parse(f"{gamma} in {span}"),
        augment="ada",
        augment_p=Schedule.parse(f"{p} in {span}"),
        augment_colour=0.5,
        flip=True,
        batch=batch,
        generator_lr=rate,
        discriminator_lr=rate,
        beta2=Schedule.parse(f"0.9 -> 0.99 in {span}"),
        ema=Schedule.parse(f"{half_life} in {span}"),
        until=span,
        **settings,
    )


def r3_cifar10() -> Config:
    """R3GAN's own settings for CIFAR-10: 20.8M and 21.3M parameters, published FID 1.96, for eight GPUs."""
    widths = (768,) * 4
    return _published(
        "0.05 -> 0.005", "0 -> 0.55", "0 -> 5M", data="CIFAR-10", batch=512, widths=widths, conditional=True
    )


def r3_ffhq64() -> Config:
    """R3GAN's own settings for faces at 64 px, for eight GPUs."""
    return _published("2 -> 0.2", "0 -> 0.3", "0 -> 500k", data="FFHQ", batch=256, widths=(*(768,) * 4, 384))


def r3_ffhq256() -> Config:
    """R3GAN's own settings for faces at 256 px, for eight GPUs."""
    widths = (*(768,) * 4, 384, 192, 96)
    return _published("150 -> 15", "0 -> 0.3", "0 -> 500k", data="FFHQ", batch=256, widths=widths)


def r3_imagenet32() -> Config:
    """R3GAN's own settings for ImageNet at 32 px, for 32 GPUs."""
    knobs: dict[str, Any] = {"data": "ImageNet", "batch": 4096, "conditional": True, "groups": 96}
    return _published("0.5 -> 0.05", "0 -> 0.5", "0 -> 50M", widths=(1536,) * 4, **knobs)


def r3_imagenet64() -> Config:
    """R3GAN's own settings for ImageNet at 64 px, for 64 GPUs."""
    knobs: dict[str, Any] = {"data": "ImageNet", "batch": 4096, "conditional": True, "groups": 96}
    return _published("1 -> 0.1", "0 -> 0.4", "0 -> 50M", widths=(1536,) * 5, **knobs)


def quick() -> Config:
    """What draws best in a few minutes on two cores: cheap strided nets, relativistic pairing, lazy R1 and R2."""
    return Config(
        net="dcgan",
        norm="none",
        loss="relativistic",
        r1=Schedule.parse(0.3),
        r2=Schedule.parse(0.3),
        penalty_every=8,
        generator_lr=Schedule.parse(1e-3),
        discriminator_lr=Schedule.parse(1e-3),
        ema=Schedule.parse("10k"),
        until="4 minutes",
    )


def auto() -> Config:
    """Fitted to the data, the budget and the machine (:mod:`rivals.recipes.automatic`); these are its first values."""
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
        "r3-cifar10": r3_cifar10,
        "r3-ffhq64": r3_ffhq64,
        "r3-ffhq256": r3_ffhq256,
        "r3-imagenet32": r3_imagenet32,
        "r3-imagenet64": r3_imagenet64,
    },
)
DEFAULT = "auto"
