"""Graph models of TensorFlow.js: a small one as ONNX gives what PyTorch gives for the same layers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from _tfjs import convert
from numpy.typing import NDArray

Array = NDArray[Any]
SEED = np.random.default_rng(0)
KERNEL, DEPTHWISE, DENSE = (
    SEED.normal(size=shape).astype(np.float16) for shape in ((3, 3, 3, 4), (3, 3, 4, 1), (4, 2))
)
BIAS = SEED.normal(size=2).astype(np.float32)


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def convolution(op: str, name: str, inputs: list[str], stride: int) -> dict[str, Any]:
    sides = {"strides": ["1", str(stride), str(stride), "1"], "dilations": ["1", "1", "1", "1"]}
    attributes = {key: {"list": {"i": value}} for key, value in sides.items()}
    return {"name": name, "op": op, "input": inputs, "attr": {**attributes, "padding": {"s": text("SAME")}}}


def saved(folder: Path, last: str = "Softmax") -> Path:
    shape = {"shape": {"dim": [{"size": size} for size in ("-1", "8", "6", "3")]}}
    nodes = [
        {"name": "x", "op": "Placeholder", "attr": {"shape": shape}},
        convolution("Conv2D", "conv", ["x", "kernel"], 2),
        {"name": "sum", "op": "Add", "input": ["conv", "shift"], "attr": {}},
        {"name": "relu", "op": "Relu", "input": ["sum"], "attr": {}},
        convolution("DepthwiseConv2dNative", "depth", ["relu", "depthwise"], 1),
        {"name": "mean", "op": "Mean", "input": ["depth", "axes"], "attr": {"keep_dims": {"b": False}}},
        {"name": "dense", "op": "_FusedMatMul", "input": ["mean", "dense_w", "bias"],
         "attr": {"fused_ops": {"list": {"s": [text("BiasAdd"), text("Relu")]}}}},
        {"name": "p", "op": last, "input": ["dense"], "attr": {}},
    ]  # fmt: skip
    stored: dict[str, Array] = {
        "kernel": KERNEL, "depthwise": DEPTHWISE, "dense_w": DENSE, "bias": BIAS,
        "shift": np.arange(4, dtype=np.float32), "axes": np.array([1, 2], np.int32),
    }  # fmt: skip
    entries = [
        {"name": name, "shape": value.shape, "dtype": "float32", "quantization": {"dtype": "float16"}}
        if value.dtype == np.float16
        else {"name": name, "shape": value.shape, "dtype": str(value.dtype)}
        for name, value in stored.items()
    ]
    signature = {"outputs": {"p:0": {}, "mean": {}}}
    content = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": entries}], "signature": signature}
    (folder / "net.json").write_text(json.dumps(content))
    (folder / "net.bin").write_bytes(b"".join(value.tobytes() for value in stored.values()))
    return folder / "net.json"


def test_a_graph_model_gives_the_same_as_an_onnx_file(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(convert(saved(tmp_path)))
    image = SEED.normal(size=(1, 8, 6, 3)).astype(np.float32)
    given = dict(zip(["p", "mean"], session.run(["p", "mean"], {"x": image}), strict=True))
    kernel, depthwise, dense = (torch.from_numpy(each.astype(np.float32)) for each in (KERNEL, DEPTHWISE, DENSE))
    x = F.pad(torch.from_numpy(image).permute(0, 3, 1, 2), (0, 1, 0, 1))  # an even size: what is odd comes behind
    x = F.relu(F.conv2d(x, kernel.permute(3, 2, 0, 1), stride=2) + torch.arange(4.0).view(-1, 1, 1))
    mean = F.conv2d(x, depthwise.permute(2, 3, 0, 1), padding=1, groups=4).mean((2, 3))
    np.testing.assert_allclose(given["mean"], mean.numpy(), rtol=1e-4, atol=1e-5)
    probabilities = F.relu(mean @ dense + torch.from_numpy(BIAS)).softmax(1)
    np.testing.assert_allclose(given["p"], probabilities.numpy(), rtol=1e-4, atol=1e-5)


def test_another_operator_ends_it_by_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="operator Cumsum of p is none that is read here"):
        convert(saved(tmp_path, "Cumsum"))
