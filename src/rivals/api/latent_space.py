"""``explore``: interpolation, classes, directions and inversion for any trained generator, as images and animations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivals.api.common.network_io import (
    FRAMES,
    class_of,
    generate_blocks,
    generator_of,
    home_of,
    interpolate,
)
from rivals.base.errors import UserError
from rivals.base.files import whole_folder, write_atomically
from rivals.base.registry import unknown
from rivals.recipes.options import ExploreConfig, SampleConfig

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.latent.directions import Directions
    from rivals.nets.generator import Generator

STEPS = 7  # images along a direction
ROWS = 8  # latents that classes and directions are shown on, at most
DEFAULTS: dict[str, Any] = {"truncation": 1.0, "interpolation": "sphere", "count": 6, "reach": 3.0, "depth": 1}
DEFAULTS |= {"starts": 8, "steps": 300}
USED = {  # the options that each command takes, besides n and seed
    "walk": ("truncation", "label", "interpolation"),
    "classes": ("truncation",),
    "sefa": ("truncation", "label", "count", "reach"),
    "pca": ("truncation", "label", "count", "reach", "depth"),
    "invert": ("label", "images", "skip_bad", "starts", "steps"),
}


def explore(
    run: str,
    what: Literal["walk", "classes", "sefa", "pca", "invert"] = "walk",
    *,
    out: Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Explore the latent space of a generator.

    Args:
        run: A run folder, or a generator's .safetensors file.
        what: walk, an animation from image to image; classes, each latent as every class; sefa or pca, directions along
            which one attribute changes; invert, latents that reproduce given images.
        out: Folder to write into; RUN/explore-WHAT-SEED by default.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        **settings: Any field of :class:`rivals.recipes.ExploreConfig`, such as ``truncation=0.7``.

    Returns:
        What was written and found.

    Raises:
        UserError: bad input, in one line; no file is written over.
    """
    config = ExploreConfig().changed(**settings)
    if what not in USED:
        raise unknown("exploration", what, USED)
    if (config.images is not None) != (what == "invert"):
        raise UserError("invert needs --images PATH, a folder or zip of pictures, and nothing else takes it")
    for name, value in vars(config).items():
        if name not in ("n", "seed", *USED[what]) and value is not None and value is not False:
            raise UserError(f"--{name.replace('_', '-')} has no meaning for {what}: leave it out")
    if config.n < 1:
        raise UserError(f"{config.n} latents show nothing: ask for 1 or more")
    config = config.changed(**{name: value for name, value in DEFAULTS.items() if getattr(config, name) is None})
    generator = generator_of(run, device=device)
    folder = Path(out) if out else home_of(run) / f"explore-{what}-{config.seed}"
    if folder.exists():
        raise UserError(f"'{folder}' exists already: remove it or choose another with --out")
    label = None if config.label is None else class_of(generator, config.label)
    functions: dict[str, Callable[[Generator, Path, ExploreConfig, int | None], dict[str, Any]]] = {
        "walk": _walk,
        "classes": _classes,
        "sefa": _sefa,
        "pca": _pca,
        "invert": _invert,
    }
    with whole_folder(folder) as place:
        facts = functions[what](generator, place, config, label)
        files = sorted(path.name for path in place.iterdir())
    return {"folder": str(folder), "files": files, **facts}


def _labels(generator: Generator, n: int, label: int | None) -> list[int]:
    """A class for each of n latents: the one given, or all in turn."""
    return [i % max(generator.classes, 1) if label is None else label for i in range(n)]


def _own_labels(generator: Generator, images: ImageSet, n: int, label: int | None) -> list[int]:
    """The class that each of the first n images is inverted with: the one given, or its own.

    Raises:
        UserError: the images have no classes of the generator.
    """
    if not generator.classes or label is not None:
        return _labels(generator, n, label)
    from rivals.data.classes import match_classes

    names = generator.about.get("classes") or [str(i) for i in range(generator.classes)]
    fix = "put them into one subfolder per class, or name the class of all by --label"
    if images.labels is None:
        raise UserError(f"'{images.name}' has no classes, and the generator has: {fix}")
    matched = match_classes(images, names, "the generator", lambda note: None, fix)
    assert matched.labels is not None
    return [int(each) for each in matched.labels[:n]]


def _latents(generator: Generator, n: int, config: ExploreConfig) -> Any:
    assert config.truncation is not None
    return generator.latents(n, config.seed, config.truncation)


