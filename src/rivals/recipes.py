"""Named presets: functions that return the whole configuration of a game, every field of which can be set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.base.schedules import Schedule
from rivals.base.spans import Span

_NONE = Schedule(0.0, 0.0)


@dataclass(frozen=True)
class Config:
    """Everything that decides how a game is played. A SCHEDULE is a number, or START -> END in N images."""

    net: str = "dcgan"
    """Networks of both players: mlp, dcgan, sngan or r3."""
    latent: int = 64
    """Length of the noise vector z."""
    generator_widths: tuple[int, ...] = ()
    """Channels of the generator's stages from the lowest resolution up; empty takes the net's own."""
    discriminator_widths: tuple[int, ...] = ()
    """Channels of the discriminator's stages from the highest resolution down; empty takes the net's own."""
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
    r1: Schedule = _NONE
    """Gamma of the R1 penalty on real images, which is gamma / 2 * |gradient|^2."""
    r2: Schedule = _NONE
    """Gamma of the R2 penalty on generated images."""
    gp: Schedule = _NONE
    """Weight of the WGAN-GP penalty between real and generated images."""
    penalty_every: int = 1
    """Take the penalties on every this many steps, this many times as strong."""
    instance_noise: Schedule = _NONE
    """Standard deviation of the noise on all images that the discriminator sees; images lie in [-1, 1]."""
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
    ema: Schedule = _NONE
    """Half-life, in images, of the average of the generator's weights; 0 keeps none."""
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
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"{_flag(name)} {value} cannot work: take {least} to {most}")
        for name in ("r1", "r2", "gp", "instance_noise", "ema"):
            schedule = getattr(self, name)
            if min(schedule.start, schedule.end) < 0:
                raise UserError(f"{_flag(name)} {schedule} is negative: take 0 (none) or more")
        if not all(0 < width <= 65536 for width in self.generator_widths + self.discriminator_widths):
            raise UserError("widths must be whole numbers from 1 to 65536, as --generator-widths 256 128 64")

    def changed(self, **settings: Any) -> Config:
        """A copy with some settings changed; schedules may be given as numbers or in their written form.

        Raises:
            UserError: no setting has that name, or a value cannot work.
        """
        if settings.get("net", self.net) != self.net:  # what another net was told has no meaning for this one
            fresh = {"dropout": None, "norm": None, "generator_widths": (), "discriminator_widths": ()}
            settings = fresh | settings
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name, value in settings.items():
            if name not in fields:
                raise unknown("setting", name, fields)
            settings[name] = _READ[str(fields[name].type)](name, value)
        return dataclasses.replace(self, **settings)

    def written(self) -> dict[str, Any]:
        """The settings as plain values, which ``Config().changed(**values)`` reads back."""
        values = dataclasses.asdict(self)
        for name in values:
            value = getattr(self, name)
            if isinstance(value, Schedule):
                values[name] = str(value)
            elif isinstance(value, tuple):
                values[name] = list(value)
        return values


def _schedule(name: str, value: Any) -> Schedule:
    return Schedule.parse(value)


def _widths(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not all(type(width) is int for width in value):
        raise UserError(f"{name} {value!r} are no widths: give whole numbers, as (256, 128, 64)")
    return tuple(value)


def _exactly(*kinds: type) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        if float in kinds and type(value) is int:
            return float(value)
        if type(value) not in kinds:
            wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise UserError(f"{name} {value!r} is of the wrong type: give {wanted}")
        return value

    return read


_READ: dict[str, Callable[[str, Any], Any]] = {
    "Schedule": _schedule,
    "tuple[int, ...]": _widths,
    "bool": _exactly(bool),
    "int": _exactly(int),
    "float": _exactly(float),
    "str": _exactly(str),
    "float | None": _exactly(float, type(None)),
    "str | None": _exactly(str, type(None)),
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


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


RECIPES: Registry[Callable[[], Config]] = Registry(
    "recipe",
    {"quick": quick, "mlp-classic": mlp_classic, "mlp": mlp, "dcgan": dcgan, "sngan": sngan, "r3": r3},
)
DEFAULT = "quick"
