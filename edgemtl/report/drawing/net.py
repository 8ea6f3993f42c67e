"""A net as a picture of its blocks, wherever they come from: rows of the trunk, a lattice, a column for each task."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.blocks import BlockRecord
from edgemtl.report.drawing.html import Markup, element
from edgemtl.report.drawing.lattice import draw_lattice
from edgemtl.report.drawing.parts import count_text, short_flops, swatch

__all__ = ["draw_net"]

_PRECISION_CLASSES = {
    "float": "p-float", "fp32": "p-float", "int8": "p-int8", "bf16": "p-half", "fp16": "p-half", "int12": "p-half"
}  # fmt: skip
_FORK = "from here on each task runs the blocks by itself"


def draw_net(blocks: Sequence[BlockRecord], tasks: Sequence[str], engine: str) -> Markup:
    """The trunk's rows from the image down, what lies on a lattice, then each task's own blocks; and a legend.

    `engine` is the precision of everything not in eight bits, empty where unknown.
    """
    rows: dict[str, list[BlockRecord]] = {}
    columns: dict[str, list[BlockRecord]] = {}
    for block in blocks:
        if block.stage is None:
            columns.setdefault(block.task or block.name, []).append(block)
        elif block.column is None:
            rows.setdefault(block.stage, []).append(block)
    precisions = dict.fromkeys(block.precision for block in blocks)
    legend = [swatch(_precision_class(name), _precision_words(name, engine)) for name in precisions]
    forked = any(_is_forked(row) for row in rows.values())
    placed = any(block.column is not None for block in blocks)
    picture = [
        *_trunk(rows, tasks),
        draw_lattice(blocks, tasks) if placed else None,
        element("div", _read_by(len(columns), forked or placed), class_="net-fork") if columns else None,
        element("div", _columns(columns), class_="decoders"),
    ]
    return element("div", element("div", picture, class_="net"), element("ul", legend, class_="legend"))


def _is_forked(row: Sequence[BlockRecord]) -> bool:
    """Whether tasks run these blocks side by side, rather than one block after the other."""
    return len({block.tasks for block in row}) > 1


def _trunk(rows: dict[str, list[BlockRecord]], tasks: Sequence[str]) -> list[Markup]:
    widest = max((block.channels for row in rows.values() for block in row), default=1)
    drawn, forked = list[Markup](), False
    for stage, row in rows.items():
        if not forked and _is_forked(row):
            forked = True
            drawn.append(element("div", _FORK, class_="net-fork"))
        common = [word for word in row[0].words if all(word in block.words for block in row)]
        some = [] if _is_forked(row) or len(row[0].tasks) == len(tasks) else [f"for {' and '.join(row[0].tasks)}"]
        small = element("small", ", ".join([*common, *some])) if common or some else None
        name = element("div", stage, small, class_="name")
        bars = _side_by_side(row, common) if _is_forked(row) else _stacked(row, widest, common)
        drawn.append(element("div", name, bars, class_="net-part"))
    return drawn


def _stacked(blocks: Sequence[BlockRecord], widest: int, common: Sequence[str] | None = None) -> Markup:
    """A bar for each layer below the one before it; words that are not `common` stand in it."""
    bars = []
    for block in blocks:
        own = [] if common is None else [word for word in block.words if word not in common]
        text = ", ".join([str(block.channels), *own])
        style = f"width:{100 * block.channels / max(1, widest):.1f}%"
        bars += [_bar(block, text, style, number) for number in range(1, block.repeats + 1)]
    return element("div", bars, class_="net-bars")


def _side_by_side(blocks: Sequence[BlockRecord], common: Sequence[str]) -> Markup:
    """A bar for each task, as wide as the parameters that it reads."""
    bars = []
    for block in blocks:
        text = " ".join([" + ".join(block.tasks), *(word for word in block.words if word not in common)])
        bars.append(_bar(block, text, f"flex:{sum(table.params for table in block.weights) or 1} 1 0"))
    return element("div", bars, class_="net-routes")


def _columns(columns: dict[str, list[BlockRecord]]) -> list[Markup]:
    widest = max((block.channels for column in columns.values() for block in column), default=1)
    drawn = []
    for task, blocks in columns.items():
        drawn.append(element("div", element("div", task, class_="name"), _stacked(blocks, widest), class_="decoder"))
    return drawn


def _bar(block: BlockRecord, text: str, style: str, number: int = 1) -> Markup:
    facts = [
        f"{block.name}{f', layer {number} of {block.repeats}' if block.repeats > 1 else ''}: {', '.join(block.words)}",
        f"{block.channels} channels",
        block.precision,
        short_flops(block.flops),
        f"{count_text(sum(table.params for table in block.weights))} parameters",
    ]
    return element(
        "div", text, class_=f"net-bar {_precision_class(block.precision)}", style=style, title=", ".join(facts)
    )


def _read_by(columns: int, forked: bool) -> str:
    if forked:
        return "each task's own features, read by its decoder"
    return f"features of the trunk, read by {f'{columns} decoders, one a task' if columns > 1 else 'one decoder'}"


def _precision_class(precision: str) -> str:
    return _PRECISION_CLASSES.get(precision, "p-other")


def _precision_words(precision: str, engine: str) -> str:
    return f"float ({engine} in the engine)" if precision == "float" and engine else precision
