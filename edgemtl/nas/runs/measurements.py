"""The measurements of a search, beside its result: another budget, floor or preference is answered from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.evaluation import Evaluation, Measured, Rated, non_dominated
from edgemtl.runs import read_config
from edgemtl.schema import Name, Strict, parse_document
from edgemtl.spaces import Design, Space
from edgemtl.tasks import delta_m

__all__ = ["Measurements", "front_designs", "read_measurements", "write_measurements"]

MEASUREMENTS_FILE = "measurements.json"
SCHEMA = "edgemtl.measurements/1"
_REMEDY = "search again without --from"

Metrics = dict[Name, dict[Name, float]]


class _Stored(Strict):
    """An evaluation: the design's options, its metrics on validation images, latencies and ratio (`Measured`).

    Latencies that were predicted come with their errors.
    """

    design: dict[Name, int | str]
    metrics: Metrics
    latency_ms: dict[str, Annotated[float, Field(gt=0)]]
    latency_error: dict[str, Annotated[float, Field(ge=0)]]
    ratio: Annotated[float, Field(gt=0)] | None


class _Document(Strict):
    schema_: Literal["edgemtl.measurements/1"] = Field(alias="schema")
    baseline: Metrics
    evaluations: Annotated[tuple[_Stored, ...], Field(max_length=1_000_000)]
    sha256: str


@dataclass(frozen=True)
class Measurements:
    """Every evaluated design of a run once, refined ones in each precision, and the `baseline`'s metrics."""

    baseline: Mapping[str, Mapping[str, float]]
    measured: tuple[Measured, ...]


def write_measurements(
    run: Path, baseline: Mapping[str, Mapping[str, float]], evaluations: Sequence[Evaluation], refined: Sequence[Rated]
) -> None:
    """Keep what was measured in a run's folder, of a design that was refined the finer figures.

    A design whose scoring was stopped early is left out: another floor may be kept by it.
    """
    rated: dict[str, Rated] = {each.design.key: Measured(each, None) for each in evaluations if not each.stopped}
    rated |= {each.evaluation.design.key: each for each in refined}
    stored = [
        {
            "design": dict(each.evaluation.design),
            "metrics": {task: dict(scores) for task, scores in each.evaluation.metrics.items()},
            "latency_ms": dict(each.evaluation.latency_ms),
            "latency_error": dict(each.evaluation.latency_error),
            "ratio": each.ratio,
        }
        for each in rated.values()
    ]
    content: dict[str, Any] = {"schema": SCHEMA, "baseline": {t: dict(s) for t, s in baseline.items()}}
    write_json(run / MEASUREMENTS_FILE, sealed({**content, "evaluations": stored}))


def read_measurements(run: Path, space: Space) -> Measurements:
    """The measurements of a run, in a space; `UserError` where it has not ended, or the file is damaged."""
    path = run / MEASUREMENTS_FILE
    if not path.is_file():
        raise UserError(f"run {run} holds no {MEASUREMENTS_FILE}, so that it has not ended: go on with --resume there")
    content = read_json(path, "measurements")
    document = parse_document(content, f"measurements {path}", _Document, SCHEMA, _REMEDY)
    check_seal(content, path, "measurements")
    measured = (
        Measured(
            Evaluation(space.design(each.design), each.metrics, each.latency_ms, latency_error=each.latency_error),
            each.ratio,
        )
        for each in document.evaluations
    )
    return Measurements(document.baseline, tuple(measured))


def front_designs(run: Path, space: Space) -> tuple[Design, ...]:
    """The architectures that a finished run found to lose least of delta_m for their FLOPs, fewest FLOPs first.

    `UserError` where the run is of another space, has not ended, or scored no design to its end.
    """
    if read_config(run).fingerprint != space.fingerprint:
        raise UserError(f"run {run} searched another space than {space.name!r}: give a search of this one")
    known = read_measurements(run, space)
    names = {choice.name for choice in space.architecture}
    points: dict[Design, tuple[float, float]] = {}
    for each in known.measured:
        design = space.design({name: option for name, option in each.evaluation.design.items() if name in names})
        lost = -delta_m(space.tasks, each.evaluation.metrics, known.baseline)
        points[design] = float(design.cost().flops), min(lost, points.get(design, (0.0, lost))[1])
    if not points:
        raise UserError(f"run {run} stopped the scoring of every design early: give a search that keeps its floors")
    designs = sorted(points, key=points.__getitem__)
    return tuple(designs[number] for number in non_dominated([points[design] for design in designs]))
