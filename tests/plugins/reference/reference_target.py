"""A target in one file: what it writes, the runtime that opens it, and a quantity that it counts itself.

Engines are ONNX files that the reference evaluator of the package onnx runs. Lookup tables of an imaginary FPGA are
counted from a net's blocks: one for every eight bits that a multiplication takes, folded by 1024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from edgemtl.devices import Device
from edgemtl.errors import UserError
from edgemtl.files.disk import write_atomic
from edgemtl.models import TaskNet
from edgemtl.models.quantization import QuantScheme, Ranges
from edgemtl.runtime import CLOSED, EngineSpec, OperatorTime, Outputs, check_image
from edgemtl.targets import DispatchPolicy, check_build, emit_graph, write_spec
from edgemtl.tasks import check_tasks, map_outputs
from edgemtl.traits import TargetTraits
from edgemtl.units import Quantity

RUNTIME = "onnx-reference"


def count_luts(blocks: Sequence[Any], precision: Mapping[str, str]) -> float:
    return sum(block.macs * (8 if precision.get(block.parameters) == "int8" else 32) / 8 for block in blocks) / 1024


LUT = Quantity("luts", {"LUT": 1.0, "kLUT": 1e3}, ("%LUT",), lambda luts: f"{luts:.0f} LUT", count=count_luts)


@dataclass(frozen=True)
class ReferenceTarget:
    """See `edgemtl.targets.ExportTarget`."""

    device: Device
    scheme: QuantScheme = QuantScheme()  # noqa: RUF009 (frozen)
    dispatch: DispatchPolicy = DispatchPolicy()  # noqa: RUF009 (frozen)

    @property
    def traits(self) -> TargetTraits:
        own = TargetTraits("reference", "Reference", ("float",), ("fp32",), 1, RUNTIME, "", quantities=(LUT,))
        return own.on(self.device)

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        graph, _ = check_build(net, precision, ranges, self.traits)
        write_atomic(folder / "model.onnx", emit_graph(graph, self.dispatch).SerializeToString(deterministic=True))
        return write_spec(folder, self, graph, {"model": "model.onnx"}, precision)


class ReferenceSession:
    """See `edgemtl.runtime.Session`: each subset of tasks is cut out of the graph when it is first wanted."""

    def __init__(self, folder: Path, spec: EngineSpec) -> None:
        self.spec, self.tasks = spec, spec.tasks
        self.model: onnx.ModelProto | None = onnx.load(spec.file(folder, "model"))
        self.parts: dict[tuple[str, ...], ReferenceEvaluator] = {}

    def run(self, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        if self.model is None:
            raise UserError(CLOSED)
        wanted = check_tasks(tasks, self.tasks)
        outputs = {task: self.spec.outputs[task] for task in wanted}
        names = tuple(name for own in outputs.values() for name in own.values())
        if names not in self.parts:
            part = onnx.utils.Extractor(self.model).extract_model(["image"], list(names))
            self.parts[names] = ReferenceEvaluator(part)
        found = self.parts[names].run(names, {"image": check_image(image, self.spec.input)})
        return map_outputs(dict(zip(names, found, strict=True)).__getitem__, outputs)

    def operator_times(self, image: NDArray[np.float32], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        self.run(image, tasks)
        return []

    def close(self) -> None:
        self.model = None


def open_session(
    folder: Path, spec: EngineSpec, threads: int, modes: Sequence[Sequence[str]] | None = None
) -> ReferenceSession:
    return ReferenceSession(folder, spec)
