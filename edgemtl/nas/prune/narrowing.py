"""Narrower forms of a net of one's own, for a search that decides on their precision too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from edgemtl.errors import UserError
from edgemtl.models import recalibrate
from edgemtl.models.quantization import QuantScheme
from edgemtl.nas.evaluation import Limit
from edgemtl.nas.prune.decide import check_feasible, fit_levels, task_weights
from edgemtl.nas.prune.declared import OpenedDeclared
from edgemtl.nas.prune.finetuning import FineTuning, check_train_step
from edgemtl.nas.prune.fit import Fit
from edgemtl.nas.prune.map import PruneMap, counts, map_content, map_in, measure_map, open_map
from edgemtl.nas.prune.record import pruning_record
from edgemtl.own import Declaration, DeclaredNet
from edgemtl.progress import Report, silent

__all__ = ["NarrowNet", "Narrowing"]

ROUNDED_RATE = 0.2
"""The learning rate of a training through eight bits, as a part of that of a pruned net."""
_BETWEEN = 4


@dataclass(frozen=True)
class NarrowNet:
    """A narrower form of a net, how many channels each group keeps in it, and its ONNX graph.

    `tuning` trained it, through eight bits where it is `rounded`.
    """

    net: DeclaredNet
    fit: Fit
    model: onnx.ModelProto
    tuning: FineTuning | None = None
    rounded: bool = False


@dataclass(frozen=True)
class Narrowing:
    """A net whose channels can be removed, under `limits` of what is counted; `allowed` is what each task may lose.

    Which channels matter, and what each group of them costs each task, is measured on photos that calibrate, once: it
    is `prune_map` where it was measured elsewhere.
    """

    opened: OpenedDeclared
    limits: tuple[Limit, ...]
    allowed: Mapping[str, float]
    report: Report = silent
    prune_map: PruneMap | None = None

    @property
    def declaration(self) -> Declaration:
        """Tasks of every narrower form."""
        return self.opened.pruned_declaration

    def check_feasible(self) -> None:
        """`UserError` for a limit that the net with the fewest channels does not keep, saying what it takes."""
        check_feasible(self.opened.prunable, self.limits, lambda prune_map, channels: {}, "net")

    def check_train_step(self, tuning: FineTuning) -> None:
        """`UserError` where the user's own train step, if there is one, fails: it is called once, on a copy."""
        check_train_step(self.opened.prunable.net, self.opened.prunable.criterion.source, tuning)

    def measured(self) -> dict[str, Any]:
        """The map of the net as JSON, for another process."""
        return map_content(self.opened.prunable, self._map)

    def with_measured(self, content: object, subject: str, remedy: str) -> Narrowing:
        """The same by a map that another process `measured`, which stands in `subject`.

        Raises `UserError`, with the `remedy`, where it is of another net or damaged.
        """
        prune_map = map_in(self.opened.prunable, content, Path(subject), remedy)
        if prune_map is None:
            raise UserError(f"the pruning map in {subject} is of another net, or of other images: {remedy}")
        return replace(self, prune_map=prune_map)

    def levels(self, count: int) -> list[Fit]:
        """At most `count` narrower forms, the widest that the limits allow first: what a task may lose weighs them."""
        weights = task_weights(self.opened.preference, self.allowed)
        return fit_levels(self.opened.prunable, self._map, self.limits, weights, count)

    def widths(self, levels: Sequence[Fit]) -> dict[str, tuple[int, ...]]:
        """Counts of channels that each group may have, fewest first: those of some levels, all, and a few between."""
        prunable, widths = self.opened.prunable, dict[str, tuple[int, ...]]()
        for group in prunable.groups:
            possible = [group.size, *counts(group, prunable.multiple)]
            between = possible[:: math.ceil(len(possible) / _BETWEEN)]
            widths[group.name] = tuple(sorted({*between, *(level.channels[group.name] for level in levels)}))
        return widths

    def narrow(self, fit: Fit) -> NarrowNet:
        """The net with so many channels, the most important of each group, its normalisations measured anew.

        Raises `UnsupportedError` for what PyTorch cannot export.
        """
        net = self._copy(fit)
        recalibrate(net, self.opened.prunable.criterion.recalibration)
        return NarrowNet(net, fit, self.opened.as_onnx(net))

    def fine_tune(self, fit: Fit, tuning: FineTuning, folder: Path) -> NarrowNet:
        """The same, trained to give what the whole net gives; its checkpoints go to `folder`."""
        net, cut = self._copy(fit), self.opened.prunable.chosen(self._begun.orders, fit.channels)
        self.opened.fine_tune(net, cut, tuning, folder, self.report)
        recalibrate(net, self.opened.prunable.criterion.recalibration)
        return NarrowNet(net, fit, self.opened.as_onnx(net), tuning)

    def fine_tune_rounded(self, tuning: FineTuning, folder: Path, scheme: QuantScheme) -> NarrowNet:
        """The net with all its channels, trained to give what it gives while its layers compute on eight bits.

        It is there almost: at the rate at which a pruned net learns anew, it would lose more than rounding takes.
        Raises `UnsupportedError` for what PyTorch cannot export.
        """
        gentle = replace(tuning, learning_rate=ROUNDED_RATE * tuning.learning_rate)
        fit = Fit({}, {})
        net = self._copy(fit)
        self.opened.as_onnx(net)  # what cannot be exported is not trained for nothing
        self.opened.fine_tune(net, {}, gentle, folder, self.report, scheme)
        return NarrowNet(net, fit, self.opened.as_onnx(net), gentle, rounded=True)

    def _copy(self, fit: Fit) -> DeclaredNet:
        """A net of its own with so many channels; its normalisations have the statistics of all channels."""
        net = self.opened.prunable.narrow(self._begun.orders, fit.channels)
        assert isinstance(net, DeclaredNet)
        return net

    def write(self, folder: Path, narrow: NarrowNet) -> None:
        """Write a narrower form: its weights, ONNX file, tasks, and `pruning.json` for `apply_pruning`."""
        prunable = self.opened.prunable
        record = {**pruning_record(prunable, self._begun, narrow.fit, narrow.net.copy()), "mode": "search"}
        if narrow.tuning is not None:
            size = prunable.criterion.source.size
            record["finetuned"] = {**asdict(narrow.tuning.for_size(size)), "rounded": narrow.rounded}
        cut = prunable.chosen(self._begun.orders, narrow.fit.channels)
        self.opened.write(folder, (narrow.net, narrow.model), record, cut)

    @cached_property
    def _begun(self) -> PruneMap:
        """The map as far as it is measured: what every channel is worth at least."""
        return self.prune_map or open_map(self.opened.prunable)

    @cached_property
    def _map(self) -> PruneMap:
        return self.prune_map or measure_map(self.opened.prunable, self.report)
