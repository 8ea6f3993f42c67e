"""The file of a latency table: what was measured, where and when, with the hash of it all; and where it is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.files.cache import cache_root
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.latency.parts import design_parts
from edgemtl.nas.latency.table import HeldOut, LatencyTable, MeasuredDesign
from edgemtl.results import FigureKind
from edgemtl.schema import Name, Strict, Text, parse_document
from edgemtl.spaces import Space
from edgemtl.targets import ExportTarget

__all__ = [
    "UNFINISHED",
    "Document",
    "StoredTable",
    "TableKey",
    "key_of",
    "measured_in",
    "misfits",
    "read_document",
    "read_table",
    "table_file",
    "table_files",
    "write_table",
]

SCHEMA = "edgemtl.latency/1"
UNFINISHED = "it is not whole"
_WHAT, _REMEDY = "latency table", "delete it, it is made again"

Ms = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class TableKey(Strict):
    """All that a latency depends on beside the design. A table of another key says nothing of this one's engines.

    `fingerprint` is the space's, `size` its input's (H, W). `runtime_version` and `processor` are this machine's, None
    of a device elsewhere; `threads` are those that a runtime takes: where it has the choice, all that it may use.
    """

    edgemtl: Name
    space: Name
    fingerprint: Name
    size: tuple[Count, Count]
    target: Name
    runtime: Name
    runtime_version: Name | None
    device: Name
    arithmetic: Name
    processor: Name | None
    threads: Count | None
    precisions: Annotated[tuple[Name, ...], Field(max_length=20)]
    kind: FigureKind

    def differences(self, wanted: TableKey) -> list[str]:
        """Where the `wanted` key differs, in words: "runtime_version 1.30.0 (1.31.0 here)"."""
        pairs = ((name, getattr(self, name), getattr(wanted, name)) for name in type(self).model_fields)
        return [f"{name.replace('_', ' ')} {a} ({b} here)" for name, a, b in pairs if a != b]


class _Scope(Strict):
    """Error on what was held out, as `HeldOut` has it."""

    error: Annotated[float, Field(ge=0)]
    tau: Annotated[float, Field(ge=-1, le=1)]
    designs: Count


class _Design(Strict):
    """One design, as `MeasuredDesign` has it."""

    options: Annotated[dict[Name, int | str], Field(max_length=5000)]
    medians_ms: Annotated[
        dict[str, Annotated[tuple[Ms, ...], Field(min_length=1, max_length=100)]], Field(min_length=1)
    ]
    profiled_ms: Annotated[tuple[Ms, ...], Field(max_length=20_000)]
    unnamed_ms: Ms


class Document(Strict):
    """The content of the file. `times_ms` is the table as people read it; it follows from `designs`."""

    schema_: Literal["edgemtl.latency/1"] = Field(default="edgemtl.latency/1", alias="schema")
    key: TableKey
    held_out: Annotated[dict[str, _Scope], Field(max_length=101)]
    times_ms: Annotated[dict[Text, Ms], Field(max_length=100_000)]
    designs: Annotated[tuple[_Design, ...], Field(min_length=1, max_length=10_000)]
    seconds: Annotated[float, Field(ge=0)]
    environment: dict[Name, JsonValue]
    sha256: str


@dataclass(frozen=True)
class StoredTable:
    """A table with the file that it is in, its key, and when it was made (UTC)."""

    table: LatencyTable
    key: TableKey
    file: Path
    made: str

    @property
    def words(self) -> str:
        """Where a predicted latency is known from, on one line."""
        whole = self.table.held_out[""]
        return (
            f"latency table {self.file.name} of {self.made[:10]}, {self.key.device}/{self.key.runtime}"
            f"{f' {self.key.runtime_version}' if self.key.runtime_version else ''}: error {100 * whole.error:.1f} % on "
            f"designs held out, Kendall tau {whole.tau:.2f}"
        )


def key_of(space: Space, target: ExportTarget, kind: FigureKind, threads: int) -> TableKey:
    """The key of a table made now: of this space, for this target on its device, with so many threads (0: any)."""
    traits, device, machine = target.traits, target.device, environment()
    here = device.is_here
    return TableKey(
        edgemtl=machine["edgemtl"],
        space=space.name,
        fingerprint=space.fingerprint,
        size=space.size,
        target=traits.name,
        runtime=traits.runtime,
        runtime_version=machine["packages"].get(traits.runtime) if here else None,
        device=device.name,
        arithmetic=device.arithmetic_of(traits.runtime),
        processor=machine["cpu"]["model"] if here else None,
        threads=threads or (machine["cpu"]["usable_threads"] if here else None),
        precisions=(*traits.block_precisions, *traits.engine_precisions),
        kind=kind,
    )


def table_files(weights: Path | None, key: TableKey) -> tuple[Path, ...]:
    """Where a table may lie, in the order in which it is looked for: beside the supernet `weights`, in the cache.

    One of each size of images and number of threads, so that who goes from one to another and back loses none.
    """
    size, threads = "x".join(map(str, key.size)), "" if key.threads is None else f"-{key.threads}"
    ending = f"latency.{key.device}-{key.runtime}-{size}{threads}.json"
    cached = cache_root() / "latency" / f"{key.space}-{key.fingerprint[:12]}.{ending}"
    return (cached,) if weights is None else (weights.with_suffix(f".{ending}"), cached)


def table_file(files: Iterable[Path]) -> Path:
    """The first of the files whose folder can be written; the last one's is made."""
    return next((file for file in files if os.access(file.parent, os.W_OK)), [*files][-1])


