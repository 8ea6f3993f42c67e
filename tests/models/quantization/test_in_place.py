"""Modules that compute on eight bits while they learn, against quantization as ONNX defines it, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemtl.models.quantization import QuantScheme, rounding_layers
from edgemtl.models.quantization.in_place import rounded_values

SCHEMES = [QuantScheme(), QuantScheme("int8"), QuantScheme("int8", symmetric=True), QuantScheme(weight_limit=63)]


def as_onnx(value: np.ndarray, low: float, high: float, scheme: QuantScheme) -> np.ndarray:
    """DequantizeLinear of QuantizeLinear, with the scale and zero point of a range."""
    lowest, highest = scheme.levels
    if scheme.symmetric:
        low, high = -max(high, -low), max(high, -low)
    scale = (high - low) / (highest - lowest)
    zero = np.rint(lowest - low / scale)
    return (np.clip(np.rint(value / scale) + zero, lowest, highest) - zero) * scale


def weights_as_onnx(weight: np.ndarray, limit: int) -> np.ndarray:
    scale = np.abs(weight).reshape(len(weight), -1).max(1).reshape(-1, *[1] * (weight.ndim - 1)) / limit
    return np.clip(np.rint(weight / scale), -limit, limit) * scale


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, image: Tensor) -> Tensor:
        given: Tensor = self.linear(self.norm(self.conv(image)).relu().mean((2, 3)))
        return given


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-2.0, -0.5)])
def test_values_are_rounded_within_their_own_range_and_zero(scheme: QuantScheme, low: float, high: float) -> None:
    value = np.random.default_rng(0).uniform(low, high, 500)
    given = rounded_values(torch.from_numpy(value), scheme).numpy()
    np.testing.assert_allclose(given, as_onnx(value, min(value.min(), 0), max(value.max(), 0), scheme), atol=1e-9)
    assert rounded_values(torch.zeros(3), scheme).tolist() == [0, 0, 0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_compute_on_eight_bits_within_and_are_themselves_after(scheme: QuantScheme) -> None:
    torch.manual_seed(0)
    net, image = Net().eval(), torch.randn(2, 3, 8, 8)
    before, parameters, alone = net(image), {id(each) for each in net.parameters()}, Net().eval()
    alone.load_state_dict(net.state_dict())
    with rounding_layers(net, scheme), torch.no_grad():
        given = net(image)
        assert {id(each) for each in net.parameters()} == parameters
    with torch.no_grad():
        for layer in (alone.conv, alone.linear):
            layer.weight.copy_(torch.from_numpy(weights_as_onnx(layer.weight.numpy(), scheme.weight_limit)))
        features = alone.norm(alone.conv(rounded_values(image, scheme))).relu().mean((2, 3))
        wanted = alone.linear(rounded_values(features, scheme))
    torch.testing.assert_close(given, wanted)
    assert not torch.equal(given, before)
    assert torch.equal(net(image), before)
    assert net.state_dict().keys() == alone.state_dict().keys()
    assert {id(each) for each in net.parameters()} == parameters


def test_gradients_pass_straight_through() -> None:
    """Rounding is one to one in its slope, so a linear layer's gradients are those of the rounded operands."""
    torch.manual_seed(0)
    layer, value = nn.Linear(5, 3), torch.randn(7, 5, requires_grad=True)
    with rounding_layers(layer, QuantScheme()):
        layer(value).sum().backward()
    weights = torch.from_numpy(weights_as_onnx(layer.weight.detach().numpy(), 127))
    assert value.grad is not None and layer.weight.grad is not None
    torch.testing.assert_close(value.grad, weights.sum(0).expand(7, 5))
    torch.testing.assert_close(layer.weight.grad, rounded_values(value.detach(), QuantScheme()).sum(0).expand(3, 5))


def test_images_of_a_batch_may_go_side_by_side() -> None:
    """Each is rounded within its own range then, as where it comes alone."""
    torch.manual_seed(0)
    net, images = Net().eval(), torch.randn(3, 3, 8, 8) * torch.tensor([1.0, 5.0, 0.2]).view(3, 1, 1, 1)
    with rounding_layers(net, QuantScheme()), torch.no_grad():
        together = torch.vmap(net)(images[:, None])
        alone = torch.stack([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_an_error_within_leaves_the_module_as_it_was() -> None:
    net = Net().eval()
    names = set(net.state_dict())
    with pytest.raises(KeyboardInterrupt), rounding_layers(net, QuantScheme()):
        raise KeyboardInterrupt
    assert net.state_dict().keys() == names
    assert not net.conv._forward_pre_hooks
