"""Bias correction takes out the mean error of rounding, layer by layer, and nothing else."""

from __future__ import annotations

import pytest
import torch

from edgemtl.models import MultiTaskNet, recalibrate
from edgemtl.models.graph import run_graph, trace
from edgemtl.models.quantization import QuantScheme, Ranges, calibrate, correct_biases, simulate
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

SCHEME = QuantScheme("uint8", rounding="scaled", weight_limit=7)
"""Coarse weights, so that rounding moves means a good deal."""


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    net = small_net(widths=(16, 24))
    recalibrate(net, [images(16)])
    return net


def ranges_of(net: MultiTaskNet) -> Ranges:
    return calibrate(net, images(16))


def test_the_mean_of_every_output_comes_nearer_to_that_of_the_float_net(net: MultiTaskNet) -> None:
    image, precision = images(16), {"engine": "fp32", **dict.fromkeys(net.block_tasks, "int8")}
    ranges = ranges_of(net)
    corrected = correct_biases(net, precision, ranges, SCHEME, [image])
    wanted = by_tensor(net(image))
    errors = [
        torch.cat([(by_tensor(simulate(each, precision, ranges, SCHEME)(image))[name] - value).mean((0, 2, 3)).abs()
                   for name, value in wanted.items()]).mean()
        for each in (net, corrected)
    ]  # fmt: skip
    assert errors[1] < 0.7 * errors[0]


def test_only_biases_of_int8_layers_change_and_by_their_mean_error(net: MultiTaskNet) -> None:
    image, block = images(16), list(net.block_tasks)[1]
    precision = {"engine": "fp32", block: "int8"}
    ranges = ranges_of(net)
    corrected = correct_biases(net, precision, ranges, SCHEME, [image[:8], image[8:]])
    before, after = net.state_dict(), corrected.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith(f"blocks.{block}.") and name.endswith(".norm.bias") for name in changed)
    first = next(node for node in trace(net).nodes if node.block == block and node.op == "Conv")
    outputs: dict[str, torch.Tensor] = {}
    run_graph(trace(net), image, outputs.__setitem__)
    alone = {"engine": "fp32", block: "int8"}
    simulated: dict[str, torch.Tensor] = {}
    simulate(net, alone, ranges, SCHEME).run(image, simulated.__setitem__)
    error = (outputs[first.output] - simulated[first.output]).mean((0, 2, 3))
    norm = first.name.replace(".conv", ".norm") + ".bias"
    assert torch.allclose(after[norm] - before[norm], error, atol=1e-4)


def test_a_net_without_int8_stays_as_it_is(net: MultiTaskNet) -> None:
    corrected = correct_biases(net, {"engine": "fp32"}, Ranges({}), SCHEME, [images(2)])
    assert all(torch.equal(value, corrected.state_dict()[name]) for name, value in net.state_dict().items())
