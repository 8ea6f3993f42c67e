"""Statistics measured through rounding are those of what an engine in eight bits computes, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgemtl.models import MultiTaskNet, recalibrate
from edgemtl.models.graph import trace
from edgemtl.models.quantization import QuantScheme, Ranges, calibrate, recalibrate_rounded, simulate
from edgemtl.testing import images, small_net

SCHEMES = [
    QuantScheme("uint8", rounding="scaled", weight_limit=7),
    QuantScheme("uint8", quantize_outputs=True, quantized_ops=("Add",), bias="int32", weight_limit=7),
]
"""Coarse weights, so that rounding moves means and variances a good deal."""


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    net = small_net(widths=(16, 24))
    recalibrate(net, [images(16)])
    return net


def in_eight_bits(net: MultiTaskNet) -> dict[str, str]:
    return {"engine": "fp32", **dict.fromkeys(net.block_tasks, "int8")}


def of_normalised(net: MultiTaskNet, scheme: QuantScheme, ranges: Ranges) -> tuple[float, float]:
    """How far simulated results of normalised layers are from the mean and the deviation that these are to have."""
    outputs: dict[str, torch.Tensor] = {}
    simulate(net, in_eight_bits(net), ranges, scheme).run(images(16), outputs.__setitem__)
    means, deviations = [], []
    for node in trace(net).nodes:
        path = node.name.replace(".conv", ".norm")
        norm = dict(net.named_modules()).get(path)
        if node.op != "Conv" or not isinstance(norm, nn.BatchNorm2d) or node.output not in outputs:
            continue
        result = outputs[node.output].transpose(0, 1).flatten(1)
        bias, width = norm.bias.detach(), norm.weight.detach().abs() + 1e-6
        means.append(((result.mean(1) - bias).abs() / width).mean())
        deviations.append((result.std(1) / width - 1).abs().mean())
    assert means
    return float(torch.stack(means).mean()), float(torch.stack(deviations).mean())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_normalised_has_mean_and_deviation_again(net: MultiTaskNet, scheme: QuantScheme) -> None:
    """By the simulation, which folds the statistics and shares no code with their measurement."""
    ranges = calibrate(net, images(16))
    measured = recalibrate_rounded(net, in_eight_bits(net), ranges, scheme, [images(16)])
    (mean_before, deviation_before), (mean, deviation) = (
        of_normalised(each, scheme, ranges) for each in (net, measured)
    )
    assert mean < 0.4 * mean_before
    assert deviation < 0.6 * deviation_before


def test_statistics_alone_change_and_only_behind_the_first_int8_block(net: MultiTaskNet) -> None:
    block = list(net.block_tasks)[1]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ranges = calibrate(net, images(16))
    measured = recalibrate_rounded(net, {"engine": "fp32", block: "int8"}, ranges, SCHEMES[0], [images(16)])
    after = measured.state_dict()
    changed = {name for name, value in before.items() if not torch.allclose(value, after[name], rtol=1e-4, atol=1e-5)}
    assert any(name.startswith(f"blocks.{block}.") for name in changed)
    assert all(name.endswith((".running_mean", ".running_var")) for name in changed)
    assert not any(name.startswith(f"blocks.{next(iter(net.block_tasks))}.") for name in changed)
    assert not measured.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items()), "the net given stays"
