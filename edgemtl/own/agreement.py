"""How far a net in another precision agrees with itself in float, by task: it stands for a score without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgemtl.data import Batch
from edgemtl.runtime import Outputs
from edgemtl.tasks import Task, kind_of, metric_size
from edgemtl.train import Scorer

__all__ = ["Agreement", "own_labels"]

Image = NDArray[np.float32]


def own_labels(tasks: Sequence[Task], outputs: Outputs, image: Image) -> Batch:
    """A net's own predictions for an image (1, 3, H, W) as its labels."""
    size = (image.shape[2], image.shape[3])
    labels = {task.name: kind_of(task).pseudo_label(task, outputs[task.name], size) for task in tasks}
    batched = {task.name: kind_of(task).collate(*([part] for part in labels[task.name])) for task in tasks}
    targets, masks = ({name: pair[index] for name, pair in batched.items()} for index in (0, 1))
    return Batch(image, targets, masks)


class Agreement:
    """Agreement of each task with the float net over images, 1 where nothing differs.

    Where a task's metric is better the higher it is (accuracy, mIoU), it is that metric, the float net's predictions
    being the labels, over what the float net has itself; else, of depths or angles, one less the norm of the difference
    of the raw outputs over their norm.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._scorers = {"float": Scorer(tasks), "rounded": Scorer(tasks)}
        self._sums = {task.name: np.zeros(2) for task in tasks}

    def update(self, image: Image, given: Outputs, expected: Outputs) -> None:
        """Count in what the net gave for an image (1, 3, H, W), and what it gives in float."""
        batch = own_labels(self._tasks, expected, image)
        self._scorers["float"].update(expected, batch)
        self._scorers["rounded"].update(given, batch)
        for task in self._tasks:
            for name, value in expected[task.name].items():
                apart = np.square(given[task.name][name] - value, dtype=np.float64).sum()
                self._sums[task.name] += apart, np.square(value, dtype=np.float64).sum()

    def compute(self) -> dict[str, float]:
        """The agreement of each task, 1 at most; below zero where outputs are further apart than they are large."""
        scores = {kind: scorer.compute() for kind, scorer in self._scorers.items()}
        return {task.name: self._of(task, scores) for task in self._tasks}

    def scores(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """All metrics of the `float` net and of the `rounded` one, against the float net's predictions."""
        return {kind: scorer.compute() for kind, scorer in self._scorers.items()}

    def _of(self, task: Task, scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
        if task.metric.higher_is_better:
            own, given = (scores[kind][task.name][task.metric.name] for kind in ("float", "rounded"))
            return min(1.0, 1 + (given - own) / metric_size(own))
        apart, norm = self._sums[task.name]
        return float(1 - np.sqrt(apart / max(norm, 1e-30)))
