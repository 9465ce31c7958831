"""Passes of an extractor over images, one block at a time. Features of real images are cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rivals.api.scoring.class_shares import class_counts, classes_by_share
from rivals.base.errors import UserError
from rivals.base.files import expand_user, make_folder
from rivals.base.hashing import arrays_hash, weights_hash
from rivals.base.numerics import numerics
from rivals.base.process_group import ALONE, ProcessGroup
from rivals.base.registry import unknown
from rivals.base.rng import generator as seeded
from rivals.base.size import Size
from rivals.base.tensor_files import DamagedFile, load_tensors, save_tensors
from rivals.data import decode_cache
from rivals.data.cache_folder import cache_folder
from rivals.data.imageset import ImageSet
from rivals.extractors.base import Extractor
from rivals.extractors.classifier_features import open_classifier
from rivals.extractors.inception import PUBLISHED
from rivals.extractors.registry import EXTRACTORS
from rivals.extractors.weights import MissingWeights
from rivals.metrics.feature_set import FeatureSet, feature_set

if TYPE_CHECKING:
    from rivals.nets.generator import Generator

BLOCK = 256  # images at a time: a multiple of an extractor's own batch
GENERATED = 64  # images of one pass of a generator
FORMAT = 2  # of the cache; another number invalidates it

Show = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Source:
    """Images to extract features from.

    Attributes:
        about: Their entries in a protocol: name, split, hash of content or weights, n, size, and a seed if generated.
        n: How many there are.
        block: Those from ``BLOCK`` times its argument on, uint8 (B, C, H, W), with B = ``BLOCK`` but for the last.
        indices: Which image of its set each is (n,); None for generated ones.
    """

    about: dict[str, Any]
    n: int
    block: Callable[[int], Tensor]
    indices: npt.NDArray[np.int64] | None = None

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.n // BLOCK)


def of_set(images: ImageSet, n: int | None) -> Source:
    """The first ``n`` images, or all, of one permutation that depends on the number of images alone.

    Files are often sorted by class, so the first ones in their own order would be of a few classes.
    """
    count = len(images) if n is None else min(n, len(images))
    order = torch.randperm(len(images), generator=seeded("score", len(images)))[:count]
    indices = order.sort().values.numpy()  # in the order of the disk: a large set is a memory map

    def block(number: int) -> Tensor:
        first = number * BLOCK
        return torch.from_numpy(np.ascontiguousarray(images.images[indices[first : first + BLOCK]]))

    about = {"name": images.name, "split": images.split, "hash": images.hash, "n": count, "of": len(images)}
    return Source(about | {"size": images.size.written, "channels": images.channels}, count, block, indices)


def of_generator(generator: Generator, n: int, seed: int, name: str, real: ImageSet) -> Source:
    """``n`` generated images. Classes, if there are any, have their shares in the ``real`` images to compare with.

    Image i depends on the seed, the shares and i alone, whatever n is: every pass generates ``GENERATED`` images.
    """
    latents = generator.latents(n, seed)
    filled = torch.cat([latents, latents.new_zeros(-n % GENERATED, latents.shape[1])])
    classes, how = None, None
    if generator.classes:
        counts, how = class_counts(generator, real)
        even = np.ones(generator.classes, np.int64)
        classes = torch.from_numpy(classes_by_share(len(filled), even if counts is None else counts))

    def block(number: int) -> Tensor:
        first, parts = number * BLOCK, []
        for start in range(first, min(first + BLOCK, len(filled)), GENERATED):
            labels = None if classes is None else classes[start : start + GENERATED]
            parts.append(generator.generate(filled[start : start + GENERATED], labels))
        return torch.cat(parts)[: n - first]

    about = {"name": name, "split": "generated", "hash": weights_hash(generator), "n": n, "of": n, "seed": seed}
    about["classes"] = how
    return Source(about | {"size": generator.size.written, "channels": generator.channels}, n, block)


def of_tensor(images: Tensor, name: str = "tensor") -> Source:
    """Images in memory, uint8 (n, C, H, W), in their order.

    Raises:
        UserError: there are none, or they have another type or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise UserError(
            f"images of type {images.dtype} and shape {tuple(images.shape)} cannot be scored: give uint8 (n, C, H, W), "
            "C 1, 3 or 4, one or more"
        )
    plain = images.detach().cpu().contiguous()
    about = {
        "name": name,
        "split": "all",
        "hash": arrays_hash(plain.shape, plain.numpy()),
        "n": len(plain),
        "of": len(plain),
    }
    about |= {"size": Size(*plain.shape[2:]).written, "channels": plain.shape[1]}
    return Source(about, len(plain), lambda number: plain[number * BLOCK : (number + 1) * BLOCK])


