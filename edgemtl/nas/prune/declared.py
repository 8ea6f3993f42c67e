"""A net of one's own as what is pruned: `edgemtl prune NET --tasks tasks.yaml --data DATA`, with labels or without."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.files.disk import write_atomic
from edgemtl.files.images import normalize
from edgemtl.models import load_layers
from edgemtl.nas.evaluation import PreparedNet
from edgemtl.nas.prune.agreement import AgreementCriterion, floor_without_labels
from edgemtl.nas.prune.apply import WEIGHTS_FILE, weights_bytes
from edgemtl.nas.prune.criterion import LossCriterion
from edgemtl.nas.prune.module import MODULE_FILE, TARGET, OpenedModule, prunable_module
from edgemtl.nas.prune.opened import Cut
from edgemtl.nas.runs import Contender
from edgemtl.own import (
    NET_FILE,
    TASKS_FILE,
    Declaration,
    DeclaredNet,
    DeclaredTask,
    OwnNet,
    as_text,
    check_equal,
    flat_outputs,
    is_data_set,
    module_as_onnx,
    open_labelled,
    open_net,
    open_pictures,
    read_declaration,
    resolve,
    torch_graph,
)
from edgemtl.progress import Report, silent
from edgemtl.targets import find_target
from edgemtl.tasks import Floor, by_tensor, map_outputs, named_metric

__all__ = ["NET_FILE", "TASKS_FILE", "DeclaredModule", "OpenedDeclared", "open_declared"]

CHECKED = 2
"""Pictures on which a net's graph in PyTorch is compared with its own outputs."""
_BY_ITSELF = "agreement with the net as it was, on pictures without labels"
_NO_ENGINE = "engines are built of what is left of it, by edgemtl export"


@dataclass(frozen=True)
class DeclaredModule:
    """An ONNX file or a module, whose tasks the file `tasks` declares, and `data`: a folder of pictures, or a data set.

    Labels of a data set decide and score, each task by its own metric. Without labels its own outputs are what it is
    compared with. It learns from these in either case. What is left of it is a folder for `apply_pruning`, with
    `net.onnx` and `tasks.yaml` for `edgemtl export`.
    """

    net: str
    tasks: Path
    data: str
    size: tuple[int, int] | None = None

    noun: ClassVar[str] = "net"
    folder: ClassVar[tuple[str, str]] = MODULE_FILE, "pruned module"

    def open(self, report: Report = silent) -> OpenedDeclared:
        """The net as a module, compared with its own outputs first.

        Raises `UserError` where the declaration or labels do not fit, where the module differs from the net, and
        where nothing of it can be pruned.
        """
        declaration = read_declaration(self.tasks)
        own = open_net(self.net, self.size, declaration.constants)
        return open_declared(own, self.net, declaration, self.data, report)


def open_declared(
    own: OwnNet, spec: str, declaration: Declaration, data: str, report: Report = silent
) -> OpenedDeclared:
    """The net that `spec` names, opened, as a module that is compared with its own outputs first; see `DeclaredModule`.

    Raises as `DeclaredModule.open` does.
    """
    resolved, labelled = resolve(own, declaration), is_data_set(Path(data).expanduser())
    source = open_labelled(data, own.size, resolved.tasks) if labelled else None
    net, dimensions = _declared_net(own, spec, declaration if labelled else _raw(declaration), labelled)
    criterion = _agreement(own, net, data) if source is None else LossCriterion(source)
    samples = criterion.source.split("train")
    _check_net(own, net, normalize(np.stack([samples[number].image for number in range(min(CHECKED, len(samples)))])))
    criterion.check_labels()
    prunable, costs, whole = prunable_module(spec, net, dimensions, criterion, report)
    return OpenedDeclared(
        prunable=prunable,
        unpruned=PreparedNet(net, None),
        target=find_target(TARGET),
        preference=dict.fromkeys((task.name for task in net.tasks), 1.0),
        name="the net",
        space=spec,
        scores=f"each task's own metrics, by labels of {criterion.source.name}" if labelled else _BY_ITSELF,
        not_exported=_NO_ENGINE,
        data=data,
        costs=costs,
        whole=whole,
        declaration=declaration,
    )


