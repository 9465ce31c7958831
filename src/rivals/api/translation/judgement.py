"""How good a translator is, on images that it was not trained on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.run_folder import Record

if TYPE_CHECKING:
    from rivals.api.translation.image_pairs import ImagePairs
    from rivals.extractors.base import Extractor
    from rivals.extractors.lpips import LPIPS

BLOCK = 64  # images at a time
MOST_PIXELS = 64 * 128 * 128  # of the targets of a block: larger images in smaller blocks
WINDOW = 11  # of SSIM: smaller images have none

Show = Callable[[str, int, int], None]
Translate = Callable[[Tensor], Tensor]
"""Inputs (B, C, h, w) in [0, 1] to images (B, C', H, W) in [0, 1]."""


def block_of(pairs: ImagePairs) -> int:
    """How many images to translate at a time."""
    return max(1, min(BLOCK, MOST_PIXELS // pairs.targets.size.area))


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, as a file would hold them."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def bicubic(pairs: ImagePairs) -> Translate:
    """What enlarging without a network gives: the baseline."""
    from rivals.nets.translator import enlarged

    return lambda x: enlarged(x, pairs.scale).clamp(0, 1)


def find_judge(name: str, device: torch.device) -> tuple[Extractor | None, str]:
    """The extractor of distances, or none and why."""
    from rivals.api.scoring.feature_passes import find_extractor, resolve_extractor
    from rivals.extractors.weights import MissingWeights

    try:
        return find_extractor(resolve_extractor(name), device), ""
    except MissingWeights as error:
        return None, f"no distances by features: {error}"


@torch.no_grad()
def judge(
    sides: dict[str, Translate],
    pairs: ImagePairs,
    *,
    n: int,
    device: torch.device,
    extractor: Extractor | None,
    lpips: LPIPS | None = None,
    show: Show = lambda what, done, total: None,
) -> dict[str, Record]:
    """Judge translators on the first ``n`` pairs, after rounding to 8 bits.

    Args:
        sides: The translators by name, in evaluation mode.
        pairs: Held-out images.
        n: How many, at most.
        device: Where to work.
        extractor: Of the perceptual distance ``PD`` (:meth:`~rivals.extractors.feature_maps.FeatureMaps.distance`) and
            the Fréchet distance ``FD`` between what comes out and the targets; None for neither.
        lpips: LPIPS, if its weights are there.
        show: Called with the progress.

    Returns:
        For each side the means over images: with pairs ``psnr`` in dB, ``ssim`` (images of 11 px and more),
        ``PD-EXTRACTOR`` and ``LPIPS``; without ``structure-EXTRACTOR`` of outputs and their inputs
        (:func:`~rivals.metrics.self_similarity.structure`); and ``FD-EXTRACTOR``.
    """
    from rivals.extractors.feature_maps import FeatureMaps, distance_between
    from rivals.metrics.frechet import frechet_of
    from rivals.metrics.image_quality import psnr, ssim
    from rivals.metrics.self_similarity import structure

    n = min(n, len(pairs), len(pairs.targets))
    maps = None
    if extractor is not None:
        try:
            maps = FeatureMaps(extractor)
        except UserError:  # a transformer
            maps = None
    values: dict[str, dict[str, list[Tensor]]] = {name: {} for name in sides}
    features: dict[str, list[Tensor]] = {name: [] for name in (*sides, "")}
    block = block_of(pairs)
    for first in range(0, n, block):
        last = min(n, first + block)
        x, y = pairs.x(first, last, device), pairs.y(first, last, device)
        if extractor is not None:
            features[""].append(extractor(to_bytes(y)))
        maps_beside = [] if maps is None else maps(y if pairs.paired else x)
        for name, translate in sides.items():
            output = to_bytes(translate(x))
            found, near = values[name], output.float() / 255
            if pairs.paired:
                found.setdefault("psnr", []).append(psnr(near, y))
                if min(y.shape[2:]) >= WINDOW:
                    found.setdefault("ssim", []).append(ssim(near, y))
                if maps is not None:
                    found.setdefault(f"PD-{maps.name}", []).append(distance_between(maps(near), maps_beside))
                if lpips is not None:
                    found.setdefault("LPIPS", []).append(lpips(near, y))
            elif maps is not None:
                found.setdefault(f"structure-{maps.name}", []).append(structure(maps(near), maps_beside))
            if extractor is not None:
                features[name].append(extractor(output))
        show("judging", last, n)
    results: dict[str, Record] = {
        name: {key: round(float(torch.cat(each).cpu().double().mean()), 6) for key, each in found.items()}
        for name, found in values.items()
    }
    if extractor is not None:
        real = torch.cat(features[""])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few images: the number is stated beside the value
            for name in sides:
                results[name][f"FD-{extractor.name}"] = round(frechet_of(real, torch.cat(features[name])), 4)
    return results


def described(results: dict[str, Record], n: int) -> str:
    """The results in a line: of the translator, and of the baseline in parentheses."""
    own = results["translator"]
    others = [(name, values) for name, values in results.items() if name != "translator"]
    parts = []
    for key, value in own.items():
        beside = "".join(f" ({name} {values[key]:.4g})" for name, values in others if key in values)
        parts.append(f"{LABELS.get(key, key)} {value:.4g}{' dB' if key == 'psnr' else ''}{beside}")
    return f"on {n:,} held-out images: " + ", ".join(parts) if parts else "nothing could be measured"


LABELS: dict[str, Any] = {"psnr": "PSNR", "ssim": "SSIM"}
