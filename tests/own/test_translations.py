"""Operators of torch that its exporter lacks: what the ONNX graph computes, on both runtimes, against torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import openvino
import pytest
import torch
from numpy.typing import NDArray
from onnx_oracle import kinds, run
from torch import Tensor, nn
from torch.nn import functional as F

from edgemtl.errors import UnsupportedError
from edgemtl.own import flat_outputs, module_as_onnx

SIZE = (8, 12)
ROWS, WIDTH = 10, 4
STARTS = (0, 3, 3, 7)
"""The second bag has nothing in it."""
TABLE = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))


class Called(nn.Module):
    """A function of an image as a net."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(1, 3, H, W) to one output."""
        return {"task": self.function(image)}


def words(image: Tensor) -> Tensor:
    """Ten numbers of rows that follow from an image."""
    return (image[:, 0, :2, :5] * 7).abs().clamp(0, ROWS - 1).long()


def bags(mode: str, **options: int) -> Callable[[Tensor], Tensor]:
    return lambda image: F.embedding_bag(words(image).reshape(2, 5), TABLE, mode=mode, **options)


def uneven(image: Tensor, mode: str, starts: tuple[int, ...], last: bool) -> Tensor:
    offsets = torch.tensor(starts)
    return F.embedding_bag(words(image).reshape(-1), TABLE, offsets, mode=mode, include_last_offset=last)


def distances(p: float) -> Callable[[Tensor], Tensor]:
    return lambda image: torch.cdist(image[:, 0], image[:, 1, :3], p)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"distances-{p:g}": distances(p) for p in (0.0, 1.0, 2.0, 3.0, float("inf"))},
    **{f"bags-{mode}": bags(mode) for mode in ("sum", "mean", "max")},
    **{f"bags-{mode}-padded": bags(mode, padding_idx=0) for mode in ("sum", "mean", "max")},
    **{f"bags-{mode}-uneven": lambda x, mode=mode: uneven(x, mode, STARTS, False) for mode in ("sum", "mean", "max")},
    "bags-to-the-last": lambda x: uneven(x, "mean", (*STARTS, ROWS), True),
    "bags-weighed": lambda x: F.embedding_bag(
        words(x).reshape(2, 5), TABLE, mode="sum", per_sample_weights=x[0, 1, :2, :5]
    ),
    "rrelu": lambda x: F.rrelu(x),
    "rrelu-of-slopes": lambda x: F.rrelu(x, 0.3, 0.5),
}


def openvino_run(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.asarray(compiled(image)[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_computes_what_torch_does(name: str) -> None:
    net = Called(FUNCTIONS[name]).eval()
    model = module_as_onnx(net, flat_outputs, SIZE, "the net")
    assert "Loop" not in kinds(model)
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    theirs = net(image)["task"].numpy()
    for ours in (*run(model, {"image": image.numpy()}), openvino_run(model, image.numpy())):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_slopes_that_are_drawn_at_random_are_refused() -> None:
    net = Called(lambda image: F.rrelu(image, training=True))
    with pytest.raises(UnsupportedError, match="RReLU draws its slopes at random in training"):
        module_as_onnx(net, flat_outputs, SIZE, "the net")
