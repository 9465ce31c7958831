"""The feature maps inside an extractor, and distances between images by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.base import Extractor
from rivals.extractors.resize import on_white

EPS = 1e-10
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class FeatureMaps:
    """The last feature map of each resolution in an extractor's network, differentiable.

    Of VGG16 those are the maps before each pooling, which LPIPS takes too; of a residual network the ends of its
    stages. What a pooling puts out is none.

    Args:
        extractor: A convolutional one.

    Raises:
        UserError: it has no feature maps.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.name = extractor.name
        channels = extractor.channels or 3
        if not self(torch.zeros(1, channels, *extractor.size)):
            raise UserError(f"the extractor {self.name} has no feature maps: take vgg16, lite0 or classifier:RUN")

    def __call__(self, images: Tensor) -> list[Tensor]:
        """The maps, (B, C, H, W) each, of images (B, C, H, W) in [0, 1]; gray is repeated, alpha composited on white.

        Raises:
            UserError: the extractor takes another number of channels.
        """
        wanted = self.extractor.channels
        if wanted is None:
            images = on_white(images)
        elif wanted != images.shape[1]:
            raise UserError(
                f"the extractor {self.name} was made for images of {wanted} channels, and these have "
                f"{images.shape[1]}: take another extractor"
            )
        device = next(self.extractor.net.parameters(), images).device
        maps: dict[tuple[int, int], Tensor] = {}
        pooled: list[Any] = []

        def record(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(layer, POOLINGS):
                pooled.append(output)
            is_map = isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1
            if is_map and not any(output is each for each in pooled):  # a block may put out what its last layer does
                maps[output.shape[2], output.shape[3]] = output

        # For this pass alone: the extractor is another's too, which computes features.
        hooks = [layer.register_forward_hook(record) for layer in self.extractor.net.modules()]
        try:
            inputs = self.extractor.prepare(images.to(device) * 255)
            self.extractor.net(inputs.contiguous(memory_format=torch.channels_last))
        finally:
            for hook in hooks:
                hook.remove()
        return [*maps.values()]

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """The distance of images to others, (B, C, H, W) in [0, 1] each, in [0, 4]: (B,), differentiable.

        The form of LPIPS (Zhang et al. 2018, eq. 1) with all weights 1, and the mean over maps: at each place the
        squared distance of the features, normalized to unit length over the channels. It is not LPIPS, whose weights
        are fitted to judgments of people.
        """
        return distance_between(self(one), self(other))


def distance_between(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """The distance of images, (B,), from their feature maps: see :meth:`FeatureMaps.distance`."""
    squares = [(unit(a.float()) - unit(b.float())).square() for a, b in zip(one, other, strict=True)]
    return torch.stack([each.sum(1).mean((1, 2)) for each in squares]).mean(0)


def unit(maps: Tensor) -> Tensor:
    """Feature maps (B, C, H, W) with features of length 1 at each place."""
    return maps * (maps.square().sum(1, keepdim=True) + EPS).rsqrt()
