"""The rest of the page: parity of engines, sample pictures, environments, and how each kind of figure was obtained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgemtl.report.drawing.html import NONE, Child, Markup, element, table
from edgemtl.report.drawing.parts import KIND_TITLES, card, kind_badge
from edgemtl.report.load import ReportData
from edgemtl.report.metrics import format_change, format_metric, known_metric

__all__ = ["environment_section", "origins_section", "parity_section", "pictures_section"]


def parity_section(data: ReportData) -> Markup | None:
    """How far each target's engine is from the trained net, in tensors and in each task's own metric."""
    if data.manifest is None:
        return None
    rows: list[list[Child]] = []
    checked: dict[str, None] = {}
    for target, built in data.manifest.targets.items():
        if not built.parity:
            rows.append([target, element("span", "not run where it was exported", class_="sub")])
        where: Child = (target, " ", kind_badge("simulated")) if built.checked == "simulation" else target
        for task, parity in built.parity.items():
            checked[f"{parity.images} {parity.split or ''} images".replace("  ", " ")] = None
            scores = _parity_cells(parity.metric, parity.torch, parity.engine)
            outputs = parity.differences()
            largest = [
                (f" {label} {o.max_abs_error:.2g}", element("small", f" {o.unit or ''}")) for label, o in outputs
            ]
            relative = max(output.relative_error for _, output in outputs)
            rows.append([where, task, parity.metric, *scores, largest, f"{relative:.2g}", parity.tolerance])
    lead = (
        f"Every engine against the trained FP32 net on the same images ({' and '.join(checked) or 'none here'}): the "
        "task's own metric, which is what counts, the largest difference of any value of the raw output, before "
        "post-processing and in its unit, the norm of the difference over that of the output, and what is allowed: an "
        "engine beyond it is not exported. What does not run right on the machine that exported it is simulated there."
    )
    head: list[Child] = [
        "target",
        "task",
        "metric",
        "trained net",
        "engine",
        "change",
        "largest difference",
        "relative",
        "allowed",
    ]
    return card("Parity of the exported engines", lead, table(head, rows, numbers=range(3, 8)))


def _parity_cells(name: str, torch: float, engine: float) -> list[Child]:
    metric = known_metric(name)
    change = (engine - torch) / max(abs(torch), 1e-12)
    better = change if metric is None or metric.higher_is_better else -change
    return [format_metric(name, torch), format_metric(name, engine), format_change(better)]


def pictures_section(data: ReportData) -> Markup | None:
    """Sample outputs of the run folder."""
    if not data.pictures:
        return None
    figures = [
        element(
            "figure",
            element("img", src=picture.url, alt=picture.name),
            element("figcaption", picture.name.replace("_", " ")),
            class_="wide" if picture.wide else None,
        )
        for picture in data.pictures
    ]
    return card("Sample outputs", "What the net says about images.", element("div", figures, class_="pictures"))


def environment_section(data: ReportData) -> Markup | None:
    """Where the figures were made."""
    environments: list[tuple[str, Mapping[str, object]]] = []
    if data.result is not None:
        result = data.result
        source = result.data if isinstance(result.data, Mapping) else {"name": result.data}
        environments.append((f"search: {result.command}", {**result.environment, "data": source}))
    if data.manifest is not None:
        environments.append(("export", data.manifest.provenance.environment))
    environments += [(f"profile on {each.device}/{each.runtime}", each.environment) for each in data.profiles]
    body = []
    for title, values in environments:
        rows: list[list[Child]] = [[key, value] for key, value in _flat(values)]
        body.append(element("details", element("summary", title), table(["what", "value"], rows, numbers=NONE)))
    lead = "Versions, processor, memory, load and source revision at the time of each step."
    return card("Environment", lead, body) if body else None


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{key}".replace("_", " "), "none" if value is None else text


def origins_section(data: ReportData) -> Markup:
    """How each kind of figure on the page was obtained."""
    counted = data.result or data.manifest or any(profile.counts for profile in data.profiles)
    kinds = ["counted"] if counted else []
    if data.result is not None:
        best = [data.result.best] if data.result.best is not None else []
        entries = [*best, *data.result.front]
        kinds += ["evaluated", *(entry.latency_ms.kind for entry in entries if entry.latency_ms is not None)]
    for profile in data.profiles:
        kinds += [profile.latency.kind, "measured", "derived"] if profile.opening else [profile.latency.kind, "derived"]
    rows: list[list[Child]] = [[kind_badge(kind), KIND_TITLES[kind]] for kind in dict.fromkeys(kinds)]
    notes = (
        "A percentile is shown only where at least five samples lie beyond it (p50 from 10 samples, p90 from 50, p99 "
        "from 500); the small figures under it are its 95 % interval. delta_m is the mean relative change of the "
        "tasks' deciding metrics against the baseline, its sign turned where lower is better, all tasks alike; a "
        "search with a preference ranks by the weighted delta_m, the mean with its weights. Figures of different kinds "
        "never share an axis."
    )
    known_from = dict(data.result.known_from) if data.result is not None else {}
    origins: list[list[Child]] = [[figure, origin] for figure, origin in known_from.items()]
    return card(
        "How each number was obtained",
        notes,
        table(["kind", "what it means"], rows, numbers=NONE),
        table(["figure of the search", "known from"], origins, numbers=NONE) if origins else None,
    )
