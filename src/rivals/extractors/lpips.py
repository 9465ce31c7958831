"""LPIPS with VGG16 (Zhang et al. 2018, version 0.1), from weights that the user has."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.feature_maps import EPS
from rivals.extractors.resize import on_white
from rivals.extractors.vgg16 import PUBLISHED, VGG16
from rivals.extractors.weights import MissingWeights, read

MAPS = (3, 8, 15, 22, 29)  # of VGG16's layers: the last ReLU of each stage
TINY = 1e-30  # of a squared length
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]


class LPIPS(nn.Module):
    """The learned perceptual distance of images (eq. 1), at their own resolution.

    Args:
        file: The weights of the five maps, ``vgg.pth`` of the published repository (``lin0.model.1.weight`` and on).
        vgg: VGG16's weights as torchvision has them; from the usual caches by default.

    Raises:
        MissingWeights: there is no such file.
        UserError: one of the files holds something else.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, file: Path, vgg: Path | None = None) -> None:
        super().__init__()
        if not file.is_file():
            raise MissingWeights(f"there is no file of LPIPS's weights '{file}': fetch vgg.pth of its repository")
        linear = read(file)
        network = read(PUBLISHED.find(vgg))
        try:
            self.layers = VGG16(network).layers
            weights = [linear[f"lin{number}.model.1.weight"] for number in range(len(MAPS))]
        except KeyError as error:
            raise UserError(f"'{file}' or VGG16's weights lack {error}: fetch both anew") from None
        convolutions = [self.layers[place - 1] for place in MAPS]
        widths = [layer.weight.shape[0] for layer in convolutions if isinstance(layer.weight, Tensor)]
        if [tuple(weight.shape) for weight in weights] != [(1, width, 1, 1) for width in widths]:
            raise UserError(f"'{file}' holds weights for another network than VGG16: give vgg.pth")
        self.weights = nn.ParameterList([nn.Parameter(weight.float(), requires_grad=False) for weight in weights])
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The five feature maps, with unit length at each place, of images (B, C, H, W) in [0, 1], C 1, 3 or 4."""
        h, found = (on_white(images.float()) * 2 - 1 - self.shift) / self.scale, []
        for number, layer in enumerate(self.layers):
            h = layer(h)
            if number in MAPS:
                # Clamped far below EPS: at features of 0 the root has no gradient.
                found.append(h / (h.square().sum(1, keepdim=True).clamp_min(TINY).sqrt() + EPS))
            if number == MAPS[-1]:
                break
        return found

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """The distance of images to others, (B, C, H, W) in [0, 1] each: (B,)."""
        total = torch.zeros(len(one), device=one.device)
        for a, b, weight in zip(self.maps(one), self.maps(other), self.weights, strict=True):
            total = total + ((a - b).square() * weight).sum(1).mean((1, 2))
        return total
