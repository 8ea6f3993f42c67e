"""One net on one target: its engine in any precision, scored against the net in float, and timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgemtl.nas.evaluation import Turns
from edgemtl.nas.precision.floors import AGREEMENT, Metrics
from edgemtl.nas.precision.scoring import Example, Tally
from edgemtl.own import OwnPrecision, in_precision
from edgemtl.profiling import Measurer, TimedCall, count_graph
from edgemtl.progress import Progress, Report, silent
from edgemtl.results import PathCost
from edgemtl.runtime import Session
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel
from edgemtl.tasks import Task, map_outputs
from edgemtl.units import Budget

__all__ = ["Bench", "Cost"]

_PROFILED_RUNS = 15


@dataclass(frozen=True)
class Cost:
    """Counts of a net in a precision: all tasks, and what each runs alone."""

    flops: int
    params: int
    weight_bytes: int
    paths: Mapping[str, PathCost]

    def amount(self, budget: Budget) -> float:
        """Amount of a counted budget's quantity."""
        return float(getattr(self if budget.task is None else self.paths[budget.task], budget.quantity))


@dataclass(frozen=True)
class Bench:
    """A net's engines for a target: an `EngineTimer` of precisions, which scores them too.

    `compared` are images with what the net itself gives for each; `judged` are those that decide, the same or all that
    have labels. `scopes` are the sets of tasks that are timed. `turns` are those with other processes on this machine.
    """

    model: TaskModel
    tasks: Sequence[Task]
    target: ExportTarget
    measurer: Measurer
    compared: Sequence[Example]
    judged: Sequence[Example]
    scopes: Sequence[str] = ("",)
    threads: int = 0
    turns: Turns = field(default_factory=Turns)

    @contextmanager
    def built(self, candidate: OwnPrecision) -> Iterator[Path]:
        """The engine in a precision, in a temporary folder that goes at the end."""
        assert isinstance(self.target, ModelTarget)
        with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
            self.target.build_model(self._in(candidate), candidate.values, Path(folder))
            yield Path(folder)

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Session]:
        """An engine that was built, opened, and closed at the end."""
        modes = [self._tasks_of(scope) for scope in self.scopes]
        with closing(self.measurer.open(folder, self.threads, modes)) as session:
            yield session

    @contextmanager
    def engine(self, candidate: OwnPrecision) -> Iterator[Session]:
        """The engine in a precision, built and opened."""
        with self.built(candidate) as folder, self.opened(folder) as session:
            yield session

    def calls(self, session: Session) -> dict[str, TimedCall]:
        """A call of an open engine for each scope."""
        return {scope: TimedCall(session, self.compared[0].image, self._tasks_of(scope)) for scope in self.scopes}

    def agreement(self, precision: OwnPrecision) -> dict[str, float]:
        """Agreement of each task of the engine with the float net, over the images that are compared."""
        return {task: scores[AGREEMENT.name] for task, scores in self._scored(precision, self.compared).items()}

    def scores(self, precision: OwnPrecision, report: Report) -> Metrics:
        """Scores of the engine over the images that decide; their number is reported as it goes on."""
        return self._scored(precision, self.judged, report)

    def _scored(self, precision: OwnPrecision, examples: Sequence[Example], report: Report = silent) -> Metrics:
        tally, names = Tally(self.tasks), self._tasks_of("")
        with self.engine(precision) as session:
            for number, example in enumerate(self.turns.in_parts(examples), 1):
                tally.update(example, map_outputs(np.copy, session.run(example.image, names)))
                report(Progress("deciding", number, len(examples)))
        return tally.compute()

    def block_ms(self, precision: OwnPrecision) -> dict[str, float]:
        """Milliseconds of each block in one run of the engine; empty where the runtime does not tell."""
        spent: dict[str, float] = {}
        with self.engine(precision) as session:
            for operator in session.operator_times(self.compared[0].image, self._tasks_of(""), _PROFILED_RUNS):
                for block in operator.fused or (operator.block,):
                    spent[block] = spent.get(block, 0.0) + operator.mean_ms / max(len(operator.fused), 1)
        return spent

    def cost(self, precision: OwnPrecision) -> Cost:
        """Counts of the graph that the engine is written from."""
        cost = count_graph(self._in(precision).model)
        paths = {task: PathCost(flops=path.flops, params=path.params) for task, path in cost.paths.items()}
        return Cost(cost.total.flops, cost.total.params, cost.total.weight_bytes, paths)

    def _in(self, precision: OwnPrecision) -> TaskModel:
        return in_precision(self.model, precision, self.target)

    def _tasks_of(self, scope: str) -> tuple[str, ...]:
        return (scope,) if scope else tuple(task.name for task in self.tasks)
