"""A transformer's design read for drawing: its blocks of tokens, and which of their experts each task may reach."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemtl.bundle import BundleExperts

__all__ = ["Route", "TokenBlock", "other_choices", "token_blocks"]

_BLOCK = re.compile(r"b(\d{1,4})")
_TRUNK = "vit"
_MOST_BLOCKS = 200
Values = Mapping[str, object]


@dataclass(frozen=True)
class Route:
    """What a task (None: all alike) may reach in a mixture, and to how many a token goes; None where nothing tells."""

    task: str | None
    experts: int | None
    top_k: int | None


@dataclass(frozen=True)
class TokenBlock:
    """One transformer block: heads of its attention, hidden units of its MLP (None: not a choice), or its routes."""

    name: str
    precision: str
    heads: int | None
    hidden: int | None
    routes: tuple[Route, ...] = ()


def token_blocks(
    design: Values, tasks: Sequence[str], precision: Values, experts: Sequence[BundleExperts] = ()
) -> list[TokenBlock]:
    """The blocks b1, b2, … of a design of the family `vit`, in order; none for another family's.

    Precisions are read as by `design_parts`; `experts` (a manifest's) tell what is no choice of the space.
    """
    precisions = {**_precisions(design), **{name: str(value) for name, value in precision.items()}}
    if "patches" not in precisions and not any(name.startswith(f"{_TRUNK}.") for name in design):
        return []
    told = {(use.layer, use.task): Route(use.task, len(use.experts), use.top_k) for use in experts}
    mixtures = {layer for layer, _ in told} | {part for task in tasks for part in _routed(design, task)}
    names = {*(name for name in precisions if _BLOCK.fullmatch(name)), *mixtures}
    numbers = {int(match[1]) for name in names if (match := _BLOCK.fullmatch(name))}
    depth = _whole(design.get(f"{_TRUNK}.depth"))
    count = depth if depth is not None else max(numbers, default=0)
    blocks = []
    for name in (f"b{number}" for number in range(1, min(count, _MOST_BLOCKS) + 1)):
        routes: tuple[Route, ...] = ()
        if (name, None) in told:
            routes = (told[name, None],)
        elif name in mixtures:
            routes = tuple(told.get((name, task)) or _route(design, task, name) for task in tasks)
        heads, hidden = (_whole(design.get(f"{_TRUNK}.{attribute}")) for attribute in ("heads", "hidden"))
        blocks.append(TokenBlock(name, precisions.get(name, "float"), heads, hidden, routes))
    return blocks


def other_choices(values: Values, tasks: Sequence[str]) -> dict[str, object]:
    """The choices of a design, or the blocks of its precision, that `token_blocks` does not tell of."""
    own = re.compile("|".join(rf"{re.escape(task)}\.(experts|b\d+\.top_k)" for task in tasks))
    return {
        name: value
        for name, value in values.items()
        if name.partition(".")[0] != _TRUNK
        and not _BLOCK.fullmatch(name.partition(".")[0])
        and not (tasks and own.fullmatch(name))
    }


def _precisions(design: Values) -> dict[str, str]:
    return {name.removesuffix(".precision"): str(v) for name, v in design.items() if name.endswith(".precision")}


def _routed(design: Values, task: str) -> set[str]:
    """The layers in which a task has a choice of top-k."""
    pattern = re.compile(rf"{re.escape(task)}\.(b\d+)\.top_k")
    return {match[1] for name in design if (match := pattern.fullmatch(name))}


def _route(design: Values, task: str, name: str) -> Route:
    return Route(task, _whole(design.get(f"{task}.experts")), _whole(design.get(f"{task}.{name}.top_k")))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
