"""The experts: who reaches which, where the tokens go, what each task owns, shares and needs in memory."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.bundle import BundleExperts, Manifest, share_dropped_by_model, share_dropped_by_target
from edgemtl.report.drawing.html import Child, Markup, element, table
from edgemtl.report.drawing.parts import card, meter, task_class
from edgemtl.report.load import ReportData
from edgemtl.units import format_bytes

__all__ = ["experts_section"]

EVERYONE = "all tasks"
_BESIDE = 8
"""Layers of up to so many experts stand two in a row."""
_DEEPEST = 58
"""Percent of a task's colour in its busiest cell: text on it stays readable, on light paper and in dark mode."""


def experts_section(data: ReportData) -> Markup | None:
    """For each layer experts by tasks, shaded by how many tokens go there; then what each task owns and shares."""
    if data.manifest is None or not data.manifest.experts:
        return None
    uses = data.manifest.experts
    layers = [[use for use in uses if use.layer == layer] for layer in dict.fromkeys(use.layer for use in uses)]
    side_by_side = max(len(_columns(layer)) for layer in layers) <= _BESIDE
    lead = (
        "A row is a task, a column an expert. Figure and shade are the percent of the task's choices that the expert "
        "got: every token chooses as many experts as stand behind the row. Counted with the trained net on "
        f"{uses[0].images} validation images."
    )
    return card(
        "The experts",
        lead,
        element("div", [_layer(layer, data.tasks) for layer in layers], class_="charts" if side_by_side else None),
        _legend(),
        element("h3", "What each task owns and shares"),
        _summary(data.manifest, data.tasks),
        element("ul", [element("li", _words(name, data.manifest)) for name in data.manifest.targets], class_="reasons"),
    )


def _columns(layer: Sequence[BundleExperts]) -> list[int]:
    return sorted({number for use in layer for number in use.experts})


def _layer(layer: Sequence[BundleExperts], tasks: Sequence[str]) -> Markup:
    columns = _columns(layer)
    min_channels = max(share for use in layer for share in use.shares) or 1.0
    heads = [element("th", str(number), scope="col", class_="mid") for number in columns]
    behind = [
        element("th", "top-k", scope="col", class_="num"),
        element("th", "peak", scope="col", class_="num", title=_PEAK),
    ]
    head = element("tr", element("th", "expert", scope="col"), heads, behind)
    rows = [_row(use, columns, min_channels, tasks) for use in layer]
    marks = element("tr", element("th", "reached by", scope="row"), [_mark(number, layer, tasks) for number in columns])
    matrix = element("table", element("thead", head), element("tbody", rows), element("tfoot", marks), class_="experts")
    return element("div", element("h3", f"Layer {layer[0].layer}"), element("div", matrix, class_="scroll"))


_PEAK = (
    "the most tokens of one image that went to one expert, over an even share: a capacity as large would have dropped "
    "none of them"
)


def _row(use: BundleExperts, columns: Sequence[int], min_channels: float, tasks: Sequence[str]) -> Markup:
    name = use.task or EVERYONE
    shares = dict(zip(use.experts, zip(use.shares, use.gates, strict=True), strict=True))
    cells = []
    for number in columns:
        if number not in shares:
            cells.append(element("td", class_="cell away", title=f"{name} does not reach expert {number}"))
            continue
        share, gate = shares[number]
        title = f"{name}, expert {number}: {share:.2%} of its choices, mean gate {gate:.2f}"
        depth = f"--part:{_DEEPEST * share / min_channels:.1f}%"
        cells.append(element("td", _percent(share), class_="cell", style=depth, title=title))
    peak = use.most_tokens * len(use.experts) / (use.top_k * use.tokens)
    behind = [
        element("td", f"{use.top_k} of {len(use.experts)}", class_="num"),
        element("td", f"{peak:.2f}", class_="num"),
    ]
    return element(
        "tr", element("th", _named(use.task, tasks), scope="row"), cells, behind, style=_hue(use.task, tasks)
    )


def _percent(share: float) -> str:
    """A share in whole percent; `<1` is more than nothing."""
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


def _named(task: str | None, tasks: Sequence[str]) -> Markup:
    name = task or EVERYONE
    return element("span", element("span", class_=f"swatch {task_class(name, tasks)}"), name, class_="named")


def _hue(task: str | None, tasks: Sequence[str]) -> str:
    return f"--hue:var(--t{tasks.index(task) % 8})" if task in tasks else "--hue:var(--trunk)"


