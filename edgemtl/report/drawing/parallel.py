"""Parallel coordinates: an axis for each of several objectives, a line for each design (Inselberg 1985)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgemtl.report.drawing.html import Child, Markup, element
from edgemtl.report.drawing.svg import DRAWN_LAST, HEIGHT, WIDTH, Point, mark

__all__ = ["Coordinate", "Line", "parallel_coordinates"]

_SIDE, _TOP, _BOTTOM, _APART = 62, 30, 64, 116
"""Pixels beside the outer axes, above and below them, and between two of many."""


@dataclass(frozen=True)
class Coordinate:
    """An axis: its name, whether more is better, and how a value is written."""

    label: str
    higher_is_better: bool
    write: Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """A design, with a value for each axis; `kind` and `title` are those of a `Point`."""

    values: tuple[float, ...]
    kind: str
    title: str


def parallel_coordinates(axes: Sequence[Coordinate], lines: Sequence[Line], *, title: str) -> Markup:
    """A chart with two axes or more, each from the worst of the lines' values, below, to the best, above.

    Where all lines have one value it stands in the middle.
    """
    width = max(WIDTH, 2 * _SIDE + _APART * (len(axes) - 1))
    across = [_SIDE + index * (width - 2 * _SIDE) / (len(axes) - 1) for index in range(len(axes))]
    columns = [[line.values[index] for line in lines] for index in range(len(axes))]
    parts: list[Child] = []
    for x, axis, values in zip(across, axes, columns, strict=True):
        parts += _axis(x, axis, values)
    for line in sorted(lines, key=lambda line: DRAWN_LAST.get(line.kind, 1)):
        shares = [_share(*each) for each in zip(line.values, axes, columns, strict=True)]
        points = [(round(x, 2), _height(share)) for x, share in zip(across, shares, strict=True)]
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        parts.append(element("polyline", element("title", line.title), points=path, class_=f"line {line.kind}"))
        parts += [mark(Point(x, y, line.kind, line.title), x, y) for x, y in points]
    return element("svg", parts, viewBox=f"0 0 {width} {HEIGHT}", role="img", aria_label=title, class_="chart")


def _share(value: float, axis: Coordinate, values: Sequence[float]) -> float:
    """How far up a value stands, from 0 for the worst to 1 for the best."""
    low, high = min(values), max(values)
    if high <= low:
        return 0.5
    share = (value - low) / (high - low)
    return share if axis.higher_is_better else 1 - share


def _height(share: float) -> float:
    return round(HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP), 2)


def _axis(x: float, axis: Coordinate, values: Sequence[float]) -> list[Child]:
    """A line with its best and its worst value, and its name below."""
    worst, best = sorted((min(values), max(values)), reverse=not axis.higher_is_better)
    base, x = HEIGHT - _BOTTOM, round(x, 2)
    ends = [(axis.write(best), _TOP - 12), (axis.write(worst), base + 22)] if worst != best else []
    ends = ends or [(axis.write(best), _TOP - 12)]
    return [
        element("line", x1=x, x2=x, y1=_TOP, y2=base, class_="axis"),
        *(element("text", text, x=x, y=y, class_="tick mid") for text, y in ends),
        element("text", axis.label, x=x, y=base + 44, class_="label mid"),
    ]
