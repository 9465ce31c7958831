"""Vision transformers (Dosovitskiy et al. 2021): DINOv2's, for FD-DINOv2, and CLIP's, for CMMD."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.extractor import Extractor
from rivals.extractors.resize import IMAGENET, normalised, pillow_bicubic
from rivals.extractors.weights import Published, Weights, linear, plain, read

DINOV2 = Published(
    "dinov2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    ("dinov2_vitl14_pretrain.pth",),
    ("timm/vit_large_patch14_dinov2.lvd142m",),
)
CLIP = Published(
    "clip",
    "https://huggingface.co/openai/clip-vit-large-patch14-336/resolve/main/pytorch_model.bin",
    ("clip-vit-large-patch14-336.safetensors", "clip-vit-large-patch14-336.bin", "pytorch_model.bin"),
    ("openai/clip-vit-large-patch14-336",),
)
DINOV2_SIZE, CLIP_SIZE = 224, 336
CLIP_VIEW = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HEAD = 64  # numbers an attention head has, in all of these
OFFSET = 0.1  # that DINOv2's own code adds to the number of patches before it resizes the embedding of places

# Hugging Face's names of CLIP's tensors, and what they are called here, which is as DINOv2 has them.
RENAMED = (
    (r"embeddings\.class_embedding", "cls_token"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"embeddings\.patch_embedding", "patch_embed.proj"),
    (r"pre_layrnorm", "norm_pre"),
    (r"post_layernorm", "norm"),
    (r"encoder\.layers\.", "blocks."),
    (r"layer_norm", "norm"),
    (r"self_attn\.out_proj", "attn.proj"),
    (r"self_attn\.", "attn."),
)


def open_dinov2(path: Path | None = None) -> Extractor:
    """The extractor ``dinov2``: ViT-L/14, the 1024 numbers of its class token (Oquab et al. 2024; Stein et al. 2023).

    Args:
        path: Meta's file of weights or timm's; from the usual caches if None.

    Raises:
        Missing: there is no such file.
        UserError: it holds another network.
    """
    return _open(DINOV2, path, DINOV2_SIZE, IMAGENET)


def open_clip(path: Path | None = None) -> Extractor:
    """The extractor ``clip``: ViT-L/14 at 336 px, its embedding of 768 numbers, of length 1 (Jayasumana et al. 2024).

    Args:
        path: Hugging Face's file of weights; from the usual caches if None.

    Raises:
        Missing: there is no such file.
        UserError: it holds another network.
    """
    return _open(CLIP, path, CLIP_SIZE, CLIP_VIEW, clip_weights)


def _open(
    published: Published,
    path: Path | None,
    size: int,
    view: tuple[tuple[float, ...], tuple[float, ...]],
    renamed: Callable[[Weights], Weights] = dict,
) -> Extractor:
    file = published.find(path)
    try:
        net = ViT(renamed(read(file)))
    except KeyError as error:
        raise UserError(
            f"'{file}' does not hold {published.extractor}'s transformer, as it lacks {error}: fetch {published.url}"
        ) from None

    def prepared(x: Tensor) -> Tensor:
        return normalised(pillow_bicubic(x, size), *view)

    return Extractor(published.extractor, net, prepared, size=size, resize="Pillow bicubic")


def clip_weights(weights: Weights) -> dict[str, Tensor]:
    """The tensors of CLIP's image side under the names of DINOv2, query, key and value in one.

    Raises:
        KeyError: one is missing.
    """
    found: dict[str, Tensor] = {}
    for name, values in weights.items():
        if name.startswith("vision_model."):
            short = name.removeprefix("vision_model.")
            for pattern, other in RENAMED:
                short = re.sub(pattern, other, short)
            found[short] = values
    depth = sum(name.endswith("attn.q_proj.weight") for name in found)
    for block in range(depth):
        for kind in ("weight", "bias"):
            three = [found.pop(f"blocks.{block}.attn.{part}_proj.{kind}") for part in "qkv"]
            found[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(three)
    found["projection"] = weights["visual_projection.weight"]
    return found


class ViT(nn.Module):
    """The graph, in the form that the weights have.

    CLIP's has a norm before its blocks, ``gelu(x) = x sigmoid(1.702 x)`` and a projection, after which it is scaled to
    length 1; DINOv2's scales what each block adds, and its embedding of places is resized to the image.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        clip = "projection" in weights
        self.eps = 1e-5 if clip else 1e-6
        self.first = nn.Parameter(weights["cls_token"].float().flatten(), requires_grad=False)
        width = len(self.first)
        self.places = nn.Parameter(weights["pos_embed"].float().reshape(-1, width), requires_grad=False)
        kernel = weights["patch_embed.proj.weight"]
        self.patches = plain(kernel, weights.get("patch_embed.proj.bias"), stride=kernel.shape[-1])
        self.before = self._norm(weights, "norm_pre") if clip else nn.Identity()
        depth = sum(name.endswith("attn.qkv.weight") for name in weights)
        self.blocks = nn.Sequential(*(Block(weights, f"blocks.{i}", self.eps, clip) for i in range(depth)))
        self.after = self._norm(weights, "norm")
        self.projection = linear(weights["projection"], None) if clip else None

    def _norm(self, weights: Weights, name: str) -> nn.LayerNorm:
        return layer_norm(weights, name, self.eps)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Images (B, 3, S, S), normalised, to features (B, d)."""
        tokens = self.patches(x)
        side = tokens.shape[-1]
        tokens = torch.cat([self.first.expand(len(x), 1, -1), tokens.flatten(2).transpose(1, 2)], 1)
        tokens = self.blocks(self.before(tokens + self._placed(side)))
        features: Tensor = self.after(tokens[:, 0])
        if self.projection is not None:
            features = F.normalize(self.projection(features), dim=1)
        return features, None

    def _placed(self, side: int) -> Tensor:
        """The embedding of places (1 + side^2, d), resized where the network was trained with more patches."""
        trained = math.isqrt(len(self.places) - 1)
        if trained == side:
            return self.places
        grid = self.places[1:].T.reshape(1, -1, trained, trained)
        scale = (side + OFFSET) / trained  # by this scale, not to this size: so DINOv2's features were made
        grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
        return torch.cat([self.places[:1], grid[0].flatten(1).T])


class Block(nn.Module):
    """Attention, then two layers at each place, each added to what was there."""

    def __init__(self, weights: Weights, name: str, eps: float, clip: bool) -> None:
        super().__init__()

        def take(part: str) -> nn.Linear:
            return linear(weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"])

        self.clip = clip
        self.norm1, self.norm2 = (layer_norm(weights, f"{name}.{part}", eps) for part in ("norm1", "norm2"))
        self.qkv, self.proj, self.fc1, self.fc2 = map(take, ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"))
        one = torch.ones(())
        scales = (weights[f"{name}.ls{i}.gamma"].float() if not clip else one for i in (1, 2))
        self.scale1, self.scale2 = (nn.Parameter(scale, requires_grad=False) for scale in scales)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, d) to tokens (B, T, d)."""
        batch, count, width = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, count, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = x + self.scale1 * self.proj(mixed.transpose(1, 2).reshape(batch, count, width))
        hidden = self.fc1(self.norm2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.clip else F.gelu(hidden)
        made: Tensor = x + self.scale2 * self.fc2(hidden)
        return made


def layer_norm(weights: Weights, name: str, eps: float) -> nn.LayerNorm:
    """A layer norm with the file's scale and shift."""
    made = nn.LayerNorm(len(weights[f"{name}.weight"]), eps=eps)
    for part in ("weight", "bias"):
        setattr(made, part, nn.Parameter(weights[f"{name}.{part}"].float(), requires_grad=False))
    return made
