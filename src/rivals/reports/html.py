"""HTML made of elements. Text is escaped unless it is :class:`Html`, so that forgetting does no harm."""

from __future__ import annotations

from html import escape

VOID = {"img", "input"}


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def tag(name: str, *inside: str, **attributes: str | int | None) -> Html:
    """An element. Attributes that are None are left out; ``class_`` is ``class``, ``data_x`` is ``data-x``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" + ("" if name in VOID else f"{join(*inside)}</{name}>"))


def join(*parts: str) -> Html:
    """The parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def table(head: list[str], rows: list[list[str]], class_: str | None = None) -> Html:
    """A table that scrolls sideways where the page is too narrow. The first cell of a row is its heading."""
    lines = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    top = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    whole = tag("table", top, tag("tbody", *lines))
    return tag("div", whole, class_=f"scroll {class_ or ''}".strip(), tabindex=0)


def pairs(entries: dict[str, str], class_: str) -> Html:
    """A list of terms with what they are."""
    rows = [tag("div", tag("dt", key), tag("dd", value)) for key, value in entries.items()]
    return tag("dl", *rows, class_=class_)
