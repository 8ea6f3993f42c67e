"""Exact FLOPs, parameters and bytes of an ONNX file, split into the shared part and each task's own.

Counts describe what is deployed: they come from the file, and where it lacks shapes, from a run of it.
Every output is a task unless the metadata name tasks. A part that several tasks need counts once, in the trunk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edgemtl.errors import UserError, reason_of
from edgemtl.files.json import parse_json
from edgemtl.files.onnx import read_onnx
from edgemtl.graphs import Tasks, tasks_of_operators
from edgemtl.profiling.activations import Activations, peaks_of
from edgemtl.profiling.inputs import InputChoice, declared_in, settle_inputs
from edgemtl.profiling.names import short_name
from edgemtl.profiling.shapes import known_model
from edgemtl.profiling.walk import Count, Item, Remark, Walker, tensor_bytes

__all__ = ["Cost", "Count", "count_graph", "count_operators"]


@dataclass(frozen=True)
class Cost:
    """Counts of a whole graph, of what several tasks share, of each task's own part, and of all that each task runs.

    `notes` hold one line for every operator that could not be counted, with the reason, and for every assumption.
    `activations` are there where they were asked for and every size is known.
    """

    total: Count
    trunk: Count
    tasks: Mapping[str, Count]
    paths: Mapping[str, Count]
    notes: tuple[str, ...] = ()
    activations: Activations | None = None


def count_graph(
    model: onnx.ModelProto | Path,
    *,
    heads: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    choice: InputChoice | None = None,
    activations: bool = False,
) -> Cost:
    """Counts of an ONNX model or file; a batch dimension without a number is taken as 1.

    FLOPs are those of products (`_macs`); experts get even shares of the tokens, where edgemtl's metadata tell how many
    they share. Parameters and bytes include Constant and ConstantOfShape nodes and what stands inside `If`, of which
    the dearer branch's FLOPs count, and in `Loop` and `Scan`, whose FLOPs count as often as they run.

    `heads` gives each task's output tensor; without it the metadata or the outputs' names do. `only` leaves out other
    tasks and what they alone need. `choice` settles open inputs as in `profile`. `activations` asks for their peaks:
    a file whose sizes cannot all be inferred is run once for them. Raises `UserError` for a file that is no ONNX model,
    sizes that do not fit, and a task of `only` that is not there; whatever else cannot be counted is noted.
    """
    folder = model.parent.resolve() if isinstance(model, Path) else None
    file = model.name if isinstance(model, Path) else "the model"
    model = read_onnx(model) if isinstance(model, Path) else model
    try:
        return _count(model, file, folder, _Wanted(heads, only, activations), choice or InputChoice())
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = reason_of(error)
        raise UserError(f"{file} is no valid ONNX graph ({reason}): it was damaged, export it again") from error


def count_operators(model: onnx.ModelProto) -> dict[str, Count]:
    """Counts of every operator and constant of a model whose inputs have fixed sizes, by the first tensor it writes."""
    inputs = settle_inputs(declared_in(model.graph), {}, "the model")
    shaped, reason = known_model(model, inputs, InputChoice().integers, None, {})
    items = Walker({}, {}, {}, reason).walk(shaped.graph, "")
    return {item.writes[0]: item.count for item in items if item.writes}


@dataclass(frozen=True)
class _Wanted:
    """The arguments of `count_graph` that say what is counted."""

    heads: Mapping[str, str] | None
    only: Collection[str] | None
    activations: bool


def _count(model: onnx.ModelProto, file: str, folder: Path | None, wanted: _Wanted, choice: InputChoice) -> Cost:
    heads, only = wanted.heads, wanted.only
    inputs = settle_inputs(declared_in(model.graph), choice.shapes, file)
    lengths = _metadata(model, "even_tokens")
    shaped, reason = known_model(model, inputs, choice.integers, folder, lengths, wanted.activations)
    walker = Walker({}, {}, {}, reason)
    items = list(walker.walk(shaped.graph, ""))
    outputs = dict.fromkeys(output.name for output in model.graph.output)
    named = _tasks(model, outputs) if heads is None else {task: {name} for task, name in heads.items()}
    if missing := [task for task in only or () if task not in named]:
        raise UserError(f"{file} has no output for {', '.join(missing)}: it has {', '.join(map(short_name, named))}")
    chosen = {task: names for task, names in named.items() if only is None or task in only}
    needed = _needed(items, chosen)
    cost = _split(needed, chosen)
    if not cost.total.flops and not cost.notes:
        cost = replace(cost, notes=("none of its operators multiplies matrices: there are no FLOPs to count",))
    if wanted.activations:
        sizes = {each.name: tensor_bytes(each.sizes, walker.kinds.get(each.name)) for each in inputs}
        cost = _with_activations(cost, peaks_of(needed, sizes, chosen))
    return cost


def _metadata(model: onnx.ModelProto, key: str) -> dict[str, Any]:
    """A mapping that edgemtl wrote into the model's metadata; empty if there is none."""
    for entry in model.metadata_props:
        if entry.key == key:
            try:
                mapping = parse_json(entry.value)
            except ValueError:
                return {}
            return mapping if isinstance(mapping, dict) else {}
    return {}


def _tasks(model: onnx.ModelProto, outputs: Collection[str]) -> dict[str, set[str]]:
    """Output tensors of each task: by the metadata that edgemtl writes, or every output for itself."""
    tensors: dict[str, set[str]] = {}
    for entry in model.metadata_props:
        if entry.key == "tasks":
            try:
                given = parse_json(entry.value)
                tensors = {str(task): set(map(str, value["outputs"])) for task, value in given.items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                tensors = {}
    named = {name for names in tensors.values() for name in names}
    return tensors if named and named <= set(outputs) else {name: {name} for name in outputs}


def _with_activations(cost: Cost, peaks: Activations | str) -> Cost:
    if isinstance(peaks, Activations):
        return replace(cost, activations=peaks)
    note = f"the peak of activations is not known: the size of {short_name(peaks)!r} is not"
    return replace(cost, notes=(*cost.notes, note))


def _needed(items: Sequence[Item], tasks: Mapping[str, set[str]]) -> list[tuple[Item, Tasks]]:
    """The items that tasks need, in order, each with those tasks."""
    owners = tasks_of_operators([(item.reads, item.writes) for item in items], tasks)
    return [(item, wanted_by) for item, wanted_by in zip(items, owners, strict=True) if wanted_by]


def _split(wanted: Sequence[tuple[Item, Tasks]], tasks: Collection[str]) -> Cost:
    pairs = [(item.count, wanted_by) for item, wanted_by in wanted]
    return Cost(
        total=_sum(count for count, _ in pairs),
        trunk=_sum(count for count, wanted_by in pairs if len(wanted_by) > 1),
        tasks={task: _sum(count for count, wanted_by in pairs if wanted_by == {task}) for task in tasks},
        paths={task: _sum(count for count, wanted_by in pairs if task in wanted_by) for task in tasks},
        notes=_notes(item.remark for item, _ in wanted if item.remark is not None),
    )


def _sum(counts: Iterable[Count]) -> Count:
    total = Count()
    for count in counts:
        total += count
    return total


def _notes(remarks: Iterable[Remark]) -> tuple[str, ...]:
    """One line for every operator and reason: the first node, and how many more there are."""
    labels_of: dict[tuple[str, str], list[str]] = {}
    for remark in remarks:
        labels_of.setdefault((remark.operator, remark.what), []).append(remark.label)
    return tuple(
        f"{operator} {short_name(labels[0])!r}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: {what}"
        for (operator, what), labels in labels_of.items()
    )
