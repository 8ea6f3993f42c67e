"""Engines of a net of one's own against the net itself: every output, in every mode, and agreement by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle import Parity
from edgemtl.errors import UserError
from edgemtl.export.parity import Difference, Tolerance, problem_of
from edgemtl.own import Agreement
from edgemtl.progress import Progress, Report, note
from edgemtl.runtime import Outputs, Session
from edgemtl.targets import ExportTarget
from edgemtl.tasks import Task, map_outputs

__all__ = ["Image", "Reference", "check_engine", "checked_modes"]

Image = NDArray[np.float32]
_MOST_MODES = 64


@dataclass(frozen=True)
class Reference:
    """Images as a net reads them, and what it gives for each in float (`expected`).

    `whole` is what agreement is told with: the same, or what the net gives of which this one is a narrower level.
    """

    images: Sequence[Image]
    expected: Sequence[Outputs]
    whole: Sequence[Outputs]

    def __iter__(self) -> Iterator[tuple[Image, Outputs, Outputs]]:
        """Image after image."""
        return zip(self.images, self.expected, self.whole, strict=True)


def check_engine(
    target: ExportTarget, session: Session, tasks: Sequence[Task], reference: Reference, reduced: bool, report: Report
) -> dict[str, Parity]:
    """Parity of each task over all images, and over the modes on the first.

    Raises `UserError` where one in float is too far; notes where one that is `reduced` agrees little with the net.
    """
    names, modes = [task.name for task in tasks], checked_modes(tasks)
    runs, done = len(modes) + len(reference.images), 0
    apart = {task.name: {output.name: Difference() for output in task.outputs} for task in tasks}
    own, engine = Agreement(tasks), Agreement(tasks)
    for number, (image, expected, whole) in enumerate(reference):
        given = map_outputs(np.copy, session.run(image, names))
        own.update(image, expected, whole)
        engine.update(image, given, whole)
        for mode in [tuple(names), *(modes if number == 0 else [])]:
            outputs = given if len(mode) == len(names) else session.run(image, mode)
            done += 1
            report(Progress("check", done, runs, target.traits.name))
            for task in mode:
                for name, difference in apart[task].items():
                    _check_values(target, task, name, outputs[task][name], expected[task][name])
                    difference.add(outputs[task][name], expected[task][name])
    scored, count = (own, engine), len(reference.images)
    parities = {task.name: _parity(task, apart[task.name], scored, count, reduced) for task in tasks}
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


def _parity(
    task: Task, apart: Mapping[str, Difference], scored: tuple[Agreement, Agreement], images: int, reduced: bool
) -> Parity:
    """The entry of the manifest; `scored` are the net and the engine, each against the whole net in float."""
    tolerance, metric = Tolerance(), task.metric.name
    own, engine = (each.scores()["rounded"][task.name][metric] for each in scored)
    return Parity(
        outputs={output.name: apart[output.name].parity(output.unit) for output in task.outputs},
        metric=metric,
        torch=own,
        engine=engine,
        images=images,
        metric_allowed=None if reduced else tolerance.float_metric,
        difference_allowed=None if reduced else tolerance.float_error,
        agreement=scored[1].compute()[task.name],
    )


def _judge(target: ExportTarget, task: Task, parity: Parity, reduced: bool, report: Report) -> None:
    """Raise where an engine in float is too far from the net; note where one of less agrees with it little."""
    if not reduced and (problem := problem_of(task, parity, False, Tolerance())):
        raise UserError(f"engine for {target.traits.name}, task {task.name}: {problem}: leave that target out")
    if reduced and parity.agreement is not None and parity.agreement < 1 - Tolerance().reduced_metric:
        note(
            report,
            f"engine for {target.traits.name}, task {task.name}: agrees with the float net by {parity.agreement:.1%} "
            "alone: `edgemtl search` finds which blocks lose it, and leaves them in float",
        )
