"""Scores of a net of one's own: each task's metrics by labels, else its agreement with the net in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data import Batch
from edgemtl.nas.precision.floors import AGREEMENT, Metrics
from edgemtl.own import Agreement, Seen, at_label_size
from edgemtl.runtime import Outputs
from edgemtl.tasks import Task
from edgemtl.train import Scorer

__all__ = ["Example", "Examples", "Image", "Tally", "by_agreement"]

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """An image as a net reads it, and the labels of its tasks, or what the net gives for it in float."""

    image: Image
    answer: Batch | Outputs


class Examples(Sequence[Example]):
    """Pictures as examples, each made when it is wanted."""

    def __init__(self, seen: Sequence[Seen], make: Callable[[Seen], Example]) -> None:
        self._seen, self._make = seen, make

    def __len__(self) -> int:
        return len(self._seen)

    def __getitem__(self, position: int) -> Example:  # type: ignore[override]
        return self._make(self._seen[position])


class Tally:
    """Scores over examples that all have labels, or all have none."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._agreement, self._by_labels = Agreement(tasks), Scorer(tasks)
        self._labelled = False

    def update(self, example: Example, given: Outputs) -> None:
        """Count in what a net gives for an example."""
        if isinstance(example.answer, Batch):
            self._labelled, size = True, (example.image.shape[2], example.image.shape[3])
            self._by_labels.update(at_label_size(self._tasks, given, size), example.answer)
        else:
            self._agreement.update(example.image, given, example.answer)

    def compute(self) -> Metrics:
        """All metrics of each task, or its agreement with the net in float."""
        return self._by_labels.compute() if self._labelled else by_agreement(self._agreement.compute())


def by_agreement(agreements: Mapping[str, float]) -> Metrics:
    """Agreements as the scores of their tasks."""
    return {task: {AGREEMENT.name: value} for task, value in agreements.items()}
