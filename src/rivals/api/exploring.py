"""``explore``: walks, classes, directions and the way back, for any trained generator, as pictures and films."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivals.api.networks import FRAMES, class_of, drawn, generator_of, home_of, interpolate
from rivals.base.errors import UserError
from rivals.base.files import write_atomically

if TYPE_CHECKING:
    from rivals.latent.directions import Directions
    from rivals.nets.generator import Generator

STEPS = 7  # pictures along a direction
ROWS = 8  # latents that classes and directions are shown on, at most
KNOBS: dict[str, Any] = {
    **{"truncation": 1.0, "label": None, "way": "sphere", "count": 6},
    **{"reach": 3.0, "depth": 1, "starts": 8, "steps": 300},
}
READ = {  # which of them each look has a use for
    "walk": ("truncation", "label", "way"),
    "classes": ("truncation",),
    "sefa": ("truncation", "label", "count", "reach"),
    "pca": ("truncation", "label", "count", "reach", "depth"),
    "invert": ("label", "starts", "steps"),
}


def explore(
    run: str,
    what: Literal["walk", "classes", "sefa", "pca", "invert"] = "walk",
    *,
    images: str | None = None,
    n: int = 8,
    seed: int = 0,
    truncation: float | None = None,
    label: str | None = None,
    way: Literal["sphere", "line"] | None = None,
    count: int | None = None,
    reach: float | None = None,
    depth: int | None = None,
    starts: int | None = None,
    steps: int | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Look around in a generator's latent space.

    Args:
        run: A run folder, or a generator's .safetensors file.
        what: walk, a film from image to image; classes, each latent as every class; sefa or pca, directions along which
            one thing changes; invert, latents from which given images are drawn.
        images: A folder or a zip of pictures (invert only), of which the central square is taken.
        n: How many latents, or images at most.
        seed: Which latents; the first of them are the same for every n.
        truncation: Below 1 keeps latents closer to the mean: less varied, often cleaner; 1 if none is given.
        label: Draw this class alone, by name or number (conditional generators).
        way: Of a walk: along the sphere on which normal latents lie (the default), or in a straight line.
        count: How many directions; 6 if none is given.
        reach: How far a direction is followed to both sides, in standard deviations of the latent; 3 if none is given.
        depth: The layer whose activations pca looks at, 0 for the first; 1 if none is given.
        starts: Searches for each image (invert only); 8 if none is given.
        steps: Of each search; 300 if none is given.
        out: Folder to write into; RUN/explore-WHAT-SEED if none is given.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.

    Returns:
        What was written and found.

    Raises:
        UserError: something the user can fix; no file is written over.
    """
    if (images is not None) != (what == "invert"):
        raise UserError("invert needs --images PATH, a folder or zip of pictures, and nothing else takes it")
    asked: dict[str, Any] = {
        **{"truncation": truncation, "label": label, "way": way, "count": count},
        **{"reach": reach, "depth": depth, "starts": starts, "steps": steps},
    }
    said = {name: value for name, value in asked.items() if value is not None}
    if idle := [name for name in said if name not in READ[what]]:
        raise UserError(f"--{idle[0]} has no meaning for {what}: leave it out")
    knobs = {name: said.get(name, KNOBS[name]) for name in READ[what]}
    if n < 1:
        raise UserError(f"{n} latents show nothing: ask for 1 or more")
    generator = generator_of(run, device=device)
    folder = out or home_of(run) / f"explore-{what}-{seed}"
    if folder.exists():
        raise UserError(f"'{folder}' exists already: remove it or choose another with --out")
    if "label" in knobs:
        knobs["kind"] = None if label is None else class_of(generator, knobs["label"])
        del knobs["label"]
    facts: dict[str, Any]
    if what == "walk":
        facts = _walk(generator, folder, n, seed, **knobs)
    elif what == "classes":
        facts = _classes(generator, folder, n, seed, **knobs)
    elif what == "invert":
        facts = _invert(generator, folder, str(images), n, seed, **knobs)
    else:
        found = _found(generator, knobs.pop("count"), knobs.pop("depth", None), seed)
        facts = _directions(generator, folder, found, n, seed, **knobs)
    return {"folder": str(folder), "files": sorted(path.name for path in folder.iterdir()), **facts}


