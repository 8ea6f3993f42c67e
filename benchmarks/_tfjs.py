"""TensorFlow.js's graph models: converted to ONNX by a reading of our own, and run by TensorFlow.js itself, in Node."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.files.disk import write_atomic

__all__ = ["convert", "run_js"]

Array = NDArray[Any]
Node = Mapping[str, Any]
RUN = """
import * as fs from "fs";
import { pathToFileURL } from "url";

const [library, source, images, out] = process.argv.slice(2);
Object.defineProperty(process, "versions", { value: {} });  // the library is built for browsers
globalThis.window = { document: {} };
const tf = await import(pathToFileURL(library).href);
await tf.setBackend("cpu");
const content = JSON.parse(fs.readFileSync(source));
const exact = (bytes) => bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const model = await tf.loadGraphModel({
  load: async () => ({
    ...content,
    weightSpecs: content.weightsManifest.flatMap((group) => group.weights),
    weightData: exact(fs.readFileSync(source.replace(/json$/, "bin"))),
  }),
});
const { shape, files } = JSON.parse(fs.readFileSync(images));
const results = files.map((file) => {
  const values = [model.execute(tf.tensor(new Float32Array(exact(fs.readFileSync(file))), shape), model.outputNodes)];
  const named = values.flat().map((value, index) => [
    model.outputNodes[index].split(":")[0], { shape: value.shape, values: Array.from(value.dataSync()) },
  ]);
  return Object.fromEntries(named);
});
fs.writeFileSync(out, JSON.stringify(results));
"""
SIMPLE = {
    "Add": "Add", "AddV2": "Add", "Mul": "Mul", "Minimum": "Min", "Maximum": "Max", "Relu": "Relu",
    "Sigmoid": "Sigmoid", "Softmax": "Softmax",
}  # fmt: skip
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def convert(source: Path) -> Path:
    """The ONNX file of a graph model whose weights stand in one `.bin` beside it, written once.

    It reads N x H x W x 3 as the model does; between, channels come first, as ONNX has them. Ends the process for an
    operator that convolutional nets of one input do not have.
    """
    path = source.with_suffix(".onnx")
    if not path.exists():
        write_atomic(path, _converted(json.loads(source.read_text()), source).SerializeToString())
    return path


def _converted(content: Node, source: Path) -> onnx.ModelProto:
    nodes = content["modelTopology"]["node"]
    weights = _weights(content["weightsManifest"], source.with_suffix(".bin").read_bytes())
    (image,) = (node for node in nodes if node["op"] == "Placeholder")
    shape = [max(1, int(each["size"])) for each in image["attr"]["shape"]["shape"]["dim"]]
    made = [helper.make_node("Transpose", [image["name"]], ["image"], perm=[0, 3, 1, 2])]
    constants: list[TensorProto] = []
    for node in nodes:
        if node["op"] not in ("Placeholder", "Const"):
            renamed = {**node, "input": ["image" if name == image["name"] else name for name in node["input"]]}
            made += _operator(renamed, weights, constants)
    outputs = [name.partition(":")[0] for name in content["signature"]["outputs"]]
    graph = helper.make_graph(
        made,
        source.stem,
        [helper.make_tensor_value_info(image["name"], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _weights(manifest: Sequence[Node], content: bytes) -> dict[str, Array]:
    """Every weight by its name; those stored in half precision are widened."""
    weights, start = dict[str, Array](), 0
    for each in (entry for group in manifest for entry in group["weights"]):
        stored = np.dtype(each.get("quantization", each)["dtype"])
        count = math.prod(each["shape"])
        weights[each["name"]] = (
            np.frombuffer(content, stored, count, start).astype(each["dtype"]).reshape(each["shape"])
        )
        start += count * stored.itemsize
    return weights


def _operator(node: Node, weights: Mapping[str, Array], constants: list[TensorProto]) -> Iterator[onnx.NodeProto]:
    """A node's ONNX operators; `constants` gets those that they read."""
    name, op, inputs = node["name"], node["op"], list(node["input"])

    def constant(value: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{name}/{len(constants)}"))
        return str(constants[-1].name)

    if op in CONVOLUTIONS:
        kernel = weights[inputs[1]]
        depthwise = op != "Conv2D"
        own = (
            kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
            if depthwise
            else kernel.transpose(3, 2, 0, 1)
        )
        padding = {"SAME": "SAME_UPPER", "VALID": "VALID"}[base64.b64decode(node["attr"]["padding"]["s"]).decode()]
        strides, dilations = (_sides(node["attr"][each]) for each in ("strides", "dilations"))
        about = {"auto_pad": padding, "strides": strides, "dilations": dilations}
        yield helper.make_node("Conv", [inputs[0], constant(own)], [name], group=len(own) if depthwise else 1, **about)
    elif op in SIMPLE:
        given = [constant(_first(weights[each])) if each in weights else each for each in inputs]
        yield helper.make_node(SIMPLE[op], given, [name])
    elif op == "Mean" and sorted(weights[inputs[1]].tolist()) == [1, 2]:
        yield helper.make_node("ReduceMean", inputs[:1], [name], axes=[2, 3], keepdims=int(_flag(node, "keep_dims")))
    elif op == "_FusedMatMul" and not (_flag(node, "transpose_a") or _flag(node, "transpose_b")):
        fused = [base64.b64decode(each).decode() for each in node["attr"]["fused_ops"]["list"]["s"]]
        result = [f"{name}/sum"] if fused == ["BiasAdd", "Relu"] else [name]
        yield helper.make_node("Gemm", [inputs[0], *(constant(weights[each]) for each in inputs[1:])], result)
        if result != [name]:
            yield helper.make_node("Relu", result, [name])
    else:
        sys.exit(f"operator {op} of {name} is none that is read here")


def _sides(attribute: Node) -> list[int]:
    """Values of height and width."""
    return [int(each) for each in attribute["list"]["i"][1:3]]


def _flag(node: Node, name: str) -> bool:
    return bool(node["attr"].get(name, {}).get("b", False))


def _first(value: Array) -> Array:
    """A constant of all channels, as it applies to a tensor whose channels come first."""
    return value.reshape(-1, 1, 1) if value.ndim == 1 else value


def run_js(library: Path, source: Path, images: Sequence[Array]) -> list[Mapping[str, Array]]:
    """All outputs of a graph model for each image (1, H, W, 3), by name; `library` is TensorFlow.js as a module.

    Node computes them in JavaScript alone, some seconds an image. Ends the process where it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in ("run.mjs", "images.json", "out.json")}
        files = [str(Path(folder) / f"{number}.bin") for number in range(len(images))]
        for file, image in zip(files, images, strict=True):
            image.astype(np.float32).tofile(file)
        paths["run.mjs"].write_text(RUN)
        paths["images.json"].write_text(json.dumps({"shape": images[0].shape, "files": files}))
        command = ["node", paths["run.mjs"], library, source, paths["images.json"], paths["out.json"]]
        done = subprocess.run([str(each) for each in command], stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"TensorFlow.js failed: {done.stderr.strip()[-500:]}")
        results = json.loads(paths["out.json"].read_text())
    return [
        {name: np.array(value["values"], np.float32).reshape(value["shape"]) for name, value in each.items()}
        for each in results
    ]
