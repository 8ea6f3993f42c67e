"""Engines of a trunk and two heads in ONNX, the second head much larger than the first: no training, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemtl.bundle import BundleCost, BundleInput, BundleTarget, Manifest, Provenance, write_manifest
from edgemtl.export.task_contract import describe_task
from edgemtl.files.seals import sha256
from edgemtl.runtime import EngineSpec
from edgemtl.tasks import make_task

__all__ = ["bundle_in", "engine_in", "two_headed"]


def two_headed(
    path: Path, size: Any = 32, heads: tuple[str, ...] = ("depth", "edges"), batch: int | str = "batch"
) -> Path:
    """A trunk convolution and a convolution per head, the second head much larger than the first."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["image", "w"], ["t"], name="/trunk/Conv", pads=[1] * 4)]
    weights = [numpy_helper.from_array(rng.standard_normal((16, 3, 3, 3), dtype=np.float32), "w")]
    for index, head in enumerate(heads):
        width = 4 * 8**index
        kernel = rng.standard_normal((width, 16, 3, 3), dtype=np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w_{head}"))
        nodes.append(helper.make_node("Conv", ["t", f"w_{head}"], [head], name=f"/{head}/Conv", pads=[1] * 4))
    outputs = [helper.make_tensor_value_info(head, TensorProto.FLOAT, None) for head in heads]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])
    graph = helper.make_graph(nodes, "g", [image], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def engine_in(folder: Path, size: int = 32) -> Path:
    """An engine folder."""
    folder.mkdir(parents=True)
    two_headed(folder / "model.onnx", size, batch=1)
    outputs = {"depth": {"log_metres": "depth"}, "edges": {"logits": "edges"}}
    spec = EngineSpec(
        "onnxruntime", "onnxruntime", tuple(outputs), (1, 3, size, size), {"model": "model.onnx"}, {"outputs": outputs}
    )
    spec.write(folder)
    return folder


def bundle_in(folder: Path, size: int = 32) -> tuple[Path, Manifest]:
    """A bundle with that engine, and its manifest."""
    engine = engine_in(folder / "engines" / "onnxruntime", size)
    files = [file.name for file in sorted(engine.iterdir())]
    tasks = [describe_task(make_task(name, name), (size, size)) for name in ("depth", "edges")]
    manifest = Manifest(
        name="bundle",
        created="2026-01-01",
        space="",
        family="",
        design={},
        precision={"engine": "fp32"},
        input=BundleInput(height=size, width=size, mean=(0, 0, 0), std=(1, 1, 1)),
        tasks=tuple(tasks),
        modes=(("depth", "edges"),),
        targets={
            "onnxruntime": BundleTarget(
                folder="engines/onnxruntime", files=tuple(files), runtime="onnxruntime", parity={}
            )
        },
        files={f"engines/onnxruntime/{file}": sha256(engine / file) for file in files},
        cost=BundleCost(flops=2, params=1, weight_bytes=4, paths={}),
        provenance=Provenance(environment={}),
    )
    write_manifest(folder, manifest)
    return folder, manifest
