"""A run's design as what is pruned: `edgemtl prune RUN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from edgemtl.devices import load_device
from edgemtl.files.disk import write_json
from edgemtl.files.seals import sealed, sha256
from edgemtl.models import MultiTaskNet, TaskNet
from edgemtl.nas.evaluation import (
    Candidate,
    Evaluator,
    NetDesign,
    NetEvaluator,
    Problem,
    Requirements,
    choose,
    fast_enough,
    measure_finalists,
)
from edgemtl.nas.prune.apply import PRUNING_FILE
from edgemtl.nas.prune.criterion import DECIDING_IMAGES, RECALIBRATION_IMAGES, LossCriterion
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.groups import net_groups
from edgemtl.nas.prune.opened import Cut, Opened
from edgemtl.nas.prune.prunable import Channels, Prunable
from edgemtl.nas.runs import Contender, OneDesign, RunFolder
from edgemtl.progress import Report, silent
from edgemtl.runs import CONFIG_FILE
from edgemtl.spaces import Cost, Design, Space, is_precision, with_channels
from edgemtl.tasks import Floor

__all__ = ["OpenedDesign", "RunDesign"]

MAP_FILE = "prune_map.json"


@dataclass(frozen=True)
class RunDesign:
    """A kept design of a run; what is left of it is a run of its own.

    `device` names another one than the run's own. `precisions` tries the pruned net in every precision, as the end of a
    search does, and takes the fastest that loses next to nothing.
    """

    run: Path
    design: str = "best"
    device: str | None = None
    precisions: bool = False

    noun: ClassVar[str] = "design"
    folder: ClassVar[tuple[str, str]] = CONFIG_FILE, "run"

    def open(self, report: Report = silent) -> OpenedDesign:
        """The design's net, for the run's device or another, with nothing to `report`.

        `UserError` where the run or its data have changed.
        """
        folder = RunFolder(self.run)
        config, target = folder.config(), folder.target(load_device(self.device) if self.device else None)
        unpruned = folder.load(self.design)
        if self.device:
            unpruned = _moved(unpruned, folder.space(target.device))
        source, multiple = folder.source(), folder.target().traits.channel_multiple
        cache_key = {
            "design": unpruned.design.key,
            "weights_sha256": sha256(self.run / "designs" / self.design / "weights.safetensors"),
            "data_fingerprint": source.fingerprint,
            "images": [RECALIBRATION_IMAGES, DECIDING_IMAGES],
            "multiple": multiple,
        }
        groups, map_file = net_groups(unpruned.net), self.run / "designs" / self.design / MAP_FILE
        cost = partial(_cost, unpruned.design, groups)
        return OpenedDesign(
            prunable=Prunable(unpruned.net, groups, LossCriterion(source), multiple, cost, map_file, cache_key),
            unpruned=unpruned,
            target=target,
            preference=config.preference,
            name=f"design {self.design}",
            space=unpruned.design.space.name,
            seed=config.seed,
            threads=config.threads or 0,
            subject=self,
            candidate=unpruned,
        )


@dataclass(frozen=True, kw_only=True)
class OpenedDesign(Opened):
    """A run's design with its net."""

    subject: RunDesign
    candidate: Candidate

    def design(self, channels: Channels) -> Design:
        """The design with so many channels in each group."""
        before, fewer = self.candidate.design, _by_convolution(self.prunable.groups, channels)
        return before.space.design(before, {**dict(before.pruned), **fewer}.items())

    def config(self, settings: Mapping[str, Any], floors: Sequence[Floor]) -> dict[str, Any]:
        """The configuration of the new run."""
        changes = {
            "strategy": "prune",
            "strategy_config": {},
            "device": self.target.device,
            "budgets": tuple(settings["budgets"]),
            "floors": tuple(floor.text for floor in floors),
            "tuned": None,
            "pruned": {**settings, "precisions": self.subject.precisions, **self.prunable.cache_key},
        }
        return RunFolder(self.subject.run).config().model_copy(update=changes).as_json()

    def baseline(self) -> TaskNet | None:
        """The baseline of the run."""
        return None if self.subject.design == "baseline" else RunFolder(self.subject.run).load("baseline").net

    def finish(self, narrow: TaskNet, design: NetDesign, evaluator: NetEvaluator, required: Requirements) -> Contender:
        """The pruned net in its own precision, or in the one that suits it best."""
        if not self.subject.precisions:
            return super().finish(narrow, design, evaluator, required)
        assert isinstance(narrow, MultiTaskNet) and isinstance(design, Design)
        shared = {each.name: getattr(evaluator, each.name) for each in fields(evaluator)}
        designs = Evaluator(**shared, supernet=OneDesign(design, narrow, "").supernet())
        keep = required.limits, required.floors, required.preference, required.baseline
        problem = Problem(design.space, *keep, evaluator.is_timed)
        chosen = choose(problem, fast_enough(problem, measure_finalists(problem, designs, design)))
        candidate, evaluation = chosen.candidate, chosen.evaluation
        return Contender("best", candidate.design, candidate, evaluation.latency_ms, problem.checks(evaluation))

    def save(self, out: Path, best: Contender, record: Mapping[str, Any], cut: Cut) -> None:
        """Write both designs of the new run, and `pruning.json`."""
        design, prepared = best.design, best.prepared
        assert isinstance(design, Design) and isinstance(prepared.net, MultiTaskNet)
        write_json(out / PRUNING_FILE, sealed(record))
        RunFolder(out).save("baseline", self.candidate)
        RunFolder(out).save("best", Candidate(design, prepared.net, prepared.ranges))


def _moved(candidate: Candidate, space: Space) -> Candidate:
    """The same net in the space of another device; a precision that it lacks becomes float, which is no less exact."""
    before, values = candidate.design, {}
    for choice in space.choices:
        value = before.get(choice.name, choice.options[0])
        values[choice.name] = choice.options[0] if is_precision(choice) and value not in choice.options else value
    return replace(candidate, design=space.design(values, before.pruned))


def _by_convolution(groups: Sequence[Group], channels: Channels) -> dict[str, int]:
    return {name: channels[g.name] for g in groups for name in g.convolutions if channels.get(g.name, g.size) < g.size}


def _cost(design: Design, groups: Sequence[Group], channels: Channels, task: str | None) -> Cost:
    plan = with_channels(design.plan, _by_convolution(groups, channels))
    return plan.cost(design.precision, task, design.space.storage, design.space.quantities)
