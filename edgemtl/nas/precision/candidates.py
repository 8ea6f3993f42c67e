"""Candidates of a precision search: blocks that lose least in INT8, as far as every task keeps its floor.

A greedy form: blocks are ordered by what each alone costs the task that it hurts most, and as many as possible, from
the gentlest on, become INT8; how many is found by halving, on engines that are scored whole, since losses add up in
ways that nothing foresees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Agreements", "gentlest_first", "longest_kept", "worth_rounding"]

Agreements = Mapping[str, float]
"""Agreement of each task with the float net, 1 where nothing differs."""


def gentlest_first(alone: Mapping[str, Agreements], allowed: Mapping[str, float]) -> list[str]:
    """Blocks by the agreement that each, alone in INT8, takes from the task that may lose least of it, least first.

    `allowed` is what each task may lose, as a fraction. Agreement, which changes with every value, tells blocks apart
    on few images; a metric of labels does not.
    """

    def worst(block: str) -> float:
        return max((1 - alone[block][task]) / max(most, 1e-9) for task, most in allowed.items())

    return sorted(alone, key=worst)


def longest_kept(count: int, kept: Callable[[int], bool]) -> int:
    """The largest number of blocks, from the first on, that keeps all floors, by halving; 0 where none does."""
    least, most = 0, count
    if kept(count):
        return count
    while most - least > 1:
        middle = (least + most) // 2
        if kept(middle):
            least = middle
        else:
            most = middle
    return least


def worth_rounding(
    blocks: Sequence[str], float_ms: Mapping[str, float], rounded_ms: Mapping[str, float]
) -> Iterator[tuple[str, ...]]:
    """Fewer of the blocks: those that are faster in INT8 in the profile of a whole engine, and without any that gain
    less than a hundredth of all that is spent."""
    gains = {block: float_ms.get(block, 0.0) - rounded_ms.get(block, 0.0) for block in blocks}
    total = sum(float_ms.values())
    for least in (0.0, 0.01 * total):
        chosen = tuple(block for block in blocks if gains[block] > least)
        if chosen and len(chosen) < len(blocks):
            yield chosen
