"""Rounding follows its formulas, a plan follows its scheme, and the simulation is what ONNX Runtime computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgemtl.errors import UserError
from edgemtl.models.graph.graph import trace
from edgemtl.models.quantization import (
    Parameters,
    QuantScheme,
    Ranges,
    calibrate,
    check_precision,
    parameters_of,
    plan_quantization,
    simulate,
    weight_scales,
)
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

UNSIGNED, SIGNED = QuantScheme("uint8"), QuantScheme("int8", symmetric=True)
ENTERING = Parameters(0.02, 128, 0, 255)
STORED = QuantScheme("uint8", quantize_outputs=True, quantized_ops=("Add",), passthrough_ops=("Resize",), bias="int32")


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.sampled_from([UNSIGNED, SIGNED, QuantScheme("int8")]))
def test_zero_is_exact_and_limits_are_met_within_a_step(a: float, b: float, scheme: QuantScheme) -> None:
    limits = (min(a, b), max(a, b))
    p = parameters_of(limits, scheme)
    assert p.low <= p.zero <= p.high
    assert p.scale > 0
    assert (p.low - p.zero) * p.scale <= min(limits[0], 0) + p.scale
    assert (p.high - p.zero) * p.scale >= max(limits[1], 0) - p.scale


def test_weight_scales_reach_the_largest_weight_of_each_channel() -> None:
    weight = np.array([[[[0.5, -2.54]]], [[[0.0, 0.0]]]], np.float32)
    scales = weight_scales(weight, UNSIGNED, None, ENTERING)
    assert scales[0] * 127 == pytest.approx(2.54)
    assert weight_scales(weight, replace(UNSIGNED, weight_limit=64), None, ENTERING)[0] * 64 == pytest.approx(2.54)
    assert scales[1] > 0


@given(st.floats(0, 1e-4), st.floats(-1e3, 1e3), st.floats(1e-6, 1e3))
def test_a_bias_in_steps_fits_into_half_of_int32(largest: float, bias: float, entering: float) -> None:
    weight, given = np.full((1, 1, 1, 1), largest, np.float32), np.array([bias], np.float32)
    parameters = replace(ENTERING, scale=float(np.float32(entering)))
    (scale,) = weight_scales(weight, STORED, given, parameters)
    assert abs(float(given[0])) / (float(scale) * parameters.scale) <= 2**30 * (1 + 1e-6)
    assert weight_scales(weight, UNSIGNED, given, parameters) == weight_scales(weight, UNSIGNED, None, parameters)


def test_minmax_ranges_are_the_extremes_that_were_seen() -> None:
    net, batch = small_net(), images(6)
    ranges = calibrate(net, [batch[:4], batch[4:]], clipping="minmax")
    assert ranges["image"] == (float(batch.min()), float(batch.max()))
    with torch.no_grad():
        depth = by_tensor(net(batch))["depth"]
    assert ranges["depth"] == pytest.approx((float(depth.min()), float(depth.max())), rel=1e-4)


def test_mse_clipping_rounds_no_worse_than_the_extremes() -> None:
    """A tensor with one far outlier: its range shrinks, and the mean squared error of rounding with it."""
    net, batch = small_net(), images(6)
    batch[0, 0, 0, 0] = 40.0
    wide, tight = calibrate(net, batch, clipping="minmax"), calibrate(net, batch, clipping="mse")
    assert tight["image"][1] < wide["image"][1]

    def error(limits: tuple[float, float]) -> float:
        p = parameters_of(limits, UNSIGNED)
        return float(
            (torch.fake_quantize_per_tensor_affine(batch, p.scale, p.zero, p.low, p.high) - batch).square().mean()
        )

    assert error(tight["image"]) <= error(wide["image"])


@pytest.mark.parametrize("spoil", ["empty", "nan"])
def test_calibration_refuses_what_gives_no_ranges(spoil: str) -> None:
    batch = images(0) if spoil == "empty" else images(2) * float("nan")
    with pytest.raises(UserError, match="calibration"):
        calibrate(small_net(), batch)


def test_a_range_that_calibration_never_saw_is_named() -> None:
    with pytest.raises(UserError, match=r"blocks\.other"):
        Ranges({"image": (0.0, 1.0)})["blocks.other"]


@pytest.mark.parametrize(
    ("precision", "named"),
    [({"engine": "fp64"}, "fp64"), ({"s1_9": "int8"}, "s1_9"), ({"stem": "int4"}, "int4")],
)
def test_precision_outside_what_a_target_honours_is_refused(precision: dict[str, str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        check_precision(precision, small_net().blocks, ("float", "int8"), ("fp32",), "some-target")


def test_plan_of_an_entering_scheme_rounds_only_what_enters_weights() -> None:
    graph = trace(small_net())
    plan = plan_quantization(graph.nodes, {"s2_2": "int8"}, UNSIGNED, graph.output_tensors)
    convs = {node.name for node in graph.nodes if node.block == "s2_2" and node.op == "Conv"}
    assert plan.weights == convs
    assert plan.entries == {(name, 0) for name in convs}
    assert not plan.quantized


def test_plan_of_a_storing_scheme_keeps_eight_bits_from_convolution_to_convolution() -> None:
    graph = trace(small_net())
    plan = plan_quantization(graph.nodes, dict.fromkeys(small_net().blocks, "int8"), STORED, graph.output_tensors)
    assert plan.entries == {("blocks.stem.conv.conv", 0)}, "only the image enters from outside"
    assert "blocks.stem.conv.act" in plan.quantized
    assert "blocks.stem.conv.conv" not in plan.quantized, "rounded once, after its activation"
    assert plan.source["blocks.depth_neck.interpolate"] == "blocks.depth_neck.lateral_s4.conv"


def test_float_simulation_is_the_net() -> None:
    net, batch = small_net(), images(2)
    with torch.no_grad():
        expected = by_tensor(net(batch))
    for task, value in by_tensor(simulate(net, {"engine": "fp32"}, None, UNSIGNED)(batch)).items():
        torch.testing.assert_close(value, expected[task], rtol=1e-4, atol=1e-4)


def test_int8_simulation_is_the_written_rounding_of_one_convolution() -> None:
    """Against the definition, in float64 and without a line of the simulation: round, multiply, add, round."""
    net, batch = small_net(), images(1)
    ranges = calibrate(net, images(8))
    simulation = simulate(net, {"stem": "int8"}, ranges, UNSIGNED)
    seen: dict[str, torch.Tensor] = {}
    simulation.run(batch, lambda name, value: seen.setdefault(name, value.clone()))
    node = trace(net).nodes[0]
    p = parameters_of(ranges["image"], UNSIGNED)
    entered = (torch.clamp(torch.round(batch.double() / p.scale) + p.zero, 0, 255) - p.zero) * p.scale
    weight = node.constants["weight"].double()
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    expected = torch.nn.functional.conv2d(
        entered, torch.round(weight / scale) * scale, node.constants["bias"].double(), 2, 1
    )
    torch.testing.assert_close(seen["blocks.stem.conv.act"].double(), expected.relu(), rtol=1e-4, atol=1e-4)


def test_bf16_simulation_carries_eight_bits_of_mantissa() -> None:
    net, batch = small_net("fused"), images(2)
    rounded = by_tensor(simulate(net, {"engine": "bf16"}, None, UNSIGNED)(batch))
    with torch.no_grad():
        expected = by_tensor(net(batch))
    for task, value in rounded.items():
        assert torch.equal(value, value.bfloat16().float())
        error = ((value - expected[task]).norm() / expected[task].norm()).item()
        assert 1e-4 < error < 5e-2
