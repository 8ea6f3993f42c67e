"""The arithmetic of `export/hls/moe.cpp` in numpy, bit for bit: routing, single-pass softmax, GELU and the experts.

The functions come from Edge-MoE (Sarkar et al., ICCAD 2023): a softmax that needs one pass over its inputs, and GELU as
ReLU less a small table. The order of the work, expert by expert, comes from M3ViT (Liang et al., NeurIPS 2022); sums
have all their binary places, so that only the order of experts matters to the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgemtl.targets.hls.experts import BIAS, EXP, GATE, LOGIT, ExpertsLayer, Linear
from edgemtl.targets.hls.fixed import Format, Integers, narrow, saturate

__all__ = [
    "EXP_STEPS_LOG2",
    "GELU_STEPS_LOG2",
    "LOG2_E",
    "emulate",
    "exp_of_minus",
    "exp_table",
    "gelu",
    "gelu_table",
    "route",
    "within_capacity",
]

GELU_STEPS_LOG2 = 5
"""GELU's table has steps of 1/32 ..."""
_GELU_END = 5.5
"""... up to where GELU and ReLU differ by less than a step of any activation: 177 entries."""
EXP_STEPS_LOG2 = 6
LOG2_E = round(math.log2(math.e) * 2**LOGIT.fraction)


def gelu_table(activation: Format) -> Integers:
    """ReLU(x) - GELU(x) for x = 0, 1/32, ... 5.5; the same for -x."""
    steps = np.arange(int(_GELU_END * 2**GELU_STEPS_LOG2) + 1) / 2**GELU_STEPS_LOG2
    return activation.integers([x * 0.5 * math.erfc(x / math.sqrt(2)) for x in steps])


def exp_table() -> Integers:
    """2^-f for f = 0, 1/64, ... 1."""
    return EXP.integers(2.0 ** -(np.arange(2**EXP_STEPS_LOG2 + 1) / 2**EXP_STEPS_LOG2))


def gelu(values: Integers, activation: Format) -> Integers:
    """GELU of activations: ReLU less the table's entry, interpolated."""
    table, shift = gelu_table(activation), activation.fraction - GELU_STEPS_LOG2
    magnitude, positive = np.abs(values), np.maximum(values, 0)
    step = np.minimum(magnitude >> shift, len(table) - 2)
    rest = magnitude - (step << shift)
    delta = table[step] + (((table[step + 1] - table[step]) * rest) >> shift)
    inside = (magnitude >> shift) < len(table) - 1
    return np.where(inside, saturate(positive - delta, activation.bits), positive)


def exp_of_minus(distances: Integers) -> Integers:
    """exp(-d) of distances between logits, none below 0: the whole part of the power of two is a shift."""
    table, shift = exp_table(), LOGIT.fraction - EXP_STEPS_LOG2
    power = (distances * LOG2_E) >> LOGIT.fraction
    whole = power >> LOGIT.fraction
    part = power - (whole << LOGIT.fraction)
    step = part >> shift
    fall = table[step] - table[step + 1]
    value = table[step] - ((fall * (part - (step << shift))) >> shift)
    return np.where(whole > EXP.fraction, 0, value >> np.minimum(whole, EXP.fraction))


@dataclass(frozen=True)
class _Softmax:
    """The largest logit of each token, and the sum of exponentials of how far all are below it."""

    largest: Integers
    total: Integers


def _single_pass(logits: Integers) -> _Softmax:
    one = 1 << EXP.fraction
    largest, total = logits[:, 0], np.full(len(logits), one)
    for column in logits.T[1:]:
        above = column > largest
        term = exp_of_minus(np.abs(column - largest))
        total = np.where(above, ((total * term) >> EXP.fraction) + one, total + term)
        largest = np.maximum(largest, column)
    return _Softmax(largest, total)


def route(logits: Integers, top_k: int, renormalise: bool) -> Integers:
    """Gates (tokens, experts): those of a token's `top_k` largest logits (of equal ones the earlier), 0 elsewhere."""
    softmax = _single_pass(logits)
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    exponentials = exp_of_minus(softmax.largest[:, None] - np.take_along_axis(logits, chosen, 1))
    reciprocal = (1 << 2 * EXP.fraction) // (exponentials.sum(1) if renormalise else softmax.total)
    gates = np.zeros_like(logits)
    kept = narrow(exponentials * reciprocal[:, None], 2 * EXP.fraction - GATE.fraction, GATE.bits)
    np.put_along_axis(gates, chosen, kept, 1)
    return gates


def within_capacity(gates: Integers, capacity: int) -> Integers:
    """Gates (tokens, experts) of which each expert keeps the largest, of equal ones that of the earlier token."""
    first = np.argsort(-gates, axis=0, kind="stable")[:capacity]
    within = np.zeros_like(gates)
    np.put_along_axis(within, first, np.take_along_axis(gates, first, 0), 0)
    return within


def emulate(layer: ExpertsLayer, tokens: Integers, task: str) -> Integers:
    """Outputs (tokens, width) of the layer for one task, in the activations' format like the tokens that it reads."""
    activation, fraction = layer.activation, layer.activation.fraction
    sums = _linear(tokens, layer.routers[task], fraction + layer.router_format.fraction)
    logits = narrow(sums, fraction + layer.router_format.fraction - LOGIT.fraction, LOGIT.bits)
    gates = within_capacity(route(logits, layer.top_k[task], layer.renormalise), layer.capacity[task])
    outputs = np.zeros_like(tokens)
    for expert in range(layer.experts):
        queue = np.flatnonzero(gates[:, expert])
        first, second = (Linear(e.weights[expert], e.biases[expert]) for e in (layer.expand, layer.project))
        sums = _linear(tokens[queue], first, fraction + layer.expand_format.fraction)
        hidden = gelu(narrow(sums, layer.expand_format.fraction, activation.bits), activation)
        sums = _linear(hidden, second, fraction + layer.project_format.fraction)
        result = narrow(sums, layer.project_format.fraction, activation.bits)
        weighted = narrow(result * gates[queue, expert, None], GATE.fraction, activation.bits)
        outputs[queue] = saturate(outputs[queue] + weighted, activation.bits)
    return outputs


def _linear(inputs: Integers, linear: Linear, sum_fraction: int) -> Integers:
    """Exact sums (tokens, outputs) with `sum_fraction` binary places."""
    return inputs @ linear.weights.T + (linear.biases << (sum_fraction - BIAS.fraction))
