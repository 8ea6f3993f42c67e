"""Operators of torch that its ONNX exporter lacks, or writes as a loop, in operators of ONNX that every runtime has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnx import TensorProto

from edgemtl.errors import UnsupportedError

__all__ = ["translations"]

_SUM, _MEAN = 0, 1
"""Modes of `torch.nn.EmbeddingBag`; the third is the largest value."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """By operator of torch the function that writes it, as `torch.onnx.export` takes them; needs onnxscript."""
    aten = torch.ops.aten
    return {
        aten.rrelu_with_noise_functional.default: _rrelu,
        aten._cdist_forward.default: _cdist,  # what `torch.cdist` is exported as
        aten.embedding_bag.padding_idx: _embedding_bag,
    }


def _rrelu(
    x: Any, noise: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: None = None
) -> tuple[Any, Any]:
    """Xu et al. 2015 (https://arxiv.org/abs/1505.00853): in evaluation the mean of the slopes that training draws."""
    if training:
        raise UnsupportedError("RReLU draws its slopes at random in training: call it in evaluation mode")
    return _onnx().LeakyRelu(x, alpha=(lower + upper) / 2), noise


def _cdist(one: Any, other: Any, p: float, compute_mode: int | None = None) -> Any:
    """Distances of every row of (..., P, M) to every row of (..., R, M) by the p-norm: (..., P, R)."""
    op, last = _onnx(), _integers(-1)
    apart = op.Abs(op.Sub(op.Unsqueeze(one, _integers(-2)), op.Unsqueeze(other, _integers(-3))))
    if math.isinf(p):
        return op.ReduceMax(apart, last, keepdims=0)
    if p == 0:
        return op.ReduceSum(op.Sign(apart), last, keepdims=0)
    if p == 1:
        return op.ReduceSum(apart, last, keepdims=0)
    if p == 2:
        return op.Sqrt(op.ReduceSum(op.Mul(apart, apart), last, keepdims=0))
    return op.Pow(op.ReduceSum(op.Pow(apart, _number(p)), last, keepdims=0), _number(1 / p))


def _embedding_bag(  # noqa: PLR0913 (the operator's own)
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Sums, means or largest values of each bag's rows of (V, D): (B, D), and three tensors that gradients alone read.

    A bag is the indices (K,) from its offset of (B,) to the next one's; a matrix (B, K) says which of them it has.
    """
    op, count, bags = _onnx(), indices.shape[0], offsets.shape[0] - include_last_offset
    begun = op.LessOrEqual(op.Unsqueeze(offsets, _integers(1)), _integers(*range(count)))  # the last offset begins none
    bag = op.Sub(op.ReduceSum(op.Cast(begun, to=TensorProto.INT64), _integers(0), keepdims=0), _integers(1))
    inside = op.Equal(bag, op.Unsqueeze(_integers(*range(bags)), _integers(1)))
    if padding_idx is not None:
        inside = op.And(inside, op.Not(op.Equal(indices, _integers(padding_idx))))
    rows = op.Gather(weight, indices)
    if per_sample_weights is not None:
        rows = op.Mul(rows, op.Unsqueeze(per_sample_weights, _integers(1)))
    return _pooled(rows, inside, mode), bag, offsets, offsets


def _pooled(rows: Any, inside: Any, mode: int) -> Any:
    """(K, D) and which of them each bag has, (B, K), to (B, D); a bag of none is zero."""
    op = _onnx()
    shares = op.Cast(inside, to=TensorProto.FLOAT)
    counts = op.ReduceSum(shares, _integers(1), keepdims=1)
    if mode == _SUM:
        return op.MatMul(shares, rows)
    if mode == _MEAN:
        return op.Div(op.MatMul(shares, rows), op.Max(counts, _number(1.0)))
    chosen = op.Where(op.Unsqueeze(inside, _integers(2)), rows, _number(-math.inf))
    return op.Where(op.Equal(counts, _number(0.0)), _number(0.0), op.ReduceMax(chosen, _integers(1), keepdims=0))


def _integers(*values: int) -> Any:
    return _onnx().Constant(value_ints=list(values))


def _number(value: float) -> Any:
    return _onnx().Constant(value_float=value)


def _onnx() -> Any:
    """ONNX's operators as functions, of the opset that modules are exported in."""
    from onnxscript import opset18

    return opset18
