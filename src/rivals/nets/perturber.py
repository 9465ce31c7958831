"""Perturbers: images to adversarial examples in a norm ball, in one forward pass (AdvGAN, Xiao et al. 2018)."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball, Linf, ball_for
from rivals.base.registry import unknown
from rivals.base.size import AnySize, Size
from rivals.base.tensors import batch_view, image_norm
from rivals.nets.conditioning import require_labels
from rivals.nets.padding import MOST_LAYERS, check_image_shape, shown, to_channels_last, widths_fit

NORMS = ("linf", "l2", "l1")
CONDITIONS = ("none", "label", "target")
STAGES = 2  # halvings
SHARPNESS = 10  # of tanh in evaluation: nearly the sign, so that the whole ball is used
LONGER = 1.5  # in L2 and L1 h is as much longer than eps: where the box cuts h off, the projection takes more elsewhere


class Perturber(nn.Module):
    """Images (B, channels, H, W) in [0, 1] to images in ball and box around them.

    Two strided convolutions, residual blocks, two transposed convolutions, as AdvGAN's (Xiao et al. 2018, sec. 4), with
    the skip connections of a U-Net from the full resolution down: what fools a classifier is as fine as its gradient.
    Batch norm follows each convolution; in evaluation an image's perturbation does not depend on its batch. In Linf
    the change is ``eps tanh(h)``, clipped to the box; in L2 and L1 ``h`` is scaled to the ball and projected exactly
    onto ball and box.

    The root mean square of ``h`` over an image is 1, in L1 its mean magnitude: without a limit tanh saturates within a
    hundred steps, and nothing is learned any more. In evaluation tanh is sharper than it is in training.

    Args:
        size: Of the images, sides of 8 to 1024 pixels.
        channels: 1, 3 or 4.
        classes: Number of classes it is conditioned on; 0 for none.
        norm: linf, l2 or l1.
        eps: Radius of the ball, for images in [0, 1].
        widths: Channels at the full resolution, at half and at a quarter of it.
        blocks: Residual blocks.
        condition: What it is conditioned on: ``label``, the class that the image is to leave; ``target``, the class
            that is to be predicted; or ``none``: it sees the image alone.
        target: The class that it was trained to reach, or None. For whoever uses it; the network ignores it.
        universal: Take no image: the same perturbation for all (of a class).

    Attributes:
        spec: The arguments as JSON, for :func:`rivals.nets.factory.rebuild`.
        about: What the .json file of a loaded network holds.
    """

    noise: Tensor

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int = 0,
        norm: str = "linf",
        eps: float = 0.3,
        widths: tuple[int, ...] = (),
        blocks: int = 1,
        condition: str = "none",
        target: int | None = None,
        universal: bool = False,
    ) -> None:
        super().__init__()
        check_image_shape(size, channels, classes)
        widths = tuple(widths) or ((4, 16, 32) if channels == 1 else (16, 32, 64))
        if len(widths) != STAGES + 1 or not widths_fit(widths):
            raise UserError(
                f"widths {shown(widths)} do not fit a generator of perturbations: give {STAGES + 1} positive numbers, "
                "as 16,32,64"
            )
        if not 0 <= blocks <= MOST_LAYERS:
            raise UserError(f"a perturber of {blocks} residual blocks cannot be built: take 0 to {MOST_LAYERS}")
        if norm not in NORMS:
            raise unknown("norm of a perturber", norm, NORMS)
        if condition not in CONDITIONS:
            raise unknown("condition of a perturber", condition, CONDITIONS)
        if (condition == "none") != (classes == 0):
            raise UserError(
                f"a perturber with the condition {condition} cannot have {classes} classes: it has classes if it is "
                "conditioned on one"
            )
        if not 0 < float(eps) < math.inf:
            raise UserError(f"an eps of {eps:g} leaves nothing to perturb: give one above 0, such as 8/255")
        self.size, self.channels, self.classes = Size.parse(size), channels, classes
        self.condition, self.target, self.universal = condition, target, universal
        self.about: dict[str, Any] = {}
        self.spec: dict[str, Any] = {
            "role": "perturber",
            "net": "advgan",
            "size": self.size.written,
            "channels": channels,
            "classes": classes,
            "norm": norm,
            "eps": float(eps),
            "widths": list(widths),
            "blocks": blocks,
            "condition": condition,
            "target": target,
            "universal": universal,
        }
        self.stem = _layer(nn.Conv2d(channels, widths[0], 3, padding=1, bias=False))
        self.down = nn.ModuleList(_layer(nn.Conv2d(*pair, 4, 2, 1, bias=False)) for pair in pairwise(widths))
        self.embedding = nn.Embedding(classes, widths[-1]) if classes else None
        self.blocks = nn.ModuleList(Residual(widths[-1]) for _ in range(blocks))
        up = pairwise(widths[::-1])
        self.up = nn.ModuleList(_layer(nn.ConvTranspose2d(*pair, 4, 2, 1, bias=False)) for pair in up)
        self.join = nn.ModuleList(
            _layer(nn.Conv2d(2 * width, width, 3, padding=1, bias=False)) for width in widths[-2::-1]
        )
        self.last = nn.Conv2d(widths[0], channels, 3, padding=1)
        # Poursaeed et al. 2018, sec. 3.1: a universal perturbation is the generator's output for fixed noise.
        if universal:
            self.register_buffer("noise", torch.rand(1, channels, *self.size))
        to_channels_last(self)

    @cached_property
    def ball(self) -> Ball:
        """The ball of the perturbations. Made on first use: its checks have no meaning on the meta device."""
        return ball_for(self.spec["norm"], self.spec["eps"])

    def raw(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The perturbation h of images (B, C, H, W), for classes (B,) or None, before the ball; (B, C, H, W).

        Its root mean square over an image is 1, in L1 its mean magnitude.
        """
        height, width = self.size.height, self.size.width
        seen = self.noise.expand(len(x), -1, -1, -1) if self.universal else x
        h = self.stem(F.pad(seen * 2 - 1, (0, -width % 2**STAGES, 0, -height % 2**STAGES)))
        skipped = []
        for down in self.down:
            skipped.append(h)
            h = down(h)
        if self.embedding is not None:
            h = h + self.embedding(require_labels(labels))[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        for up, join in zip(self.up, self.join, strict=True):
            h = join(torch.cat([up(h), skipped.pop()], 1))
        h = self.last(h)[..., :height, :width]
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        size = h.flatten(1).abs().mean(1) if self.ball.p == 1 else h.flatten(1).square().mean(1).sqrt()
        scaled: Tensor = h / batch_view(size.clamp_min(1e-6), h)
        return scaled

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1], and labels or targets (B,) int64 or None, to images in ball and box."""
        h = self.raw(x, labels)
        eps = float(self.ball.eps)
        low, high = self.ball.bounds
        if isinstance(self.ball, Linf):
            bounded: Tensor = (x + eps * torch.tanh(h if self.training else SHARPNESS * h)).clamp(low, high)
            return bounded
        h = h * LONGER * eps * h[0].numel() ** (-1 / self.ball.p)  # values of 1 everywhere have the length eps
        # The gradient is that of scaling into the ball and clipping; the value that of the exact projection, which is
        # longer where the box has cut something off.
        length = image_norm(h, self.ball.p).clamp_min(1e-12)
        scaled = (x + h * batch_view((eps / length).clamp_max(1), x)).clamp(low, high)
        with torch.no_grad():
            exact = self.ball.project(x + h, x)
        projected: Tensor = scaled + (exact - scaled).detach()
        return projected


def _layer(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """``x + conv(relu(conv(x)))``, at first the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) to feature maps of the same shape."""
        y: Tensor = x + self.conv2(F.relu(self.conv1(x), inplace=True))
        return y
