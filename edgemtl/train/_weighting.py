"""How the losses of several tasks become one step: equal, by uncertainty, or by a gradient aggregator of torchjd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgemtl.errors import unknown_name

__all__ = ["Weighting", "make_weighting", "weighting_names"]

_AGGREGATORS = {
    "aligned-mtl": "AlignedMTL",
    "cagrad": "CAGrad",
    "dualproj": "DualProj",
    "graddrop": "GradDrop",
    "imtl-g": "IMTLG",
    "mgda": "MGDA",
    "nash-mtl": "NashMTL",
    "pcgrad": "PCGrad",
    "upgrad": "UPGrad",
}


class Weighting(Protocol):
    """Accumulates the gradients of several losses; may hold parameters of its own that are trained along."""

    def backward(
        self,
        losses: Mapping[str, Tensor],
        extra: Tensor | None,
        shared: Sequence[Tensor],
        backward: Callable[[Tensor], None],
    ) -> None:
        """Add gradients of the weighted losses (and of `extra`, unweighted) to every parameter.

        `shared` are the trunk's features, where gradients of the tasks meet; `backward` is called with the scalar to
        differentiate.
        """
        ...

    def parameters(self) -> list[nn.Parameter]:
        """Parameters to be trained with the net's."""
        ...


class Equal:
    """The plain sum."""

    def backward(
        self,
        losses: Mapping[str, Tensor],
        extra: Tensor | None,
        shared: Sequence[Tensor],
        backward: Callable[[Tensor], None],
    ) -> None:
        """See `Weighting.backward`."""
        total = torch.stack(list(losses.values())).sum()
        backward(total if extra is None else total + extra)

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []


class Uncertainty:
    """Homoscedastic uncertainty (Kendall et al. 2018): each loss divided by a learnt variance, plus its logarithm."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def backward(
        self,
        losses: Mapping[str, Tensor],
        extra: Tensor | None,
        shared: Sequence[Tensor],
        backward: Callable[[Tensor], None],
    ) -> None:
        """See `Weighting.backward`."""
        terms = [
            loss * torch.exp(-self.log_variance[task]) + 0.5 * self.log_variance[task] for task, loss in losses.items()
        ]
        total = torch.stack(terms).sum()
        backward(total if extra is None else total + extra)

    def parameters(self) -> list[nn.Parameter]:
        """One logarithm of a variance per task."""
        return list(self.log_variance.values())


class Aggregated:
    """torchjd aggregates the tasks' gradients where they meet, at the trunk's parameters."""

    def __init__(self, aggregator: Any) -> None:
        self.aggregator = aggregator

    def backward(
        self,
        losses: Mapping[str, Tensor],
        extra: Tensor | None,
        shared: Sequence[Tensor],
        backward: Callable[[Tensor], None],
    ) -> None:
        """See `Weighting.backward`."""
        from torchjd.autojac import jac_to_grad, mtl_backward

        if extra is not None and extra.requires_grad:
            extra.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        trunk = _leaves(shared)
        mtl_backward(list(losses.values()), features=list(shared), shared_params=trunk, parallel_chunk_size=1)
        reached = [parameter for parameter in trunk if getattr(parameter, "jac", None) is not None]
        jac_to_grad(reached, self.aggregator)

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []


def _leaves(features: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that the features were computed from."""
    found: dict[int, Tensor] = {}
    stack = [feature.grad_fn for feature in features]
    seen: set[Any] = set(stack)
    while stack:
        node = stack.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return list(found.values())


def weighting_names() -> list[str]:
    """What `make_weighting` knows."""
    return sorted(["equal", "uncertainty", *_AGGREGATORS])


def make_weighting(name: str, tasks: Sequence[str]) -> Weighting:
    """The weighting called `name`; raises `UserError` with the nearest names."""
    if name == "equal":
        return Equal()
    if name == "uncertainty":
        return Uncertainty(tasks)
    if name not in _AGGREGATORS:
        raise unknown_name("task weighting", name, weighting_names())
    from torchjd import aggregation

    kind = getattr(aggregation, _AGGREGATORS[name])
    special: dict[str, dict[str, Any]] = {"NashMTL": {"n_tasks": len(tasks)}, "CAGrad": {"c": 0.5}}
    arguments = special.get(_AGGREGATORS[name], {})
    return Aggregated(kind(**arguments))
