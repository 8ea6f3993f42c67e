"""Small charts as inline SVG: crisp at any size, no script, colours from the page's style sheet."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgemtl.report.drawing.html import Child, Markup, element

__all__ = [
    "DRAWN_LAST",
    "HEIGHT",
    "WIDTH",
    "Point",
    "histogram",
    "log_ticks",
    "mark",
    "nice_ticks",
    "scatter",
    "short_number",
    "signed_number",
]

WIDTH, HEIGHT = 520, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 16, 48
LOG_FROM = 6
DRAWN_LAST = {"infeasible": 0, "front": 1, "baseline": 2, "chosen": 3}
"""Order in which kinds of marks are drawn: what counts most lies on top."""


@dataclass(frozen=True)
class Point:
    """A mark on a chart; `kind` is its class ("front", "chosen", "baseline", "infeasible"), `title` shows on hover."""

    x: float
    y: float
    kind: str
    title: str


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at or below `low` to at or above `high`."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        around = max(1e-6, abs(low)) / 10
        low, high = low - around, low + around
    raw = (high - low) / max(1, wanted)
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def short_number(value: float) -> str:
    """A tick's number: `1.5G`, `20M`, `0.5`."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{prefix}"
    return f"{value:g}"


def signed_number(value: float) -> str:
    """A tick's number with its sign, none for zero."""
    return f"{value:+g}" if value else "0"


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten (powers alone over a wide range) that enclose `low` > 0 and `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    start = max(index for index, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
    end = min((index for index, tick in enumerate(ticks) if tick >= high * (1 - 1e-9)), default=len(ticks) - 1)
    return ticks[start : max(end, start + 1) + 1]


@dataclass(frozen=True)
class _Axis:
    """Maps values to pixels between two ends; `log` spaces equal ratios equally."""

    ticks: tuple[float, ...]
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        scale = math.log10 if self.log else float
        low, high = scale(self.ticks[0]), scale(self.ticks[-1])
        return round(self.start + (scale(value) - low) / (high - low) * (self.end - self.start), 2)


def _frame(
    x: _Axis, y: _Axis, labels: tuple[str, str], formats: tuple[Callable[[float], str], Callable[[float], str]]
) -> list[Child]:
    """Grid lines, tick labels and the two axis titles."""
    parts: list[Child] = []
    for tick in y.ticks:
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(element("text", formats[1](tick), x=LEFT - 8, y=y(tick) + 4, class_="tick end"))
    for tick in x.ticks:
        parts.append(element("line", x1=x(tick), x2=x(tick), y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4, class_="axis"))
        parts.append(element("text", formats[0](tick), x=x(tick), y=HEIGHT - BOTTOM + 18, class_="tick mid"))
    base = HEIGHT - BOTTOM
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))
    parts.append(element("text", labels[0], x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, class_="label mid"))
    middle = (TOP + base) / 2
    parts.append(element("text", labels[1], x=14, y=middle, class_="label mid", transform=f"rotate(-90 14 {middle:g})"))
    return parts


def _svg(title: str, parts: Sequence[Child]) -> Markup:
    return element("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title, class_="chart")


def scatter(
    points: Sequence[Point],
    *,
    title: str,
    labels: tuple[str, str],
    formats: tuple[Callable[[float], str], Callable[[float], str]],
    limit: tuple[float, str] | None = None,
) -> Markup:
    """A scatter chart, smaller x and larger y being better, with the steps of its best points.

    `labels` and `formats` are for x and y; `limit` is a value of x, drawn as a line with a caption: the budget.
    """
    xs = [point.x for point in points] + ([limit[0]] if limit else [])
    ys = [point.y for point in points]
    pad = (max(xs) - min(xs) or abs(max(xs)) or 1) * 0.03
    x = _Axis(tuple(nice_ticks(max(0.0, min(xs) - pad), max(xs) + pad)), LEFT, WIDTH - RIGHT)
    y = _Axis(tuple(nice_ticks(min(ys), max(ys))), HEIGHT - BOTTOM, TOP)
    parts = _frame(x, y, labels, formats)
    if limit:
        parts += _limit_line(x, *limit)
    steps = _best_steps(points)
    if len(steps) > 1:
        corners = " ".join(f"{x(a):g},{y(b):g}" for a, b in steps)
        parts.append(element("polyline", points=corners, class_="steps"))
    for point in sorted(points, key=lambda point: DRAWN_LAST.get(point.kind, 1)):
        parts.append(mark(point, x(point.x), y(point.y)))
    return _svg(title, parts)


def _limit_line(x: _Axis, value: float, caption: str) -> list[Child]:
    position = x(value)
    anchor, shift = ("end", -5) if position > (LEFT + WIDTH) / 2 else ("start", 5)
    return [
        element(
            "rect",
            x=position,
            y=TOP,
            width=max(0, WIDTH - RIGHT - position),
            height=HEIGHT - BOTTOM - TOP,
            class_="beyond",
        ),
        element("line", x1=position, x2=position, y1=TOP, y2=HEIGHT - BOTTOM, class_="limit"),
        element("text", caption, x=position + shift, y=TOP + 11, class_=f"tick {anchor} limit-text"),
    ]


def _best_steps(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Corners of the staircase through the feasible points that no other beats in both x and y."""
    corners: list[tuple[float, float]] = []
    best = -math.inf
    for point in sorted((p for p in points if p.kind in ("front", "chosen")), key=lambda p: (p.x, -p.y)):
        if point.y > best:
            if corners:
                corners.append((point.x, best))
            corners.append((point.x, point.y))
            best = point.y
    return corners


def mark(point: Point, x: float, y: float) -> Markup:
    """A mark with its centre at a pixel. Shape and colour both show the kind, so that it also reads in grey."""
    title = element("title", point.title)
    if point.kind == "chosen":
        radii = [(9.5 if corner % 2 == 0 else 4.2, math.pi * (corner / 5 - 0.5)) for corner in range(10)]
        star = " ".join(f"{x + r * math.cos(a):.1f},{y + r * math.sin(a):.1f}" for r, a in radii)
        return element("polygon", title, points=star, class_="mark chosen")
    if point.kind == "baseline":
        corners = f"{x},{y - 7.5:g} {x + 7.5:g},{y} {x},{y + 7.5:g} {x - 7.5:g},{y}"
        return element("polygon", title, points=corners, class_="mark baseline")
    return element("circle", title, cx=x, cy=y, r=4.5 if point.kind == "front" else 4, class_=f"mark {point.kind}")


def _edges(low: float, high: float, count: int, log: bool) -> list[float]:
    """Ends of `count` bins from `low` to `high`, of equal width or equal ratio."""
    if log:
        return [low * (high / low) ** (index / count) for index in range(count + 1)]
    return [low + (high - low) * index / count for index in range(count + 1)]


def _bar(sides: tuple[float, float], top: float, tip: str) -> Markup:
    width, height = max(1.0, round(sides[1] - sides[0] - 1, 2)), round(HEIGHT - BOTTOM - top, 2)
    return element("rect", element("title", tip), x=sides[0], y=top, width=width, height=height, class_="bar")


def histogram(samples: Sequence[float], lines: Mapping[str, float], *, title: str, unit: str) -> Markup:
    """How positive samples are spread, over their whole range, with named values (percentiles) as lines.

    Where the largest is far from the middle the axis is logarithmic: a rare stall then hides nothing else.
    """
    low, high = min(samples), max(samples)
    log = low > 0 and high > LOG_FROM * sorted(samples)[len(samples) // 2]
    ticks = log_ticks(low, high) if log else nice_ticks(low, high, 6)
    x = _Axis(tuple(ticks), LEFT, WIDTH - RIGHT, log)
    count = max(8, min(60, math.ceil(2 * math.sqrt(len(samples)))))
    edges = _edges(low, high if high > low else ticks[-1], count, log)
    counts = [0] * count
    for sample in samples:
        counts[max(0, min(count - 1, bisect.bisect_right(edges, sample) - 1))] += 1
    y = _Axis(tuple(nice_ticks(0, max(counts), 4)), HEIGHT - BOTTOM, TOP + 14)
    caption = f"{unit}, logarithmic" if log else unit
    parts = _frame(x, y, (caption, "samples"), (short_number, short_number))
    for (left, right), number in zip(pairwise(edges), counts, strict=True):
        if number:
            parts.append(_bar((x(left), x(right)), y(number), f"{left:.3g} to {right:.3g} {unit}: {number}"))
    previous = -math.inf
    for name, value in sorted(lines.items(), key=lambda item: item[1]):
        position = x(value)
        parts.append(element("line", x1=position, x2=position, y1=TOP + 4, y2=HEIGHT - BOTTOM, class_="percentile"))
        if position - previous > 26:
            parts.append(element("text", name, x=position, y=TOP - 1, class_="tick mid percentile-text"))
            previous = position
    return _svg(title, parts)