def _mark(number: int, layer: Sequence[BundleExperts], tasks: Sequence[str]) -> Markup:
    reaching = [use for use in layer if number in use.experts]
    count = len(tasks) if reaching[0].task is None else len(reaching)
    if not any(use.shares[use.experts.index(number)] for use in reaching):
        return element("td", "∅", class_="mid", title=f"no token of these images went to expert {number}")
    if count == 1:
        owner = reaching[0].task
        return element("td", "●", class_="mid own", style=_hue(owner, tasks), title=f"{owner or EVERYONE} alone")
    names = ", ".join(use.task or EVERYONE for use in reaching)
    return element("td", str(count), class_="mid", title=f"shared by {names}")


def _legend() -> Markup:
    entries: list[Child] = [
        (element("span", class_="swatch away"), "the task does not reach it"),
        "● one task's own",
        "2, 3, …: so many tasks share it",
        "∅ no token went there",
        "peak: the most that one expert got of one image, in even shares",
    ]
    return element("ul", [element("li", entry) for entry in entries], class_="legend")


def _summary(manifest: Manifest, tasks: Sequence[str]) -> Markup:
    uses = manifest.experts
    every = {(use.layer, number): use.expert_bytes for use in uses for number in use.experts}
    owners = list(dict.fromkeys(use.task for use in sorted(uses, key=lambda use: _task_index(use.task, tasks))))
    reach = {owner: {(u.layer, n) for u in uses if u.task == owner for n in u.experts} for owner in owners}
    limited = [name for name in manifest.targets if any(name in use.dropped_by_target for use in uses)]
    bounded = any(use.dropped_by_model for use in uses)
    rows: list[list[Child]] = []
    for owner in owners:
        others = {other: reach[other] for other in owners if other != owner}
        own = reach[owner].difference(*others.values())
        weight = sum(every[position] for position in reach[owner])
        whole = sum(every.values())
        rows.append(
            [
                _named(owner, tasks),
                f"{len(reach[owner])} of {len(every)}",
                f"{len(own)}",
                _shared(reach[owner], others) or "none",
                (f"{format_bytes(weight)} of {format_bytes(whole)} ", meter(weight / whole, _class(owner, tasks))),
                *([f"{share_dropped_by_model(use for use in uses if use.task == owner):.2%}"] if bounded else []),
                *(_dropped([use for use in uses if use.task == owner], name) for name in limited),
            ]
        )
    head: list[Child] = ["task", "experts", "its own", "shared", "weights of its experts"]
    head += ["no place in the net"] if bounded else []
    return table([*head, *(f"dropped, {name}" for name in limited)], rows, numbers=range(1, 3))


def _task_index(task: str | None, tasks: Sequence[str]) -> int:
    return tasks.index(task) if task in tasks else -1


def _class(task: str | None, tasks: Sequence[str]) -> str:
    return task_class(task or EVERYONE, tasks)


Reached = set[tuple[str, int]]


def _shared(own: Reached, others: dict[str | None, Reached]) -> str:
    """`2 with semseg, 4 with edges`: how many of a task's experts each other task reaches too."""
    return ", ".join(f"{len(own & theirs)} with {name}" for name, theirs in others.items() if own & theirs)


def _dropped(uses: Sequence[BundleExperts], target: str) -> str:
    share = share_dropped_by_target(uses, target)
    worst = max(uses, key=lambda use: use.dropped_by_target.get(target, 0.0))
    return f"{share:.2%} ({worst.layer}: {worst.dropped_by_target.get(target, 0.0):.2%})" if share else "none"


def _words(target: str, manifest: Manifest) -> Child:
    """How a target's experts get their tokens, and what that drops."""
    dispatch = manifest.targets[target].dispatch
    if dispatch is None:
        return f"{target}: how its experts get their tokens is unknown."
    if dispatch.capacity is None:
        dropped_by_model = share_dropped_by_model(manifest.experts)
        lost = (
            f"{dropped_by_model:.2%} is dropped, as the net does"
            if dropped_by_model
            else "none is dropped, on any image"
        )
        return f"{target} {_FORMS[dispatch.form]}: {lost}."
    share = share_dropped_by_target(manifest.experts, target)
    lost = f"{share:.2%} of what routers send is dropped" if share else "none was dropped here"
    return (
        f"{target} gives each expert a capacity of {dispatch.capacity:g} times an even share of the tokens: {lost}; ",
        element("code", "edgemtl export --exact", class_="named"),
        " never drops any.",
    )


_FORMS = {
    "segments": "sorts tokens by expert",
    "buckets": "gives every expert the capacity that the net does",
    "masked": "runs every expert on every token",
}
