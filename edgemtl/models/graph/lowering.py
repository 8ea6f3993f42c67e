"""Lowering of torch layers and functions to ONNX operators (opset 17): one entry per layer; others are refused."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgemtl.models.nets.experts import Combine, Dispatch, Router, TaskConditionedRouter
from edgemtl.models.nets.tokens import Attention, ToMap, ToTokens

__all__ = ["FUNCTIONS", "METHODS", "MODULES", "Lowered"]

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Lowered:
    """An ONNX operator before it has a name: its type, the values it reads, its attributes and constants."""

    op: str
    inputs: Sequence[Any]
    attributes: Attributes = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _conv(layer: nn.Conv2d, args: Sequence[Any]) -> Lowered | None:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    rows, columns = _pair(layer.padding)
    attributes = {
        "kernel_shape": _pair(layer.kernel_size),
        "strides": _pair(layer.stride),
        "pads": (rows, columns, rows, columns),
        "dilations": _pair(layer.dilation),
        "group": layer.groups,
    }
    return Lowered("Conv", args[:1], attributes, _weights(layer.weight, layer.bias))


def _linear(layer: nn.Linear, args: Sequence[Any]) -> Lowered:
    return Lowered("Gemm", args[:1], {"transB": 1}, _weights(layer.weight, layer.bias))


def _weights(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    return {"weight": weight.detach()} | ({} if bias is None else {"bias": bias.detach()})


def _norm(layer: nn.BatchNorm2d, args: Sequence[Any]) -> Lowered | None:
    if layer.running_mean is None or layer.running_var is None:
        return None
    ones, zeros = torch.ones_like(layer.running_mean), torch.zeros_like(layer.running_mean)
    constants = {
        "weight": layer.weight.detach() if layer.weight is not None else ones,
        "bias": layer.bias.detach() if layer.bias is not None else zeros,
        "mean": layer.running_mean,
        "variance": layer.running_var,
    }
    return Lowered("BatchNormalization", args[:1], {"epsilon": layer.eps}, constants)


def _clip6(args: Sequence[Any]) -> Lowered:
    return Lowered("Clip", args[:1], {"low": 0.0, "high": 6.0})


def _simple(op: str, arity: int = 1, **attributes: Any) -> Callable[..., Lowered]:
    """Lowering of a function whose first `arity` arguments are tensors and whose other arguments do not matter."""
    return lambda args, _kwargs=None: Lowered(op, args[:arity], attributes)


def _layer(op: str, **attributes: Any) -> Callable[[nn.Module, Sequence[Any]], Lowered]:
    return lambda _module, args: Lowered(op, args[:1], attributes)


def _add(args: Sequence[Any], kwargs: Attributes) -> Lowered | None:
    return None if kwargs.get("alpha", 1) != 1 else Lowered("Add", args[:2])


def _resize(source: Any, factor: Any, mode: str, align: bool | None) -> Lowered | None:
    scale = factor[0] if isinstance(factor, (tuple, list)) and len(set(factor)) == 1 else factor
    if not isinstance(scale, (int, float)) or int(scale) != scale or align or mode not in ("nearest", "bilinear"):
        return None
    return Lowered("Resize", [source], {"factor": int(scale), "mode": "linear" if mode == "bilinear" else "nearest"})


def _interpolate(args: Sequence[Any], kwargs: Attributes) -> Lowered | None:
    values = dict(zip(("input", "size", "scale_factor", "mode", "align_corners"), args, strict=False)) | dict(kwargs)
    if values.get("size") is not None:
        return None
    return _resize(
        values["input"], values.get("scale_factor"), values.get("mode", "nearest"), values.get("align_corners")
    )


def _upsample(layer: nn.Upsample, args: Sequence[Any]) -> Lowered | None:
    return None if layer.size is not None else _resize(args[0], layer.scale_factor, layer.mode, layer.align_corners)


def _shuffle(args: Sequence[Any], kwargs: Attributes) -> Lowered:
    return Lowered(
        "DepthToSpace", args[:1], {"blocksize": int(kwargs.get("upscale_factor", args[1] if len(args) > 1 else 0))}
    )


def _global_pool(args: Sequence[Any], kwargs: Attributes) -> Lowered | None:
    size = kwargs.get("output_size", args[1] if len(args) > 1 else None)
    return Lowered("GlobalAveragePool", args[:1]) if _is_one(size) else None


def _is_one(size: Any) -> bool:
    return size == 1 or (isinstance(size, (tuple, list)) and tuple(size) == (1, 1))


def _flatten(args: Sequence[Any], kwargs: Attributes) -> Lowered | None:
    start = kwargs.get("start_dim", args[1] if len(args) > 1 else 0)
    end = kwargs.get("end_dim", args[2] if len(args) > 2 else -1)
    return Lowered("Flatten", args[:1], {"axis": 1}) if (start, end) == (1, -1) else None


def _max_pool(layer: nn.MaxPool2d, args: Sequence[Any]) -> Lowered | None:
    if layer.ceil_mode or _pair(layer.dilation) != (1, 1) or layer.return_indices:
        return None
    rows, columns = _pair(layer.padding)
    attributes = {
        "kernel_shape": _pair(layer.kernel_size),
        "strides": _pair(layer.stride),
        "pads": (rows, columns, rows, columns),
    }
    return Lowered("MaxPool", args[:1], attributes)


def _concat(args: Sequence[Any], kwargs: Attributes) -> Lowered | None:
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    return Lowered("Concat", list(args[0]), {"axis": 1}) if axis == 1 else None


def _layer_norm(layer: nn.LayerNorm, args: Sequence[Any]) -> Lowered | None:
    if len(layer.normalized_shape) != 1 or layer.weight is None or layer.bias is None:
        return None
    return Lowered("LayerNormalization", args[:1], {"epsilon": layer.eps}, _weights(layer.weight, layer.bias))


def _attention(layer: Attention, args: Sequence[Any]) -> Lowered:
    return Lowered("Attention", args[:3], {"heads": layer.heads, "head_width": layer.head_width})


def _router(layer: Router | TaskConditionedRouter, args: Sequence[Any]) -> Lowered:
    plan = layer.routing.plan
    attributes = {"top_k": plan.top_k, "renormalise": plan.renormalise, "expert_capacity": plan.expert_capacity}
    return Lowered("Router", args[:1], attributes, _weights(*layer.linear()))


MODULES: dict[type[nn.Module], Callable[..., Lowered | None]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm2d: _norm,
    nn.ReLU: _layer("Relu"),
    nn.ReLU6: _layer("Clip", low=0.0, high=6.0),
    nn.Sigmoid: _layer("Sigmoid"),
    nn.Hardswish: _layer("HardSwish"),
    nn.Identity: _layer("Identity"),
    nn.Dropout: _layer("Identity"),
    nn.Dropout2d: _layer("Identity"),
    nn.Flatten: lambda layer, args: _flatten((args[0], layer.start_dim, layer.end_dim), {}),
    nn.AdaptiveAvgPool2d: lambda layer, args: _global_pool((args[0], layer.output_size), {}),
    nn.MaxPool2d: _max_pool,
    nn.Upsample: _upsample,
    nn.GELU: lambda layer, args: Lowered("Gelu", args[:1]) if layer.approximate == "none" else None,
    nn.LayerNorm: _layer_norm,
    Attention: lambda layer, args: Lowered(
        "Attention", args[:3], {"heads": layer.heads, "head_width": layer.head_width}
    ),
    Combine: lambda _layer, args: Lowered("Combine", args),
    Router: _router,
    TaskConditionedRouter: _router,
    Dispatch: lambda _layer, args: Lowered("Dispatch", args[:2], {"position": args[2]}),
    ToMap: lambda layer, args: Lowered("ToMap", args[:1], {"height": layer.height, "width": layer.width}),
    ToTokens: lambda layer, args: Lowered("ToTokens", args[:1], {"tokens": layer.tokens}),
    nn.PixelShuffle: lambda layer, args: _shuffle((args[0], layer.upscale_factor), {}),
}

FUNCTIONS: dict[Any, Callable[..., Lowered | None]] = {
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    operator.mul: _simple("Mul", 2),
    torch.mul: _simple("Mul", 2),
    torch.relu: _simple("Relu"),
    F.relu: _simple("Relu"),
    F.relu6: lambda args, _kwargs: _clip6(args),
    torch.sigmoid: _simple("Sigmoid"),
    torch.flatten: _flatten,
    torch.cat: _concat,
    F.interpolate: _interpolate,
    F.pixel_shuffle: _shuffle,
    torch.pixel_shuffle: _shuffle,
    F.adaptive_avg_pool2d: _global_pool,
}

METHODS: dict[str, Callable[..., Lowered | None]] = {
    "add": _add,
    "mul": _simple("Mul", 2),
    "relu": _simple("Relu"),
    "sigmoid": _simple("Sigmoid"),
    "flatten": _flatten,
    "contiguous": _simple("Identity"),
}
