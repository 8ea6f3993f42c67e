"""Validation scores while a supernet is trained: from a few images, seldom enough to cost little, without a trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from edgemtl.data import Source
from edgemtl.errors import UserError
from edgemtl.models import SharedWeights, recalibrate
from edgemtl.spaces import Values
from edgemtl.train.feed import batches_of
from edgemtl.train.metrics import evaluate

__all__ = ["InterimScores"]

INTERIM_IMAGES = 32
INTERIM_SECONDS = 30.0
INTERIM_SHARE = 0.05
"""At most this share of the time goes into these scores."""


class InterimScores:
    """Scores of the largest design with averaged weights, due every 30 s or later where they take long.

    Nothing of the training changes: neither weights nor what is drawn at random in a step, which seeds anew.
    """

    def __init__(
        self, supernet: SharedWeights, average: Mapping[str, Tensor], source: Source, largest: Callable[[], Values]
    ) -> None:
        self._supernet, self._average, self._source, self._largest = supernet, average, source, largest
        self._ended, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether enough time has gone since the last scores."""
        return time.monotonic() - self._ended >= max(INTERIM_SECONDS, self._took / INTERIM_SHARE)

    def score(self) -> dict[str, dict[str, float]]:
        """Metrics of every task on a few validation images; none where one of them has no label of a task."""
        begun = time.monotonic()
        with _weights(self._supernet, self._average):
            net = self._supernet.extract(self._largest())
        if not self._supernet.has_statistics:
            train = batches_of(self._source.split("train"), 16, INTERIM_IMAGES)
            recalibrate(net, (torch.from_numpy(batch.image) for batch in train))
        try:
            samples, tasks = self._source.split("validation"), self._supernet.tasks
            return evaluate(net, tasks, batches_of(samples, 16, INTERIM_IMAGES, tasks=tasks))
        except UserError:  # the scores at the end, from more images, tell it
            return {}
        finally:
            self._ended = time.monotonic()
            self._took = self._ended - begun


@contextmanager
def _weights(supernet: SharedWeights, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The supernet with other weights, for as long as the block runs."""
    own = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
    try:
        _copy(supernet, values)
        yield
    finally:
        _copy(supernet, own)


def _copy(supernet: SharedWeights, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in supernet.shared.items():
            parameter.copy_(values[name])
