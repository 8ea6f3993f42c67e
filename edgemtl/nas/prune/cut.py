"""Groups of channels that go together, and their removal from modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, nn

__all__ = ["Group", "Member", "Side", "keep_positions", "positions_kept", "reads_along", "shared_tensors", "whole_size"]

_GRAPH = torch_pruning.DependencyGraph()
"""Its table of layer types says how each is cut."""

Side = tuple[str, str]
"""A layer by its path, and "outputs" or "inputs"; or a parameter that stands in no layer, and its dimension."""


@dataclass(frozen=True)
class Member:
    """One side of a layer: the channel `positions[i]` of its outputs (or inputs) is the group's channel `channels[i]`.

    With a `dimension` it is a parameter that stands in no layer, cut along it.
    """

    module: str
    outputs: bool
    positions: tuple[int, ...]
    channels: tuple[int, ...]
    dimension: int | None = None

    @property
    def side(self) -> Side:
        """The module or parameter, and its inputs, its outputs or the dimension along which it is cut."""
        return self.module, str(self.dimension) if self.dimension is not None else ("inputs", "outputs")[self.outputs]


@dataclass(frozen=True)
class Group:
    """Channels that can be removed together: `size` of them in each of `parts`, which keep equally many.

    A part is what must keep the same channels; most groups have one, the experts of a layer one each. `tasks` are those
    whose outputs depend on them, `convolutions` the plan's names of what gets fewer outputs. Each `step` channels in a
    row, a head of attention, go together.
    """

    name: str
    size: int
    tasks: tuple[str, ...]
    parts: tuple[tuple[Member, ...], ...]
    convolutions: tuple[str, ...]
    step: int = 1


def positions_kept(
    net: nn.Module, groups: Iterable[Group], kept: Mapping[str, Sequence[Sequence[int]]]
) -> dict[Side, list[int]]:
    """For each side that groups of `kept` touch, the positions that stay, where each part keeps only these channels."""
    gone: dict[Side, set[int]] = {}
    for group in groups:
        for members, keep in zip(group.parts, kept.get(group.name, ()), strict=False):
            stay = set(keep)
            for m in members:
                gone_positions = (
                    position for position, channel in zip(m.positions, m.channels, strict=True) if channel not in stay
                )
                gone.setdefault(m.side, set()).update(gone_positions)
    return {side: [p for p in range(whole_size(net, side)) if p not in cut] for side, cut in gone.items()}


def whole_size(net: nn.Module, side: Side) -> int:
    """Number of positions on a side of a layer, or in a dimension of a parameter."""
    name, what = side
    if what not in ("inputs", "outputs"):
        return int(net.get_parameter(name).shape[int(what)])
    layer = net.get_submodule(name)
    if isinstance(layer, nn.LayerNorm):
        return int(layer.normalized_shape[-1])
    pruner = _GRAPH.get_pruner_of_module(layer)
    return int((pruner.get_out_channels if what == "outputs" else pruner.get_in_channels)(layer))


def keep_positions(net: nn.Module, kept: Mapping[Side, Sequence[int]]) -> None:
    """Cut layers of a module, in place, so that each side of `kept` has only these positions.

    Layers that share a parameter share what is left of it: they must be cut alike.
    """
    shared = shared_tensors(net)
    for side, positions in kept.items():
        name, what = side
        if what not in ("inputs", "outputs"):
            _keep_of_parameter(net, name, int(what), positions)
            continue
        layer, gone = net.get_submodule(name), sorted({*range(whole_size(net, side))} - {*positions})
        if isinstance(layer, nn.LayerNorm):
            _keep_of_norm(layer, positions)
        elif gone:
            pruner = _GRAPH.get_pruner_of_module(layer)
            (pruner.prune_out_channels if what == "outputs" else pruner.prune_in_channels)(layer, gone)
    for names, whole in shared.items():
        left = next((tensor for name in names if (tensor := _tensor(net, name)) is not whole), whole)
        for name in names:
            setattr(net.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], left)


def shared_tensors(net: nn.Module) -> dict[tuple[str, ...], Tensor]:
    """Parameters and buffers that have several names, as tied layers' have, by these."""
    names: dict[int, list[str]] = {}
    tensors = [*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        names.setdefault(id(tensor), []).append(name)
    return {tuple(names[id(tensor)]): tensor for _, tensor in tensors if len(names[id(tensor)]) > 1}


def reads_along(layer: nn.Module) -> int:
    """The dimension of a layer's weight that its inputs stand along."""
    return 0 if getattr(layer, "transposed", False) else 1


def _keep_of_norm(norm: nn.LayerNorm, positions: Sequence[int]) -> None:
    """Torch-pruning's own cut of this layer gives up the order of channels where few are kept."""
    norm.normalized_shape = (len(positions),)
    for name in ("weight", "bias"):
        parameter = getattr(norm, name)
        if parameter is not None:
            setattr(norm, name, _chosen(parameter, 0, positions))


def _keep_of_parameter(net: nn.Module, name: str, dimension: int, positions: Sequence[int]) -> None:
    owner, _, key = name.rpartition(".")
    holder = net.get_submodule(owner)
    setattr(holder, key, _chosen(getattr(holder, key), dimension, positions))


def _tensor(net: nn.Module, name: str) -> Tensor:
    owner, _, key = name.rpartition(".")
    tensor: Tensor = getattr(net.get_submodule(owner), key)
    return tensor


def _chosen(parameter: Tensor, dimension: int, positions: Sequence[int]) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(dimension, torch.tensor([*positions])))
