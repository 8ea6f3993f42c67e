"""The graph of a streaming engine: operators as JSON, where their weights lie in the file, what a set of tasks runs.

A graph may be untrusted: its schema allows no other key, every tensor must be written before it is read, and every
weight must lie inside the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from edgemtl.errors import UserError
from edgemtl.runtime.streaming.operators import OPERATORS
from edgemtl.runtime.streaming.weights import ALIGNMENT, Piece
from edgemtl.schema import Name, Strict, read_document

__all__ = [
    "IMAGE",
    "MIXTURE",
    "SCHEMA",
    "Expert",
    "Operator",
    "StreamGraph",
    "Stretch",
    "Weight",
    "read_graph",
    "weights_of",
]

SCHEMA: Literal["edgemtl.streaming/1"] = "edgemtl.streaming/1"
IMAGE = "image"
MIXTURE = "Mixture"
"""Tokens (N, tokens, C) and a router's queues to tokens: experts one after another, sums of their outputs by gates."""

_FLOAT = np.dtype("<f4")
Offset = Annotated[int, Field(ge=0, le=1 << 50, multiple_of=ALIGNMENT)]
Side = Annotated[int, Field(ge=1, le=1 << 30)]
Value = bool | int | float | str | Annotated[tuple[int, ...], Field(max_length=8)]


class Weight(Strict):
    """A tensor of FP32 (little-endian) in the weights file, `offset` bytes from its start."""

    offset: Offset
    shape: Annotated[tuple[Side, ...], Field(min_length=1, max_length=4)]

    @property
    def size_bytes(self) -> int:
        """Bytes of its values."""
        return _FLOAT.itemsize * math.prod(self.shape)


class Operator(Strict):
    """One operator: what it reads, the tensor it writes, its attributes by ONNX's names and its weights.

    A mixture (`op` is `MIXTURE`) reads tokens and what a router gave for them, and has `experts` in the router's order.
    """

    name: Name
    op: Name
    block: Annotated[str, Field(max_length=500)] = ""
    inputs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000)]
    output: Name
    attributes: dict[str, Value] = Field(default_factory=dict)
    weights: dict[str, Weight] = Field(default_factory=dict)
    experts: tuple[Expert, ...] = ()

    @cached_property
    def piece(self) -> Piece | None:
        """The part of the file that it reads; None without weights of its own."""
        return _piece([self])


class Expert(Strict):
    """One expert: the name under which its operators read its tokens (n, C), and the tensor that they give."""

    input: Name
    output: Name
    operators: Annotated[tuple[Operator, ...], Field(min_length=1, max_length=100)]

    @cached_property
    def piece(self) -> Piece | None:
        """The part of the file that it reads, all at once."""
        return _piece(self.operators)


class StreamGraph(Strict):
    """Operators in order of execution, from the tensor `image` (1, 3, H, W) on, and the size of the weights file."""

    schema_: Literal["edgemtl.streaming/1"] = Field(default=SCHEMA, alias="schema")
    weight_bytes: Offset
    operators: Annotated[tuple[Operator, ...], Field(min_length=1, max_length=100_000)]

    @model_validator(mode="after")
    def _coherent(self) -> StreamGraph:
        written = {IMAGE}
        for operator in self.operators:
            _check(operator, written, self.weight_bytes)
            written.add(operator.output)
        return self

    def stretch(self, outputs: Iterable[str]) -> Stretch:
        """The operators that these tensors need, and nothing else."""
        wanted = set(outputs)
        needed, operators = set(wanted), []
        for operator in reversed(self.operators):
            if operator.output in needed:
                operators.append(operator)
                needed.update(operator.inputs)
        operators.reverse()
        last = {
            name: index for index, operator in enumerate(operators) for name in operator.inputs if name not in wanted
        }
        dropped: list[list[str]] = [[] for _ in operators]
        for name, index in last.items():
            dropped[index].append(name)
        return Stretch(tuple(operators), tuple(map(tuple, dropped)), tuple(_following(operators)))

    def buffer_bytes(self, outputs: Sequence[str]) -> int:
        """The most that two pieces take which may follow each other, whichever of `outputs` are wanted.

        Between them may lie what is left out: experts without tokens, operators that some outputs do not need.
        """
        runs = [{operator.output for operator in self.stretch([output]).operators} for output in outputs]
        always = set.intersection(*runs)
        most = before = 0
        for operator in self.operators:
            for piece in filter(None, [operator.piece, *(expert.piece for expert in operator.experts)]):
                most = max(most, before + piece.size_bytes)
                skipped = bool(operator.experts) or operator.output not in always
                before = max(before, piece.size_bytes) if skipped else piece.size_bytes
        return most


