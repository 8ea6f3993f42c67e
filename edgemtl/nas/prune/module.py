"""A user's own torch module as what is pruned: `edgemtl prune package.module:function`."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from edgemtl.blocks import BlockRecord
from edgemtl.data import open_source
from edgemtl.errors import UserError, naming, reason_of
from edgemtl.files.disk import write_atomic, write_json
from edgemtl.files.seals import sealed, sha256
from edgemtl.models import ModuleNet, TaskNet, load_module, recalibrate
from edgemtl.models.quantization import QuantScheme
from edgemtl.nas.evaluation import PreparedNet
from edgemtl.nas.prune.apply import PRUNING_FILE, WEIGHTS_FILE, kept_json, weights_bytes
from edgemtl.nas.prune.criterion import DECIDING_IMAGES, RECALIBRATION_IMAGES, LossCriterion
from edgemtl.nas.prune.cut import positions_kept
from edgemtl.nas.prune.finetuning import FineTuning, deciding_batches, deciding_loss, fine_tune
from edgemtl.nas.prune.fitting import fitting_images
from edgemtl.nas.prune.module_groups import ModuleCosts, module_groups
from edgemtl.nas.prune.opened import Cut, Opened
from edgemtl.nas.prune.prunable import Channels, Prunable, map_file_of
from edgemtl.nas.prune.reconstruction import reconstruct
from edgemtl.nas.runs import Contender
from edgemtl.progress import Report, silent
from edgemtl.spaces import Cost
from edgemtl.targets import ExportTarget, find_target
from edgemtl.tasks import Floor
from edgemtl.train import CHECKPOINT_FILE

__all__ = ["ENGINE_FOLDER", "MODULE_FILE", "TARGET", "OpenedModule", "UserModule", "prunable_module"]

MODULE_FILE = "module.json"
ENGINE_FOLDER = "engine"
SCHEMA = "edgemtl.pruned-module/1"
TARGET = "onnxruntime"
SIZE = (192, 256)
PRECISION = {"engine": "fp32"}


@dataclass(frozen=True)
class UserModule:
    """The module that `package.module:function` returns, scored on a data set: a source's name or path.

    It is read at `size` (H, W). What is left of the module is a folder for `apply_pruning`: `pruning.json`, its
    weights, and `engine/` for ONNX Runtime where it can be exported.
    """

    module: str
    data: str
    size: tuple[int, int] = SIZE

    noun: ClassVar[str] = "module"
    folder: ClassVar[tuple[str, str]] = MODULE_FILE, "pruned module"

    def open(self, report: Report = silent) -> OpenedModule:
        """The module, copied; `UserError` for one that is not what `load_module` wants, or has nothing to prune."""
        source = open_source(self.data, self.size)
        net, dimensions = load_module(self.module, source.tasks, source.size)
        prunable, costs, whole = prunable_module(self.module, net, dimensions, LossCriterion(source), report)
        target = find_target(TARGET)
        problem = _export_problem(net, target)
        return OpenedModule(
            prunable=prunable,
            unpruned=PreparedNet(net, None if problem else PRECISION),
            target=target,
            preference=dict.fromkeys((task.name for task in source.tasks), 1.0),
            name="the module",
            space=self.module,
            not_exported=problem,
            data=self.data,
            costs=costs,
            whole=whole,
        )


def prunable_module(
    name: str,
    net: ModuleNet,
    dimensions: Mapping[str, int | None],
    criterion: LossCriterion,
    report: Report = silent,
) -> tuple[Prunable, ModuleCosts, dict[str, str]]:
    """A module, called `name`, as what is pruned, its cost model, and why channels stay, by the layer that gives them.

    Raises `UserError` for one that has nothing to prune.
    """
    source, multiple = criterion.source, find_target(TARGET).traits.channel_multiple
    with naming(name):
        groups, whole, costs = module_groups(net, dimensions, criterion.recalibration[:1], report)
    if not any(group.size > multiple for group in groups):
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in list(whole.items())[:3])
        raise UserError(f"{name}: no channels of the module can be pruned ({reasons or 'it has no such layer'})")
    cache_key = {
        "module": name,
        "layers_sha256": hashlib.sha256(_layers(net.module).encode()).hexdigest(),
        "weights_sha256": hashlib.sha256(weights_bytes(net.module)).hexdigest(),
        "data_fingerprint": source.fingerprint,
        "size": list(source.size),
        "images": [RECALIBRATION_IMAGES, DECIDING_IMAGES],
        "multiple": multiple,
    }
    prunable = Prunable(net, groups, criterion, multiple, costs.cost, map_file_of(cache_key), cache_key)
    return prunable, costs, whole


@dataclass(frozen=True, kw_only=True)
class OpenedModule(Opened):
    """A user's module on the data set `data`; `whole` says why channels stay, by the layer that gives them."""

    data: str
    costs: ModuleCosts
    whole: Mapping[str, str]

    def compensated(self, report: Report) -> Self:
        """See `Opened.compensated`."""
        return replace(self, prunable=self.prunable.compensated(report))

    def design(self, channels: Channels) -> ModuleDesign:
        """The module with so many channels in each group."""
        return ModuleDesign(self.costs, channels)

    def fine_tune(
        self,
        narrow: TaskNet,
        cut: Cut,
        tuning: FineTuning,
        folder: Path,
        report: Report,
        scheme: QuantScheme | None = None,
    ) -> None:
        """Train the narrow module further, taught by the whole one or as the user's train step says.

        Its layers are first fitted to the whole one's. With a `scheme` it is trained through eight bits.
        """
        whole = self.prunable.net
        assert isinstance(narrow, ModuleNet) and isinstance(whole, ModuleNet)
        if cut and not (folder / CHECKPOINT_FILE).is_file():
            self._reconstruct(narrow, whole, cut, report)
        fine_tune(narrow, whole, self.prunable.criterion.source, tuning, folder, report, scheme)

    def _reconstruct(self, narrow: ModuleNet, whole: ModuleNet, cut: Cut, report: Report) -> None:
        """Fit the narrow module to the whole one, in place, unless validation images call it no better then.

        Images that it is fitted to would. Better is the one that has less to learn, as its training counts it.
        """
        prunable, before = self.prunable, narrow.copy()
        images = fitting_images(prunable.criterion.source)
        reconstruct(narrow, whole, positions_kept(prunable.net, prunable.groups, cut), images, report)
        deciding, lost = deciding_batches(prunable.criterion.source), list[float]()
        for net in (before, narrow):
            judged = net.copy()
            recalibrate(judged, prunable.criterion.recalibration)
            lost.append(float(deciding_loss(judged, whole, deciding)))
        if not lost[1] < lost[0]:
            narrow.load_state_dict(before.state_dict())

    def config(self, settings: Mapping[str, Any], floors: Sequence[Floor]) -> dict[str, Any]:
        """The content of `module.json`."""
        return {"schema": SCHEMA, **settings, "data": self.data, **self.prunable.cache_key}

    def save(self, out: Path, best: Contender, record: Mapping[str, Any], cut: Cut) -> None:
        """Write the weights, the engine, and `pruning.json` with the positions that every layer keeps."""
        net = best.prepared.net
        assert isinstance(net, ModuleNet)
        write_atomic(out / WEIGHTS_FILE, weights_bytes(net.module))
        if not self.not_exported:
            self.target.build(net, PRECISION, None, out / ENGINE_FOLDER)
        self.write_record(out, record, cut, self.not_exported)

    def write_record(self, out: Path, record: Mapping[str, Any], cut: Cut, problem: str) -> None:
        """Write `pruning.json` beside the weights that it is about; `problem` says why nothing was exported, if so."""
        content = {
            **record,
            "module": self.space,
            "whole": dict(self.whole),
            "not_exported": problem,
            "kept": kept_json(positions_kept(self.prunable.net, self.prunable.groups, cut)),
            "weights_sha256": sha256(out / WEIGHTS_FILE),
        }
        write_json(out / PRUNING_FILE, sealed(content))


