"""Vision transformers (Dosovitskiy et al. 2021): DINOv2 for FD-DINOv2, CLIP for CMMD."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.base import Extractor
from rivals.extractors.resize import IMAGENET, normalize, pillow_bicubic
from rivals.extractors.weights import PublishedWeights, Weights, conv2d, linear, read

DINOV2 = PublishedWeights(
    "dinov2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    ("dinov2_vitl14_pretrain.pth",),
    ("timm/vit_large_patch14_dinov2.lvd142m",),
)
CLIP = PublishedWeights(
    "clip",
    "https://huggingface.co/openai/clip-vit-large-patch14-336/resolve/main/pytorch_model.bin",
    ("clip-vit-large-patch14-336.safetensors", "clip-vit-large-patch14-336.bin", "pytorch_model.bin"),
    ("openai/clip-vit-large-patch14-336",),
)
DINOV2_SIZE, CLIP_SIZE = 224, 336
CLIP_MEAN_STD = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
POSITIONS = {"dinov2": 1 + 37**2, "clip": 1 + 24**2}  # of the images they were trained on, with the class token
HEAD_DIM = 64  # of each attention head, in all of these
OFFSET = 0.1  # DINOv2's code adds it to the number of patches before it interpolates the position embedding

# Hugging Face's names of CLIP's tensors, and DINOv2's, which are used here.
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
    """The extractor ``dinov2``: ViT-L/14, the class token of length 1024 (Oquab et al. 2024; Stein et al. 2023).

    Args:
        path: Meta's or timm's weights; from the usual caches by default.

    Raises:
        MissingWeights: there is no such file.
        UserError: it holds another network.
    """
    return _open(DINOV2, path, DINOV2_SIZE, IMAGENET)


def open_clip(path: Path | None = None) -> Extractor:
    """The extractor ``clip``: ViT-L/14 at 336 px, the normalized embedding of length 768 (Jayasumana et al. 2024).

    Args:
        path: Hugging Face's weights; from the usual caches by default.

    Raises:
        MissingWeights: there is no such file.
        UserError: it holds another network.
    """
    return _open(CLIP, path, CLIP_SIZE, CLIP_MEAN_STD, clip_weights)


def _open(
    published: PublishedWeights,
    path: Path | None,
    size: int,
    mean_std: tuple[tuple[float, ...], tuple[float, ...]],
    rename: Callable[[Weights], Weights] = dict,
) -> Extractor:
    file = published.find(path)
    try:
        weights = rename(read(file))
        net = ViT(weights)
    except KeyError as error:
        raise UserError(
            f"'{file}' does not hold {published.extractor}'s transformer, as it lacks {error}: fetch {published.url}"
        ) from None

    if unlike := _differences(weights, net, POSITIONS[published.extractor]):
        raise UserError(
            f"'{file}' holds another transformer than {published.extractor}'s ({unlike}): fetch {published.url}"
        )

    def prepare(x: Tensor) -> Tensor:
        return normalize(pillow_bicubic(x, size), *mean_std)

    return Extractor(published.extractor, net, prepare, size=size, resize="Pillow bicubic")


def _differences(weights: Weights, net: ViT, positions: int) -> str:
    """What a file's network has that ViT-L/14 has not, in words; empty if it is that."""
    found = {
        "width": (len(net.cls_token), 1024),
        "blocks": (len(net.blocks), 24),
        "patches of": (net.patch_embed.kernel_size[0], 14),
        "positions": (len(net.pos_embed), positions),
        "registers": (weights["register_tokens"].shape[-2] if "register_tokens" in weights else 0, 0),
    }
    return ", ".join(f"{name} {here}, not {there}" for name, (here, there) in found.items() if here != there)


def clip_weights(weights: Weights) -> dict[str, Tensor]:
    """The tensors of CLIP's image encoder under DINOv2's names, with query, key and value concatenated.

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
    """The network, CLIP's or DINOv2's according to the weights.

    CLIP has a norm before its blocks, ``quick_gelu(x) = x sigmoid(1.702 x)``, and a projection whose output is
    normalized. DINOv2 has layer scale, and interpolates its position embedding to the size of the image.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        clip = "projection" in weights
        self.eps = 1e-5 if clip else 1e-6
        self.cls_token = nn.Parameter(weights["cls_token"].float().flatten(), requires_grad=False)
        width = len(self.cls_token)
        self.pos_embed = nn.Parameter(weights["pos_embed"].float().reshape(-1, width), requires_grad=False)
        kernel = weights["patch_embed.proj.weight"]
        self.patch_embed = conv2d(kernel, weights.get("patch_embed.proj.bias"), stride=kernel.shape[-1])
        self.norm_pre = self._norm(weights, "norm_pre") if clip else nn.Identity()
        depth = sum(name.endswith("attn.qkv.weight") for name in weights)
        self.blocks = nn.Sequential(*(Block(weights, f"blocks.{i}", self.eps, clip) for i in range(depth)))
        self.norm = self._norm(weights, "norm")
        self.projection = linear(weights["projection"], None) if clip else None

    def _norm(self, weights: Weights, name: str) -> nn.LayerNorm:
        return layer_norm(weights, name, self.eps)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Images (B, 3, S, S), normalized, to features (B, d)."""
        tokens = self.patch_embed(x)
        side = tokens.shape[-1]
        # The class token, then the patches row by row.
        tokens = torch.cat([self.cls_token.expand(len(x), 1, -1), tokens.flatten(2).transpose(1, 2)], 1)
        tokens = self.blocks(self.norm_pre(tokens + self._position_embedding(side)))
        features: Tensor = self.norm(tokens[:, 0])
        if self.projection is not None:
            features = F.normalize(self.projection(features), dim=1)
        return features, None

    def _position_embedding(self, side: int) -> Tensor:
        """Position embedding (1 + side^2, d), interpolated if training had another number of patches."""
        trained = math.isqrt(len(self.pos_embed) - 1)
        if trained == side:
            return self.pos_embed
        grid = self.pos_embed[1:].T.reshape(1, -1, trained, trained)
        scale = (side + OFFSET) / trained  # by scale_factor, as DINOv2's code, not by size
        grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:1], grid[0].flatten(1).T])


class Block(nn.Module):
    """A transformer block: self-attention and an MLP, both residual with pre-norm."""

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
        # (B, T, 3 d) to query, key and value, each (B, heads, T, HEAD_DIM).
        heads = self.qkv(self.norm1(x)).view(batch, count, 3, width // HEAD_DIM, HEAD_DIM).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = x + self.scale1 * self.proj(attended.transpose(1, 2).reshape(batch, count, width))
        hidden = self.fc1(self.norm2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.clip else F.gelu(hidden)
        y: Tensor = x + self.scale2 * self.fc2(hidden)
        return y


def layer_norm(weights: Weights, name: str, eps: float) -> nn.LayerNorm:
    """A layer norm with weights from a file."""
    made = nn.LayerNorm(len(weights[f"{name}.weight"]), eps=eps)
    for part in ("weight", "bias"):
        setattr(made, part, nn.Parameter(weights[f"{name}.{part}"].float(), requires_grad=False))
    return made
