"""Floors of every task of a net: of its own metric where images have labels, else of agreement with the float net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import TOLERANCE, check_floor
from edgemtl.nas.prune import floor_without_labels
from edgemtl.results import LimitCheck
from edgemtl.tasks import Floor, Metric, Task, delta_m, named_metric, parse_floor
from edgemtl.units import preference_text

__all__ = ["AGREEMENT", "ALLOWED", "Floors", "Metrics", "judged_tasks", "parse_floors"]

Metrics = Mapping[str, Mapping[str, float]]
"""Scores of each task, by the metric's name."""

ALLOWED = 0.01
"""The fraction that a task may lose where no floor says otherwise."""
_LEAST_WEIGHT = 0.01
"""The least that a task weighs in an order of blocks."""
AGREEMENT = Metric("agreement", higher_is_better=True)


@dataclass(frozen=True)
class Floors:
    """One floor or more for each of the tasks, the scores of the net in float, which they refer to, and a preference.

    The `preference` are weights of tasks; none: all weigh alike.
    """

    tasks: tuple[Task, ...]
    floors: tuple[Floor, ...]
    baseline: Metrics
    preference: Mapping[str, float] = field(default_factory=dict)

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

    @property
    def are_weighted(self) -> bool:
        """Whether some task is preferred."""
        return bool(preference_text(self.preference))

    def weighted_delta_m(self, metrics: Metrics, baseline: Metrics | None = None) -> float | None:
        """Mean relative change weighted by the preference; None where no task is preferred.

        It is against the `baseline` of the same images, those that floors refer to without one.
        """
        if not self.are_weighted:
            return None
        return delta_m(self.tasks, metrics, baseline or self.baseline, self.preference)

    @property
    def weighted_drops(self) -> dict[str, float]:
        """The same, less for what the preference weighs more."""
        weights = {task: max(_LEAST_WEIGHT, self.preference.get(task, 1.0)) for task in self.drops}
        return {task: drop / weights[task] for task, drop in self.drops.items()}

    def share(self, metrics: Metrics) -> float:
        """The part of what may be lost that is lost, at the floor that is nearest or most broken."""
        return max(
            -floor.change(metrics, self.baseline) / max(floor.drop(self.baseline), 1e-9) for floor in self.floors
        )

    def rank(self, metrics: Metrics) -> tuple[float, float]:
        """Order of what loses little: by the part that is lost of what may be; by the preference where floors hold."""
        share, weighted = self.share(metrics), self.weighted_delta_m(metrics)
        return (share, 0.0) if weighted is None else (max(1.0, share), -weighted)

    def are_kept(self, metrics: Metrics) -> bool:
        """Whether no task loses more than is allowed."""
        return all(check.kept for check in self.checks(metrics))

    def are_kept_well(self, metrics: Metrics) -> bool:
        """Whether they are kept, and no more is lost by the preference than may be given away for speed."""
        return self.are_kept(metrics) and (self.weighted_delta_m(metrics) or 0.0) >= -TOLERANCE

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
