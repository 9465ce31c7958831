"""The game of a translator: players, turns, and what each is to lose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rivals.base import rng
from rivals.base.size import Size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rivals.api.translation.image_pairs import ImagePairs
    from rivals.extractors.feature_maps import FeatureMaps
    from rivals.game.game import Game, Turn
    from rivals.game.player import Player
    from rivals.losses.gan import GanLoss
    from rivals.nets.translator import Translator
    from rivals.recipes import TranslateConfig


@dataclass(frozen=True, eq=False)
class TranslationGame:
    """Builds the game.

    Attributes:
        config: The settings, resolved.
        pairs: The images to train on.
        patch_size: Size of the images in training.
        device: Where to play.
        seed: Of the initial weights.
        start: A translator whose weights to begin with; None for new ones.
        extractor: Of the perceptual loss; None for none.
    """

    config: TranslateConfig
    pairs: ImagePairs
    patch_size: Size
    device: torch.device
    seed: int
    start: Translator | None
    extractor: FeatureMaps | None

    def build(self) -> Game:
        """The translator against a PatchGAN.

        Without pairs there is also the small network that PatchNCE compares patches by (CUT), or a translator back with
        a discriminator of its own (CycleGAN).
        """
        from rivals.game.game import Game, Turn
        from rivals.game.translate_step import TranslateStep, cycle_step
        from rivals.losses.gan import make_loss
        from rivals.losses.translation import perceptual, translation

        config = self.config
        players, loss = self._players(), make_loss(str(config.loss))
        translate = self._translator_loss(loss)
        penalties = [] if self.extractor is None else [self._perceptual(perceptual(self.extractor.distance))]
        turns: list[Turn] = []
        if "discriminator" in players:
            turns.append(self._discriminator_turn("discriminator", loss))
        if "inverse" in players:
            turns += [self._discriminator_turn("inverse_discriminator", loss), Turn("inverse", translate)]
        if "head" in players:
            weights = {"nce_weight": config.nce_weight, "identity_weight": config.identity_weight or 0.0}
            turns.append(Turn("head", translation(None, l1_weight=0, **weights)))
        turns.append(Turn("generator", translate, penalties))
        step: Callable[..., TranslateStep] = cycle_step if "inverse" in players else TranslateStep
        # With pairs the discriminator sees the inputs too, enlarged where they are smaller.
        condition = partial(_repeated, scale=self.pairs.scale) if config.paired else None
        make_step = partial(step, split=self.pairs.split, condition=condition)
        return Game(players, turns, make_step=make_step, precision=config.precision, compile=config.compile)

    def _translator_loss(self, loss: GanLoss) -> Callable[[Any], dict[str, Tensor]]:
        from rivals.losses.translation import cycle, translation

        config, gan = self.config, loss.generator
        gan_weight, identity_weight = config.gan_weight or 0, config.identity_weight or 0
        if config.paired:
            return translation(gan if gan_weight else None, gan_weight=gan_weight, l1_weight=config.l1_weight)
        weights = {"gan_weight": gan_weight, "identity_weight": identity_weight}
        if config.method == "cyclegan":
            return cycle(gan, cycle_weight=config.cycle_weight, **weights)
        return translation(gan, l1_weight=0, nce_weight=config.nce_weight, **weights)

    def _players(self) -> dict[str, Player]:
        import torch

        from rivals.game.player import Player, adam
        from rivals.nets.factory import build_translator
        from rivals.nets.patch_head import PatchHead
        from rivals.nets.patchgan import PatchDiscriminator

        config, pairs, device = self.config, self.pairs, self.device
        channels, in_channels = pairs.targets.channels, pairs.in_channels
        make = partial(
            build_translator,
            str(config.net),
            size=self.patch_size,
            channels=channels,
            in_channels=in_channels,
            scale=pairs.scale,
            widths=config.widths,
            blocks=config.blocks,
        )
        judge = partial(PatchDiscriminator, channels + (in_channels if config.paired else 0))
        betas: Any = {"beta1": config.beta1, "beta2": config.beta2}
        fast, other = adam(config.generator_lr, **betas), adam(config.discriminator_lr, **betas)
        with rng.fork(device):
            torch.manual_seed(rng.derive(self.seed, "weights"))
            translator = make()
            if self.start is not None:
                translator.load_state_dict(self.start.state_dict())
            # The average that the weights come with is worth keeping: no ramp-up forgets it.
            ramp: Any = {} if self.start is None else {"ema_rampup": None}
            players = {"generator": Player(translator.to(device), fast, ema=config.ema, **ramp)}
            if config.gan_weight:
                players["discriminator"] = Player(judge(config.discriminator_widths).to(device), other)
            if config.paired:
                return players
            if config.method == "cyclegan":
                players["inverse"] = Player(make().to(device), fast)
                players["inverse_discriminator"] = Player(judge(config.discriminator_widths).to(device), other)
            elif config.nce_weight or config.identity_weight:
                with torch.no_grad():
                    side = max(8, translator.multiple)
                    maps = translator.encode(torch.zeros(1, in_channels, side, side, device=device))
                players["head"] = Player(PatchHead([each.shape[1] for each in maps]).to(device), fast)
        return players

    def _discriminator_turn(self, player: str, loss: GanLoss) -> Turn:
        from rivals.game.game import Turn
        from rivals.losses.penalties import r1

        config = self.config
        penalties = [r1(config.r1, config.penalty_every)] if config.r1 and config.r1.peak else []
        readings = loss.readings if player == "discriminator" else lambda step: {}
        return Turn(player, loss.discriminator, penalties, readings=readings)

    def _perceptual(self, score: Callable[[Any], Tensor]) -> Any:
        from rivals.base.schedules import Schedule
        from rivals.losses.penalties import Penalty

        weight = Schedule.parse(self.config.perceptual_weight)
        return Penalty("perceptual", weight, score, self.config.perceptual_every, False, False)


def _repeated(images: Tensor, scale: int) -> Tensor:
    """Images enlarged by repeating each pixel."""
    return images if scale == 1 else images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
