"""HTML elements. Text is escaped unless it is :class:`Html`, so that a forgotten escape is harmless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

VOID = {"img", "input"}


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | int | None) -> Html:
    """An element. Attributes that are None are left out; ``class_`` is ``class``, ``data_x`` is ``data-x``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>" + ("" if name in VOID else f"{join(*children)}</{name}>"))


def join(*parts: str) -> Html:
    """The parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def table(head: list[str], rows: list[list[str]], class_: str | None = None) -> Html:
    """A table that scrolls sideways on a narrow page. The first cell of a row is its heading."""
    lines = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    top = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    return tag("div", tag("table", top, tag("tbody", *lines)), class_=f"scroll {class_ or ''}".strip(), tabindex=0)


def definitions(entries: Mapping[str, str], class_: str) -> Html:
    """A list of terms and their values."""
    rows = [tag("div", tag("dt", term), tag("dd", value)) for term, value in entries.items()]
    return tag("dl", *rows, class_=class_)


def cards(entries: Iterable[tuple[str, str, str]]) -> Html:
    """Key figures as cards: (term, value, a note in small print)."""
    return definitions(
        {term: join(value, tag("small", note) if note else "") for term, value, note in entries}, "cards"
    )


def color_legend(entries: Iterable[tuple[str, str]]) -> Html:
    """A legend of (CSS color, name)."""
    swatches = [tag("li", tag("i", style=f"background: {color}"), name) for color, name in entries]
    return tag("ul", *swatches, class_="legend") if swatches else Html()


def svg_figure(wide: str, narrow: str, class_: str = "curves") -> Html:
    """A figure in two layouts, of which the style sheet shows the one that fits the window."""
    return tag(
        "figure", tag("div", Html(wide), class_="wide"), tag("div", Html(narrow), class_="narrow"), class_=class_
    )


def run_id(index: int) -> str:
    """The anchor of a run on a page of several."""
    return f"run-{index}"


def run_link(name: str, index: int) -> Html:
    """A link to a run on the same page."""
    return tag("a", name, href=f"#{run_id(index)}")
