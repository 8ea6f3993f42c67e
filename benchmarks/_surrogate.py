"""A surrogate of a search's evaluations, as NAS-Bench-301 has one (Siems et al. 2020): fitted to a table of real ones.

Gradient-boosted trees, one ensemble for each task's deciding metric and one for the logarithm of latency, on the
positions of all choices and on counted FLOPs, parameters and bytes. Trees, so that it is of another kind than LINAS's
own predictors (ridge, support vectors, non-negative least squares): those cannot be exact on it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _common import say
from numpy.typing import NDArray

from edgemtl.files.disk import write_json
from edgemtl.nas.evaluation import Evaluation
from edgemtl.spaces import Design, Space

HELD_OUT = 5
"""Every fifth design of a table is held out to state the error."""
TREES: dict[str, Any] = {"n_estimators": 400, "learning_rate": 0.05, "max_depth": 4, "subsample": 0.5}
Array = NDArray[np.float64]


def table_designs(space: Space, count: int, seed: int = 0) -> list[Design]:
    """The largest and the smallest net in float, then random draws: half of them in one precision for all blocks."""
    rng, designs = random.Random(seed), {d.key: d for d in (space.largest(), space.smallest())}
    while len(designs) < count:
        drawn = space.random(rng)
        design = drawn if len(designs) % 2 else rng.choice(space.uniform(drawn))
        designs[design.key] = design
    return list(designs.values())


def measured(folder: Path, designs: Sequence[Design], evaluate: Callable[[Design], Evaluation]) -> list[Evaluation]:
    """Evaluations of all designs, a file each in `folder`: those that are there are not made again."""
    return list(_measured(folder, designs, evaluate))


def _measured(
    folder: Path, designs: Sequence[Design], evaluate: Callable[[Design], Evaluation]
) -> Iterator[Evaluation]:
    for number, design in enumerate(designs, 1):
        path = folder / f"{design.key}.json"
        if not path.is_file():
            made = evaluate(design)
            write_json(path, {"design": dict(design), "metrics": made.metrics, "latency_ms": made.latency_ms})
            say(f"{number}/{len(designs)} evaluated")
        content = json.loads(path.read_text(encoding="utf-8"))
        yield Evaluation(design, content["metrics"], content["latency_ms"])


@dataclass(frozen=True)
class Surrogate:
    """Answers for any design of a space as an evaluation would, in no time and always the same."""

    space: Space
    models: dict[str, Any]
    _known: dict[str, Evaluation] = field(default_factory=dict)

    @classmethod
    def fitted(cls, space: Space, evaluations: Sequence[Evaluation]) -> Surrogate:
        """Fit to a table of evaluations, with latencies of all tasks together."""
        from sklearn.ensemble import GradientBoostingRegressor

        rows = _rows(space, [each.design for each in evaluations])
        values = {
            task.name: [each.metrics[task.name][task.metric.name] for each in evaluations] for task in space.tasks
        }
        values[""] = list(np.log([each.latency_ms[""] for each in evaluations]))
        models = {
            name: GradientBoostingRegressor(**TREES, random_state=0).fit(rows, targets)
            for name, targets in values.items()
        }
        return cls(space, models)

    def __call__(self, design: Design) -> Evaluation:
        if design.key not in self._known:
            row = _rows(self.space, [design])
            found = {name: float(model.predict(row)[0]) for name, model in self.models.items()}
            metrics = {task.name: {task.metric.name: found[task.name]} for task in self.space.tasks}
            self._known[design.key] = Evaluation(design, metrics, {"": float(np.exp(found[""]))})
        return self._known[design.key]


def _rows(space: Space, designs: Sequence[Design]) -> Array:
    """A row a design: the position of each choice, the log of what is counted, in all and for each task."""
    scopes: list[str | None] = [None, *(task.name for task in space.tasks)]
    return np.array([[*space.encode(design), *_counts(design, scopes)] for design in designs], float)


def _counts(design: Design, scopes: Sequence[str | None]) -> list[float]:
    costs = [design.cost(scope) for scope in scopes]
    return list(np.log([value for cost in costs for value in (cost.flops, cost.params, cost.weight_bytes)]))


def split_table(evaluations: Sequence[Evaluation]) -> tuple[list[Evaluation], list[Evaluation]]:
    """Those to fit to, and those that are held out."""
    held_out = list(evaluations[HELD_OUT - 1 :: HELD_OUT])
    return [each for number, each in enumerate(evaluations, 1) if number % HELD_OUT], held_out
