"""FLOPs of every exported design of a 2 GFLOPs search, counted anew from its ONNX file.

The counter here shares no code with the package: it walks the graph (subgraphs of `If` included) with ONNX's own shape
inference and multiplies out every Conv, Gemm and MatMul. It is compared with result.json and with the budget.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from _common import Outcome, Row, main
from _runs import searched

from edgemtl.results import read_result
from edgemtl.targets import find_target

BUDGET_FLOPS = 2e9


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every graph inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def recount(path: Path) -> int:
    """Two FLOPs for every multiply-accumulate of convolutions and matrix products, for one image."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    shapes: dict[str, tuple[int, ...]] = {}
    every = list(graphs(model.graph))
    for graph in every:
        for value in (*graph.value_info, *graph.input, *graph.output):
            shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for tensor in graph.initializer:
            shapes[tensor.name] = tuple(tensor.dims)
    macs = 0
    for graph in every:
        for node in graph.node:
            if node.op_type in ("Conv", "QLinearConv"):
                weight = shapes[node.input[3 if node.op_type == "QLinearConv" else 1]]
                macs += math.prod(weight[1:]) * math.prod(shapes[node.output[0]])
            elif node.op_type in ("Gemm", "MatMul"):
                transposed = any(a.name == "transA" and a.i for a in node.attribute)
                inner = shapes[node.input[0]][-2 if transposed else -1]
                macs += inner * math.prod(shapes[node.output[0]])
    return 2 * macs


def run(options: argparse.Namespace) -> Outcome:
    """Export every kept design for ONNX Runtime and count."""
    arguments = ["--evaluations", "12"] if options.quick else []
    folder = searched("quick" if options.quick else "first", "--budget", "2GFLOPs", *arguments)
    stated = {entry.name: entry.flops for entry in read_result(folder.path).front}
    counted = {}
    for name in folder.names():
        candidate = folder.load(name)
        with tempfile.TemporaryDirectory() as scratch:
            written = find_target("onnxruntime").build(
                candidate.net, candidate.design.precision, candidate.ranges, Path(scratch)
            )
            counted[name] = sum(recount(Path(scratch) / file) for file in written if file.suffix == ".onnx")
    worst = max(abs(counted[name] - stated[name]) for name in counted)
    over = max(flops for name, flops in counted.items() if name != "baseline") / BUDGET_FLOPS
    rows = [Row("recount_difference", worst, "FLOPs", 0), Row("share_of_budget", over, "ratio", 1.0)]
    return Outcome(rows, {"counted": counted, "stated": stated})


if __name__ == "__main__":
    main(run, __doc__)