def _walk(generator: Generator, folder: Path, config: ExploreConfig, label: int | None) -> dict[str, Any]:
    from rivals.reports import image_grid

    n, truncation, interpolation = config.n, config.truncation, config.interpolation
    assert truncation is not None and interpolation is not None
    path = SampleConfig(n=n, seed=config.seed, truncation=truncation)
    frames = interpolate(generator, path, _labels(generator, n, label), interpolation)
    image_grid.save_animation([image_grid.make_grid(frame[None]) for frame in frames], folder / "walk.gif")
    image_grid.save_png(image_grid.make_grid(frames[:: FRAMES // 4], columns=4 * min(n, 2)), folder / "walk.png")
    return {"frames": len(frames)}


def _classes(generator: Generator, folder: Path, config: ExploreConfig, label: int | None) -> dict[str, Any]:
    from rivals.reports import image_grid

    if not generator.classes:
        raise UserError("this generator is unconditional, so there are no classes to show: train it with --conditional")
    rows, columns = min(config.n, ROWS), generator.classes
    z = _latents(generator, rows, config).repeat_interleave(columns, 0)
    images = generate_blocks(generator, z, list(range(columns)) * rows)
    image_grid.save_png(image_grid.make_grid(images, columns=columns), folder / "classes.png")
    return {"latents": rows, "classes": columns}


def _sefa(generator: Generator, folder: Path, config: ExploreConfig, label: int | None) -> dict[str, Any]:
    from rivals.latent.directions import sefa

    assert config.count is not None
    return _directions(generator, folder, config, label, sefa(generator, config.count))


def _pca(generator: Generator, folder: Path, config: ExploreConfig, label: int | None) -> dict[str, Any]:
    from rivals.latent.directions import pca

    assert config.count is not None and config.depth is not None
    found = pca(generator, config.count, depth=config.depth, seed=config.seed, label=label or 0)
    return _directions(generator, folder, config, label, found)


def _directions(
    generator: Generator, folder: Path, config: ExploreConfig, label: int | None, found: Directions
) -> dict[str, Any]:
    """Images along directions, one grid for each: a row per latent."""
    import torch
    from safetensors.torch import save

    from rivals.reports import image_grid

    assert config.reach is not None
    rows = min(config.n, ROWS)
    origins, labels = _latents(generator, rows, config), _labels(generator, rows, label)
    offsets = torch.linspace(-config.reach, config.reach, STEPS).to(origins)
    for i, vector in enumerate(found.vectors):
        z = (origins[:, None] + offsets[:, None] * vector).flatten(0, 1)
        images = generate_blocks(generator, z, [each for each in labels for _ in range(STEPS)])
        image_grid.save_png(image_grid.make_grid(images, columns=STEPS), folder / f"direction-{i}.png")
    tensors = {"vectors": found.vectors.cpu().contiguous(), "strengths": found.strengths.cpu().contiguous()}
    write_atomically(folder / "directions.safetensors", save(tensors))
    return {"strengths": [round(float(each), 4) for each in found.strengths]}


def _invert(generator: Generator, folder: Path, config: ExploreConfig, label: int | None) -> dict[str, Any]:
    import numpy as np
    import torch
    from safetensors.torch import save

    from rivals.data.load import load as load_images
    from rivals.latent.inversion import invert
    from rivals.reports import image_grid

    assert config.images is not None and config.starts is not None and config.steps is not None
    white = generator.about.get("white")
    read = load_images(config.images, size=generator.size, crop=True, skip_bad=config.skip_bad, white=white)
    real = torch.from_numpy(read.images[: config.n])
    if real.shape[1] != generator.channels:
        raise UserError(
            f"'{config.images}' has {real.shape[1]} channels and the generator makes {generator.channels}: give images "
            "with as many"
        )
    numbers, device = _own_labels(generator, read, len(real), label), next(generator.parameters()).device
    labels = torch.tensor(numbers, device=device) if generator.classes else None
    options: dict[str, Any] = {"starts": config.starts, "steps": config.steps, "seed": config.seed}
    found = invert(generator, real.to(device) / 255, labels=labels, **options)
    made = generate_blocks(generator, found.latents, numbers)
    pairs = np.stack([real.numpy(), made], 1).reshape(-1, *real.shape[1:])
    image_grid.save_png(image_grid.make_grid(pairs, columns=2 * min(len(real), 4)), folder / "inverted.png")
    write_atomically(folder / "latents.safetensors", save({"latents": found.latents.cpu().contiguous()}))
    return {"errors": [round(float(each), 4) for each in found.errors]}
