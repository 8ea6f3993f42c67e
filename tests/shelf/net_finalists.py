"""Finalists of a search of a net of one's own, on figures made by hand."""

from __future__ import annotations

from typing import Any

from edgemtl.nas.precision.finalists import Candidate, Finalist
from edgemtl.nas.precision.floors import Floors, judged_tasks, parse_floors
from edgemtl.nas.precision.scoring import by_agreement
from edgemtl.own import OwnPrecision
from edgemtl.tasks import make_task

__all__ = ["FLOORS", "TASKS", "finalist"]

TASKS = [make_task("pose", "regression", 4), make_task("face", "segmentation", 5)]
FLOORS = Floors(
    judged_tasks(TASKS, labelled=False),
    parse_floors(["face=10%"], TASKS, labelled=False),
    by_agreement({"pose": 1.0, "face": 1.0}),
)
"""A hundredth of the pose may be lost, a tenth of the face."""


def finalist(
    name: str, ms: float, lost: float, uniform: bool, face_lost: float = 0.0, floors: Floors = FLOORS
) -> Finalist:
    """One that takes so many ms and loses these fractions of the pose and of the face."""
    metrics = by_agreement({"pose": 1 - lost, "face": 1 - face_lost})
    nothing: Any = None  # a net, which no choice reads
    candidate = Candidate(name, nothing, OwnPrecision({"engine": "fp32"}), metrics, uniform)
    return Finalist(candidate, {"": ms}, floors.checks(metrics), floors.weighted_delta_m(metrics))
