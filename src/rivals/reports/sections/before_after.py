"""A classifier before and after adversarial training: made from ``before_after.json`` and ``before_after.npz``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import numpy.typing as npt

from rivals.base.array_files import IMAGES, INTEGERS, read_arrays
from rivals.base.errors import UserError
from rivals.base.run_folder import Record
from rivals.base.run_schema import Count, Finite
from rivals.base.typed_json import Between
from rivals.reports.formatting import finite, format_count, format_eps, format_interval, format_percent
from rivals.reports.history import FIX, History, get_object, get_objects
from rivals.reports.html import Html, cards, color_legend, join, svg_figure, table, tag
from rivals.reports.plots.robust_accuracy import AccuracyCurve, robust_accuracy_svgs
from rivals.reports.sections.adversarial_examples import data_uri
from rivals.reports.sections.attack import curve_points
from rivals.reports.sections.common import EMPTY, run_legend

Array = npt.NDArray[Any]

SIDES = ("before", "after")
SPREAD = 3  # standard deviations of an input gradient from gray to black or white
NUMBERS, IMAGE_FILE = "before_after.json", "before_after.npz"
ARRAYS = {"x_adv": IMAGES, "input_gradient": IMAGES, "prediction": INTEGERS, "prediction_adv": INTEGERS}
ACCURACY_NOTE = Html("""<p><b>Robust accuracy</b>: the share of images that are classified correctly and for which the
attack finds no adversarial example within eps. Intervals are 95% Wilson intervals. PGD gives an upper bound: a
stronger attack, such as <code>rivals attack</code>, may find lower values.</p>""")
GRADIENT_NOTE = Html("""<p>The gradient of the loss with respect to each pixel. Gray: none; dark and bright: raising the
pixel lowers or raises the loss; each picture is scaled by its own standard deviation. Without adversarial training it
often looks like noise; with it, it follows the shapes (Tsipras et al. 2019).</p>""")


class Share(TypedDict):
    """A share of images, with its interval."""

    value: Annotated[float, Between(0, 1)]
    low: Annotated[float, Between(0, 1)]
    high: Annotated[float, Between(0, 1)]
    count: Count
    of: Count


class Protocol(TypedDict):
    """How the numbers were made."""

    attack: str
    steps: Count
    norm: str
    eps: list[Finite]
    n: Count
    data: str
    split: str


class Side(TypedDict):
    """The numbers of one classifier."""

    side: Literal["before", "after"]
    source: str
    hash: str
    clean: Share
    robust: Share
    curve: list[dict[str, Any]]
    classes: list[dict[str, Any]]


class BeforeAfterFile(TypedDict):
    """``before_after.json``."""

    protocol: Protocol
    sides: list[Side]


@dataclass(frozen=True)
class BeforeAfter:
    """The content of ``before_after.json``.

    Attributes:
        protocol: How the numbers were made.
        sides: The numbers of ``before``, which may be missing, and ``after``.
        arrays: Images, input gradients and predictions by name; None without a file of them.
        classes: Class names.
    """

    protocol: Record
    sides: dict[str, Record]
    arrays: dict[str, Array] | None
    classes: list[str]

    @classmethod
    def read(cls, history: History) -> BeforeAfter | None:
        """The comparison in a run's folder; None if there is none, or it cannot be read."""
        content = history.read_json(NUMBERS, BeforeAfterFile)
        if content is None:
            return None
        found: dict[str, Record] = {entry["side"]: {**entry} for entry in content["sides"]}
        sides = {side: found[side] for side in SIDES if side in found}
        classes = history.section("data").get("classes", [])
        if "after" not in sides:
            return None
        arrays = history.read_part(IMAGE_FILE, lambda path: read_pictures(path, sides))
        return cls({**content["protocol"]}, sides, arrays, classes)

    @cached_property
    def eps(self) -> str:
        """The largest eps."""
        radii = self.protocol.get("eps")
        largest = finite(radii[-1]) if isinstance(radii, list) and radii else None
        return "?" if largest is None else format_eps(largest)

    @property
    def has_both(self) -> bool:
        """Whether there is a classifier to compare with."""
        return len(self.sides) > 1

    def class_name(self, label: int) -> str:
        """The name of a class."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def sections(history: History, prefix: str = "") -> list[tuple[str, Html]]:
    """The sections of an adversarially trained classifier; none for other runs.

    Args:
        history: The run.
        prefix: Of the ids in its figures, so that they differ from those of other runs on the page.
    """
    found = BeforeAfter.read(history)
    if found is None:
        return []
    title = "Robust accuracy before and after" if found.has_both else "Robust accuracy"
    return [
        (title, join(key_figures(found), accuracy_curve(found, prefix), ACCURACY_NOTE)),
        ("Adversarial examples", examples(found)),
        ("Input gradients", input_gradients(found)),
        ("Classes", classes(found)),
    ]


def key_figures(found: BeforeAfter) -> Html:
    """Clean and robust accuracy of each side."""
    return cards(
        (f"{term}, {side}" if found.has_both else term, format_percent(share), format_interval(share))
        for term, key in (("Clean accuracy", "clean"), (f"PGD accuracy at eps {found.eps}", "robust"))
        for side, numbers in found.sides.items()
        for share in [get_object(numbers, key)]
    )


def accuracy_curve(found: BeforeAfter, prefix: str) -> Html:
    """Robust accuracy against eps, both sides in one figure, and as a table."""
    protocol, norm = found.protocol, str(found.protocol.get("norm", ""))
    curves = [AccuracyCurve(side, norm, curve_points(numbers)) for side, numbers in found.sides.items()]
    svgs = robust_accuracy_svgs(curves, prefix)
    if svgs is None:
        return EMPTY
    rows = [
        [format_eps(points[0][0]), *(f"{100 * value:.1f}%" for _, value, *_ in points)]
        for points in zip(*(curve.points for curve in curves), strict=False)
    ]
    note = (
        f"{format_count(protocol.get('n'))} images of {protocol.get('data', '?')} ({protocol.get('split', '?')}), PGD "
        f"with {format_count(protocol.get('steps'))} steps in {norm}"
    )
    note += "; both classifiers on the same images." if found.has_both else "."
    return join(
        color_legend(run_legend([curve.name for curve in curves])) if found.has_both else "",
        svg_figure(*svgs),
        table(["eps", *(curve.name if found.has_both else "accuracy" for curve in curves)], rows, "numbers all short"),
        tag("p", note, class_="muted"),
    )


def examples(found: BeforeAfter) -> Html:
    """A column per image: clean, and attacked on each side, with the predictions."""
    arrays = found.arrays
    if arrays is None:
        return EMPTY
    labels = arrays["label"].tolist()
    clean = [
        _cell(image, found.class_name(label), f"A {found.class_name(label)}")
        for image, label in zip(arrays["x"], labels, strict=True)
    ]
    rows = [tag("tr", tag("th", "Clean", scope="row"), *clean)]
    for side in found.sides:
        cells = []
        predictions = zip(arrays[f"{side}_prediction"].tolist(), arrays[f"{side}_prediction_adv"].tolist(), strict=True)
        for image, label, (prediction, prediction_adv) in zip(
            arrays[f"{side}_x_adv"], labels, predictions, strict=True
        ):
            name, predicted = found.class_name(label), found.class_name(prediction_adv)
            clean_error = "" if prediction == label else f" (clean: {found.class_name(prediction)})"
            caption = f"{predicted}, robust" if prediction_adv == label else f"→ {predicted}{clean_error}"
            cells.append(_cell(image, caption, f"{name}, attacked: predicted {predicted}"))
        title = side.capitalize() if found.has_both else "Attacked"
        rows.append(tag("tr", tag("th", title, scope="row"), *cells))
    note = (
        f"Test images, the first of each class, attacked within eps {found.eps}; below each the prediction, and the "
        "clean prediction where it is wrong already."
    )
    return join(_picture_table(rows), tag("p", note, class_="muted"))


def input_gradients(found: BeforeAfter) -> Html:
    """The gradient of the loss with respect to the same images, for each side."""
    arrays = found.arrays
    if arrays is None:
        return EMPTY
    labels = arrays["label"].tolist()
    rows = []
    for side in found.sides:
        cells = []
        for gradient, label in zip(arrays[f"{side}_input_gradient"], labels, strict=True):
            deviation = float(gradient.std()) or 1.0
            image = 0.5 + gradient / (2 * SPREAD * deviation)
            cells.append(_cell(image, "", f"Input gradient at a {found.class_name(label)}, {side}"))
        rows.append(tag("tr", tag("th", side.capitalize(), scope="row"), *cells))
    return join(_picture_table(rows), tag("div", GRADIENT_NOTE, class_="muted"))


def classes(found: BeforeAfter) -> Html:
    """Clean and robust accuracy of each class, on each side."""
    by_class: dict[str, dict[str, Record]] = {
        side: {str(entry.get("class", "")): entry for entry in get_objects(numbers, "classes")}
        for side, numbers in found.sides.items()
    }
    head = ["class", "images"]
    head += [f"{what}, {side}" if found.has_both else what for what in ("clean", "robust") for side in by_class]
    rows = []
    for name, entry in by_class["after"].items():
        shares = [get_object(by_class[side].get(name, {}), key) for key in ("clean", "robust") for side in by_class]
        rows.append([name, format_count(get_object(entry, "clean").get("of")), *map(format_percent, shares)])
    note = f"Robust: under PGD within eps {found.eps}. With so few images per class these are rough."
    return join(table(head, rows, "numbers all"), tag("p", note, class_="muted")) if rows else EMPTY


def read_pictures(path: Path, sides: Iterable[str]) -> dict[str, Array]:
    """The arrays of ``before_after.npz``.

    Raises:
        UserError: one is missing or does not fit.
    """
    columns = {f"{side}_{name}": column for side in sides for name, column in ARRAYS.items()}
    arrays = read_arrays(path, {"x": IMAGES, "label": INTEGERS, **columns}, FIX)
    x = arrays["x"]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(f"'{path}' holds no images but arrays of shape {x.shape}: {FIX}")
    for name, column in columns.items():
        if column is IMAGES and arrays[name].shape != x.shape:
            raise UserError(f"'{path}' is damaged: its array '{name}' is of another shape than the images: {FIX}")
    return arrays


def _cell(image: Array, caption: str, alt: str) -> Html:
    picture = tag("img", src=data_uri(image), alt=alt, width=96, height=96)
    return tag("td", picture, tag("small", caption) if caption else "")


def _picture_table(rows: list[Html]) -> Html:
    return tag("div", tag("table", tag("tbody", *rows)), class_="scroll examples", tabindex=0)