@dataclass(frozen=True)
class ModuleDesign:
    """A module with so many channels in each group, as its result tells of it; satisfies `NetDesign`."""

    costs: ModuleCosts
    channels: Channels

    @property
    def precision(self) -> Mapping[str, str]:
        """A module has no blocks, and its engine is in FP32."""
        return PRECISION

    @property
    def blocks(self) -> tuple[BlockRecord, ...]:
        """None."""
        return ()

    def cost(self, tasks: str | Sequence[str] | None = None) -> Cost:
        """Parameters that one task depends on, or all; several tasks are not distinguished."""
        names = [tasks] if isinstance(tasks, str) else list(tasks or ())
        return self.costs.cost(self.channels, names[0] if len(names) == 1 else None)

    def as_json(self) -> dict[str, int]:
        """`GROUP.channels` of every group that was decided on."""
        return {f"{name}.channels"[-200:]: count for name, count in self.channels.items()}


def _layers(module: nn.Module) -> str:
    return "\n".join(f"{name} {type(part).__name__} {part.extra_repr()}" for name, part in module.named_modules())


def _export_problem(net: ModuleNet, target: ExportTarget) -> str:
    """Why the module cannot be exported; empty where it can."""
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
        try:
            target.build(net, PRECISION, None, Path(folder))
        except Exception as error:  # symbolic tracing runs the user's own code
            return reason_of(error)
    return ""
