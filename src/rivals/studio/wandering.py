"""The tab of the latent space: one place in it, the way to another, and directions to leave it by."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.reports.markup import Html, join
from rivals.studio.pictures import calm, shown, spoken, uri
from rivals.studio.shelf import Shelf

if TYPE_CHECKING:
    from rivals.latent.directions import Directions

DIRECTIONS = 4  # sliders
STEPS = 7  # pictures of the way
KINDS = ("closed form", "PCA")
MANY = 16  # other latents beside


@spoken
def place(
    shelf: Shelf,
    name: str | None,
    seed: float,
    other: float,
    way: float,
    truncation: float,
    label: str | None,
    kind: str,
    amounts: Sequence[float],
) -> Html:
    """What a generator draws at a place, on the way there, and beside it.

    Args:
        shelf: Where the generator is.
        name: Its name there.
        seed: Which latent to begin from.
        other: Which latent to go to.
        way: How far between the two, from 0 to 1, along the sphere.
        truncation: Below 1 is closer to the mean.
        label: The class, by its name, where the generator has classes.
        kind: closed form (SeFa) or PCA: how the directions are found.
        amounts: How far to go along each, in standard deviations of the latent.
    """
    if not name:
        return calm("There is no finished generator here yet: a run of 'train' leaves one when it ends.")
    import torch

    from rivals.api.networks import drawn
    from rivals.latent.paths import slerp
    from rivals.reports import sheet

    generator = shelf.network(name, "generator")
    corner, goal = (generator.latents(1, _whole(each, "seed"), truncation) for each in (seed, other))
    aside = torch.zeros_like(corner)
    if any(amounts):
        found = directions(generator, kind)
        for vector, amount in zip(found.vectors, amounts, strict=False):
            aside = aside + amount * vector.to(aside)
    here = slerp(corner, goal, torch.tensor([[way]]).to(corner)) + aside
    path = slerp(corner, goal, torch.linspace(0, 1, STEPS)[:, None].to(corner)) + aside
    beside = generator.latents(MANY, _whole(seed, "seed"), truncation) + aside
    chosen = number_of(generator, label)
    one = sheet.grid(drawn(generator, here, [chosen]), scale=max(1, 256 // generator.size))
    line = sheet.grid(drawn(generator, path, [chosen] * STEPS), columns=STEPS)
    kinds = [i % generator.classes for i in range(MANY)] if generator.classes and not label else [chosen] * MANY
    many = sheet.grid(drawn(generator, beside, kinds), columns=8)
    title = f"seed {seed:.0f}" + (f", {100 * way:.0f} % of the way to seed {other:.0f}" if way else "")
    file = f"latent-{seed:.0f}-{other:.0f}"
    return join(
        shown(uri(one), f"the image at {title}", f"The image at {title}.", f"{file}.png"),
        shown(uri(line), "the way", f"The way from seed {seed:.0f} to seed {other:.0f}.", f"{file}-way.png"),
        shown(uri(many), "others", f"The first {MANY} latents of seed {seed:.0f}, moved alike.", f"{file}-others.png"),
    )


def _whole(value: float | None, what: str) -> int:
    if value is None or value != int(value) or not 0 <= value < 2**31:
        raise UserError(f"a {what} of {value} is none: give a whole number from 0")
    return int(value)


def classes_of(shelf: Shelf, name: str | None) -> list[str]:
    """The names of the classes a generator draws on demand; none if it knows no classes."""
    if not name:
        return []
    try:
        generator = shelf.network(name, "generator")
    except UserError:
        return []
    return (generator.about.get("classes") or [str(i) for i in range(generator.classes)]) if generator.classes else []


def number_of(generator: Any, label: str | None) -> int:
    """The number of a class by its name; 0 if none is chosen."""
    from rivals.api.networks import class_of

    return class_of(generator, label) if label and generator.classes else 0


@lru_cache(maxsize=8)
def directions(generator: Any, kind: str) -> Directions:
    """A generator's directions, found once."""
    from rivals.latent.directions import pca, sefa

    if kind not in KINDS:
        raise UserError(f"'{kind}' finds no directions: choose {' or '.join(KINDS)}")
    count = min(DIRECTIONS, generator.latent)
    return sefa(generator, count) if kind == KINDS[0] else pca(generator, count)
