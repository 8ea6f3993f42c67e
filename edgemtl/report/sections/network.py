"""Sections about the network itself: the design as a picture, and where its cost goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from edgemtl.profiling import Profile
from edgemtl.report.drawing.design import Bar, Part, design_parts
from edgemtl.report.drawing.grid import grid_paths, grid_picture
from edgemtl.report.drawing.html import NONE, Child, Markup, element, table
from edgemtl.report.drawing.parts import card, count_text, ms_text, short_flops, stack_row, swatch, task_class
from edgemtl.report.drawing.transformer import Route, TokenBlock, other_choices, token_blocks
from edgemtl.report.load import ReportData

__all__ = ["cost_section", "design_section"]

_PRECISION_CLASSES = {"float": "p-float", "fp32": "p-float", "int8": "p-int8", "bf16": "p-half", "fp16": "p-half"}


def design_section(data: ReportData) -> Markup | None:
    """The chosen design: a bar per block, as wide as its channels, in the colour of its precision."""
    if not data.design:
        return None
    precision: Mapping[str, object] = data.manifest.precision if data.manifest else {}
    if paths := grid_paths(data.design, data.tasks):
        return card("The design", _GRID_LEAD, grid_picture(paths), _choices(data))
    tokens = token_blocks(data.design, data.tasks, precision, data.manifest.experts if data.manifest else ())
    shown = [other_choices(values, data.tasks) if tokens else values for values in (data.design, precision)]
    parts = design_parts(shown[0], data.tasks, shown[1])
    bars = [bar for part in parts for bar in part.bars]
    widest = max((bar.channels or 0 for bar in bars), default=0) or 1
    trunk = [part for part in parts if part.task is None]
    heads = [part for part in parts if part.task is not None]
    engine = (data.manifest.precision if data.manifest else data.design).get(
        "engine" if data.manifest else "engine.precision"
    )
    precisions = list(dict.fromkeys([*(bar.precision for bar in bars), *(block.precision for block in tokens)]))
    legend = [swatch(_precision_class(name), _precision_words(name, engine)) for name in precisions]
    forked = any(route.task for block in tokens for route in block.routes)
    picture = element(
        "div",
        _trunk(trunk, tokens, widest),
        element("div", _read_by(heads, forked), class_="net-fork") if heads else None,
        element("div", [_decoder(part, widest) for part in heads], class_="decoders"),
        class_="net",
    )
    lead = _TOKENS_LEAD if tokens else _LEAD
    return card("The design", lead, picture, element("ul", legend, class_="legend"), _choices(data))


def _choices(data: ReportData) -> Markup:
    """Every choice, folded away."""
    rows: list[list[Child]] = [[name, str(option)] for name, option in data.design.items()]
    summary = element("summary", f"All {len(data.design)} choices")
    return element("details", summary, table(["choice", "option"], rows, numbers=NONE))


_GRID_LEAD = (
    "Each task's path through the grid: a row is a resolution, a column a block; lines between stages bring one "
    "resolution's features to another, and dots at the right are what the task's decoder reads. What stays pale is "
    "skipped. A figure in a block says how many tasks compute it at once, because they keep the same blocks before it."
)
_LEAD = (
    "The trunk from image to features, then each task's decoder. A bar is a block: its width is its channels, its "
    "colour its precision; the small print is expansion, kind and kernel."
)
_TOKENS_LEAD = (
    "From the image through blocks of tokens to each task's decoder. A block is its attention and, beside it, its MLP "
    "or its experts: a task's bar is as wide as the number it reaches, and 2 of 8 sends a token to two of eight. "
    "Colours are precisions; channels of a thin bar are fixed by the space."
)


def _trunk(parts: Sequence[Part], tokens: Sequence[TokenBlock], widest: int) -> list[Markup]:
    """The stages in order; blocks of tokens stand between the patches and what follows."""
    if not tokens:
        return [_stage(part, widest) for part in parts]
    before = sorted((part for part in parts if part.name.startswith(("stem", "patches"))), key=_is_patches)
    rows = [_stage(part, widest) for part in before]
    forked = False
    for block in tokens:
        if not forked and any(route.task for route in block.routes):
            forked = True
            rows.append(element("div", _FORK, class_="net-fork"))
        rows.append(_token_row(block))
    return rows + [_stage(part, widest) for part in parts if part not in before]


_FORK = "from here on each task runs the blocks on its own tokens, with the same weights and its own router"


def _is_patches(part: Part) -> bool:
    return part.name == "patches"


def _token_row(block: TokenBlock) -> Markup:
    class_ = f"net-bar {_precision_class(block.precision)}"
    heads = f"{block.heads} heads" if block.heads else "attention"
    attention = element("span", heads, class_=class_, title=f"{block.name}, attention, {block.precision}")
    if block.routes:
        side_by_side = element("div", [_route(block, route, class_) for route in block.routes], class_="net-routes")
    else:
        hidden = f"hidden {block.hidden}" if block.hidden else "MLP"
        side_by_side = element("span", hidden, class_=class_, title=f"{block.name}, MLP, {block.precision}")
    name = element("div", block.name, element("small", "experts") if block.routes else None, class_="name")
    return element("div", name, element("div", attention, side_by_side, class_="net-tokens"), class_="net-part")


def _route(block: TokenBlock, route: Route, class_: str) -> Markup:
    name = route.task or "all tasks"
    count, top_k = (str(value) if value else "?" for value in (route.experts, route.top_k))
    title = f"{block.name}, {name}: a token goes to {top_k} of {count} experts, {block.precision}"
    grow = f"flex:{route.experts or 1} 1 0"
    return element("span", f"{name} {top_k} of {count}", class_=class_, style=grow, title=title)


def _read_by(heads: Sequence[Part], forked: bool) -> str:
    if forked:
        return "each task's own features, read by its decoder"
    return f"features of the trunk, read by {_count(heads)}"


def _count(heads: Sequence[Part]) -> str:
    return f"{len(heads)} decoders, one a task" if len(heads) > 1 else "the task's decoder"


def _precision_class(precision: str) -> str:
    return _PRECISION_CLASSES.get(precision, "p-other")


def _precision_words(precision: str, engine: object) -> str:
    if precision == "float" and engine:
        return f"float ({engine} in the engine)"
    return precision


def _stage(part: Part, widest: int) -> Markup:
    notes = part.bars[0].note
    name = element("div", part.name, element("small", notes) if notes else None, class_="name")
    return element(
        "div", name, element("div", [_bar(bar, widest) for bar in part.bars], class_="net-bars"), class_="net-part"
    )


def _decoder(part: Part, widest: int) -> Markup:
    bars = element("div", [_bar(bar, widest) for bar in part.bars], class_="net-bars")
    return element("div", element("div", part.name, class_="name"), bars, class_="decoder")


def _bar(bar: Bar, widest: int) -> Markup:
    class_ = _precision_class(bar.precision)
    known = [
        bar.name,
        f"{bar.channels} channels" if bar.channels else "channels fixed by the space",
        bar.precision,
        bar.note,
    ]
    title = ", ".join(filter(None, known))
    if bar.channels is None:
        return element("div", class_=f"net-bar thin {class_}", title=title)
    return element(
        "div",
        str(bar.channels),
        class_=f"net-bar {class_}",
        style=f"width:{100 * bar.channels / widest:.1f}%",
        title=title,
    )


def cost_section(data: ReportData) -> Markup | None:
    """FLOPs, parameters and milliseconds, split into trunk and each task."""
    rows = [row for row in (*_counted_rows(data), *(_latency_row(data, each) for each in data.profiles)) if row]
    if not rows:
        return None
    legend = [
        swatch("c-trunk", "trunk, shared by all tasks"),
        *(swatch(task_class(t, data.tasks), t) for t in data.tasks),
    ]
    lead = "What all tasks share is paid once; dropping a task saves its own part only."
    return card("Where the cost goes", lead, rows, element("ul", legend, class_="legend"))


def split(total: float, paths: Mapping[str, float]) -> tuple[float, dict[str, float]] | None:
    """Trunk and own parts from a total and what each task runs alone; None where that does not add up.

    Where every block belongs to all tasks or to one, trunk = (sum of paths - total) / (n - 1).
    """
    if len(paths) < 2:
        return None
    trunk = (math.fsum(paths.values()) - total) / (len(paths) - 1)
    own = {task: path - trunk for task, path in paths.items()}
    return (trunk, own) if trunk >= 0 and min(own.values()) >= 0 else None


def _counted_rows(data: ReportData) -> list[Child]:
    best = data.result.best if data.result is not None else None
    cost = best or (data.manifest.cost if data.manifest is not None else None)
    if grid_paths(data.design, data.tasks):
        return []  # a block may belong to some tasks but not all: there is no such split
    if cost is not None:
        flops = split(cost.flops, {task: path.flops for task, path in cost.paths.items()})
        params = split(cost.params, {task: path.params for task, path in cost.paths.items()})
        totals = (cost.flops, cost.params)
    elif data.profiles and (counts := data.profiles[0].counts) is not None:
        params = (counts.trunk.params, {task: float(count.params) for task, count in counts.tasks.items()})
        flops = None
        if counts.total.flops is not None:
            flops = (counts.trunk.flops or 0, {task: float(each.flops or 0) for task, each in counts.tasks.items()})
        totals = (counts.total.flops or 0, counts.total.params)
    else:
        return []
    if _shares_by_some(data):
        params = None
    return [
        _stack(data, "compute", totals[0], flops, short_flops),
        _stack(data, "parameters", totals[1], params, count_text),
    ]


def _shares_by_some(data: ReportData) -> bool:
    """Whether weights may belong to some tasks but not all, as experts do: there is no such split of them then."""
    choices = {f"{task}.experts" for task in data.tasks}
    return bool(data.manifest and data.manifest.experts) or not choices.isdisjoint(data.design)


def _stack(
    data: ReportData,
    name: str,
    total: float,
    parts: tuple[float, Mapping[str, float]] | None,
    words: Callable[[float], str],
) -> Child:
    if parts is None:
        return None
    trunk, own = parts
    segments = {"trunk": (trunk, words(trunk), "c-trunk")}
    segments |= {task: (size, words(size), task_class(task, data.tasks)) for task, size in own.items()}
    return stack_row(name, f"{words(total)}, counted", segments)


def _latency_row(data: ReportData, profile: Profile) -> Child:
    own = {task: costs.own_ms.value for task, costs in profile.task_costs.items() if costs.own_ms is not None}
    if profile.trunk_ms is None or not own:
        return None

    def words(value: float) -> str:
        return f"{ms_text(value)} ms"

    segments = {"trunk": (max(0.0, profile.trunk_ms.value), words(profile.trunk_ms.value), "c-trunk")}
    segments |= {task: (max(0.0, ms), words(ms), task_class(task, data.tasks)) for task, ms in own.items()}
    return stack_row(f"ms, {profile.runtime}", f"{words(profile.latency.typical_ms)}, derived", segments)