def write_table(
    path: Path, key: TableKey, measured: Sequence[MeasuredDesign], seconds: float, table: LatencyTable | None = None
) -> None:
    """Write what was measured, atomically, with the hash of it all; a `table` that is not whole yet tells no error."""
    designs = [
        {
            "options": dict(each.design),
            "medians_ms": each.medians_ms,
            "profiled_ms": each.profiled_ms,
            "unnamed_ms": each.unnamed_ms,
        }
        for each in measured
    ]
    content = {
        "schema": SCHEMA,
        "key": key.model_dump(mode="json"),
        "held_out": {scope: vars(each) for scope, each in table.held_out.items()} if table else {},
        "times_ms": table.times_ms if table else {},
        "designs": designs,
        "seconds": seconds,
        "environment": environment(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, sealed(json.loads(json.dumps(content))))


def read_document(path: Path, remedy: str = _REMEDY) -> Document:
    """The content of a table's file; `UserError`, one line with the `remedy`, where it is damaged or something else."""
    content = read_json(path, _WHAT)
    document = parse_document(content, f"{_WHAT} {path}", Document, SCHEMA, remedy)
    check_seal(content, path, _WHAT)
    return document


def misfits(path: Path, key: TableKey, scopes: Iterable[str], remedy: str = _REMEDY) -> list[str]:
    """Why a table cannot serve where `key` holds and `scopes` are wanted, in words; nothing where it can.

    Raises `UserError`, with the `remedy`, where the file is damaged, or something else.
    """
    document = read_document(path, remedy)
    differences = document.key.differences(key)
    if not differences and not document.held_out:
        return [UNFINISHED]
    missing = [scope or "all tasks" for scope in scopes if document.held_out and scope not in document.held_out]
    return differences + ([f"it has no latency of {' and '.join(missing)} alone"] if missing else [])


def measured_in(document: Document, space: Space, path: Path) -> list[MeasuredDesign]:
    """The designs of a file, in the space that it was made for; `UserError` where they are none of it."""
    measured = []
    scopes = document.designs[0].medians_ms.keys()
    for each in document.designs:
        design = space.design(each.options)
        if "" not in scopes or each.medians_ms.keys() != scopes or document.held_out.keys() not in (set(), scopes):
            raise UserError(f"{_WHAT} {path} has not the same latencies of every design: {_REMEDY}")
        if len(each.profiled_ms) != len(design_parts(design)) or not sum(each.profiled_ms):
            raise UserError(f"{_WHAT} {path} times other parts than its designs have: {_REMEDY}")
        measured.append(MeasuredDesign(design, each.medians_ms, each.profiled_ms, each.unnamed_ms))
    return measured


def read_table(path: Path, space: Space) -> StoredTable:
    """A whole table; raises `UserError` where the file is damaged, not whole, or of another space."""
    document = read_document(path)
    if document.key.fingerprint != space.fingerprint:
        raise UserError(f"{_WHAT} {path} is one of another space, {document.key.space}: give one of {space.name}")
    if not document.held_out:
        raise UserError(f"{_WHAT} {path} is not whole: go on with the search that makes it (--resume)")
    held_out = {scope: HeldOut(**dict(each)) for scope, each in document.held_out.items()}
    table = LatencyTable(tuple(measured_in(document, space, path)), held_out)
    return StoredTable(table, document.key, path, str(document.environment.get("time_utc", "")))
