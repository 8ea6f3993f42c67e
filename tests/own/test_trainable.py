"""An ONNX file as a module of PyTorch: every operator against ONNX Runtime, one image and a batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from own_nets import SIZE, channels_last, model_of, saved, three_tasks, weight

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.own import OwnNet, check_equal, open_net, torch_graph
from edgemtl.own.tensor_functions import regroup, regroupings

HEIGHT, WIDTH = SIZE


def array(name: str, values: Any, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, kind), name)


def node(op: str, *constants: TensorProto, **attributes: Any) -> tuple[str, tuple[TensorProto, ...], dict[str, Any]]:
    return op, constants, attributes


def whole(name: str, values: Any) -> TensorProto:
    return array(name, values, np.int64)


CASES = {
    "conv": node("Conv", weight("w", 4, 3, 3, 3), weight("b", 4), strides=[2, 1], dilations=[1, 2]),
    "conv of the same size": node("Conv", weight("w", 4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "conv, uneven padding": node("Conv", weight("w", 4, 3, 3, 3), pads=[0, 1, 1, 2]),
    "depthwise": node("Conv", weight("w", 6, 1, 3, 3), group=3, pads=[1, 1, 1, 1]),
    "transposed": node("ConvTranspose", weight("w", 3, 4, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1]),
    "transposed, larger": node("ConvTranspose", weight("w", 3, 4, 3, 3), strides=[2, 2], output_padding=[1, 0]),
    "batch norm": node("BatchNormalization", array("s", [1, 2, 3]), array("b", [0, 1, 2]), array("m", [0.5, 0, 1]),
                       array("v", [1, 2, 0.5])),
    "instance norm": node("InstanceNormalization", array("s", [1, 2, 3]), array("b", [0, 1, 2])),
    "slopes": node("PRelu", array("s", np.array([0.1, 0.2, 0.3])[:, None, None])),
    "slopes of columns": node("PRelu", array("s", np.linspace(0, 1, WIDTH))),
    "matrix": node("MatMul", weight("w", WIDTH, 5)),
    "factor a channel": node("Mul", array("s", np.array([1, -2, 3])[:, None, None])),
    "offset a column": node("Add", weight("s", WIDTH)),
    "power": node("Pow", array("p", 2.0)),
    "clip": node("Clip", array("low", 0.2), array("high", 0.7)),
    "hard sigmoid": node("HardSigmoid", alpha=0.3),
    "leaky": node("LeakyRelu", alpha=0.3),
    "gelu by hand": node("Erf"),
    "softmax": node("Softmax", axis=1),
    "transpose": node("Transpose", perm=[0, 2, 3, 1]),
    "reshape": node("Reshape", whole("to", [0, 3, -1])),
    "flatten": node("Flatten", axis=2),
    "slice": node("Slice", whole("a", [1, -2]), whole("b", [9, -100]), whole("c", [2, 3]), whole("d", [2, -1])),
    "gather": node("Gather", whole("i", [2, -3, 2]), axis=1),
    "gather one": node("Gather", whole("i", 1), axis=2),
    "expand": node("Expand", whole("to", [2, 1, 3, HEIGHT, WIDTH])),
    "pad": node("Pad", whole("p", [0, 1, 0, 2, 0, 0, 1, 0]), array("v", 2.0)),
    "reflect": node("Pad", whole("p", [0, 0, 1, 2, 0, 0, 3, 0]), mode="reflect"),
    "mean": node("ReduceMean", axes=[2, 3], keepdims=0),
    "norm": node("ReduceL2", axes=[1], keepdims=1),
    "sum": node("ReduceSum", whole("a", [-1]), keepdims=0),
    "max pool": node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 1]),
    "max pool, rounded up": node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "mean pool": node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1]),
    "mean pool, counted": node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "global pool": node("GlobalMaxPool"),
    "nearest": node("Resize", array("r", []), array("f", [1, 1, 2, 3]), mode="nearest"),
    "nearest, uneven": node("Resize", array("r", []), array("f", []), whole("to", [1, 3, 20, 17]), mode="nearest"),
    "bilinear": node("Resize", array("r", []), array("f", [1, 1, 2, 2]), mode="linear"),
    "corners": node("Resize", array("r", []), array("f", [1, 1, 2, 2]), mode="linear",
                    coordinate_transformation_mode="align_corners"),
    "to space": node("DepthToSpace", blocksize=1),
    "to depth": node("SpaceToDepth", blocksize=4),
    "einsum": node("Einsum", weight("w", WIDTH, 5), equation="bchw,wk->bkch"),
    "tile": node("Tile", whole("r", [1, 2, 1, 1])),
    "logarithm": node("LogSoftmax"),
    "whole numbers": node("Cast", to=TensorProto.INT32),
    "greater": node("Max", weight("w", 3, 1, 1)),
}  # fmt: skip


def net_of(nodes: list[onnx.NodeProto], constants: list[TensorProto], folder: Path) -> OwnNet:
    return open_net(str(saved(model_of(nodes, {"y": TensorProto.FLOAT}, constants), folder)))


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(case: str, tmp_path: Path) -> None:
    op, constants, attributes = CASES[case]
    made = helper.make_node(
        op, ["x", *(tensor.name for tensor in constants)], ["tried.out"], name="tried", **attributes
    )
    made = [made, helper.make_node("Cast", ["tried.out"], ["y"], to=TensorProto.FLOAT)]
    net = net_of(made, list(constants), tmp_path)
    module = torch_graph(net)
    images = np.random.default_rng(1).normal(0, 2, (2, 3, *SIZE)).astype(np.float32)
    assert check_equal(net, module, images[:, None]) < 1e-5
    with torch.no_grad():
        together, alone = module(torch.from_numpy(images))["y"], module(torch.from_numpy(images[1:]))["y"]
    torch.testing.assert_close(together[-len(alone) :], alone, rtol=1e-5, atol=1e-6)


def grey() -> onnx.ModelProto:
    """A net that reads half precision and one channel."""
    half = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float16), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="c")]
    read = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 1, *SIZE])]
    return model_of(nodes, {"y": TensorProto.FLOAT16}, [half], inputs=read)


@pytest.mark.parametrize("model", [three_tasks(), channels_last(), grey()])
def test_a_whole_net_is_taken_with_its_layout_and_type(model: onnx.ModelProto, tmp_path: Path) -> None:
    net = open_net(str(saved(model, tmp_path)), SIZE)
    module = torch_graph(net)
    image = np.floor(np.random.default_rng(2).random((1, 3, *SIZE)) * 255).astype(np.float32)
    assert check_equal(net, module, [image / 255 if net.channels == 1 else image]) < 1e-3
    assert set(module(torch.from_numpy(image))) == set(net.outputs)


def test_normalisation_goes_into_the_layer_before_it_and_the_module_can_be_trained(tmp_path: Path) -> None:
    norm = [array(name, values) for name, values in (("s", [1, 2]), ("o", [0, 1]), ("m", [1, 0]), ("v", [2, 1]))]
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["a"], name="up", strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "s", "o", "m", "v"], ["y"], name="norm"),
    ]
    module = torch_graph(net_of(nodes, [weight("w", 3, 2, 2, 2), *norm], tmp_path))
    assert [type(layer).__name__ for layer in module.body.children()] == ["ConvTranspose2d"]
    image = torch.rand(3, 3, *SIZE)
    module(image)["y"].square().mean().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in module.parameters() if parameter.grad is not None)
    assert len([parameter for parameter in module.parameters() if parameter.grad is not None]) == 2


def test_an_operator_without_a_counterpart_is_refused_by_its_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "to"], ["s"]),
        helper.make_node("GRU", ["s", "w", "r"], ["", "h"], name="memory", hidden_size=4),
        helper.make_node("Reshape", ["h", "row"], ["y"]),
    ]
    constants = [weight("w", 1, 12, WIDTH), weight("r", 1, 12, 4), whole("to", [3 * HEIGHT, 1, WIDTH]),
                 whole("row", [1, 4])]  # fmt: skip
    net = net_of(nodes, constants, tmp_path)
    with pytest.raises(UnsupportedError, match=re.escape("GRU memory has no counterpart in PyTorch")) as refusal:
        torch_graph(net)
    assert "\n" not in str(refusal.value)


def test_a_module_that_differs_is_refused(tmp_path: Path) -> None:
    net = open_net(str(saved(three_tasks(), tmp_path)))
    module = torch_graph(net)
    with torch.no_grad():
        next(module.parameters()).mul_(1.5)
    with pytest.raises(UserError, match="in PyTorch differs by"):
        check_equal(net, module, [np.ones((1, 3, *SIZE), np.float32)])


@pytest.mark.parametrize(
    ("before", "after", "narrow", "expected"),
    [
        ((1, 64, 3, 3), (1, 576), (1, 16, 3, 3), (1, 144)),
        ((1, 64, 1, 1), (1, 64), (1, 16, 1, 1), (1, 16)),
        ((1, 64), (1, 64, 1, 1), (1, 16), (1, 16, 1, 1)),
        ((1, 64, 8, 8), (1, 64, 64), (1, 16, 8, 8), (1, 16, 64)),
        ((1, 8, 96), (1, 8, 3, 4, 8), (1, 8, 96), (1, 8, 3, 4, 8)),
    ],
)
def test_a_reshape_follows_channels_that_were_removed(
    before: tuple[int, ...], after: tuple[int, ...], narrow: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert tuple(regroup(torch.zeros(narrow), regroupings(before, after)).shape) == expected


def test_an_image_that_does_not_fit_is_an_error_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add = helper.make_node("Add", ["x", "w"], ["y"])
    model = model_of([add], {"y": TensorProto.FLOAT}, [weight("w", 1, 3, *SIZE)])
    module = torch_graph(open_net(str(saved(model, tmp_path))))
    with pytest.raises(RuntimeError, match="size of tensor"):
        module(torch.zeros(1, 3, 2, 2))
    assert capfd.readouterr().err == ""
