"""Before and after a hardening, side by side: the sections made of ``comparison.json`` and ``comparison.npz``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from rivals.reports.accuracy import Line, both_svgs
from rivals.reports.curves import RUNS, VARIABLES
from rivals.reports.examples import data_uri
from rivals.reports.history import History, number
from rivals.reports.markup import Html, join, pairs, table, tag
from rivals.reports.robustness import entry, interval, listed, percent, radius
from rivals.reports.run import Record
from rivals.reports.words import count

Array = npt.NDArray[Any]

NOTHING = Html()
SIDES = ("before", "after")
SPREAD = 3  # standard deviations of a slope from grey to black or white
STANDS = Html("""<p>An image <b>stands</b> if the classifier is right about it and the attack finds no image in the ball
around it that is taken for something else. Bands and brackets are 95 % intervals (Wilson). PGD finds an upper bound: a
stronger attack, as <code>rivals attack</code> has it, may find a little less standing.</p>""")
SLOPES = Html("""<p>How the loss changes with each pixel. Grey is no change; dark and bright push the loss down and up,
each picture scaled by its own spread. A plain classifier often leans on specks that mean nothing to the eye,
one that was hardened more on the shapes themselves (Tsipras et al. 2019).</p>""")


@dataclass(frozen=True)
class Comparison:
    """What a run tells of its classifier before and after.

    Attributes:
        protocol: How the numbers were made.
        sides: For each side, ``before`` (which may be missing) and ``after``, its numbers.
        folder: Where the pictures are.
        classes: Names.
    """

    protocol: Record
    sides: dict[str, Record]
    folder: Path
    classes: list[str]

    @classmethod
    def of(cls, history: History) -> Comparison | None:
        """The comparison in a run's folder; None if there is none that can be understood."""
        try:
            told = json.loads((history.folder / "comparison.json").read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(told, dict):
            return None
        found = {str(each.get("side")): each for each in listed(told, "sides")}
        sides = {side: found[side] for side in SIDES if side in found}
        names = history.part("data").get("classes")
        classes = [str(name) for name in names] if isinstance(names, list) else []
        return cls(entry(told, "protocol"), sides, history.folder, classes) if "after" in sides else None

    @cached_property
    def eps(self) -> str:
        """The ball's eps as one writes it."""
        radii = self.protocol.get("eps")
        largest = number(radii[-1]) if isinstance(radii, list) and radii else None
        return "?" if largest is None else radius(largest)

    def called(self, label: int) -> str:
        """The name of a class."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def sections(history: History, prefix: str = "") -> list[tuple[str, Html]]:
    """The sections of a hardened classifier; none for other runs. ``prefix`` sets its ids apart from other runs'."""
    found = Comparison.of(history)
    if found is None:
        return []
    both = "before" in found.sides
    return [
        ("Before and after" if both else "Under attack", join(cards(found), curve(found, prefix), STANDS)),
        ("The same images under the same attack" if both else "Images under attack", examples(found)),
        ("What each looks at" if both else "What it looks at", slopes(found)),
        ("Classes", classes(found)),
    ]


def cards(found: Comparison) -> Html:
    """The two numbers that matter, of each side."""
    told = {}
    for term, key in (("Clean accuracy", "clean"), (f"Under PGD at eps {found.eps}", "robust")):
        for side, numbers in found.sides.items():
            share = entry(numbers, key)
            named = f"{term}, {side}" if len(found.sides) > 1 else term
            told[named] = join(percent(share), tag("small", interval(share)))
    return pairs(dict(told), "facts")


def curve(found: Comparison, prefix: str) -> Html:
    """Accuracy against eps, all sides in one figure, and as a table."""
    norm = str(found.protocol.get("norm", ""))
    lines = []
    for side, numbers in found.sides.items():
        values = [
            [number(each.get(key)) for key in ("eps", "value", "low", "high")] for each in listed(numbers, "curve")
        ]
        points = [
            (a, b, c, d) for a, b, c, d in values if a is not None and b is not None and c is not None and d is not None
        ]
        lines.append(Line(side, norm, points))
    drawn = both_svgs(lines, prefix)
    if drawn is None:
        return NOTHING
    wide, narrow = (tag("div", Html(svg), class_=kind) for svg, kind in zip(drawn, ("wide", "narrow"), strict=True))
    swatches = [
        tag("li", tag("i", style=f"background: {VARIABLES[RUNS[place]]}"), line.name)
        for place, line in enumerate(lines)
    ]
    rows = [
        [radius(points[0][0]), *(f"{100 * point[1]:.1f} %" for point in points)]
        for points in zip(*(line.points for line in lines), strict=False)
    ]
    protocol = found.protocol
    note = (
        f"{count(protocol.get('n'))} images of {protocol.get('data', '?')} ({protocol.get('split', '?')}), PGD of "
        f"{count(protocol.get('steps'))} steps, in {norm}; both classifiers met the same images."
    )
    return join(
        tag("ul", *swatches, class_="swatches") if len(lines) > 1 else "",
        tag("figure", wide, narrow, class_="curves"),
        table(["eps", *(f"stand, {line.name}" for line in lines)], rows, "numbers all shares"),
        tag("p", note, class_="quiet"),
    )


def examples(found: Comparison) -> Html:
    """One image a column: as it is, and what the attack made of it against each side."""
    pictures = _pictures(found)
    if pictures is None:
        return NOTHING
    labels = pictures["label"].tolist()
    clean = [
        _cell(image, found.called(label), f"A {found.called(label)}")
        for image, label in zip(pictures["x"], labels, strict=True)
    ]
    rows = [tag("tr", tag("th", "Clean", scope="row"), *clean)]
    for side in found.sides:
        clean_said, said = (pictures[f"{side}_{key}"].tolist() for key in ("said", "said_adv"))
        cells = [
            _cell(
                image,
                f"{found.called(answer)}, stands"
                if answer == label
                else f"→ {found.called(answer)}{'' if before == label else ', as it is'}",
                f"{found.called(label)}, attacked: taken for {found.called(answer)}",
            )
            for image, label, before, answer in zip(pictures[f"{side}_x_adv"], labels, clean_said, said, strict=True)
        ]
        rows.append(
            tag("tr", tag("th", side.capitalize() if len(found.sides) > 1 else "Attacked", scope="row"), *cells)
        )
    note = (
        f"Test images, the first of each class, attacked within eps {found.eps}; below each what the classifier sees. "
        "What it has wrong as it is needs no attack."
    )
    return join(_grid(rows), tag("p", note, class_="quiet"))


def slopes(found: Comparison) -> Html:
    """The same images' gradients of the loss, of each side."""
    pictures = _pictures(found)
    if pictures is None:
        return NOTHING
    labels = pictures["label"].tolist()
    rows = []
    for side in found.sides:
        cells = []
        for slope, label in zip(pictures[f"{side}_slope"], labels, strict=True):
            spread = float(slope.std()) or 1.0
            shown = 0.5 + slope / (2 * SPREAD * spread)
            cells.append(_cell(shown, "", f"Slope of the loss at a {found.called(label)}, {side}"))
        rows.append(tag("tr", tag("th", side.capitalize(), scope="row"), *cells))
    return join(_grid(rows), tag("div", SLOPES, class_="quiet"))


def classes(found: Comparison) -> Html:
    """Each class, clean and under attack, on each side."""
    own: dict[str, dict[str, Record]] = {
        side: {str(each.get("class", "")): each for each in listed(numbers, "classes")}
        for side, numbers in found.sides.items()
    }
    many = len(found.sides) > 1
    head = ["class", "images", *(f"{what}, {side}" if many else what for what in ("clean", "attacked") for side in own)]
    rows = []
    for name, last in own["after"].items():
        shares = [entry(own[side].get(name, {}), key) for key in ("clean", "robust") for side in own]
        rows.append([name, count(entry(last, "clean").get("of")), *map(percent, shares)])
    note = f"Attacked: PGD within eps {found.eps}. With so few images of each class these are rough."
    return join(table(head, rows, "numbers all"), tag("p", note, class_="quiet")) if rows else NOTHING


def _pictures(found: Comparison) -> dict[str, Array] | None:
    """The arrays of ``comparison.npz``, if all are there and fit together."""
    keys = ["x", "label", *(f"{side}_{key}" for side in found.sides for key in ("x_adv", "slope", "said", "said_adv"))]
    try:
        with np.load(found.folder / "comparison.npz", allow_pickle=False) as file:
            kept: dict[str, Array] = {key: file[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    x = kept["x"]
    alike = all(values.shape == x.shape for key, values in kept.items() if key.endswith(("x_adv", "slope")))
    long = all(len(values) == len(x) for values in kept.values())
    return kept if x.ndim == 4 and x.shape[1] in (1, 3) and alike and long else None


def _cell(image: Array, told: str, alt: str) -> Html:
    picture = tag("img", src=data_uri(image), alt=alt, width=96, height=96)
    return tag("td", picture, tag("small", told) if told else "")


def _grid(rows: list[Html]) -> Html:
    return tag("div", tag("table", tag("tbody", *rows)), class_="scroll examples", tabindex=0)
