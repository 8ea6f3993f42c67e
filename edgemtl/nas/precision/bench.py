"""One net on one target: its engine in any precision, scored against the net in float, and timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.own import Agreement, OwnPrecision, in_precision
from edgemtl.profiling import Measurer, TimedCall, count_graph
from edgemtl.results import PathCost
from edgemtl.runtime import Outputs, Session
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel
from edgemtl.tasks import Task, map_outputs
from edgemtl.units import Budget

__all__ = ["Bench", "Cost", "Image"]

Image = NDArray[np.float32]
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
    """A net's engines for a target: an `EngineTimer` of precisions, which scores them on `images` too.

    `expected` is what the net itself gives for each of the images; `scopes` are the sets of tasks that are timed.
    """

    model: TaskModel
    tasks: Sequence[Task]
    target: ExportTarget
    measurer: Measurer
    images: Sequence[Image]
    expected: Sequence[Outputs]
    scopes: Sequence[str] = ("",)
    threads: int = 0

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
        return {scope: TimedCall(session, self.images[0], self._tasks_of(scope)) for scope in self.scopes}

    def agreement(self, precision: OwnPrecision) -> dict[str, float]:
        """Agreement of each task of the engine with the float net, over the images."""
        agreement, names = Agreement(self.tasks), self._tasks_of("")
        with self.engine(precision) as session:
            for image, expected in zip(self.images, self.expected, strict=True):
                agreement.update(image, map_outputs(np.copy, session.run(image, names)), expected)
        return agreement.compute()

    def block_ms(self, precision: OwnPrecision) -> dict[str, float]:
        """Milliseconds of each block in one run of the engine; empty where the runtime does not tell."""
        spent: dict[str, float] = {}
        with self.engine(precision) as session:
            for operator in session.operator_times(self.images[0], self._tasks_of(""), _PROFILED_RUNS):
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
