"""Each task's path through a grid of parallel resolutions: which blocks, fusion edges and ends it keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgemtl.report.drawing.html import Markup, element

__all__ = ["GridPath", "grid_paths", "grid_picture"]

_BLOCK = re.compile(r"s(\d{1,2})p(\d)_(\d{1,2})")
_EDGE = re.compile(r"f(\d{1,2})p(\d)to(\d)")
_READ = re.compile(r"read(\d)")
_KEEP = "keep"
Place = tuple[int, ...]
_CELL, _GAP, _SIDE, _LEFT, _TOP = 26, 40, 17, 40, 0


@dataclass(frozen=True)
class GridPath:
    """What one task keeps: blocks (stage, path, number), edges (stage, from, to), and the paths that it reads.

    `stages`, `paths` and `blocks` are the grid's size. `together` tells for each block how many tasks compute it at
    once: those that keep the same blocks before it.
    """

    task: str
    stages: int
    paths: int
    blocks: int
    kept: frozenset[Place]
    edges: frozenset[Place]
    reads: frozenset[int]
    together: Mapping[Place, int] = field(default_factory=dict)


def grid_paths(design: Mapping[str, object], tasks: Sequence[str]) -> list[GridPath]:
    """The paths of a design whose tasks have masks over a grid; none for another family's."""
    found = {task: _own(design, task) for task in tasks}
    places = {position for blocks, _, _ in found.values() for position in blocks}
    if not places:
        return []
    stages, paths, blocks = (max(position[axis] for position in places) for axis in range(3))
    edges = {edge for _, own, _ in found.values() for edge in own}
    paths = max([paths, *(max(edge[1:]) for edge in edges)])
    made = []
    for task in tasks:
        kept, own, reads = ({position for position, option in part.items() if option == _KEEP} for part in found[task])
        ends = {end for (end,) in reads} | ({0} if found[task][2] else {paths})
        made.append(GridPath(task, stages, paths + 1, blocks, frozenset(kept), frozenset(own), frozenset(ends)))
    return _counted(made)


Places = dict[Place, object]


def _own(design: Mapping[str, object], task: str) -> tuple[Places, Places, Places]:
    """A task's choices over blocks, edges and ends."""
    parts: tuple[Places, Places, Places] = ({}, {}, {})
    for name, option in design.items():
        if name.startswith(f"{task}."):
            for part, pattern in zip(parts, (_BLOCK, _EDGE, _READ), strict=True):
                if match := pattern.fullmatch(name[len(task) + 1 :]):
                    part[tuple(map(int, match.groups()))] = option
    return parts


def _counted(paths: Sequence[GridPath]) -> list[GridPath]:
    """The paths with the number of tasks that compute each block together."""
    values = [_values(path) for path in paths]
    together = [
        {position: sum(value == other.get(position) for other in values) for position, value in own.items()}
        for own in values
    ]
    return [
        GridPath(p.task, p.stages, p.paths, p.blocks, p.kept, p.edges, p.reads, counts)
        for p, counts in zip(paths, together, strict=True)
    ]


def _values(path: GridPath) -> dict[Place, int]:
    """A hash of everything behind each kept block: equal ones are computed once."""
    now = list(range(path.paths))
    found: dict[Place, int] = {}
    for stage in range(1, path.stages + 1):
        before = list(now)
        for _, source, end in sorted(edge for edge in path.edges if edge[0] == stage):
            now[end] = hash((now[end], source, before[source]))
        for number in range(1, path.blocks + 1):
            for row in range(path.paths):
                if (stage, row, number) in path.kept:
                    now[row] = found[stage, row, number] = hash((now[row], stage, row, number))
    return found


def grid_picture(paths: Sequence[GridPath]) -> Markup:
    """One small map a task: rows are resolutions, columns blocks; what is kept is filled with the task's colour."""
    maps = [element("div", element("h3", path.task), _map(path, number)) for number, path in enumerate(paths)]
    return element("div", maps, class_="charts")


def _column(path: GridPath, stage: int, number: int) -> float:
    return _LEFT + (stage - 1) * (path.blocks * _CELL + _GAP) + (number - 0.5) * _CELL


def _row(row: int) -> float:
    return _TOP + (row + 0.5) * (_CELL + 8)


def _map(path: GridPath, number: int) -> Markup:
    width = _column(path, path.stages, path.blocks) + _CELL + 16
    height = _row(path.paths - 1) + _CELL
    hue = f"--hue:var(--t{number % 8})"
    parts = [*_rails(path, width), *_edges(path), *_blocks(path), *_ends(path, width)]
    said = f"{path.task} keeps {len(path.kept)} blocks and {len(path.edges)} edges"
    box = f"0 0 {width:.0f} {height:.0f}"
    return element("svg", parts, viewBox=box, class_="chart grid-map", role="img", aria_label=said, style=hue)


def _rails(path: GridPath, width: float) -> list[Markup]:
    """The resolutions: a thin line each, its stride before it; as far as the task goes, in its colour."""
    rails = []
    for row in range(path.paths):
        y, name = _row(row), f"1/{4 << row}"
        rails.append(element("text", name, x=_LEFT - 10, y=y + 4, class_="rail-name"))
        rails.append(element("line", x1=_LEFT - 4, y1=y, x2=width - 18, y2=y, class_="rail"))
    return rails


def _edges(path: GridPath) -> list[Markup]:
    lines = []
    for stage, source, end in sorted(path.edges):
        start = _column(path, stage - 1, path.blocks) + _CELL / 2
        title = element("title", f"stage {stage}: 1/{4 << source} added to 1/{4 << end}")
        lines.append(
            element("line", title, x1=start, y1=_row(source), x2=start + _GAP, y2=_row(end), class_="grid-edge")
        )
    return lines


def _blocks(path: GridPath) -> list[Markup]:
    found = []
    for stage in range(1, path.stages + 1):
        for number in range(1, path.blocks + 1):
            for row in range(path.paths):
                found += _block(path, (stage, row, number))
    return found


def _block(path: GridPath, position: Place) -> list[Markup]:
    stage, row, number = position
    x, y, kept = _column(path, stage, number), _row(row), position in path.kept
    count = path.together.get(position, 0)
    how = f"kept, computed once for {count} tasks" if count > 1 else "kept, its own" if kept else "skipped"
    title = element("title", f"stage {stage}, 1/{4 << row}, block {number}: {how}")
    corner = {"x": x - _SIDE / 2, "y": y - _SIDE / 2, "width": _SIDE, "height": _SIDE, "rx": 3}
    box = element("rect", title, class_="grid-kept" if kept else "grid-skipped", **corner)
    return [box, element("text", str(count), x=x, y=y + 4, class_="grid-count")] if count > 1 else [box]


def _ends(path: GridPath, width: float) -> list[Markup]:
    return [
        element(
            "circle", element("title", f"read at 1/{4 << row}"), cx=width - 16, cy=_row(row), r=5, class_="grid-end"
        )
        for row in sorted(path.reads)
    ]
