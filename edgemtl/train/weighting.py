"""How the losses of several tasks become one step: equal, by uncertainty, or by a gradient aggregator of torchjd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgemtl.errors import MissingDependencyError, UserError, unknown_name

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
_SOLVERS = {
    "cagrad": "cagrad",
    "dualproj": "quadprog-projector",
    "nash-mtl": "nash-mtl",
    "upgrad": "quadprog-projector",
}
"""The extra of torchjd that brings the solver an aggregator needs."""


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

    def __init__(self, tasks: Sequence[str], device: torch.device | None = None) -> None:
        self.log_variance = {task: nn.Parameter(torch.zeros((), device=device)) for task in tasks}

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
    """A torchjd aggregator combines the tasks' gradients at the trunk's parameters; decoders take their own task's.

    Features at several depths feed the decoders, so gradients meet at the parameters, not at one last feature: one
    backward pass a task, and memory for a gradient of the trunk a task.
    """

    def __init__(self, aggregator: Callable[[Tensor], Tensor]) -> None:
        self.aggregator = aggregator

    def backward(
        self,
        losses: Mapping[str, Tensor],
        extra: Tensor | None,
        shared: Sequence[Tensor],
        backward: Callable[[Tensor], None],
    ) -> None:
        """See `Weighting.backward`."""
        leaves = _leaves(losses.values())
        of_trunk = _leaves(shared).keys()
        trunk = [leaf for key, leaf in leaves.items() if key in of_trunk]
        own = [leaf for key, leaf in leaves.items() if key not in of_trunk]
        rows = []
        for loss in losses.values():
            gradients = torch.autograd.grad(loss, [*trunk, *own], retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients[: len(trunk)]]))
            _accumulate(own, gradients[len(trunk) :])
        step = torch.split(self.aggregator(torch.stack(rows)), [leaf.numel() for leaf in trunk])
        _accumulate(trunk, [part.view_as(leaf) for part, leaf in zip(step, trunk, strict=True)])
        if extra is not None:
            backward(extra)

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []


def _accumulate(leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = gradient.clone() if leaf.grad is None else leaf.grad + gradient


def _leaves(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """The parameters that tensors were computed from, by identity."""
    leaves: dict[int, Tensor] = {}
    stack = [tensor.grad_fn for tensor in tensors]
    seen: set[Any] = set(stack)
    while stack:
        node = stack.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            leaves[id(node.variable)] = node.variable
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return leaves


def weighting_names() -> list[str]:
    """Names that `make_weighting` accepts."""
    return sorted(["equal", "uncertainty", *_AGGREGATORS])


def make_weighting(name: str, tasks: Sequence[str], device: torch.device | None = None) -> Weighting:
    """The weighting called `name`, its parameters on `device`.

    Raises `UserError` with the nearest names, or where its package is not installed.
    """
    if name == "equal":
        return Equal()
    if name == "uncertainty":
        return Uncertainty(tasks, device)
    if name not in _AGGREGATORS:
        raise unknown_name("task weighting", name, weighting_names())
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise MissingDependencyError("torchjd", "torchjd", f"task weighting {name}") from error
    kind: Callable[..., Any] = getattr(aggregation, _AGGREGATORS[name])
    arguments: dict[str, dict[str, float]] = {"nash-mtl": {"n_tasks": len(tasks)}, "cagrad": {"c": 0.5}}
    try:
        return Aggregated(kind(**arguments.get(name, {})))
    except ImportError as error:
        install = f"pip install 'torchjd[{_SOLVERS.get(name, 'full')}]'"
        raise UserError(f"task weighting {name} needs a solver that is not installed: {install}") from error
