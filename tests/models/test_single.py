"""One net's weights, trained with the statistics that it has."""

from __future__ import annotations

import pytest
import torch

from edgemtl.models import MultiTaskNet, SharedWeights, SingleNet, recalibrate
from edgemtl.models.quantization import QuantScheme, RoundedNet, calibrate
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net


@pytest.fixture
def net() -> MultiTaskNet:
    net = small_net(widths=(16, 24))
    recalibrate(net, [images(8)])
    return net


def rounded(net: MultiTaskNet) -> RoundedNet:
    precision = {"engine": "fp32", **dict.fromkeys(net.block_tasks, "int8")}
    return RoundedNet(net, precision, calibrate(net, images(8)), QuantScheme("uint8"), frozen=True)


@pytest.mark.parametrize("make", [SingleNet, rounded])
def test_a_training_step_neither_uses_nor_changes_the_statistics_of_its_batch(net: MultiTaskNet, make: type) -> None:
    weights: SharedWeights = make(net.copy())
    assert weights.has_statistics
    one, two = images(4), images(4) * 3
    alone = by_tensor(weights(one, {}).outputs)
    together = by_tensor(weights(torch.cat([one, two]), {}).outputs)
    for name, value in alone.items():
        assert torch.allclose(value, together[name][:4], atol=1e-5), "what else is in the batch changes nothing"
    statistics = dict(net.named_buffers())
    for name, value in weights.extract({}).named_buffers():
        assert torch.equal(value, statistics[name]), name


def test_it_gives_what_the_net_gives_and_gradients_reach_every_parameter(net: MultiTaskNet) -> None:
    single, image = SingleNet(net.copy()), images(2)
    given, expected = single(image, {}), by_tensor(net.eval()(image))
    for name, value in by_tensor(given.outputs).items():
        assert torch.allclose(value, expected[name], atol=1e-6)
    assert given.trunk.keys() | given.private.keys() == {step.name for step in net.wiring}
    torch.stack([value.square().mean() for value in by_tensor(given.outputs).values()]).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in single.shared.values())
    assert single.shared.keys() == dict(net.named_parameters()).keys()
