"""Every operator of the reference executor against PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgemtl.models.graph.evaluate import operator_of
from edgemtl.models.graph.graph import Node
from edgemtl.models.graph.lowering import MODULES
from edgemtl.models.nets.tokens import Attention, ToMap, ToTokens
from edgemtl.runtime.streaming.operators import OPERATORS, Routed

GENERATOR = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=GENERATOR)


def computed(op: str, inputs: list[Tensor], attributes: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    given = {name: tensor.detach().numpy() for name, tensor in weights.items()}
    return OPERATORS[op].compute([tensor.numpy() for tensor in inputs], attributes, given)


def agrees(op: str, inputs: list[Tensor], attributes: dict[str, Any], weights: dict[str, Tensor]) -> None:
    node = Node("n", op, ("x",) * len(inputs), "y", "b", None, attributes, weights)
    with torch.no_grad():
        expected = operator_of(node)(inputs).numpy()
    found = computed(op, inputs, attributes, weights)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def lowered(module: nn.Module, *inputs: Tensor) -> None:
    result = MODULES[type(module)](module.eval(), list(inputs))
    assert result is not None
    agrees(result.op, list(inputs), dict(result.attributes), dict(result.constants))


@pytest.mark.parametrize("size", [(9, 14), (40, 36)])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 8, 1),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(0, 2)),
        nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=3),
        nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6),
        nn.Conv2d(6, 8, 8, stride=8),
    ],
    ids=str,
)
def test_convolutions(conv: nn.Conv2d, size: tuple[int, int]) -> None:
    lowered(conv, drawn(1, 6, *size))


def test_a_convolution_in_bands_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemtl.runtime.streaming.operators._COLUMN_VALUES", 6 * 9 * 30 * 4)
    lowered(nn.Conv2d(6, 8, 3, padding=1), drawn(2, 6, 31, 30))
    lowered(nn.Conv2d(6, 6, 3, padding=1, groups=6), drawn(1, 6, 31, 30))


def test_everything_else_that_has_a_layer() -> None:
    x, tokens = drawn(1, 8, 12, 10), drawn(1, 21, 16)
    norm = nn.BatchNorm2d(8)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(drawn(8))
    norm.running_var.copy_(drawn(8).abs() + 0.1)
    layer_norm = nn.LayerNorm(16, 1e-6)
    nn.init.normal_(layer_norm.weight)
    nn.init.normal_(layer_norm.bias)
    on_maps = [nn.ReLU(), nn.ReLU6(), nn.Sigmoid(), nn.Hardswish(), nn.Flatten(), nn.AdaptiveAvgPool2d(1), nn.GELU(),
               nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), nn.PixelShuffle(2), nn.Upsample(scale_factor=2), norm,
               nn.Upsample(scale_factor=3, mode="bilinear"), ToTokens(120)]  # fmt: skip
    for module in on_maps:
        lowered(module, x)
    for module in (nn.Linear(16, 5), nn.Linear(16, 5, bias=False), layer_norm, ToMap(3, 7)):
        lowered(module, tokens)
    lowered(Attention(4, 4), tokens, drawn(1, 21, 16), drawn(1, 21, 16))
    agrees("Add", [x, drawn(1, 8, 12, 10)], {}, {})
    agrees("Mul", [x, drawn(1, 8, 1, 1)], {}, {})
    agrees("Concat", [x, drawn(1, 3, 12, 10), x], {"axis": 1}, {})
    agrees("Identity", [x], {}, {})


def test_gelu_is_exact_to_fp32_everywhere() -> None:
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([0.0, 1e-30, -1e-30, 1e4, -1e4])])
    found = computed("Gelu", [x], {}, {})
    expected = F.gelu(x.double()).numpy()
    assert (np.abs(found - expected) <= 3e-7 * np.maximum(1, np.abs(expected))).all()


@pytest.mark.parametrize("expert_capacity", [4, 20])
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_a_router_makes_a_queue_for_each_expert(top_k: int, renormalise: bool, expert_capacity: int) -> None:
    x, weights = drawn(1, 20, 8), {"weight": drawn(5, 8), "bias": drawn(5)}
    attributes = {"top_k": top_k, "renormalise": renormalise, "expert_capacity": expert_capacity}
    routed = computed("Router", [x], attributes, weights)
    assert isinstance(routed, Routed)
    gates = np.zeros((20, 5), np.float32)
    for index, (queue, values) in enumerate(zip(routed.queues, routed.gates, strict=True)):
        assert (np.diff(queue) > 0).all()
        gates[queue, index] = values[:, 0]
    with torch.no_grad():
        node = Node("n", "Router", ("x",), "y", "b", None, attributes, weights)
        expected = operator_of(node)([x])[0].numpy()
    assert ((gates > 0).sum(1) == top_k).all() or expert_capacity < 20
    assert (gates > 0).sum(0).max() <= expert_capacity
    np.testing.assert_allclose(gates, expected, rtol=1e-5, atol=1e-6)
