"""An ONNX graph as a module of PyTorch that can be trained and pruned, and how far it is from the graph itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, fx, nn

from edgemtl.errors import UnsupportedError, UserError, one_line
from edgemtl.own.inputs import GREY
from edgemtl.own.layer_operators import LAYERS
from edgemtl.own.reading import Reader
from edgemtl.own.value_operators import FUNCTIONS

if TYPE_CHECKING:
    from edgemtl.own.net import OwnNet

__all__ = ["ALLOWED", "TorchGraph", "check_equal", "torch_graph"]

ALLOWED = 1e-3
"""Largest difference of an output from the file's, as a fraction of its largest value (of 1 where that is less)."""


_SAME_WEIGHTS = "its function must return the same trained module in each call"


class TorchGraph(nn.Module):
    """A graph that was made for one image, for any batch of them: (N, 3, H, W) of the values that it reads.

    It gives a dict of its outputs, (N, …) each. `dimensions` are those along which parameters that stand in no layer
    have channels.
    """

    def __init__(self, body: fx.GraphModule, net: OwnNet, dtype: torch.dtype, dimensions: Mapping[str, int | None]):
        super().__init__()
        self.body, self.layout, self.dtype = body, net.layout, dtype
        self.grey = torch.tensor(GREY).view(1, -1, 1, 1) if net.channels == 1 else None
        self.dimensions = {f"body.{name}": dimension for name, dimension in dimensions.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class. Images of a batch go through the graph side by side, each as one."""
        if len(images) == 1:
            return self._one(images)
        rows: dict[str, Tensor] = torch.vmap(self._one)(images[:, None])
        return {name: value.flatten(0, 1) for name, value in rows.items()}

    def _one(self, image: Tensor) -> dict[str, Tensor]:
        read = image if self.grey is None else (image * self.grey).sum(1, keepdim=True)
        own = read if self.layout == "NCHW" else read.permute(0, 2, 3, 1)
        pixels = own if self.dtype.is_floating_point else own.round().to(self.dtype)
        values: dict[str, Tensor] = self.body.forward(pixels)  # a call would print what trials of fewer channels raise
        return {name: value if value.ndim and len(value) == 1 else value[None] for name, value in values.items()}


def torch_graph(net: OwnNet) -> TorchGraph:
    """The graph of a net as a module, in evaluation mode; batch normalisation is folded into the layer before it.

    Raises `UnsupportedError` for an operator that has no counterpart here, and `UserError` where an output differs by
    more than 1e-3 from what the net's own runtime gives.
    """
    reader = Reader(net.model, net.input)
    operators = {**LAYERS, **FUNCTIONS}
    for node in net.model.graph.node:
        reader.read(node, operators, net.name)
    reader.calls.output({name: _output(reader, net, name) for name in net.outputs})
    info = next(info for info in net.model.graph.input if info.name == net.input)
    kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    dtype = torch.from_numpy(np.zeros(0, kind)).dtype
    body = fx.GraphModule(reader.root, reader.calls)
    body.graph.eliminate_dead_code()
    body.delete_all_unused_submodules()
    body.recompile()
    made = TorchGraph(body.eval(), net, dtype, reader.dimensions).eval()
    image = np.random.default_rng(0).random((1, 3, *net.size), np.float32)
    check_equal(net, made, [image if dtype.is_floating_point else np.floor(255 * image)])
    return made


def _output(reader: Reader, net: OwnNet, name: str) -> fx.Node:
    if name not in reader.values:
        raise UnsupportedError(
            f"{net.name} cannot be trained: output {name} does not depend on the image: export the net without it"
        )
    return reader.values[name]


def check_equal(
    net: OwnNet, module: Callable[[Tensor], Mapping[str, Tensor]], images: Iterable[NDArray[np.float32]]
) -> float:
    """The largest difference of a module's outputs from the net's own on images (1, 3, H, W) as it reads them.

    It is a fraction of an output's largest value (of 1 where that is less). Raises `UserError` where it is above 1e-3.
    """
    worst = 0.0
    for image in images:
        own = net.reference(image)
        try:
            with torch.no_grad():
                given = module(torch.from_numpy(image))
        except Exception as error:  # torch's own kinds
            raise UserError(
                f"{net.name} cannot be trained: its graph does not run in PyTorch ({one_line(error)})"
            ) from error
        for name, value in own.items():
            mine = given[name].numpy().astype(np.float64).reshape(value.shape)
            wanted = value.astype(np.float64)
            apart = float(np.abs(mine - wanted).max() / max(1.0, float(np.abs(wanted).max()))) if value.size else 0.0
            if not apart <= ALLOWED:
                remedy = "give the module that the file was exported from" if net.origin == "onnx" else _SAME_WEIGHTS
                raise UserError(
                    f"{net.name} cannot be trained: output {name} in PyTorch differs by {apart:.2g} of its largest "
                    f"value, {ALLOWED:g} is allowed: {remedy}"
                )
            worst = max(worst, apart)
    return worst