def resolve_extractor(name: str) -> str:
    """The extractor that ``auto`` selects: inception where its weights are found, else lite0. Other names are kept."""
    if name != "auto":
        return name
    try:
        PUBLISHED.find(None)
    except MissingWeights:
        return "lite0"
    return "inception"


def find_extractor(text: str, device: torch.device) -> Extractor:
    """An extractor: its name, ``NAME:PATH`` with its file of weights, or ``classifier:RUN``.

    Raises:
        MissingWeights: its weights are not on this machine.
        UserError: there is no such extractor, or its file holds something else.
    """
    from rivals.api.common.network_io import load

    name, colon, rest = text.partition(":")
    path = expand_user(rest) if colon and rest else None
    if name == "classifier":
        if path is None:
            raise UserError("the extractor 'classifier' needs a network: write classifier:RUN")
        file = path / "classifier.safetensors"
        net: Any = load(file if file.exists() else path)
        if net.spec.get("role") != "classifier":
            raise UserError(f"'{path}' holds a {net.spec.get('role')}: name a run of 'rivals classify'")
        return open_classifier(net, size=net.size, channels=net.channels).to(device)
    if name not in EXTRACTORS:
        raise unknown("extractor", name, [*EXTRACTORS, "classifier", "auto"])
    return EXTRACTORS[name](path).to(device)


def extract_features(
    extractor: Extractor,
    source: Source,
    *,
    logits: bool,
    what: str,
    show: Show,
    processes: ProcessGroup = ALONE,
) -> FeatureSet:
    """One pass of an extractor over images: their features, moments and, with ``logits``, logits.

    Several processes share the blocks of images; only the first one gets the moments.

    Raises:
        UserError: the images do not fit the extractor.
    """

    def extract(number: int) -> list[Tensor]:
        output = extractor.extract(source.block(number))
        show(what, min((number + 1) * BLOCK, source.n), source.n)
        return [output.features] if output.logits is None or not logits else [output.features, output.logits]

    show(what, 0, source.n)
    features, *more = (torch.cat(parts) for parts in zip(*processes.compute(source.n_blocks, extract), strict=True))
    return feature_set(features, more[0] if more else None, processes)


def cached_real_features(
    extractor: Extractor, source: Source, *, what: str, show: Show, processes: ProcessGroup = ALONE
) -> FeatureSet:
    """As :func:`extract_features`, without logits, cached by the images, the extractor, its resize rule and numerics.

    If the cache cannot be written, nothing is cached. Of several processes the first one reads and writes it; what the
    others get has no moments, and no features if they were cached.
    """
    identity = (
        *(FORMAT, source.about["hash"], source.n, extractor.name, extractor.hash, extractor.resize),
        # Features of another kind of device, or by other kernels, are not those that the protocol tells of.
        *(extractor.device.type, numerics(extractor.device)),
    )
    path = folder() / f"{decode_cache.key(*identity)}.safetensors"
    cached = _read(path) if processes.first else None
    if processes.share(cached is not None and cached.n == source.n):
        return FeatureSet(torch.zeros(0, extractor.dim), None, ()) if cached is None else cached
    passed = extract_features(extractor, source, logits=False, what=what, show=show, processes=processes)
    if not processes.first:
        return passed
    computed = FeatureSet.of(passed.tensors())  # in one part
    try:
        make_folder(path.parent, parents=True)
        save_tensors(path, computed.tensors(), {"about": source.about})
    except UserError:
        path.unlink(missing_ok=True)
    return computed


def folder() -> Path:
    """The cache of real features, next to the decoded images. It may be deleted at any time."""
    return cache_folder() / "features"


def _read(path: Path) -> FeatureSet | None:
    try:
        return FeatureSet.of(load_tensors(path)[0])
    except (DamagedFile, KeyError):
        return None  # absent or damaged: computed again