@dataclass(frozen=True, kw_only=True)
class OpenedDeclared(OpenedModule):
    """A net with declared tasks."""

    declaration: Declaration

    def floors(self, texts: Sequence[str]) -> tuple[Floor, ...]:
        """See `Opened.floors`: of pictures without labels nothing but agreement is known."""
        if isinstance(self.prunable.criterion, AgreementCriterion):
            for text in texts:
                if (metric := named_metric(text)) not in ("", "agreement"):
                    raise floor_without_labels(text, metric, text.partition(".")[0])
        return super().floors(texts)

    def save(self, out: Path, best: Contender, record: Mapping[str, Any], cut: Cut) -> None:
        """See `write`."""
        net, problem, model = best.prepared.net, "", None
        assert isinstance(net, DeclaredNet)
        try:
            model = self.as_onnx(net)
        except UnsupportedError as error:
            problem = str(error)
        self.write(out, (net, model), record, cut, problem)

    def write(
        self,
        out: Path,
        left: tuple[DeclaredNet, onnx.ModelProto | None],
        record: Mapping[str, Any],
        cut: Cut,
        problem: str = "",
    ) -> None:
        """Write the weights of what is left, its ONNX file with its tasks, and `pruning.json`.

        That says by `problem` why there is no file, if so.
        """
        net, model = left
        write_atomic(out / WEIGHTS_FILE, weights_bytes(net.module))
        write_atomic(out / TASKS_FILE, as_text(self.pruned_declaration).encode())
        if model is not None:
            write_atomic(out / NET_FILE, model.SerializeToString())
        self.write_record(out, record, cut, problem)

    @property
    def pruned_declaration(self) -> Declaration:
        """Tasks of what is left of the net, of which constants are part."""
        return self.declaration.model_copy(update={"constants": {}})

    def as_onnx(self, net: DeclaredNet) -> onnx.ModelProto:
        """The net that is left as an ONNX graph; `UnsupportedError` for what PyTorch cannot export."""
        return module_as_onnx(net.module, net.flatten, net.input_size, self.space, net.channels)


def _agreement(own: OwnNet, net: DeclaredNet, data: str) -> AgreementCriterion:
    """Pictures whose labels are what the net itself gives."""

    def labels(image: NDArray[np.float32]) -> Mapping[str, Mapping[str, NDArray[np.float32]]]:
        with torch.inference_mode():
            return map_outputs(Tensor.numpy, net(torch.from_numpy(image)))

    weights = hashlib.sha256(weights_bytes(net.module)).hexdigest()
    return AgreementCriterion(open_pictures(Path(data).expanduser(), own.size, net.tasks, labels, weights), net)


def _raw(declaration: Declaration) -> Declaration:
    """The same tasks as raw tensors, which agree as a whole or do not."""
    tasks = {name: DeclaredTask(outputs=task.outputs) for name, task in declaration.tasks.items()}
    return declaration.model_copy(update={"tasks": tasks})


def _declared_net(
    own: OwnNet, spec: str, declaration: Declaration, full_size: bool
) -> tuple[DeclaredNet, dict[str, int | None]]:
    """The net as a module, and the dimensions of its parameters that stand in no layer."""
    resolved = resolve(own, declaration)
    if own.origin == "onnx":
        graph = torch_graph(own)
        net, dimensions = DeclaredNet(graph, resolved, own.size, dict, full_size), graph.dimensions
    else:
        module, dimensions = load_layers(spec, own.size)
        net = DeclaredNet(module, resolved, own.size, flat_outputs, full_size, own.channels)
    return net.eval(), {f"module.{name}": dimension for name, dimension in dimensions.items()}


def _check_net(own: OwnNet, net: DeclaredNet, images: NDArray[np.float32]) -> None:
    """`UserError` where the module differs from the net on these images, or a task's outputs cannot be learnt."""
    values = [net.values(torch.from_numpy(image[None])).numpy() for image in images]
    check_equal(own, lambda image: net.flatten(net.called(image)), values)
    with torch.enable_grad():
        outputs = by_tensor(net(torch.from_numpy(images)))
    for name, value in outputs.items():
        if not value.requires_grad:
            raise UserError(
                f"{own.name}: output {name} depends on no weight in a way that has a slope, so nothing could protect "
                f"it: put its tensor under unused in the tasks file"
            )
