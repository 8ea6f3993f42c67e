"""Quantization in the loop: a forward pass rounds as the simulation does, and scales and weights learn through it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_world import VIT

from edgemtl.models import MultiTaskNet, recalibrate
from edgemtl.models.quantization import QuantScheme, Ranges, RoundedNet, calibrate, parameters_of, simulate
from edgemtl.models.quantization.learning import _Round
from edgemtl.spaces import load_space
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net
from edgemtl.testing.landscape import PAIR, write_space

SCHEMES = [
    QuantScheme("uint8", rounding="scaled"),
    QuantScheme("int8", symmetric=True),
    QuantScheme("uint8", quantize_outputs=True, quantized_ops=("Add",), passthrough_ops=("Resize", "DepthToSpace"),
                bias="int32", weight_limit=64),
]  # fmt: skip


def in_eight_bits(net: MultiTaskNet) -> dict[str, str]:
    return {"engine": "fp32", **dict.fromkeys(net.block_tasks, "int8")}


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    """Shallow: a value between two steps may be rounded either way, and what follows grows from layer to layer."""
    net = small_net(widths=(16, 24))
    recalibrate(net, [images(8)])
    return net


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_computes_what_the_simulation_does(net: MultiTaskNet, scheme: QuantScheme) -> None:
    """With the statistics that the simulation folds: all INT8 blocks, sums and resized maps included."""
    image, precision, ranges = images(4), in_eight_bits(net), calibrate(net, images(8))
    rounded = RoundedNet(net.copy(), precision, ranges, scheme)
    rounded.net.eval()
    with torch.no_grad():
        given = by_tensor(rounded._interpreter.activations(image).outputs)
    expected = by_tensor(simulate(net, precision, ranges, scheme)(image))
    plain = by_tensor(net(image))
    for name, value in expected.items():
        error = (given[name] - value).abs().mean()
        of_rounding = (plain[name] - value).abs().mean()
        # an output that is stored in eight bits differs by whole steps where it differs
        assert error < (0.6 if scheme.quantize_outputs else 0.2) * of_rounding


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_and_scales_learn_to_give_what_the_float_net_gives(net: MultiTaskNet, scheme: QuantScheme) -> None:
    """Begun with ranges of a quarter of what is right: the scales must grow, or the error stays."""
    image, precision = images(8), in_eight_bits(net)
    ranges = calibrate(net, image)
    narrow = Ranges({name: (low / 4, high / 4) for name, (low, high) in ranges.limits.items()})
    rounded = RoundedNet(net.copy(), precision, narrow, scheme)
    with torch.no_grad():
        wanted = by_tensor(net.copy().train()(image))
    optimizer = torch.optim.Adam(rounded.shared.values(), lr=0.02)
    errors = []
    for _ in range(40):
        given = by_tensor(rounded(image, {}).outputs)
        error = torch.stack([(given[name] - value).square().mean() for name, value in wanted.items()]).sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error))
    assert errors[-1] < 0.5 * errors[0]
    changes = [high / narrow[name][1] for name, (_, high) in rounded.limits().items() if high]
    assert sum(change > 1 for change in changes) > 0.7 * len(changes)


def test_learnt_limits_give_the_scales_that_were_learnt(net: MultiTaskNet) -> None:
    scheme = SCHEMES[2]
    rounded = RoundedNet(net.copy(), in_eight_bits(net), calibrate(net, images(8)), scheme)
    for name, limits in rounded.limits().items():
        learnt, used = rounded._parameters_of[name], parameters_of(limits, scheme)
        assert (used.zero, used.low, used.high) == (learnt.zero, learnt.low, learnt.high)
        assert used.scale == pytest.approx(learnt.scale, rel=1e-5)


def test_float_blocks_and_clipped_values_are_left_alone(net: MultiTaskNet) -> None:
    """One INT8 block: its own tensors have scales and no others; the gradient of a clipped value is none."""
    block = next(iter(net.block_tasks))
    scheme = SCHEMES[1]
    rounded = RoundedNet(net.copy(), {"engine": "fp32", block: "int8"}, calibrate(net, images(8)), scheme)
    (name,) = rounded.limits()
    assert name == "image"
    value = torch.tensor([0.5, 1.49, 900.0]) * rounded._parameters_of[name].scale
    value.requires_grad_()
    result = rounded.rounded(name, value)
    result.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [1.0, 1.0, 0.0]
    steps = (result / rounded._parameters_of[name].scale).detach()
    assert steps.tolist() == pytest.approx([0.0, 1.0, 127.0])
    gradient = rounded.shared["scales.image"].grad
    assert gradient is not None
    expected = ((0 - 0.5) + (1 - 1.49) + 127) * rounded._parameters_of[name].scale
    assert float(gradient) == pytest.approx(expected, rel=1e-3)


def rounded_by_definition(value: torch.Tensor, log_scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """LSQ by automatic differentiation: the rounding error is a constant, the clamp is what it is."""
    steps = value / log_scale.exp()
    near = steps.round().detach()
    whole = torch.where((near < low) | (near > high), near.clamp(low, high), steps + (near - steps).detach())
    return whole * log_scale.exp()


LAYOUTS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda value: value,
    lambda value: value.contiguous(memory_format=torch.channels_last),
    lambda value: value[:, ::2, 1:],
    lambda value: value[:0],
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["plain", "channels last", "with gaps", "empty"])
def test_gradients_are_those_of_the_definition(layout: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """For values inside and outside of the limits, in a tensor so small that all are summed."""
    whole = torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(0))

    def gradients(function: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        """The result, and the gradients of the tensor and of its scale."""
        leaf, log_scale = whole.clone().requires_grad_(), torch.tensor(-2.0, requires_grad=True)
        result = function(layout(leaf), log_scale, -6, 9)
        total = (result * torch.linspace(-1, 1, result.shape[-1])).sum()
        return [result.detach(), *torch.autograd.grad(total, [leaf, log_scale])]

    for ours, by_definition in zip(gradients(_Round.apply), gradients(rounded_by_definition), strict=True):
        assert torch.allclose(ours, by_definition, rtol=1e-4, atol=1e-5)


def test_a_scale_s_gradient_is_estimated_from_a_part_of_a_large_tensor() -> None:
    """Within a few per cent of the sum over all, though channels, rows and images differ; the result stays in BF16."""
    value = torch.randn(8, 16, 32, 32, generator=torch.Generator().manual_seed(1))
    uneven = torch.arange(16).view(-1, 1, 1) * torch.arange(1, 33).view(-1, 1) * torch.arange(8).view(-1, 1, 1, 1)
    value = (value * uneven / uneven.max()).bfloat16().contiguous(memory_format=torch.channels_last)

    def gradient(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> float:
        log_scale = torch.tensor(-4.0, requires_grad=True)
        result = function(value.to(dtype), log_scale, -30, 30)
        assert result.dtype == dtype
        (of_scale,) = torch.autograd.grad((result.float() * value.float()).sum(), [log_scale])
        return float(of_scale)

    expected = gradient(rounded_by_definition, torch.float32)
    assert gradient(_Round.apply, torch.bfloat16) == pytest.approx(expected, rel=0.04)


def test_maps_that_are_only_moved_are_not_rounded_again(net: MultiTaskNet) -> None:
    """Depth-to-space of eight-bit values gives the same ones; what is interpolated between them is rounded."""
    rounded = RoundedNet(net.copy(), in_eight_bits(net), calibrate(net, images(4)), SCHEMES[2])
    interpreter = rounded._interpreter
    writers = {node.output: node.op for node in interpreter._program.graph.nodes}
    assert interpreter._moved
    assert {writers[name] for name in interpreter._moved} <= {"DepthToSpace", "MaxPool"}
    assert interpreter._moved <= interpreter._plan.quantized


def test_experts_and_their_routers_learn_through_the_rounding(tmp_path: Path) -> None:
    """Tokens go to experts by number, so a layer may get none; attention and sums stand between the layers."""
    space = load_space(str(write_space(tmp_path, "vit", VIT)), PAIR)
    plan = space.largest().plan
    net = MultiTaskNet(plan, space.tasks)
    recalibrate(net, [images(4, (64, 64))])
    rounded = RoundedNet(net, in_eight_bits(net), calibrate(net, images(4, (64, 64))), SCHEMES[1])
    given = rounded(images(2, (32, 64)), {})
    assert given.routing is not None
    assert given.trunk
    total = torch.stack([output.square().mean() for output in by_tensor(given.outputs).values()]).sum()
    (total + given.routing).backward()  # type: ignore[no-untyped-call]
    learnt = [name for name, parameter in rounded.shared.items() if parameter.grad is not None and parameter.grad.any()]
    assert any(".mixture.experts." in name for name in learnt)
    assert any(".routers." in name for name in learnt)
    assert any(name.startswith("scales.") and ".mixture.experts." in name for name in learnt)


def test_a_net_extracted_from_it_is_its_own(net: MultiTaskNet) -> None:
    rounded = RoundedNet(net.copy(), in_eight_bits(net), calibrate(net, images(8)), SCHEMES[0])
    extracted = rounded.extract({})
    assert not extracted.training
    for (name, ours), theirs in zip(rounded.net.named_parameters(), extracted.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours is not theirs
