"""A design read for drawing: which blocks stand where, how wide they are, and in what precision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

__all__ = ["Bar", "Part", "design_parts"]

_DECODER = ("neck", "body", "head")
_INNER = ("dense", "expand", "first")
"""Convolutions whose outputs stay inside their block."""
Values = Mapping[str, object]


@dataclass(frozen=True)
class Bar:
    """One block: its name, channels (None where the space leaves no choice), precision and what else was chosen."""

    name: str
    channels: int | None
    precision: str
    note: str


@dataclass(frozen=True)
class Part:
    """A stage of the trunk (`task` is None) or a task's decoder, with its blocks in order."""

    name: str
    task: str | None
    bars: tuple[Bar, ...]


def design_parts(design: Values, tasks: Sequence[str], precision: Values | None = None) -> list[Part]:
    """Parts of a design whose choices are named `PART.ATTRIBUTE` (`s1.width`) and blocks `PART_NUMBER` (`s1_2`).

    Precisions stand in the design as `BLOCK.precision`, or by block in `precision` (a manifest's), which then also
    tells which blocks exist. What was pruned stands there as `BLOCK.CONVOLUTION.channels`. Trunk first, in natural
    order, then the tasks in theirs.
    """
    attributes: dict[str, dict[str, object]] = {}
    pruned: dict[str, int] = {}
    for choice, option in design.items():
        part, _, attribute = choice.rpartition(".")
        block, _, convolution = part.rpartition(".")
        if attribute == "channels" and block:
            pruned |= {block: option} if isinstance(option, int) and convolution not in _INNER else {}
        else:
            attributes.setdefault(part, {})[attribute] = option
    precisions = {part: str(found["precision"]) for part, found in attributes.items() if "precision" in found}
    precisions |= {block: str(value) for block, value in (precision or {}).items()}
    precisions.pop("engine", None)
    stages = [part for part, found in attributes.items() if part not in tasks and set(found) - {"precision"}]
    stages += [stage for block in precisions if (stage := _stage(block, tasks)) is not None]
    trunk = [_trunk_part(stage, attributes.get(stage, {}), precisions) for stage in sorted(set(stages), key=_order)]
    parts = [*(part for part in trunk if part.bars), *(_decoder(t, attributes.get(t, {}), precisions) for t in tasks)]
    return [replace(part, bars=tuple(_pruned(bar, pruned) for bar in part.bars)) for part in parts]


def _pruned(bar: Bar, channels: Mapping[str, int]) -> Bar:
    return replace(bar, channels=channels[bar.name]) if bar.name in channels else bar


def _stage(block: str, tasks: Sequence[str]) -> str | None:
    """The stage that a trunk block belongs to (`s1_2` to s1); None for a block of a task."""
    if any(block == task or block.startswith(f"{task}_") for task in tasks):
        return None
    return re.sub(r"_\d+$", "", block)


def _order(stage: str) -> tuple[int, list[tuple[int, str]]]:
    """Stem first, what is called last at the end, numbers inside names by value (s2 before s10)."""
    rank = {"stem": 0, "last": 2}.get(stage, 1)
    return rank, [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", stage)]


def _trunk_part(stage: str, found: Values, precisions: Mapping[str, str]) -> Part:
    pattern = re.compile(rf"{re.escape(stage)}_(\d+)")
    numbered = [int(match[1]) for block in precisions if (match := pattern.fullmatch(block))]
    depth = found.get("depth")
    count = depth if isinstance(depth, int) else max(numbered, default=0)
    names = [f"{stage}_{number}" for number in range(1, count + 1)] or [stage]
    note = " ".join(_words(found))
    return Part(stage, None, tuple(Bar(name, _width(found), precisions.get(name, "float"), note) for name in names))


def _decoder(task: str, found: Values, precisions: Mapping[str, str]) -> Part:
    present = [f"{task}_{part}" for part in _DECODER if f"{task}_{part}" in precisions] or [task]
    depth = found.get("depth")
    bars = []
    for name in present:
        repeats = depth if isinstance(depth, int) and name in (f"{task}_body", task) else 1
        for number in range(1, repeats + 1):
            note = f"convolution {number} of {repeats}" if repeats > 1 else ""
            bars.append(Bar(name, _width(found), precisions.get(name, "float"), note))
    return Part(task, task, tuple(bars))


def _width(found: Values) -> int | None:
    width = found.get("width")
    return width if isinstance(width, int) and width > 0 else None


def _words(found: Values) -> list[str]:
    """What was chosen besides width, depth and precision, in few signs: `x3 fused 3x3` is expansion, kind, kernel."""
    words = []
    for name, option in found.items():
        if name == "expand":
            words.append(f"x{option}")
        elif name == "kernel":
            words.append(f"{option}x{option}")
        elif name not in ("width", "depth", "precision"):
            words.append(str(option) if name == "block" else f"{name} {option}")
    return words
