"""Engines of a net of one's own against the net itself: every output, in every mode, and agreement by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle import Parity
from edgemtl.data import Batch, Split
from edgemtl.errors import UserError
from edgemtl.export.parity import Difference, Tolerance, problem_of
from edgemtl.own import Agreement, at_label_size, own_labels
from edgemtl.progress import Progress, Report, note
from edgemtl.runtime import Outputs, Session
from edgemtl.targets import ExportTarget
from edgemtl.tasks import Task, map_outputs, relative_change
from edgemtl.train import Scorer

__all__ = ["Image", "Reference", "check_engine", "checked_modes"]

Image = NDArray[np.float32]
_MOST_MODES = 64
TEST_SPLIT: Split = "test"


@dataclass(frozen=True)
class Reference:
    """Images as a net reads them, and what it gives for each in float (`expected`).

    `whole` is what agreement is told with: the same, or what the net gives of which this one is a narrower level. Where
    there are `labels`, they score each task in its own metric.
    """

    images: Sequence[Image]
    expected: Sequence[Outputs]
    whole: Sequence[Outputs]
    labels: Sequence[Batch] | None = None

    def __iter__(self) -> Iterator[tuple[Image, Outputs]]:
        """Image after image, with what the net gives."""
        return zip(self.images, self.expected, strict=True)


class _Scores:
    """Metrics of a net and of its engine, and the engine's agreement: by labels, else by what the whole net gives."""

    def __init__(self, tasks: Sequence[Task], reference: Reference) -> None:
        self._reference = reference
        self._agreement = Agreement(tasks)
        self._own, self._engine = Scorer(tasks), Scorer(tasks)
        self._tasks = tasks

    def update(self, number: int, given: Outputs) -> None:
        """Count in what the engine gives for an image."""
        image, whole, labels = self._reference.images[number], self._reference.whole[number], self._reference.labels
        self._agreement.update(image, given, whole)
        own, batch = self._reference.expected[number], own_labels(self._tasks, whole, image)
        if labels is not None:
            size, batch = (image.shape[2], image.shape[3]), labels[number]
            own, given = (at_label_size(self._tasks, each, size) for each in (own, given))
        self._own.update(own, batch)
        self._engine.update(given, batch)

    def parity(self, task: Task, apart: Mapping[str, Difference], reduced: bool) -> Parity:
        """The entry of the manifest."""
        tolerance, metric, labelled = Tolerance(), task.metric.name, self._reference.labels is not None
        own, engine = (scorer.compute()[task.name][metric] for scorer in (self._own, self._engine))
        return Parity(
            outputs={output.name: apart[output.name].parity(output.unit) for output in task.outputs},
            metric=metric,
            torch=own,
            engine=engine,
            images=len(self._reference.images),
            split=TEST_SPLIT if labelled else None,
            metric_allowed=None if reduced else tolerance.float_metric,
            difference_allowed=None if reduced else tolerance.float_error,
            agreement=self._agreement.compute()[task.name],
        )


def check_engine(
    target: ExportTarget, session: Session, tasks: Sequence[Task], reference: Reference, reduced: bool, report: Report
) -> dict[str, Parity]:
    """Parity of each task over all images, and over the modes on the first.

    Raises `UserError` where one in float is too far; notes where one that is `reduced` agrees little with the net.
    """
    names, modes = [task.name for task in tasks], checked_modes(tasks)
    runs, done = len(modes) + len(reference.images), 0
    apart = {task.name: {output.name: Difference() for output in task.outputs} for task in tasks}
    scores = _Scores(tasks, reference)
    for number, (image, expected) in enumerate(reference):
        given = map_outputs(np.copy, session.run(image, names))
        scores.update(number, given)
        for mode in [tuple(names), *(modes if number == 0 else [])]:
            outputs = given if len(mode) == len(names) else session.run(image, mode)
            done += 1
            report(Progress("check", done, runs, target.traits.name))
            for task in mode:
                for name, difference in apart[task].items():
                    _check_values(target, task, name, outputs[task][name], expected[task][name])
                    difference.add(outputs[task][name], expected[task][name])
    parities = {task.name: scores.parity(task, apart[task.name], reduced) for task in tasks}
    for each in tasks:
        _judge(target, each, parities[each.name], reduced, report)
    return parities


def checked_modes(tasks: Sequence[Task]) -> list[tuple[str, ...]]:
    """Every subset of tasks but all of them; of more than six tasks the smallest ones."""
    names = [task.name for task in tasks]
    subsets = chain.from_iterable(combinations(names, count) for count in range(1, len(names)))
    return list(islice(subsets, max(_MOST_MODES, len(names))))


def _check_values(target: ExportTarget, task: str, name: str, given: Image, expected: Image) -> None:
    if given.shape != expected.shape:
        raise UserError(
            f"engine for {target.traits.name}, task {task}: {name} has the shape {given.shape}, the net gives "
            f"{expected.shape}: leave that target out"
        )
    if not np.isfinite(given).all():
        raise UserError(
            f"engine for {target.traits.name}, task {task}: {name} is not finite, that of the net is: "
            "leave that target out"
        )


def _judge(target: ExportTarget, task: Task, parity: Parity, reduced: bool, report: Report) -> None:
    """Raise where an engine in float is too far from the net; note where one of less agrees with it little."""
    if not reduced and (problem := problem_of(task, parity, False, Tolerance(), "in the net itself")):
        raise UserError(f"engine for {target.traits.name}, task {task.name}: {problem}: leave that target out")
    allowed, name = Tolerance().reduced_metric, f"engine for {target.traits.name}, task {task.name}:"
    remedy = "`edgemtl search` finds which blocks lose it, and leaves them in float"
    if not reduced or parity.agreement is None:
        return
    if parity.split is not None:
        lost = -relative_change(task, {parity.metric: parity.engine}, {parity.metric: parity.torch})
        if lost > allowed:
            note(report, f"{name} loses {lost:.1%} of {parity.metric} on labels against the float net: {remedy}")
    elif parity.agreement < 1 - allowed:
        note(report, f"{name} agrees with the float net by {parity.agreement:.1%} alone: {remedy}")
