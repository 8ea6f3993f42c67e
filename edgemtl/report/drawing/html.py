"""Markup that is escaped unless it was built here: a hostile name can reach the page only as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["ALL_BUT_FIRST", "NONE", "Child", "Markup", "element", "join", "table"]


class Markup(str):
    """Text that is markup already: made by `element` and `join`, or a constant of this package, never from a file."""

    __slots__ = ()


Child = str | Markup | None | Iterable["Child"]
ALL_BUT_FIRST, NONE = range(1, 1000), range(0)
_VOID = frozenset({"meta", "img", "br", "hr"})


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """One element. Children that are no `Markup` are escaped, and so is every attribute; None is left out.

    `class_` is the attribute class, and an underscore inside a name a hyphen (`stroke_width`, `aria_label`).
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other, each escaped unless it is `Markup`."""
    return Markup("".join(map(_text, children)))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    return escape(child) if isinstance(child, str) else join(child)


def table(
    head: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    numbers: range = ALL_BUT_FIRST,
    marked: Sequence[str] = (),
) -> Markup:
    """A table that scrolls sideways on a narrow screen; the columns in `numbers` are right-aligned figures.

    `marked` gives each row's class, as far as it goes.
    """
    body = []
    for index, row in enumerate(rows):
        cells = [element("td", cell, class_="num" if column in numbers else None) for column, cell in enumerate(row)]
        body.append(element("tr", cells, class_=(marked[index] if index < len(marked) else "") or None))
    heads = [
        element("th", cell, class_="num" if column in numbers else None, scope="col")
        for column, cell in enumerate(head)
    ]
    return element(
        "div", element("table", element("thead", element("tr", heads)), element("tbody", body)), class_="scroll"
    )
