"""The opened subject of a pruning: the net, and the differences between a run's design and a user's module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edgemtl.models import TaskNet
from edgemtl.nas.evaluation import NetDesign, NetEvaluator, Prepared, Requirements
from edgemtl.nas.prune.decide import LATENCY_TRIES
from edgemtl.nas.prune.finetuning import FineTuning
from edgemtl.nas.prune.prunable import Channels, Prunable
from edgemtl.nas.runs import Contender
from edgemtl.progress import Report
from edgemtl.targets import ExportTarget
from edgemtl.tasks import Floor, parse_floor

__all__ = ["Cut", "Opened"]

Cut = Mapping[str, Sequence[Sequence[int]]]
"""The channels that groups keep, part by part; those that are not named keep all."""


@dataclass(frozen=True)
class Opened(ABC):
    """A net to prune, as it is before, and what its result is to say of it.

    `name` and `space` are what messages and the result call it; `scores` says what a net of one's own is scored by.
    Without a precision `unpruned` cannot be exported,
    because of `not_exported`.
    """

    prunable: Prunable
    unpruned: Prepared
    target: ExportTarget
    preference: Mapping[str, float]
    name: str
    space: str
    seed: int | None = None
    threads: int = 0
    not_exported: str = ""
    scores: str = ""

    @abstractmethod
    def design(self, channels: Channels) -> NetDesign:
        """The net with so many channels, without its weights."""

    @abstractmethod
    def config(self, settings: Mapping[str, Any], floors: Sequence[Floor]) -> dict[str, Any]:
        """Values to resume the folder with, as JSON: the request's `settings` and the remaining `floors`."""

    @abstractmethod
    def save(self, out: Path, best: Contender, record: Mapping[str, Any], cut: Cut) -> None:
        """Write the pruned net, and `pruning.json` with `record`."""

    def floors(self, texts: Sequence[str]) -> tuple[Floor, ...]:
        """The floors of these texts; `UserError` for one that nothing can be said of."""
        return tuple(parse_floor(text, self.prunable.criterion.source.tasks) for text in texts)

    def fine_tune(self, narrow: TaskNet, cut: Cut, tuning: FineTuning, folder: Path, report: Report) -> None:
        """Train the narrow net further, in place, where it is a module; its checkpoints go to `folder`.

        It is as `cut` left it: statistics of batch normalisation are those of the whole net.
        """
        raise NotImplementedError

    def compensated(self, report: Report) -> Self:
        """The same module, where its weights may change: each cut is made up for in closed form (`compensate`)."""
        raise NotImplementedError

    def baseline(self) -> TaskNet | None:
        """The net that floors refer to, where it is another one than the unpruned."""
        return None

    def finish(self, narrow: TaskNet, design: NetDesign, evaluator: NetEvaluator, required: Requirements) -> Contender:
        """The pruned net in its design's precision, or as it is where it cannot be exported.

        It is timed again where a limit in ms does not hold, as the limits were while deciding.
        """
        prepared = evaluator.prepare(narrow, None if self.not_exported else design.precision)
        latency_ms, timed = evaluator.time(prepared), [limit for limit in required.limits if not limit.exact]
        for _ in range(LATENCY_TRIES - 1):
            if all(latency_ms[limit.budget.task or ""] <= limit.value for limit in timed):
                break
            again = evaluator.time(prepared)
            latency_ms = {scope: min(ms, again[scope]) for scope, ms in latency_ms.items()}
        checks = required.checks(design, evaluator.simulated(prepared), latency_ms)
        return Contender("best", design, prepared, latency_ms, checks)
