"""Blocks that lie on a lattice, as each task runs them: rows are stages, columns positions, lines what crosses rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from edgemtl.blocks import BlockRecord
from edgemtl.report.drawing.html import Markup, element

__all__ = ["draw_lattice"]

_MOST_PALE = 2000
"""Of a larger lattice only what runs is drawn."""
_CELL, _GAP, _SIDE, _LEFT, _ROW = 26, 40, 17, 54, 34


@dataclass(frozen=True)
class _Frame:
    """Where rows and columns lie: `edges` are the left sides of columns, and the right side of the last one."""

    rows: tuple[str, ...]
    edges: tuple[int, ...]
    boxes: tuple[int, ...]

    @classmethod
    def of(cls, blocks: Sequence[BlockRecord]) -> _Frame:
        rows = dict.fromkeys(block.stage or "" for block in blocks)
        boxes = {block.column or 0 for block in blocks if not block.link}
        links = {block.column or 0 for block in blocks if block.link} - boxes
        widths = [_GAP if column in links else _CELL for column in range(max(boxes | links) + 1)]
        return cls(tuple(rows), tuple(accumulate([_LEFT, *widths])), tuple(sorted(boxes)))

    def x(self, column: int) -> float:
        return (self.edges[column] + self.edges[column + 1]) / 2

    def y(self, stage: str | None) -> float:
        return (self.rows.index(stage or "") + 0.5) * _ROW


def draw_lattice(blocks: Sequence[BlockRecord], tasks: Sequence[str]) -> Markup:
    """One small map a task: what it runs is filled with its colour, what other tasks or none run there stays pale."""
    placed = [block for block in blocks if block.column is not None]
    frame = _Frame.of(placed)
    maps = []
    for number, task in enumerate(tasks):
        own = [block for block in placed if task in block.tasks]
        read = {name for block in blocks if block.column is None and task in block.tasks for name in block.inputs}
        drawn = _map(frame, task, number, own, [block for block in own if block.name in read])
        maps.append(element("div", element("h3", task), drawn))
    return element("div", maps, class_="charts")


def _map(frame: _Frame, task: str, number: int, blocks: Sequence[BlockRecord], ends: Sequence[BlockRecord]) -> Markup:
    width, height = frame.edges[-1] + 22, _ROW * len(frame.rows)
    parts = [
        *_rails(frame, width),
        *(line for block in blocks for line in _lines(frame, block, blocks)),
        *_boxes(frame, blocks),
        *(_end(frame, block, width) for block in ends),
    ]
    boxes = sum(not block.link for block in blocks)
    label = f"{task} runs {boxes} blocks and {len(blocks) - boxes} links between rows"
    hue = f"--hue:var(--t{number % 8})"
    box = f"0 0 {width} {height}"
    return element("svg", parts, viewBox=box, class_="chart lattice", role="img", aria_label=label, style=hue)


def _rails(frame: _Frame, width: float) -> Iterator[Markup]:
    for stage in frame.rows:
        y = frame.y(stage)
        yield element("text", stage, x=_LEFT - 10, y=y + 4, class_="rail-name")
        yield element("line", x1=_LEFT - 4, y1=y, x2=width - 14, y2=y, class_="rail")


def _lines(frame: _Frame, block: BlockRecord, blocks: Sequence[BlockRecord]) -> Iterator[Markup]:
    """From each other row that a block reads: through its column where it is a link, else to its box."""
    column = block.column or 0
    for source in (other for other in blocks if other.name in block.inputs and other.stage != block.stage):
        if block.link:
            start, end = frame.edges[column], frame.edges[column + 1]
        else:
            start = end = int(frame.x(column))
            start -= 0 if source.column == column else _CELL
        title = element("title", f"{block.name}: {source.stage} brought to {block.stage}")
        x, y = (start, end), (frame.y(source.stage), frame.y(block.stage))
        yield element("line", title, x1=x[0], y1=y[0], x2=x[1], y2=y[1], class_="lattice-link")


def _boxes(frame: _Frame, blocks: Sequence[BlockRecord]) -> Iterator[Markup]:
    run = {(block.stage, block.column): block for block in blocks if not block.link}
    pale = len(frame.rows) * len(frame.boxes) <= _MOST_PALE
    for column in frame.boxes:
        for stage in frame.rows:
            if (stage, column) in run or pale:
                yield from _box(frame.x(column), frame.y(stage), stage, run.get((stage, column)))


def _box(x: float, y: float, stage: str, block: BlockRecord | None) -> Iterator[Markup]:
    corner = {"x": x - _SIDE / 2, "y": y - _SIDE / 2, "width": _SIDE, "height": _SIDE, "rx": 3}
    if block is None:
        yield element("rect", element("title", f"{stage}: skipped"), class_="lattice-skipped", **corner)
        return
    count = len(block.tasks)
    how = f"computed once for {count} tasks" if count > 1 else "of this task alone"
    facts = [*block.words, f"{block.channels} channels", block.precision, how]
    yield element("rect", element("title", f"{block.name}: {', '.join(facts)}"), class_="lattice-run", **corner)
    if count > 1:
        yield element("text", str(count), x=x, y=y + 4, class_="lattice-count")


def _end(frame: _Frame, block: BlockRecord, width: float) -> Markup:
    title = element("title", f"{block.stage}: read by the task's decoder")
    return element("circle", title, cx=width - 10, cy=frame.y(block.stage), r=5, class_="lattice-end")
