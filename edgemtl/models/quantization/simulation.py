"""Simulation of an engine with mixed precision, in torch and about as fast as FP32.

An INT8 convolution runs in FP32 on whole numbers (eight-bit values less their zero point, eight-bit weights). Sums of
such products are exact in FP32 below 2^24, so they are the engine's own integers; then come the engine's own scale,
rounding and clamp. What differs is the last bit of a few scales, and what follows from a value that lies between two
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edgemtl.models.graph import Graph, Node, operator_of, trace
from edgemtl.models.quantization.entering import CLAMPS, Rounding, roundings, to_steps
from edgemtl.models.quantization.plan import (
    Parameters,
    QuantPlan,
    QuantScheme,
    Ranges,
    parameters_of,
    plan_quantization,
    weight_scales,
)
from edgemtl.tasks import map_outputs

__all__ = ["Simulation", "simulate", "simulate_graph"]


def simulate(net: nn.Module, precision: Mapping[str, str], ranges: Ranges | None, scheme: QuantScheme) -> Simulation:
    """A module that returns what an engine with this precision and scheme would, for images (N, 3, H, W).

    `precision` maps "engine" to "fp32", "fp16" or "bf16" and blocks to "float" or "int8" (float where it says nothing).
    Weights are copied and rounded once; later changes of `net` are not seen. `ranges` may be None without INT8 blocks.
    """
    return simulate_graph(trace(net), precision, ranges, scheme)


def simulate_graph(
    graph: Graph, precision: Mapping[str, str], ranges: Ranges | None, scheme: QuantScheme
) -> Simulation:
    """Like `simulate`, for a traced net."""
    return Simulation(graph, precision, ranges or Ranges({}), scheme)


class _Values:
    """Tensors of one run, as real numbers, as whole steps of their scales, or both; made from each other on demand."""

    def __init__(self, parameters: Mapping[str, Parameters], roundings: Mapping[str, Rounding]) -> None:
        self.parameters, self._roundings = parameters, roundings
        self.real: dict[str, Tensor] = {}
        self.steps: dict[str, Tensor] = {}

    def as_real(self, name: str) -> Tensor:
        if name not in self.real:
            self.real[name] = self.steps[name] * self.parameters[name].scale
        return self.real[name]

    def as_steps(self, name: str) -> Tensor:
        if name not in self.steps:
            self.steps[name] = self._roundings[name](self.real[name])
        return self.steps[name]

    def forget(self, name: str) -> None:
        self.real.pop(name, None)
        self.steps.pop(name, None)


Step = Callable[[_Values], None]
Narrowing = Callable[[Tensor], Tensor]


class Simulation(nn.Module):
    """One step an operator; see `simulate`. Holds no parameters: it is for evaluation only."""

    def __init__(self, graph: Graph, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme) -> None:
        super().__init__()
        self.graph = graph
        self.plan = plan_quantization(graph.nodes, precision, scheme, graph.output_tensors)
        engine = precision.get("engine", "fp32")
        self._narrow = _narrowing(engine)
        # A graph in FP16 has its scales in FP16 too; under BF16 they stay FP32.
        narrow_scales = self._narrow if engine == "fp16" else None
        self._tensors = _parameters(graph, self.plan, ranges, scheme, narrow_scales)
        self._written = _written(graph, self.plan)
        if engine == "fp16":  # what it cannot hold stays in FP32
            self._written = frozenset(name for name in self._written if ranges.fit_half(name))
        self._roundings = roundings(graph, self.plan, self._tensors, scheme, self._written)
        builder = _Builder(graph, self.plan, self._tensors, scheme, self._narrow, narrow_scales, self._written)
        self._steps = [(node, builder.step(node)) for node in graph.nodes]
        outputs = set(graph.output_tensors)
        last = {name: node.name for node in graph.nodes for name in node.inputs if name not in outputs}
        self._dead = {node.name: [name for name in node.inputs if last.get(name) == node.name] for node in graph.nodes}

    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        """(N, 3, H, W), normalised, to the raw tensor of each output of each task."""
        return self.run(image, None)

    @torch.no_grad()
    def run(self, image: Tensor, observe: Callable[[str, Tensor], None] | None) -> dict[str, dict[str, Tensor]]:
        """Like `forward`; `observe` sees every tensor that an engine would write, as real numbers."""
        values = _Values(self._tensors, self._roundings)
        values.real[self.graph.input] = (
            self._narrow(image) if self._narrow and self.graph.input in self._written else image
        )
        for node, step in self._steps:
            step(values)
            if observe and (node.output in values.real or node.output in values.steps):
                observe(node.output, values.as_real(node.output))
            for name in self._dead[node.name]:
                values.forget(name)
        return map_outputs(values.as_real, self.graph.outputs)


class _Builder:
    """Chooses for every operator how it is computed."""

    def __init__(
        self,
        graph: Graph,
        plan: QuantPlan,
        parameters: Mapping[str, Parameters],
        scheme: QuantScheme,
        narrow: Narrowing | None,
        narrow_scales: Narrowing | None,
        written: frozenset[str],
    ) -> None:
        self.plan, self.parameters, self.scheme = plan, parameters, scheme
        self.narrow, self.narrow_scales, self.written = narrow, narrow_scales, written
        self.clamped = {}
        for name, node in graph.writers().items():
            after = graph.readers().get(name, [])
            if node.name in plan.weights and len(after) == 1 and _is_clamp(after[0], plan, parameters):
                self.clamped[node.name] = after[0]
        self.skipped = {node.name for node in self.clamped.values()}

    def step(self, node: Node) -> Step:
        if node.name in self.skipped:
            return lambda values: None
        if node.name in self.plan.weights:
            return self._eight_bit(node)
        if node.output in self.plan.quantized and self.plan.source[node.output] != node.output:
            operator, name = operator_of(node), node.inputs[0]
            return lambda values: values.steps.__setitem__(node.output, operator([values.as_steps(name)]))
        if node.op == "Add" and {node.output, *node.inputs} <= self.plan.quantized:
            return self._sum(node)
        return self._plain(node)

    def _sum(self, node: Node) -> Step:
        """A sum of stored tensors as ONNX Runtime does it: FP32 multiply-adds, each rounded once, the second first."""
        first, second, out = (self.parameters[name] for name in (*node.inputs, node.output))
        ratios = [float(np.float32(p.scale) / np.float32(out.scale)) for p in (first, second)]
        moved = np.float32(ratios[0] * first.zero + float(np.float32(ratios[1] * second.zero)))
        start = float(np.float32(out.zero) - moved)

        def run(values: _Values) -> None:
            terms = [
                (values.as_steps(name).double() + p.zero).mul_(ratio)
                for name, p, ratio in zip(node.inputs, (first, second), ratios, strict=True)
            ]
            total = terms[0].add_(terms[1].add_(start).float()).float()
            values.steps[node.output] = total.round_().clamp_(out.low, out.high).sub_(out.zero)

        return run

    def _plain(self, node: Node) -> Step:
        rounded = [(node.name, number) in self.plan.entries for number in range(len(node.inputs))]
        if self.narrow and "weight" in node.constants:
            node = replace(node, constants={key: self.narrow(value) for key, value in node.constants.items()})
        operator, finish = operator_of(node), self._finish(node.output)

        def run(values: _Values) -> None:
            inputs = [self._rounded(values, name) if entry else values.as_real(name)
                      for name, entry in zip(node.inputs, rounded, strict=True)]  # fmt: skip
            finish(values, operator(inputs))

        return run

    def _rounded(self, values: _Values, name: str) -> Tensor:
        return values.as_steps(name) * self.parameters[name].scale

    def _eight_bit(self, node: Node) -> Step:
        source = node.inputs[0]
        entering = self.parameters[source]
        weight, scales, bias = _eight_bit_weights(node, entering, self.scheme)
        scales = self.narrow_scales(scales) if self.narrow_scales else scales
        shape = (1, -1, *[1] * (weight.ndim - 2))
        rescale = (scales * float(entering.scale)).view(shape)
        whole = bias is not None and self.scheme.bias == "int32"
        constants = {"weight": weight} | ({"bias": bias} if bias is not None and whole else {})
        operator = operator_of(replace(node, constants=constants))
        target = self.clamped.get(node.name, node).output
        if target in self.plan.quantized and (whole or bias is None):
            out = self.parameters[target]
            ratio = rescale / float(out.scale)
            return lambda values: values.steps.__setitem__(
                target, to_steps(operator([values.as_steps(source)]).mul_(ratio), out)
            )
        finish = self._finish(target)
        shift = None if bias is None or whole else bias.view(shape)

        def run(values: _Values) -> None:
            result = operator([values.as_steps(source)]).mul_(rescale)
            finish(values, result if shift is None else result.add_(shift))

        return run

    def _finish(self, name: str) -> Callable[[_Values, Tensor], None]:
        """Round an operator's result as the engine does: to eight bits, to the engine's float, or not at all."""
        if name in self.plan.quantized:
            out = self.parameters[name]
            return lambda values, result: values.steps.__setitem__(name, to_steps(result / out.scale, out))
        narrow = self.narrow if name in self.written else None
        return lambda values, result: values.real.__setitem__(name, narrow(result) if narrow else result)


def _is_clamp(node: Node, plan: QuantPlan, parameters: Mapping[str, Parameters]) -> bool:
    """Whether an activation is no more than the clamp of storing its result in eight bits."""
    if node.output not in plan.quantized or node.op not in CLAMPS:
        return False
    p = parameters[node.output]
    high = float(node.attributes.get("high", np.inf))
    return p.zero == p.low and (p.high - p.zero) * p.scale <= high * (1 + 1e-6)


def _eight_bit_weights(node: Node, entering: Parameters, scheme: QuantScheme) -> tuple[Tensor, Tensor, Tensor | None]:
    """Whole-number weights (as floats), their scales, and the bias: whole numbers too where the scheme rounds it."""
    weight, bias = node.constants["weight"], node.constants.get("bias")
    given = None if bias is None else bias.numpy()
    scales, limit = torch.from_numpy(weight_scales(weight.numpy(), scheme, given, entering)), scheme.weight_limit
    whole = torch.clamp(torch.round(weight / scales.view(-1, *[1] * (weight.ndim - 1))), -limit, limit)
    if bias is not None and scheme.bias == "int32":
        bias = torch.round(bias / (scales * float(entering.scale)))
    return whole, scales, bias


def _parameters(
    graph: Graph, plan: QuantPlan, ranges: Ranges, scheme: QuantScheme, narrow: Narrowing | None
) -> dict[str, Parameters]:
    inputs = {node.name: node.inputs for node in graph.nodes}
    tensors = set(plan.quantized) | {inputs[name][number] for name, number in plan.entries}
    parameters = {name: parameters_of(ranges[plan.source.get(name, name)], scheme) for name in tensors}
    if narrow is None:
        return parameters
    return {name: replace(p, scale=narrow(torch.tensor(p.scale)).item()) for name, p in parameters.items()}


def _narrowing(engine: str) -> Narrowing | None:
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return (lambda x: x.to(kinds[engine]).to(torch.float32)) if engine in kinds else None


def _written(graph: Graph, plan: QuantPlan) -> frozenset[str]:
    """Tensors that an engine writes to memory as floats.

    Not those that a following sum or activation takes over in registers, nor those that every reader wants in eight
    bits: they are rounded once, from FP32.
    """
    readers = graph.readers()
    written = set(graph.output_tensors)
    for name in (graph.input, *graph.writers()):
        after = readers.get(name, [])
        entered = all(
            (node.name, number) in plan.entries
            for node in after
            for number, source in enumerate(node.inputs)
            if source == name
        )
        if after and not entered and not _in_registers(graph.writers().get(name), after, plan):
            written.add(name)
    return frozenset(written)


def _in_registers(writer: Node | None, readers: list[Node], plan: QuantPlan) -> bool:
    """Whether the only reader is computed together with the writer; an INT8 convolution takes no float sum along."""
    if writer is None or len(readers) > 1 or writer.op not in ("Conv", "Gemm", "Add"):
        return False
    return readers[0].op in CLAMPS or (readers[0].op == "Add" and writer.name not in plan.weights)
