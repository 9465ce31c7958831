"""The tab of the latent space: one latent, the path to another, and directions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.reports.html import Html, join
from rivals.studio.html_parts import errors_as_notices, notice, picture_figure
from rivals.studio.run_store import RunStore

if TYPE_CHECKING:
    from rivals.latent.directions import Directions

N_DIRECTIONS = 4
N_PATH = 7  # images on the path
N_OTHERS = 16  # other latents that are moved along
METHODS = ("closed form", "PCA")  # SeFa, GANSpace
SIDE = 280  # pixels of the page for the single image, at most, if its own pixels are fewer


@dataclass(frozen=True)
class LatentControls:
    """The controls of the tab.

    Attributes:
        seed: Of the latent.
        other_seed: Of the latent to interpolate to.
        position: On the spherical path between the two, from 0 to 1.
        truncation: Below 1 is closer to the mean.
        label: Name of the class, if the generator has classes; empty for all in turn.
        method: How the directions are found: closed form or PCA.
        amounts: Steps along the directions, in standard deviations of the latent.
    """

    seed: float
    other_seed: float
    position: float
    truncation: float
    label: str | None
    method: str
    amounts: tuple[float, ...]


@errors_as_notices
def latent_images(store: RunStore, name: str | None, controls: LatentControls) -> Html:
    """The image of a latent, the path to another, and other latents of the seed, all moved along the directions."""
    if not name:
        return notice("There is no finished generator yet: a run of 'train' writes one when it ends.")
    import torch

    from rivals.api.common.network_io import generate_blocks
    from rivals.latent.interpolation import slerp
    from rivals.reports.image_grid import make_grid

    generator = store.network(name, "generator")
    seeds = (_whole_number(each, "seed") for each in (controls.seed, controls.other_seed))
    start, goal = (generator.latents(1, seed, controls.truncation) for seed in seeds)
    offset = torch.zeros_like(start)
    if any(controls.amounts):
        found = find_directions(generator, controls.method)
        for vector, amount in zip(found.vectors, controls.amounts, strict=False):
            offset = offset + amount * vector.to(offset)
    latent = slerp(start, goal, torch.tensor([[controls.position]]).to(start)) + offset
    path = slerp(start, goal, torch.linspace(0, 1, N_PATH)[:, None].to(start)) + offset
    others = generator.latents(N_OTHERS, int(controls.seed), controls.truncation) + offset
    index = class_index(generator, controls.label)
    all_classes = generator.classes and not controls.label
    labels = [i % generator.classes for i in range(N_OTHERS)] if all_classes else [index] * N_OTHERS
    image = make_grid(generate_blocks(generator, latent, [index]), gap=1, scale=1)
    path_grid = make_grid(generate_blocks(generator, path, [index] * N_PATH), N_PATH, gap=1, scale=1)
    others_grid = make_grid(generate_blocks(generator, others, labels), 8, gap=1, scale=1)

    seed, other = f"seed {controls.seed:.0f}", f"seed {controls.other_seed:.0f}"
    at = seed + (f", {100 * controls.position:.0f}% of the way to {other}" if controls.position else "")
    file, n = f"latent-{controls.seed:.0f}-{controls.other_seed:.0f}", f"The first {N_OTHERS} latents of {seed}"
    return join(
        picture_figure(image, f"the image of {at}", f"The image of {at}.", f"{file}.png", SIDE),
        picture_figure(path_grid, "the path", f"The path from {seed} to {other}.", f"{file}-path.png"),
        picture_figure(others_grid, "others", f"{n}, with the same offset.", f"{file}-others.png"),
    )


def _whole_number(value: float | None, what: str) -> int:
    if value is None or value != int(value) or not 0 <= value < 2**31:
        raise UserError(f"the {what} {value} is invalid: give a whole number from 0")
    return int(value)


def class_names(store: RunStore, name: str | None) -> list[str]:
    """The class names of a conditional generator; none for others."""
    if not name:
        return []
    try:
        generator = store.network(name, "generator")
    except UserError:
        return []
    return (generator.about.get("classes") or [str(i) for i in range(generator.classes)]) if generator.classes else []


def class_index(generator: Any, label: str | None) -> int:
    """The index of a class by its name; 0 if none is chosen."""
    from rivals.api.common.network_io import class_of

    return class_of(generator, label) if label and generator.classes else 0


@lru_cache(maxsize=8)
def find_directions(generator: Any, method: str) -> Directions:
    """A generator's directions, computed once.

    Raises:
        UserError: there is no such method.
    """
    from rivals.latent.directions import pca, sefa

    if method not in METHODS:
        raise UserError(f"'{method}' is not a way to find directions: choose {' or '.join(METHODS)}")
    n = min(N_DIRECTIONS, generator.latent_dim)
    return sefa(generator, n) if method == METHODS[0] else pca(generator, n)
