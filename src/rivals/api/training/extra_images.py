"""Extra labeled images for adversarial training: from a folder, a zip or a conditional generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rivals.api.common.network_io import load
from rivals.base.errors import UserError

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.recipes import DataOptions

GENERATED = 50_000  # images, by a generator


def load_extra(source: str, images: ImageSet, options: DataOptions) -> ImageSet:
    """Labeled images of the same size and classes as ``images``, read with the same options.

    Raises:
        UserError: they have no classes, or other ones, or another size.
    """
    from rivals.data.classes import match_classes
    from rivals.data.load import load as load_images
    from rivals.data.load import to_stderr

    path = Path(source)
    from_generator = (path / "run.json").exists() or path.suffix == ".safetensors"
    extra = _generated(source) if from_generator else load_images(source, **options.written())
    if extra.labels is None:
        raise UserError(f"the extra images '{source}' have no classes: put them into one subfolder per class")
    if extra.images.shape[1:] != images.images.shape[1:]:
        theirs, own = ("x".join(map(str, each.images.shape[1:])) for each in (extra, images))
        raise UserError(f"the extra images '{source}' are {theirs} and the run's {own}: give images of the same size")
    return match_classes(extra, images.classes, "the run", to_stderr)


def _generated(source: str) -> ImageSet:
    import numpy as np

    from rivals.data.imageset import ImageSet

    generator = load(source)
    if not getattr(generator, "classes", 0) or not hasattr(generator, "sample"):
        raise UserError(
            f"'{source}' is not a conditional generator, which extra images need: train it with --conditional"
        )
    labels = np.arange(GENERATED, dtype=np.int64) % generator.classes
    names = tuple(generator.about.get("classes") or map(str, range(generator.classes)))
    pixels = generator.sample(GENERATED, seed=0, labels=labels.tolist()).numpy()
    return ImageSet(Path(source).stem, "generated", pixels, labels, names)
