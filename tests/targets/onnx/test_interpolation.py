"""Bilinear enlarging as two products: the same values as the runtime's own operator, wherever one is replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_oracle import kinds, run

from edgemtl.targets.onnx.interpolation import interpolate_by_products

SHAPE = (1, 3, 6, 9)
WAYS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def model(after: tuple[int, ...], scales: list[float], eight: bool = True, **settings: Any) -> onnx.ModelProto:
    """A map that is resized behind eight bits, or behind none, by scales or, without them, to a size."""
    made = [("step", np.float32(0.02)), ("zero", np.uint8(128)), ("scales", np.array(scales, np.float32))]
    made += [] if scales else [("sizes", np.array(after, np.int64))]
    entering = [
        helper.make_node("QuantizeLinear", ["image", "step", "zero"], ["rounded"], "rounded"),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["map"], "map"),
    ]
    if not eight:
        entering = [helper.make_node("Identity", ["image"], ["map"], "map")]
    names = ["map", "", "scales"] if scales else ["map", "", "", "sizes"]
    resize = helper.make_node("Resize", names, ["enlarged"], "blocks.task_1.resize", **{"mode": "linear", **settings})
    graph = helper.make_graph(
        [*entering, resize],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("enlarged", TensorProto.FLOAT, after)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in made],
        value_info=[helper.make_tensor_value_info("map", TensorProto.FLOAT, SHAPE)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def image() -> dict[str, Any]:
    return {"image": np.random.default_rng(0).uniform(-2.5, 2.5, SHAPE).astype(np.float32)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("after", "scales"),
    [
        ((1, 3, 24, 36), [1.0, 1.0, 4.0, 4.0]),
        ((1, 3, 12, 9), [1.0, 1.0, 2.0, 1.0]),
        ((1, 3, 11, 30), [1.0, 1.0, 1.9, 3.4]),
        ((1, 3, 17, 31), []),
        ((1, 3, 1, 18), []),
        ((1, 3, 3, 4), []),
    ],
)
def test_products_give_the_values_of_the_operator(way: str, after: tuple[int, ...], scales: list[float]) -> None:
    before = model(after, scales, coordinate_transformation_mode=way)
    content = before.SerializeToString()
    made = interpolate_by_products(before)
    onnx.checker.check_model(made, full_check=True)
    assert before.SerializeToString() == content, "the original stays as it is"
    assert kinds(made)["MatMul"] == 2 and not kinds(made)["Resize"]
    np.testing.assert_allclose(run(made, image())[0], run(before, image())[0], atol=1e-5)


@pytest.mark.parametrize(
    ("eight", "settings"),
    [
        (False, {}),
        (True, {"mode": "nearest"}),
        (True, {"mode": "cubic"}),
        (True, {"antialias": 1}),
        (True, {"coordinate_transformation_mode": "half_pixel_symmetric"}),
    ],
)
def test_others_stay_as_they_are(eight: bool, settings: dict[str, Any]) -> None:
    before = model((1, 3, 24, 36), [1.0, 1.0, 4.0, 4.0], eight, **settings)
    made = interpolate_by_products(before)
    assert kinds(made) == kinds(before)
    np.testing.assert_array_equal(run(made, image())[0], run(before, image())[0])


def test_one_whose_sizes_are_bounds_stays_as_it_is() -> None:
    before = model((1, 3, 18, 27), [], keep_aspect_ratio_policy="not_larger")
    assert kinds(interpolate_by_products(before)) == kinds(before)


def test_a_large_map_stays_as_it_is() -> None:
    before = model((1, 3, 24, 36), [1.0, 1.0, 4.0, 4.0])
    large = onnx.ModelProto()
    large.CopyFrom(before)
    for info, size in ((large.graph.input[0], 200), (large.graph.value_info[0], 200), (large.graph.output[0], 800)):
        info.type.tensor_type.shape.dim[2].dim_value = size
    assert kinds(interpolate_by_products(large)) == kinds(before)