@dataclass(frozen=True)
class Stretch:
    """The operators that a set of tasks runs, in order.

    For each: the tensors that nothing reads after it, and the piece of weights that will be needed next. That is none
    where a mixture comes first: which of its experts are read depends on the image.
    """

    operators: tuple[Operator, ...]
    dropped: tuple[tuple[str, ...], ...]
    following: tuple[Piece | None, ...]


def weights_of(operator: Operator, piece: Piece | None, memory: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """An operator's tensors inside the bytes of the piece that was read for it."""
    start = piece.offset if piece else 0
    return {
        name: memory[weight.offset - start :][: weight.size_bytes].view(_FLOAT).reshape(weight.shape)
        for name, weight in operator.weights.items()
    }


def read_graph(path: Path, weights: Path) -> StreamGraph:
    """The graph in `path` over the file `weights`; raises `UserError` where either is damaged or foreign."""
    graph = read_document(path, "engine graph", StreamGraph, SCHEMA, "export the bundle again")
    size = weights.stat().st_size
    if size != graph.weight_bytes:
        raise UserError(
            f"{weights} has {size} bytes where {path.name} speaks of {graph.weight_bytes}: it was cut short or belongs "
            "to another engine; export the bundle again"
        )
    return graph


def _piece(operators: Sequence[Operator]) -> Piece | None:
    weights = [weight for operator in operators for weight in operator.weights.values()]
    if not weights:
        return None
    start = min(weight.offset for weight in weights)
    size = max(weight.offset + weight.size_bytes for weight in weights) - start
    return Piece(start, -(-size // ALIGNMENT) * ALIGNMENT)


def _following(operators: Sequence[Operator]) -> Iterator[Piece | None]:
    """For each operator the first piece after it that is certain to be read next."""
    coming: list[Piece | None] = [None]
    for operator in reversed(operators[1:]):
        coming.append(None if operator.experts else operator.piece or coming[-1])
    return reversed(coming)


def _check(operator: Operator, written: set[str], weight_bytes: int, inside: bool = False) -> None:
    """Raise `ValueError` where an operator cannot be run after those that wrote these tensors."""
    where = f"operator {operator.op} of {operator.name}"
    missing = [name for name in operator.inputs if name not in written]
    if missing or operator.output in written:
        raise ValueError(f"{where} reads {missing[0]!r}, which nothing wrote" if missing else f"{where} writes twice")
    if operator.op == MIXTURE and not inside:
        if len(operator.inputs) != 2 or not operator.experts or operator.weights or operator.attributes:
            raise ValueError(f"{where} takes tokens, a router's queues, and experts")
        for expert in operator.experts:
            _check_expert(expert, where, weight_bytes)
        return
    kind = OPERATORS.get(operator.op)
    if kind is None or operator.experts:
        raise ValueError(f"{where} is none that this version computes")
    if kind.inputs not in (None, len(operator.inputs)):
        raise ValueError(f"{where} takes {kind.inputs} inputs, not {len(operator.inputs)}")
    _check_names(where, "attributes", operator.attributes, kind.attributes, ())
    _check_names(where, "weights", operator.weights, kind.weights, kind.optional)
    if operator.piece and operator.piece.offset + operator.piece.size_bytes > weight_bytes:
        raise ValueError(f"{where} has weights beyond the end of the file")


def _check_expert(expert: Expert, where: str, weight_bytes: int) -> None:
    written = {expert.input}
    for operator in expert.operators:
        _check(operator, written, weight_bytes, inside=True)
        written.add(operator.output)
    if expert.output not in written:
        raise ValueError(f"{where} has an expert that does not write its output {expert.output!r}")


def _check_names(
    where: str, what: str, given: Mapping[str, object], needed: Sequence[str], optional: Sequence[str]
) -> None:
    if not set(needed) <= given.keys() <= {*needed, *optional}:
        raise ValueError(f"{where} has the {what} {sorted(given)}, not {sorted(needed)}")
