"""Pruning by hand with torch-pruning, then quantizing by hand, to a given latency: what a careful user does today."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from _fpn import SIZE, ResNetFpn
from _peers import PEERS, prune_by_peer
from _stock import QUANTIZERS
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.own import flat_outputs, module_as_onnx

__all__ = ["SHARES", "NetCall", "cut", "flops", "net_call", "pruned", "quantized"]

NetCall = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
"""From an image (1, 3, H, W) to each output."""
SHARES = tuple(share / 100 for share in range(100, 9, -5))
"""Shares of the FLOPs that are kept, the largest first."""
ROUNDS, SLOPES_EVERY = 100, 10


def flops(net: nn.Module) -> int:
    """FLOPs of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, *SIZE))
    return int(counter.get_total_flops())


def pruned(whole: ResNetFpn, criterion: str, share: float, gradients: Callable[[nn.Module], None]) -> nn.Module:
    """A copy with at most so large a `share` of the FLOPs, by one of torch-pruning's criteria, all groups in one list.

    `gradients` gives a net those that the Taylor criterion reads. Channels are multiples of 8; outputs stay.
    """
    net, limit = copy.deepcopy(whole).eval(), share * flops(whole)
    if share < 1:
        prune_by_peer(
            net,
            torch.zeros(1, 3, *SIZE),
            PEERS[criterion](),
            ROUNDS,
            lambda: flops(net) <= limit,
            lambda: gradients(net),
            SLOPES_EVERY,
            round_to=8,
            ignored_layers=[head[-1] for head in net.heads.values()],  # type: ignore[index]
        )
        net.zero_grad()
    return net.eval()


def quantized(net: nn.Module, quantizer: str, images: Sequence[NDArray[np.float32]]) -> onnx.ModelProto:
    """The net's ONNX file in INT8 by a stock quantizer, which `images` calibrate."""
    with redirect_stdout(io.StringIO()):
        return QUANTIZERS[quantizer](module_as_onnx(net, flat_outputs, SIZE, "the net"), images)


def net_call(model: onnx.ModelProto) -> NetCall:
    """All outputs of a file by plain ONNX Runtime, by name."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(names, {image.name: pixels}), strict=True))


def cut(fast_enough: Callable[[float], bool]) -> float:
    """The largest of `SHARES` whose net is fast enough, by halving: less is never slower; the least where none is."""
    low, high = 0, len(SHARES) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fast_enough(SHARES[middle]) else (middle + 1, high)
    return SHARES[high]
