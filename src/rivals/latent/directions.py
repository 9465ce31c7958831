"""Directions in latent space along which what is drawn changes in one respect: by PCA, and in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.latent.drawing import Drawing

SAMPLES = 4096  # latents whose activations PCA looks at
BATCH = 256


@dataclass(frozen=True)
class Directions:
    """Directions in latent space, the strongest first.

    Attributes:
        vectors: Unit vectors (count, latent).
        strengths: How much each moves what is looked at, (count,): singular values, or standard deviations.
    """

    vectors: Tensor
    strengths: Tensor


def sefa(generator: Drawing, count: int = 6) -> Directions:
    """Semantic factorisation (Shen & Zhou 2021, eq. 8): right singular vectors of the first layer that reads latents.

    That layer is linear, ``A z + b``, so unit steps along these change its output the most. ``A`` is read off by
    passing the unit vectors, whatever kind of layer it is.

    Args:
        generator: Whose directions; in evaluation mode.
        count: How many, at most its ``latent``.

    Raises:
        UserError: there are not so many.
    """
    _check(generator, count)
    like = next(iter(generator.parameters()))
    basis = torch.eye(generator.latent, device=like.device, dtype=like.dtype)
    origin = _activations(generator, torch.zeros_like(basis[:1]), 0)
    matrix = (_activations(generator, basis, 0) - origin).flatten(1).T
    _, strengths, vectors = torch.linalg.svd(matrix.double(), full_matrices=False)
    return Directions(_signed(vectors[:count]).to(like.dtype), strengths[:count].to(like.dtype))


def pca(generator: Drawing, count: int = 6, *, depth: int = 1, samples: int = SAMPLES, seed: int = 0) -> Directions:
    """Principal components of a layer's activations, carried back to latents by regression (GANSpace, Härkönen et al.
    2020, sec. 2.2: ``U = argmin sum ||U x_j - z_j||^2`` over the components' coordinates x).

    Args:
        generator: Whose directions; in evaluation mode.
        count: How many.
        depth: Which of the layers with weights that depend on the latent: 0 the first, then onwards.
        samples: Latents to look at.
        seed: Of those.

    Raises:
        UserError: there are not so many directions or layers, or too few samples.
    """
    _check(generator, count)
    if samples < 2 * count:
        raise UserError(f"{samples} samples cannot tell {count} directions apart: take {2 * count} or more")
    z = generator.latents(samples, seed)
    seen = torch.cat([_activations(generator, block, depth).flatten(1) for block in torch.split(z, BATCH)]).double()
    centred = seen - seen.mean(0)
    # Only the leading components are wanted, and a layer may have more entries than there are samples.
    left, deviations, _ = torch.linalg.svd(centred @ _sketch(centred, count, seed), full_matrices=False)
    inner = left.T @ centred
    turned, deviations, _ = torch.linalg.svd(inner, full_matrices=False)
    coordinates = (left @ turned[:, :count]) * deviations[:count]
    back = torch.linalg.lstsq(coordinates, z.double()).solution
    vectors = back / back.norm(dim=1, keepdim=True).clamp_min(1e-12)
    spread = deviations[:count] / (samples - 1) ** 0.5
    return Directions(_signed(vectors).to(z.dtype), spread.to(z.dtype))


def _sketch(matrix: Tensor, count: int, seed: int) -> Tensor:
    """Columns (entries, k) that all but span the leading right singular vectors (Halko et al. 2011, alg. 4.4)."""
    generator = torch.Generator().manual_seed(seed)
    width = min(count + 10, *matrix.shape)
    columns = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype).to(matrix.device)
    for _ in range(4):
        columns = torch.linalg.qr(matrix.T @ (matrix @ columns)).Q
    return columns


def _signed(vectors: Tensor) -> Tensor:
    """The same vectors, each with its largest entry above 0, so that a run gives the same ones again."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


class _Reached(Exception):
    """The wanted layer has answered; nothing past it is needed."""


@torch.no_grad()
def _activations(generator: Drawing, z: Tensor, depth: int) -> Tensor:
    """What the ``depth``-th layer with weights that depends on the latent answers to latents (n, latent)."""
    layers = _layers(generator)
    if not 0 <= depth < len(layers):
        raise UserError(f"there is no layer {depth} in this generator: take 0 to {len(layers) - 1}")
    caught: list[Tensor] = []

    def catch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        caught.append(output)
        raise _Reached

    handle = layers[depth].register_forward_hook(catch)
    try:
        generator(z, _first_class(generator, z))
    except _Reached:
        pass
    finally:
        handle.remove()
    return caught[0]


def _layers(generator: Drawing) -> list[nn.Module]:
    """The layers with weights of their own whose output depends on the latent, in the order in which they answer."""
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            found.append(module)

    learning = [weight for weight in generator.parameters() if weight.requires_grad]
    handles = [part.register_forward_hook(note) for part in generator.modules() if [*part.parameters(recurse=False)]]
    try:
        for weight in learning:  # then an output asks for gradients only if the latent reaches it
            weight.requires_grad_(False)
        with torch.enable_grad():
            z = generator.latents(2).requires_grad_()
            generator(z, _first_class(generator, z))
    finally:
        for weight in learning:
            weight.requires_grad_(True)
        for handle in handles:
            handle.remove()
    return found


def _first_class(generator: Drawing, z: Tensor) -> Tensor | None:
    return torch.zeros(len(z), dtype=torch.long, device=z.device) if generator.classes else None


def _check(generator: Drawing, count: int) -> None:
    if not 1 <= count <= generator.latent:
        raise UserError(f"{count} directions cannot be had of a latent of {generator.latent}: ask for 1 to that many")
