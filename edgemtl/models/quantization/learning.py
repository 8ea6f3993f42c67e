"""Quantization in the loop: a net that is trained through the rounding of its own INT8 blocks.

Weights and activations are rounded in every forward pass where the target's scheme rounds them, and gradients pass
straight through (Bengio et al. 2013). Each activation's scale is learnt along (LSQ, Esser et al. 2020): by its
logarithm, so that an optimizer that divides by a gradient's size moves small and large ones alike. Weights take their
scale from their largest magnitude, as every exporter does. A normalisation stays one: a weight's scale for each output
channel is the same, however much folding multiplies that channel by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from edgemtl.models.graph import Program, trace_program
from edgemtl.models.nets.experts import routing_loss
from edgemtl.models.nets.net import MultiTaskNet
from edgemtl.models.nets.single import train_mode
from edgemtl.models.nets.supernet import Activations
from edgemtl.models.quantization.plan import (
    QuantPlan,
    QuantScheme,
    Ranges,
    parameters_of,
    plan_quantization,
)
from edgemtl.spaces import Values

__all__ = ["RoundedNet", "rounded_weight"]

_SCALE = "scales."
_MOVING = ("DepthToSpace", "MaxPool")
"""Operators that give values as they are: what was rounded before them is so after them."""
_LARGE, _ROW, _ROW_STRIDE = 1 << 15, 64, 321
"""Rows of a sample, a fifth of all values; the odd stride has them begin with another channel and column each time."""


class RoundedNet(nn.Module):
    """The shared weights of one design that has INT8 blocks: its net, and the scales that its activations learn.

    It trains as a supernet does, or as a `SingleNet` where its statistics are `frozen`. `scales` begin with `ranges`,
    those of a calibration; zero points stay as these have them, so that the limits of a tensor keep their ratio.
    """

    def __init__(
        self,
        net: MultiTaskNet,
        precision: Mapping[str, str],
        ranges: Ranges,
        scheme: QuantScheme,
        *,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.tasks, self.has_statistics = net, net.tasks, frozen
        program = trace_program(net.eval())
        graph = program.graph
        plan = plan_quantization(graph.nodes, precision, scheme, graph.output_tensors)
        self._parameters_of = {name: parameters_of(ranges[name], scheme) for name in _rounded_tensors(program, plan)}
        self.scales = nn.ParameterDict(
            {name.replace(".", "/"): torch.tensor(p.scale).log() for name, p in self._parameters_of.items()}
        )
        self._interpreter = _Interpreter(self, program, plan, scheme)

    @property
    def shared(self) -> dict[str, nn.Parameter]:
        """Every parameter by name: the net's own as it calls them, and the logarithms of the scales."""
        scales = {f"{_SCALE}{name.replace('/', '.')}": scale for name, scale in self.scales.items()}
        return {**dict(self.net.named_parameters()), **scales}

    def forward(self, image: Tensor, values: Values) -> Activations:
        """Outputs of the net, rounded; there is one design only."""
        train_mode(self.net, frozen=self.has_statistics)
        return self.activations(image)

    def activations(self, image: Tensor) -> Activations:
        """Like `forward`, in the mode that the net is in."""
        return self._interpreter.activations(image)

    def extract(self, values: Values) -> MultiTaskNet:
        """A copy of the net on the processor; `recalibrate` it first, unless it `has_statistics`."""
        return self.net.copy().cpu()

    def limits(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each rounded tensor, as they were learnt."""
        limits = {}
        for name, p in self._parameters_of.items():
            scale = float(self.scales[name.replace(".", "/")].detach().exp())
            limits[name] = ((p.low - p.zero) * scale, (p.high - p.zero) * scale)
        return limits

    def rounded(self, name: str, value: Tensor) -> Tensor:
        """A tensor rounded as the one called `name` is, with gradients for it and for its scale."""
        p = self._parameters_of[name]
        log_scale = self.scales[name.replace(".", "/")]
        rounded: Tensor = _Round.apply(value, log_scale, p.low - p.zero, p.high - p.zero)  # type: ignore[no-untyped-call]
        return rounded


def _rounded_tensors(program: Program, plan: QuantPlan) -> Iterator[str]:
    """Names of the tensors whose ranges a plan rounds by, each once."""
    inputs = {node.name: node.inputs for node in program.graph.nodes}
    tensors = [*plan.quantized, *(inputs[name][number] for name, number in plan.entries)]
    yield from sorted({plan.source.get(name, name) for name in tensors})


class _Interpreter(fx.Interpreter):
    """Runs a net's calls one by one, and rounds what its plan says."""

    def __init__(self, owner: RoundedNet, program: Program, plan: QuantPlan, scheme: QuantScheme) -> None:
        super().__init__(fx.GraphModule(owner.net, program.calls))
        self._round, self._program, self._plan, self._limit = owner.rounded, program, plan, scheme.weight_limit
        self._net = owner.net
        self._folding = {call.args[0] for call in program.folded}
        self._moved = {node.output for node in program.graph.nodes if node.op in _MOVING} & plan.source.keys()
        trunk = {node.name for node in program.graph.nodes if node.task is None}
        self._trunk_calls = {call for call, name in program.operators.items() if name in trunk}
        self._trunk: dict[str, Tensor] = {}

    def activations(self, image: Tensor) -> Activations:
        self._trunk = {}
        outputs = self.run(image)
        trunk, self._trunk = self._trunk, {}
        return Activations(outputs, trunk, routing_loss(self._net))

    def run_node(self, n: fx.Node) -> Any:
        operator = self._program.operators.get(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if operator is not None:
            args = tuple(self._entering(n, operator, number, value) for number, value in enumerate(args))
        if operator in self._plan.weights:
            value = self._with_rounded_weights(str(n.target), args)
        else:
            value = getattr(self, n.op)(n.target, args, kwargs)
        tensor = self._program.tensors.get(n)
        if tensor in self._plan.quantized and tensor not in self._moved and n not in self._folding:
            value = self._round(self._plan.source[tensor], value)
        if n in self._trunk_calls:
            self._trunk[n.name] = value
        return value

    def _entering(self, call: fx.Node, operator: str, number: int, value: Any) -> Any:
        if (operator, number) not in self._plan.entries:
            return value
        source = call.args[number]
        assert isinstance(source, fx.Node)
        name = self._program.tensors[source]
        return self._round(self._plan.source.get(name, name), value)

    def _with_rounded_weights(self, path: str, args: tuple[Any, ...]) -> Tensor:
        layer = self._net.get_submodule(path)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        value: Tensor = functional_call(layer, {"weight": rounded_weight(layer.weight, self._limit)}, args)
        return value


def rounded_weight(weight: Tensor, limit: int) -> Tensor:
    """Symmetric rounding with a scale for each output channel (axis 0); the gradient passes straight through."""
    with torch.no_grad():
        largest = weight.abs().flatten(1).amax(1).clamp(min=1e-8)
        scale = (largest / limit).view(-1, *[1] * (weight.ndim - 1))
        change = (weight / scale).round_().clamp_(-limit, limit).mul_(scale).sub_(weight)
    return weight + change


class _Round(torch.autograd.Function):
    """Rounding to whole steps of a scale within `low` to `high` steps around the zero point (LSQ).

    The gradient of a value passes where it is not clipped; that of the scale is the rounding error in steps there, and
    the limit in steps where it is clipped. It is a single number, and summed over all values of a large tensor it would
    take longer than everything else here: a fifth of them, evenly spread, estimates it. The result keeps the type.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, log_scale: Tensor, low: int, high: int) -> Tensor:
        scale, value = log_scale.exp(), _like(value, value)
        ctx.save_for_backward(value, scale)
        ctx.limits = low, high
        return (value.float() / scale).round_().clamp_(low, high).mul_(scale).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        value, scale = ctx.saved_tensors
        low, high = ctx.limits
        # Half a step beyond a limit a value is as near to it as others are to their steps; it is clipped further out.
        edges = (low - 0.5) * float(scale), (high + 0.5) * float(scale)
        passed = torch.ops.aten.hardtanh_backward(gradient, value, *edges)
        real, given = (_sample(each).float() for each in (value, _like(gradient, value)))
        rounded = (real / scale).round_().clamp_(low, high).mul_(scale)
        change = torch.where((real > edges[0]) & (real < edges[1]), rounded - real, rounded)
        of_scale = change.mul_(given).sum() * (value.numel() / max(real.numel(), 1))
        return passed, of_scale, None, None


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor in the layout of a new one like `other`, which has no gaps: itself where that is its own."""
    wanted = torch.empty_like(other, dtype=tensor.dtype)
    return tensor if tensor.stride() == wanted.stride() else wanted.copy_(tensor)


def _sample(tensor: Tensor) -> Tensor:
    """Rows of values of a tensor without gaps, evenly spread over images, places and channels; all of a small one."""
    count = tensor.numel()
    if count < _LARGE:
        return tensor.as_strided((1, count), (1, 1))
    return tensor.as_strided(((count - _ROW) // _ROW_STRIDE + 1, _ROW), (_ROW_STRIDE, 1))