def _kinds(generator: Generator, n: int, kind: int | None) -> list[int]:
    """A class for each of n latents: the one asked for, or all in turn."""
    return [i % max(generator.classes, 1) if kind is None else kind for i in range(n)]


def _walk(
    generator: Generator, folder: Path, n: int, seed: int, *, truncation: float, kind: int | None, way: str
) -> dict[str, Any]:
    from rivals.reports import sheet

    frames = interpolate(generator, n, seed, truncation, _kinds(generator, n, kind), way)
    sheet.save_gif([sheet.grid(frame[None]) for frame in frames], folder / "walk.gif")
    sheet.save_png(sheet.grid(frames[:: FRAMES // 4], columns=4 * min(n, 2)), folder / "walk.png")
    return {"frames": len(frames)}


def _classes(generator: Generator, folder: Path, n: int, seed: int, *, truncation: float) -> dict[str, Any]:
    from rivals.reports import sheet

    if not generator.classes:
        raise UserError("this generator knows no classes to go through: train it with --conditional")
    rows, columns = min(n, ROWS), generator.classes
    z = generator.latents(rows, seed, truncation).repeat_interleave(columns, 0)
    sheet.save_png(
        sheet.grid(drawn(generator, z, list(range(columns)) * rows), columns=columns), folder / "classes.png"
    )
    return {"latents": rows, "classes": columns}


def _found(generator: Generator, count: int, depth: int | None, seed: int) -> Directions:
    from rivals.latent.directions import pca, sefa

    return sefa(generator, count) if depth is None else pca(generator, count, depth=depth, seed=seed)


def _directions(
    generator: Generator,
    folder: Path,
    found: Directions,
    n: int,
    seed: int,
    *,
    truncation: float,
    kind: int | None,
    reach: float,
) -> dict[str, Any]:
    import torch
    from safetensors.torch import save

    from rivals.reports import sheet

    rows = min(n, ROWS)
    corners, kinds = generator.latents(rows, seed, truncation), _kinds(generator, rows, kind)
    along = torch.linspace(-reach, reach, STEPS).to(corners)
    for place, vector in enumerate(found.vectors):
        z = (corners[:, None] + along[:, None] * vector).flatten(0, 1)
        images = drawn(generator, z, [each for each in kinds for _ in range(STEPS)])
        sheet.save_png(sheet.grid(images, columns=STEPS), folder / f"direction-{place}.png")
    kept = {"vectors": found.vectors.cpu().contiguous(), "strengths": found.strengths.cpu().contiguous()}
    write_atomically(folder / "directions.safetensors", save(kept))
    return {"strengths": [round(float(each), 4) for each in found.strengths]}


def _invert(
    generator: Generator, folder: Path, source: str, n: int, seed: int, *, kind: int | None, starts: int, steps: int
) -> dict[str, Any]:
    import numpy as np
    import torch
    from safetensors.torch import save

    from rivals.data.load import load as load_images
    from rivals.latent.inversion import invert
    from rivals.reports import sheet

    real = torch.from_numpy(load_images(source, size=generator.size, crop=True).images[:n])
    if real.shape[1] != generator.channels:
        raise UserError(
            f"'{source}' has {real.shape[1]} channels and the generator draws {generator.channels}: give pictures alike"
        )
    kinds, device = _kinds(generator, len(real), kind), next(generator.parameters()).device
    labels = torch.tensor(kinds, device=device) if generator.classes else None
    found = invert(generator, real.to(device) / 255, labels=labels, starts=starts, steps=steps, seed=seed)
    pairs = np.stack([real.numpy(), drawn(generator, found.latents, kinds)], 1).reshape(-1, *real.shape[1:])
    sheet.save_png(sheet.grid(pairs, columns=2 * min(len(real), 4)), folder / "inverted.png")
    write_atomically(folder / "latents.safetensors", save({"latents": found.latents.cpu().contiguous()}))
    return {"errors": [round(float(each), 4) for each in found.errors]}
