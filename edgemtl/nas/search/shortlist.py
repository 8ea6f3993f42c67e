"""The finalists as they were measured, in the run's folder: latencies that are measured again are never quite the same.

A search that was stopped while its finalists are trained goes on with these, and so with the trainings that it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.evaluation import Evaluation, Finalist
from edgemtl.schema import Name, Strict, parse_document
from edgemtl.spaces import Space

__all__ = ["SHORTLIST_FILE", "read_shortlist", "write_shortlist"]

SHORTLIST_FILE = "finalists.json"
SCHEMA = "edgemtl.finalists/1"


class _Measured(Strict):
    """A finalist without its net, which follows from the supernet."""

    design: dict[Name, int | str]
    metrics: dict[Name, dict[Name, float]]
    latency_ms: dict[str, Annotated[float, Field(ge=0)]]
    latency_error: dict[str, float]
    ratio: Annotated[float, Field(ge=0)]


class _Shortlist(Strict):
    """The file: `evaluations` and `architectures` say of which search's state these are the finalists."""

    schema_: Literal["edgemtl.finalists/1"] = Field(default="edgemtl.finalists/1", alias="schema")
    evaluations: int
    architectures: int
    finalists: Annotated[tuple[_Measured, ...], Field(min_length=1, max_length=1000)]
    sha256: str


def write_shortlist(run: Path, state: Mapping[str, int], finalists: Sequence[Finalist]) -> None:
    """Keep measured finalists, with the `evaluations` and `architectures` that they were picked from."""
    measured = [
        {
            "design": dict(each.candidate.design),
            "metrics": each.evaluation.metrics,
            "latency_ms": each.evaluation.latency_ms,
            "latency_error": each.evaluation.latency_error,
            "ratio": each.ratio,
        }
        for each in finalists
    ]
    write_json(run / SHORTLIST_FILE, sealed({"schema": SCHEMA, **state, "finalists": measured}))


def read_shortlist(run: Path, state: Mapping[str, int], space: Space) -> list[tuple[Evaluation, float]] | None:
    """The evaluation and ratio of each finalist of a run; None where there are none, or those of another state.

    Raises `UserError` for a damaged file.
    """
    path = run / SHORTLIST_FILE
    if not path.exists() and not path.is_symlink():
        return None
    content, remedy = read_json(path, "finalists"), "delete it, they are measured again"
    stored = parse_document(content, f"finalists {path}", _Shortlist, SCHEMA, remedy)
    check_seal(content, path, "finalists")
    if {"evaluations": stored.evaluations, "architectures": stored.architectures} != state:
        return None
    return [
        (
            Evaluation(space.design(each.design), each.metrics, each.latency_ms, latency_error=each.latency_error),
            each.ratio,
        )
        for each in stored.finalists
    ]
