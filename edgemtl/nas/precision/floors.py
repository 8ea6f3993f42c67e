"""Floors of every task of a net: of its own metric where images have labels, else of agreement with the float net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import check_floor
from edgemtl.nas.prune import floor_without_labels
from edgemtl.results import LimitCheck
from edgemtl.tasks import Floor, Metric, Task, named_metric, parse_floor

__all__ = ["AGREEMENT", "ALLOWED", "Floors", "Metrics", "judged_tasks", "parse_floors"]

Metrics = Mapping[str, Mapping[str, float]]
"""Scores of each task, by the metric's name."""

ALLOWED = 0.01
"""The fraction that a task may lose where no floor says otherwise."""
AGREEMENT = Metric("agreement", higher_is_better=True)


@dataclass(frozen=True)
class Floors:
    """One floor or more for each of the tasks, and the scores of the net in float, which they refer to."""

    tasks: tuple[Task, ...]
    floors: tuple[Floor, ...]
    baseline: Metrics

    def __post_init__(self) -> None:
        """Refuse a floor that the net in float misses, and a score that is no number."""
        for task, scores in self.baseline.items():
            if not all(map(math.isfinite, scores.values())):
                raise UserError(f"the net in float has no finite score in task {task}: its outputs are NaN or infinite")
        for check in self.checks(self.baseline):
            if not check.kept:
                raise UserError(
                    f"{check.name}: the net in float has {check.metric} {check.amount(check.value)} on validation "
                    "images: allow that, or train it further first"
                )

    @property
    def drops(self) -> dict[str, float]:
        """The fraction of the float net's score that each task may lose."""
        drops: dict[str, float] = {}
        for floor in self.floors:
            name = floor.task.name
            drops[name] = min(floor.drop(self.baseline), drops.get(name, math.inf))
        return drops

    def share(self, metrics: Metrics) -> float:
        """The part of what may be lost that is lost, at the floor that is nearest or most broken."""
        return max(
            -floor.change(metrics, self.baseline) / max(floor.drop(self.baseline), 1e-9) for floor in self.floors
        )

    def are_kept(self, metrics: Metrics) -> bool:
        """Whether no task loses more than is allowed."""
        return all(check.kept for check in self.checks(metrics))

    def checks(self, metrics: Metrics) -> tuple[LimitCheck, ...]:
        """Every floor against a net's scores, with the metric that it is of."""
        return tuple(
            check_floor(floor, metrics, self.baseline).model_copy(update={"metric": floor.metric.name})
            for floor in self.floors
        )


def judged_tasks(tasks: Sequence[Task], labelled: bool) -> tuple[Task, ...]:
    """The tasks with the metrics that they are judged by: without labels, agreement with the float net alone."""
    return tuple(tasks) if labelled else tuple(replace(task, metrics=(AGREEMENT,)) for task in tasks)


def parse_floors(texts: Sequence[str], tasks: Sequence[Task], labelled: bool) -> tuple[Floor, ...]:
    """The floors of these texts, and 1 % for each task without one.

    Raises `UserError` for a floor on a named metric, or on its value, where there are no labels to know it by.
    """
    judged = {task.name: task for task in judged_tasks(tasks, labelled)}
    floors = [_parsed(text, tasks, judged, labelled) for text in texts]
    limited = {floor.task.name for floor in floors}
    return (*floors, *(Floor(task, task.metric, ALLOWED) for name, task in judged.items() if name not in limited))


def _parsed(text: str, tasks: Sequence[Task], judged: Mapping[str, Task], labelled: bool) -> Floor:
    floor = parse_floor(text, tasks)
    if labelled:
        return floor
    task = floor.task.name
    if not floor.relative or named_metric(text) not in ("", AGREEMENT.name):
        raise floor_without_labels(floor.text, floor.metric.name, task)
    return Floor(judged[task], AGREEMENT, floor.allowed)
