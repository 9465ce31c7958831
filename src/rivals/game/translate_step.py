"""What a turn sees where images are translated: inputs, targets, what comes out, and the discriminator's logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.tensors import at_least_float32
from rivals.game.gan_step import DISCRIMINATOR, GENERATOR, GanStep

HEAD, INVERSE = "head", "inverse"
MIRRORED = {INVERSE: GENERATOR, "inverse_discriminator": DISCRIMINATOR}
"""The players of the way back, by what they are to it."""


class TranslateStep(GanStep):
    """One turn's view of image translation: a GAN whose generated images are translated ones.

    To a discriminator's turn it is a :class:`GanStep`, so all GAN losses and penalties apply. Logits may be a map, as
    PatchGAN's: the losses average over it.

    Args:
        args: This and ``options``: see :class:`GanStep`. The generator maps images (B, C, h, w) in [0, 1] to images
            (B, C', H, W).
        split: A batch as drawn, (B, ..., H, W) in [0, 1], to inputs and targets.
        condition: What the discriminator sees of the inputs besides an image, of the image's height and width (pix2pix,
            Isola et al. 2017, eq. 1). None: the image alone.
        patches: How many places of a feature map PatchNCE compares.
    """

    def __init__(
        self,
        *args: Any,
        split: Callable[[Tensor], tuple[Tensor, Tensor]],
        condition: Callable[[Tensor], Tensor] | None = None,
        patches: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._split = split
        self._condition = condition
        self._patches = patches

    @property
    def labels(self) -> None:
        """Translation has no classes."""
        return

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        return self._split(self._real_batch[0] * (1 / 255))

    @property
    def x(self) -> Tensor:
        """The inputs, (B, C, h, w) in [0, 1]."""
        return self._pairs[0]

    @property
    def y(self) -> Tensor:
        """The targets, (B, C', H, W) in [0, 1]; without pairs any images of the kind to translate to."""
        return self._pairs[1]

    @cached_property
    def output(self) -> Tensor:
        """The translated inputs, (B, C', H, W), not clipped: constant, unless it is the generator's turn."""
        return self._translated(self.x)

    @cached_property
    def unchanged(self) -> Tensor:
        """The targets, translated: a translator should leave them as they are."""
        return self._translated(self.y)

    @cached_property
    def there_and_back(self) -> Tensor:
        """The inputs, translated and translated back by the player ``inverse``, (B, C, h, w)."""
        return self._by_inverse(self.output)

    @cached_property
    def back_and_there(self) -> Tensor:
        """The targets, translated back and then translated, (B, C', H, W)."""
        with torch.no_grad():
            back = self._by_inverse(self.y)
        return self._translated(back)

    def _by_inverse(self, images: Tensor) -> Tensor:
        back: Tensor = self.nets[INVERSE](images)
        return at_least_float32(back)

    def _translated(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.mover == GENERATOR):
            translated: Tensor = self.nets[GENERATOR](images)
        return at_least_float32(translated)

    @cached_property
    def real_images(self) -> Tensor:
        """The targets in [-1, 1], beside their inputs, as the discriminator sees them."""
        return self._seen(self.y)

    @cached_property
    def fake_images(self) -> Tensor:
        """What came out in [-1, 1], beside the inputs, as the discriminator sees it."""
        return self._seen(self.output)

    def _seen(self, images: Tensor) -> Tensor:
        stacked = images if self._condition is None else torch.cat([self._condition(self.x), images], 1)
        return stacked * 2 - 1

    def patch_vectors(self, before: Tensor, after: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Vectors of random patches of images before and after translation, (B, S, dim), for each feature map.

        CUT (Park et al. 2020, sec. 3.2): both go through the translator's own encoder, and then through a small
        network, the player ``head``. The places are the same in both. No gradient flows through those before.
        """
        translator: Any = self.nets[GENERATOR]
        with torch.no_grad():
            maps_before = translator.encode(before)
        with torch.set_grad_enabled(self.mover == GENERATOR):
            maps_after = translator.encode(after)
        keys, queries = [], []
        for one, other in zip(maps_before, maps_after, strict=True):
            count = one[0, 0].numel()
            places = torch.randperm(count, device=one.device)[: self._patches]
            keys.append(one.flatten(2)[:, :, places].transpose(1, 2))
            queries.append(other.flatten(2)[:, :, places].transpose(1, 2))
        head = self.nets[HEAD]
        # In the head's own turn it learns from both sides; else the keys are constant.
        with torch.set_grad_enabled(self.mover == HEAD):
            vectors = head(keys)
        return list(zip(head(queries), vectors, strict=True))


def cycle_step(
    nets: Mapping[str, nn.Module],
    mover: str,
    *args: Any,
    split: Callable[[Tensor], tuple[Tensor, Tensor]],
    **options: Any,
) -> TranslateStep:
    """A turn's view in CycleGAN (Zhu et al. 2017): two translators, from A to B and back, each with a discriminator.

    To the players of the way back the game is the same with A and B exchanged, and that is the view they get.
    """
    if mover not in MIRRORED:
        return TranslateStep(nets, mover, *args, split=split, **options)
    seen = {MIRRORED[INVERSE]: nets[INVERSE], INVERSE: nets[GENERATOR]}
    seen[DISCRIMINATOR] = nets["inverse_discriminator"]

    def exchanged(batch: Tensor) -> tuple[Tensor, Tensor]:
        x, y = split(batch)
        return y, x

    return TranslateStep(seen, MIRRORED[mover], *args, split=exchanged, **options)
