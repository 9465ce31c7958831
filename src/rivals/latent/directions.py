"""Interpretable directions in latent space: SeFa and GANSpace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.latent.protocol import LatentGenerator

SAMPLES = 4096  # latents for PCA
BATCH = 256
MOST_ENTRIES = 2**28  # of the activations of all latents: 2 GB in float64


@dataclass(frozen=True)
class Directions:
    """Directions in latent space, the strongest first.

    Attributes:
        vectors: Unit vectors (count, latent_dim).
        strengths: Singular values (SeFa) or standard deviations (PCA), (count,).
    """

    vectors: Tensor
    strengths: Tensor


def sefa(generator: LatentGenerator, count: int = 6) -> Directions:
    """SeFa (Shen & Zhou 2021, eq. 8): right singular vectors of the first layer that the latent enters.

    That layer is affine, ``A z + b``, so unit steps along these directions change its output the most. ``A`` is
    evaluated on the standard basis, so that any kind of layer works.

    Args:
        generator: In evaluation mode.
        count: Number of directions, at most ``latent_dim``.

    Raises:
        UserError: ``count`` is out of range.
    """
    _check(generator, count)
    like = next(iter(generator.parameters()))
    basis = torch.eye(generator.latent_dim, device=like.device, dtype=like.dtype)
    # A's column i is f(e_i) - f(0), which removes the bias b.
    origin = _activations(generator, torch.zeros_like(basis[:1]), 0, 0)
    matrix = (_activations(generator, basis, 0, 0) - origin).flatten(1).T
    _, strengths, vectors = torch.linalg.svd(matrix.cpu().double(), full_matrices=False)  # MPS has no float64
    return Directions(_signed(vectors[:count]).to(like), strengths[:count].to(like))


def pca(
    generator: LatentGenerator,
    count: int = 6,
    *,
    depth: int = 1,
    samples: int = SAMPLES,
    seed: int = 0,
    label: int = 0,
) -> Directions:
    """GANSpace (Härkönen et al. 2020, sec. 2.2): principal components of a layer's activations, regressed to latents.

    The regression is ``U = argmin sum_j ||U x_j - z_j||^2`` over the PCA coordinates x_j of latents z_j.

    Args:
        generator: In evaluation mode.
        count: Number of directions.
        depth: Index of the layer among those with weights that depend on the latent, from 0.
        samples: Number of latents; fewer where the activations of so many do not fit into 2 GB.
        seed: Of the latents.
        label: The class of the images, for a conditional generator.

    Raises:
        UserError: ``count`` or ``depth`` is out of range, or there are too few samples.
    """
    _check(generator, count)
    if samples < 2 * count:
        raise UserError(f"{samples} samples cannot tell {count} directions apart: take {2 * count} or more")
    z = generator.latents(samples, seed)
    entries = _activations(generator, z[:1], depth, label).numel()
    z = z[: max(MOST_ENTRIES // entries, 2 * count)]
    centered = torch.empty(len(z), entries, dtype=torch.float64)
    for rows, block in zip(torch.split(centered, BATCH), torch.split(z, BATCH), strict=True):
        rows.copy_(_activations(generator, block, depth, label).flatten(1).cpu())
    centered -= centered.mean(0)
    # Randomized SVD: only the leading components are needed, and a layer may have more entries than samples.
    left, deviations, _ = torch.linalg.svd(centered @ _sketch(centered, count, seed), full_matrices=False)
    inner = left.T @ centered
    rotation, deviations, _ = torch.linalg.svd(inner, full_matrices=False)
    coordinates = (left @ rotation[:, :count]) * deviations[:count]
    # Eq. of sec. 2.2: latents as a linear function of the PCA coordinates.
    regressed = torch.linalg.lstsq(coordinates, z.cpu().double()).solution
    vectors = regressed / regressed.norm(dim=1, keepdim=True).clamp_min(1e-12)
    spread = deviations[:count] / (len(z) - 1) ** 0.5
    return Directions(_signed(vectors).to(z), spread.to(z))


def _sketch(matrix: Tensor, count: int, seed: int) -> Tensor:
    """Columns (entries, k) that nearly span the leading right singular vectors (Halko et al. 2011, alg. 4.4)."""
    generator = torch.Generator().manual_seed(seed)
    width = min(count + 10, *matrix.shape)
    columns = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype)
    # Subspace iterations, orthonormalized for stability.
    for _ in range(4):
        columns = torch.linalg.qr(matrix.T @ (matrix @ columns)).Q
    return columns


def _signed(vectors: Tensor) -> Tensor:
    """The vectors with signs fixed so that the largest entry is positive."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


class _StopForward(Exception):
    """Ends a forward pass after the requested layer."""


@torch.no_grad()
def _activations(generator: LatentGenerator, z: Tensor, depth: int, label: int) -> Tensor:
    """Output of the ``depth``-th layer that depends on the latent, for latents (n, latent_dim)."""
    layers = _layers(generator)
    if not 0 <= depth < len(layers):
        raise UserError(f"there is no layer {depth} in this generator: take 0 to {len(layers) - 1}")
    outputs: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs.append(output)
        raise _StopForward

    handle = layers[depth].register_forward_hook(hook)
    try:
        generator(z, _of_class(generator, z, label))
    except _StopForward:
        pass
    finally:
        handle.remove()
    return outputs[0]


def _layers(generator: LatentGenerator) -> list[nn.Module]:
    """The layers with parameters whose output depends on the latent, in the order of execution."""
    found: list[nn.Module] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            found.append(module)

    trainable = [weight for weight in generator.parameters() if weight.requires_grad]
    handles = [part.register_forward_hook(record) for part in generator.modules() if [*part.parameters(recurse=False)]]
    try:
        for weight in trainable:  # so that an output requires grad only if it depends on the latent
            weight.requires_grad_(False)
        with torch.enable_grad():
            z = generator.latents(2).requires_grad_()
            generator(z, _of_class(generator, z, 0))
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
        for handle in handles:
            handle.remove()
    return found


def _of_class(generator: LatentGenerator, z: Tensor, label: int) -> Tensor | None:
    return torch.full((len(z),), label, device=z.device) if generator.classes else None


def _check(generator: LatentGenerator, count: int) -> None:
    if not 1 <= count <= generator.latent_dim:
        raise UserError(f"a latent of {generator.latent_dim} does not have {count} directions: ask for 1 to that many")
