"""The images that are compared, a block at a time, and what an extractor sees in them; of real ones it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.base.registry import unknown
from rivals.base.seeds import generator as seeded
from rivals.data import cache
from rivals.data.imageset import ImageSet
from rivals.extractors.catalogue import EXTRACTORS
from rivals.extractors.extractor import Extractor, fingerprint
from rivals.extractors.inception import PUBLISHED
from rivals.extractors.penultimate import open_classifier
from rivals.extractors.weights import Missing
from rivals.metrics.fidelity import FOLDS, View, Viewing

if TYPE_CHECKING:
    from rivals.nets.generator import Generator

BLOCK = 256  # images at a time: a multiple of an extractor's own batch
DRAWN = 64  # images of one pass of a generator
FORMAT = 1  # of what is kept; another number forgets all of it

Show = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Source:
    """Images to be looked at.

    Attributes:
        about: What a record says of them: name, split, content or weights as a hash, n, size, and a seed if drawn.
        n: How many there are.
        blocks: Gives them, uint8 (B, C, H, W), B being ``BLOCK`` but for the last.
        places: Which image of its set each is, (n,); None for drawn ones.
    """

    about: dict[str, Any]
    n: int
    blocks: Callable[[], Iterator[Tensor]]
    places: npt.NDArray[np.int64] | None = None


def of_set(images: ImageSet, n: int | None) -> Source:
    """The first ``n`` images, or all, of one permutation that depends on the number of images alone.

    Files are often sorted by class, so the first ones as they come would be of a few classes.
    """
    count = len(images) if n is None else min(n, len(images))
    order = torch.randperm(len(images), generator=seeded("score", len(images)))[:count]
    places = order.sort().values.numpy()  # in the order of the disk: a large set is a memory map

    def blocks() -> Iterator[Tensor]:
        for first in range(0, count, BLOCK):
            yield torch.from_numpy(np.ascontiguousarray(images.images[places[first : first + BLOCK]]))

    about = {"name": images.name, "split": images.split, "hash": images.hash, "n": count, "of": len(images)}
    return Source(about | {"size": images.size, "channels": images.channels}, count, blocks, places)


def of_generator(generator: Generator, n: int, seed: int, name: str) -> Source:
    """``n`` images that a generator draws. Classes, if it has any, take turns, so that all are equally many.

    Image i depends on the seed and on i alone, whatever n is: every pass draws ``DRAWN`` images.
    """
    latents = generator.latents(n, seed)
    filled = torch.cat([latents, latents.new_zeros(-n % DRAWN, latents.shape[1])])
    classes = torch.arange(len(filled)) % generator.classes if generator.classes else None

    def blocks() -> Iterator[Tensor]:
        for first in range(0, n, BLOCK):
            drawn = []
            for start in range(first, min(first + BLOCK, len(filled)), DRAWN):
                labels = None if classes is None else classes[start : start + DRAWN]
                drawn.append(generator.draw(filled[start : start + DRAWN], labels))
            yield torch.cat(drawn)[: n - first]

    about = {"name": name, "split": "generated", "hash": fingerprint(generator), "n": n, "of": n, "seed": seed}
    if generator.classes:
        about["classes"] = "in turn"
    return Source(about | {"size": generator.size, "channels": generator.channels}, n, blocks)


def of_tensor(images: Tensor, name: str = "tensor") -> Source:
    """Images at hand, uint8 (n, C, H, W), in their order.

    Raises:
        UserError: there are none, or they are of another type or form.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise UserError(
            f"images of type {images.dtype} and shape {tuple(images.shape)} cannot be scored: give uint8 (n, C, H, W), "
            "C 1, 3 or 4, one or more"
        )
    plain = images.detach().cpu().contiguous()
    digest = hashlib.blake2b(repr(tuple(plain.shape)).encode(), digest_size=8)
    for some in torch.split(plain, BLOCK):
        digest.update(some.numpy().data)
    about = {"name": name, "split": "all", "hash": digest.hexdigest(), "n": len(plain), "of": len(plain)}
    about |= {"size": plain.shape[3], "channels": plain.shape[1]}
    return Source(about, len(plain), lambda: iter(torch.split(plain, BLOCK)))


def settled(asked: str) -> str:
    """What ``auto`` stands for here: inception where its weights are, else lite0. Other names stay."""
    if asked != "auto":
        return asked
    try:
        PUBLISHED.find(None)
    except Missing:
        return "lite0"
    return "inception"


def find_extractor(asked: str, device: torch.device) -> Extractor:
    """The extractor that is meant: its name, ``NAME:PATH`` with its file of weights, or ``classifier:RUN``.

    Raises:
        Missing: its weights are not on this machine.
        UserError: there is no such extractor, or its file holds something else.
    """
    from rivals.api.networks import load

    name, colon, rest = asked.partition(":")
    path = Path(rest).expanduser() if colon and rest else None
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


def look(extractor: Extractor, source: Source, *, logits: bool, what: str, show: Show, folds: int = FOLDS) -> View:
    """One pass of an extractor over images: their features, moments and, if asked for, logits.

    Raises:
        UserError: the images do not fit the extractor.
    """
    viewing, done = Viewing(folds), 0
    show(what, 0, source.n)
    for block in source.blocks():
        seen = extractor.look(block)
        viewing.add(seen.features, seen.logits if logits else None)
        done += len(block)
        show(what, done, source.n)
    return viewing.view()


def look_at_real(extractor: Extractor, source: Source, *, what: str, show: Show) -> View:
    """As :func:`look`, without logits, but kept under the images, the extractor and its resize rule, for the next time.

    What cannot be kept is not; that is no reason to stop.
    """
    identity = (FORMAT, source.about["hash"], source.n, extractor.name, extractor.hash, extractor.resize)
    name = cache.key(f"{source.about['name']}-{extractor.name}", *identity)
    path = folder() / f"{name}.safetensors"
    kept = _read(path)
    if kept is not None and kept.n == source.n:
        return kept
    view = look(extractor, source, logits=False, what=what, show=show, folds=1)
    try:
        write_atomically(path, save(view.tensors(), {"about": json.dumps(source.about)}))
    except UserError:
        path.unlink(missing_ok=True)
    return view


def folder() -> Path:
    """Where features of real images lie: beside the decoded images. It may be deleted at any time."""
    return cache.folder().parent / "features"


def _read(path: Path) -> View | None:
    try:
        with safe_open(path, "pt") as file:
            return View.of({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None  # absent or damaged: made again
