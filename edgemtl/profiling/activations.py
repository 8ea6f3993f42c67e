"""Memory of activations: bytes that must be there at once while a graph runs, operator by operator.

Operators run in the file's order. A tensor is there from the operator that writes it to the last that reads it, an
input of the graph from the start, an output to the end. Reshaping takes no memory, and what is computed element by
element takes over the memory of a tensor that nobody reads later, inputs of the graph aside, as in every runtime's
plan. Weights, and what is computed from them alone, are no activations. A runtime's own peak differs: it fuses
operators, changes layouts and keeps scratch memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgemtl.profiling.walk import Item

__all__ = ["Activations", "peaks_of"]


@dataclass(frozen=True)
class Activations:
    """Peaks in bytes of one call of all tasks: in all, while shared operators run, and while each task's own do.

    `saved` is by how much the peak of all tasks falls without the task: what it costs at the margin.
    """

    total: int
    trunk: int
    tasks: Mapping[str, int]
    saved: Mapping[str, int]


def peaks_of(
    items: Sequence[tuple[Item, frozenset[str]]], inputs: Mapping[str, int | None], tasks: Mapping[str, Collection[str]]
) -> Activations | str:
    """Peaks of items in order, each with the tasks that need it; or the name of a tensor whose size is not known.

    `inputs` are the graph's, with their bytes, `tasks` the tensors that each gives.
    """
    plan = _plan(items, inputs)
    if isinstance(plan, str):
        return plan
    together = _live(plan, items, tasks)
    needed = [wanted_by for _, wanted_by in items]
    total = max(together, default=0)
    rest = {task: {name: tensors for name, tensors in tasks.items() if name != task} for task in tasks}
    return Activations(
        total=total,
        trunk=max((live for live, by in zip(together, needed, strict=True) if len(by) > 1), default=0),
        tasks={
            task: max((live for live, by in zip(together, needed, strict=True) if by == {task}), default=0)
            for task in tasks
        },
        saved={task: total - max(_live(plan, items, others), default=0) for task, others in rest.items()},
    )


@dataclass(frozen=True)
class _Plan:
    """Pieces of memory: their bytes, and those that each tensor lies in; `first` are the inputs' pieces."""

    sizes: Sequence[int]
    pieces: Mapping[str, frozenset[int]]
    first: Mapping[str, int]


def _plan(items: Sequence[tuple[Item, frozenset[str]]], inputs: Mapping[str, int | None]) -> _Plan | str:
    sizes: list[int] = []
    pieces: dict[str, frozenset[int]] = {}
    first: dict[str, int] = {}
    for name, size in inputs.items():
        if size is None:
            return name
        first[name], pieces[name] = len(sizes), frozenset([len(sizes)])
        sizes.append(size)
    for item, _ in items:
        read = frozenset[int]().union(*(pieces.get(name, frozenset()) for name in item.reads))
        moves = any(name in pieces for name in item.reads)
        for name, size in zip(item.writes, item.sizes, strict=True) if moves else ():
            if item.holds == "views":
                pieces[name] = read
            elif size is None:
                return name
            else:
                pieces[name] = frozenset([len(sizes)])
                sizes.append(size)
    return _Plan(sizes, pieces, first)


def _live(plan: _Plan, items: Sequence[tuple[Item, frozenset[str]]], tasks: Mapping[str, Collection[str]]) -> list[int]:
    """Bytes that are there while each operator runs, in a call of `tasks`; 0 for those that it leaves out."""
    runs = [not wanted_by.isdisjoint(tasks) for _, wanted_by in items]
    last = _last_uses(plan, items, runs, tasks)
    dying: dict[int, list[int]] = {}
    for piece, position in last.items():
        dying.setdefault(position, []).append(piece)
    live_pieces = {piece for piece in plan.first.values() if piece in last}
    now = sum(plan.sizes[piece] for piece in live_pieces)
    live = []
    for position, (item, _) in enumerate(items):
        if not runs[position]:
            live.append(0)
            continue
        written = sorted({piece for name in item.writes for piece in plan.pieces.get(name, ())} - live_pieces)
        live_pieces.update(written)
        now += sum(plan.sizes[piece] for piece in written)
        gone = [piece for piece in dying.get(position, ()) if piece in live_pieces]
        live.append(now - (_taken_over(plan, written, gone) if item.holds == "takes over" else 0))
        live_pieces.difference_update(gone)
        now -= sum(plan.sizes[piece] for piece in gone)
    return live


def _taken_over(plan: _Plan, written: Sequence[int], gone: Sequence[int]) -> int:
    """Bytes of what is written into the memory of tensors of the same size that nobody reads later."""
    free = [plan.sizes[piece] for piece in gone if piece not in written and piece not in plan.first.values()]
    taken = 0
    for piece in written:
        if plan.sizes[piece] in free:
            free.remove(plan.sizes[piece])
            taken += plan.sizes[piece]
    return taken


def _last_uses(
    plan: _Plan,
    items: Sequence[tuple[Item, frozenset[str]]],
    runs: Sequence[bool],
    tasks: Mapping[str, Collection[str]],
) -> dict[int, int]:
    """The place of the last operator that writes or reads each piece; behind all others for what is given back."""
    last: dict[int, int] = {}
    for position, (item, _) in enumerate(items):
        for name in (*item.reads, *item.writes) if runs[position] else ():
            last.update(dict.fromkeys(plan.pieces.get(name, ()), position))
    for tensors in tasks.values():
        for name in tensors:
            last.update(dict.fromkeys(plan.pieces.get(name, ()), len(items)))
    return last
