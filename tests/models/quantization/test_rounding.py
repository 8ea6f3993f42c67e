"""Adaptive rounding is near the best of all, never worse than to the nearest, and the same in simulation and engine."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from edgemtl.models import MultiTaskNet, recalibrate
from edgemtl.models.graph import run_graph, trace
from edgemtl.models.quantization import QuantScheme, Ranges, calibrate, correct_biases, round_weights, simulate
from edgemtl.models.quantization.rounding import least_change
from edgemtl.runtime import open_engine
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

SCHEME = QuantScheme("uint8", rounding="scaled", weight_limit=7)
"""Coarse weights, so that rounding shows."""


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    net = small_net(widths=(16, 24))
    recalibrate(net, [images(16)])
    return net


def all_int8(net: MultiTaskNet) -> dict[str, str]:
    return {"engine": "fp32", **dict.fromkeys(net.block_tasks, "int8")}


def covariance_of(groups: int, inputs: int) -> torch.Tensor:
    """The covariance of inputs that vary together."""
    rng = torch.Generator().manual_seed(1)
    values = torch.randn(groups, 400, inputs, generator=rng) @ torch.randn(groups, inputs, inputs, generator=rng)
    values = values + 2 * torch.randn(groups, 400, 1, generator=rng)
    return torch.bmm(values.mT, values) / 400


def change(errors: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    return torch.einsum("goi,gij,goj->go", errors, covariance, errors)


def test_it_comes_near_the_best_of_all_roundings() -> None:
    steps = torch.rand(2, 24, 9, generator=torch.Generator().manual_seed(2)) * 12 - 6
    covariance = covariance_of(2, 9)
    chosen = least_change(steps, covariance, 7)
    ups = torch.tensor(list(product((0.0, 1.0), repeat=9)))
    every = change((steps.floor()[:, :, None] + ups - steps[:, :, None]).flatten(1, 2), covariance).view(2, 24, -1)
    best, reached = every.amin(-1), change(chosen - steps, covariance)
    nearest = change(steps.round() - steps, covariance)
    assert torch.all((chosen == steps.floor()) | (chosen == steps.ceil()))
    assert torch.all(reached >= best * (1 - 1e-4))
    assert torch.all(reached <= nearest)
    assert reached.mean() < 1.25 * best.mean()
    assert reached.mean() < 0.6 * nearest.mean()


def test_weights_on_the_grid_and_at_its_limit_stay() -> None:
    steps = torch.tensor([[[7.0, 6.9999, -7.0, 3.0, 7.4, -0.2]]])
    chosen = least_change(steps, covariance_of(1, 6), 7)
    assert torch.equal(chosen[0, 0, :5], torch.tensor([7.0, 7.0, -7.0, 3.0, 7.0]))
    assert chosen[0, 0, 5] in (0.0, -1.0)


def test_inputs_that_never_vary_round_to_the_nearest() -> None:
    steps = torch.tensor([[[1.3, -2.6, 0.1]]])
    assert torch.equal(least_change(steps, torch.zeros(1, 3, 3), 7), steps.round())


def test_scales_stay_and_every_weight_goes_up_or_down(net: MultiTaskNet) -> None:
    image = images(16)
    ranges = calibrate(net, image)
    rounded = round_weights(net, all_int8(net), ranges, SCHEME, [image[:8], image[8:]])
    again = round_weights(net, all_int8(net), ranges, SCHEME, [image[:8], image[8:]])
    for name, value in rounded.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    moved = 0
    for before, after in zip(trace(net).nodes, trace(rounded).nodes, strict=True):
        if "weight" not in before.constants:
            continue
        weight = before.constants["weight"].flatten(1)
        scale = weight.abs().amax(1, keepdim=True) / SCHEME.weight_limit
        steps = after.constants["weight"].flatten(1) / scale
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert torch.allclose(steps.abs().amax(1), torch.tensor(7.0), atol=1e-3)
        assert torch.all((steps - weight / scale).abs() < 1 + 1e-3)
        moved += int((steps.round() != (weight / scale).round()).sum())
    assert moved > 100


def test_outputs_of_every_layer_vary_less_by_it(net: MultiTaskNet) -> None:
    """Each layer alone in INT8, on the images that it was rounded for, its mean error taken out."""
    image = images(16)
    ranges, blocks = calibrate(net, image), ["stem", "s1_1"]
    for block in blocks:
        precision = {"engine": "fp32", block: "int8"}
        rounded = round_weights(net, precision, ranges, SCHEME, [image])
        first = next(node for node in trace(net).nodes if node.block == block and node.op == "Conv")
        wanted: dict[str, torch.Tensor] = {}
        run_graph(trace(net), image, wanted.__setitem__)
        variances = []
        for each in (net, rounded):
            seen: dict[str, torch.Tensor] = {}
            simulate(each, precision, ranges, SCHEME).run(image, seen.__setitem__)
            variances.append((seen[first.output] - wanted[first.output]).var((0, 2, 3)).sum())
        assert variances[1] < variances[0]


def test_with_corrected_biases_outputs_come_nearer_to_the_float_net(net: MultiTaskNet) -> None:
    image, other = images(24)[:16], images(24)[16:]
    ranges, precision = calibrate(net, image), all_int8(net)
    rounded = round_weights(net, precision, ranges, SCHEME, [image])
    nets = (
        correct_biases(net, precision, ranges, SCHEME, [image]),
        correct_biases(rounded, precision, ranges, SCHEME, [image], net),
    )
    wanted = {name: value.detach() for name, value in by_tensor(net(other)).items()}
    errors = [
        [float((by_tensor(simulate(each, precision, ranges, SCHEME)(other))[name] - value).square().mean())
         for name, value in wanted.items()]
        for each in nets
    ]  # fmt: skip
    biases_alone, both = (np.array(each) for each in errors)
    assert (both / biases_alone).mean() < 0.8


def test_a_layer_that_few_positions_show_stays_as_it_is(net: MultiTaskNet) -> None:
    """Of one image the deepest maps have fewer positions than their convolutions have inputs."""
    image = images(1)
    rounded = round_weights(net, all_int8(net), calibrate(net, image), SCHEME, [image])
    same = {
        before.name: torch.equal(before.constants["weight"], after.constants["weight"])
        for before, after in zip(trace(net).nodes, trace(rounded).nodes, strict=True)
        if "weight" in before.constants
    }
    assert not same["blocks.stem.conv.conv"]
    assert any(same.values())


def test_a_net_without_int8_stays_as_it_is(net: MultiTaskNet) -> None:
    rounded = round_weights(net, {"engine": "fp32"}, Ranges({}), SCHEME, [images(2)])
    assert all(torch.equal(value, rounded.state_dict()[name]) for name, value in net.state_dict().items())


def test_an_engine_computes_what_was_rounded(net: MultiTaskNet, tmp_path: Path) -> None:
    image = images(4)
    target = find_target("onnxruntime")
    ranges, precision = calibrate(net, image), all_int8(net)
    rounded = round_weights(net, precision, ranges, target.scheme, [image])
    target.build(rounded, precision, ranges, tmp_path)
    simulated = by_tensor(simulate(rounded, precision, ranges, target.scheme)(image[:1]))
    before = by_tensor(simulate(net, precision, ranges, target.scheme)(image[:1]))
    session = open_engine(tmp_path)
    outputs = by_tensor(session.run(image[:1].numpy(), [task.name for task in net.tasks]))
    for name, value in simulated.items():
        error = np.abs(outputs[name] - value.numpy()).mean()
        assert error < 0.2 * (before[name] - value).abs().mean()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_a_broken_net_shows_rounds_to_the_nearest(value: float) -> None:
    steps = 4 * torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(least_change(steps, torch.full((1, 3, 3), value), 7), steps.round())
