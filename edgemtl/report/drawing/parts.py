"""Small pieces that several sections of the page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgemtl.report.drawing.html import Child, Markup, element
from edgemtl.results import Latency
from edgemtl.units import format_bytes, format_flops

__all__ = [
    "WEIGHTED",
    "card",
    "count_text",
    "kind_badge",
    "latency_text",
    "listed",
    "meter",
    "ms_text",
    "short_flops",
    "stack_row",
    "swatch",
    "task_class",
]

KIND_TITLES: Mapping[str, str] = {
    "measured": "timed on the exported engine through its runtime, or read from a sensor or the system",
    "derived": "arithmetic on measured figures; the formula stands beside it",
    "estimated": "a roofline from the device's stated rates, not a measurement",
    "predicted": "a model fitted to measurements of other designs",
    "simulated": "a simulation of the hardware or of what an engine computes on it, not the hardware",
    "counted": "counted exactly on the network's graph: 1 MAC is 2 FLOPs",
    "evaluated": "scored on held-out data that took no part in any decision",
}


_LETTER = 0.013
"""The part of a bar's width that a letter takes."""
WEIGHTED = "weighted delta_m"
"""Beside delta_m, which counts all tasks alike: the mean with the search's preference for weights."""


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def card(title: str, lead: Child, *body: Child) -> Markup:
    """One section of the page."""
    return element("section", element("h2", title), element("p", lead, class_="lead"), body, class_="card")


def kind_badge(kind: str) -> Markup:
    """Where a figure comes from, as a small label that explains itself on hover."""
    return element("span", kind, class_="kind", title=KIND_TITLES.get(kind))


def latency_text(latency: Latency) -> str:
    """`6.1 ms measured on host/onnxruntime`, with the error of what was predicted."""
    return f"{ms_text(latency.value)} ms {latency.origin} on {latency.device}/{latency.runtime}"


def count_text(count: float) -> str:
    """`6.17 k` or `1.50 M`."""
    return format_bytes(count).removesuffix("B").strip()


def ms_text(value: float) -> str:
    """Milliseconds with three significant figures, zeros at the end included, so that columns line up."""
    size = abs(value)
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def short_flops(flops: float) -> str:
    """`1.93 GFLOPs`, without the MACs, where space is short."""
    return format_flops(flops).partition(" (")[0]


def swatch(class_: str, text: str) -> Markup:
    """An entry of a legend."""
    return element("li", element("span", class_=f"swatch {class_}"), text)


def task_class(task: str, tasks: Sequence[str]) -> str:
    """The colour of a task (of eight, by its index), the trunk's for anything else."""
    return f"c{tasks.index(task) % 8}" if task in tasks else "c-trunk"


def meter(share: float, class_: str) -> Markup:
    """A bar filled to `share` (0 to 1)."""
    return element("span", element("i", class_=class_, style=f"width:{100 * share:.1f}%"), class_="meter")


def stack_row(name: str, total: str, parts: Mapping[str, tuple[float, str, str]]) -> Markup:
    """A bar split into parts by size: each label has its size, its size in words and its class. Sizes are 0 or more."""
    whole = sum(size for size, _, _ in parts.values()) or 1.0
    spans = [
        element(
            "span",
            label if size / whole > max(0.11, _LETTER * len(label)) else None,
            class_=class_,
            style=f"width:{100 * size / whole:.2f}%",
            title=f"{label}: {words} ({size / whole:.0%})",
        )
        for label, (size, words, class_) in parts.items()
    ]
    title = element("div", name, element("small", total), class_="name")
    return element("div", title, element("div", spans, class_="stack"), class_="stack-row")
