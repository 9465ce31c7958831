"""Settings of an encoder that inverts a generator, which is held constant."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rivals.base.errors import UserError
from rivals.base.schedules import Schedule
from rivals.recipes.base import Settings, check_range, flag


@dataclass(frozen=True)
class InvertConfig(Settings):
    """The generator, and how its encoder is trained."""

    invert: str = ""
    """Train an encoder that inverts the generator of this run, which has no classes: for --defense gan-inversion."""
    encoder_widths: tuple[int, ...] = ()
    """Channels of the encoder of --invert after each halving; 32 64 by default."""
    encoder_lr: Schedule = Schedule.parse("1e-3 -> 1e-4 in 200k images")  # noqa: RUF009 - frozen
    """Learning rate of the encoder of --invert."""
    latent_weight: float = 0.1
    """Weight of the latents in the loss of --invert: those of generated images are to be found again."""

    def check_inversion(self) -> None:
        """Refuse its settings without a generator, or what cannot work.

        Raises:
            UserError: there are some.
        """
        check_range(self, "latent_weight", 0, 1e6)
        if not all(0 < width <= 65536 for width in self.encoder_widths):
            raise UserError("widths must be integers from 1 to 65536, such as --encoder-widths 32 64")
        for each in fields(InvertConfig):
            if getattr(self, each.name) != each.default and not self.invert:
                raise UserError(f"{flag(each.name)} has no meaning without a generator to invert: add --invert RUN")
