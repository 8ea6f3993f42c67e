"""What can be pruned of a net: channels that go together, and the tasks that would notice.

The dependency graph (DepGraph, Fang et al. 2023, as torch-pruning builds it) is made from all heads at once: a channel
of the trunk goes with all that reads it in any task. Which tasks a group reaches is read off the outputs' derivatives,
so that it holds for any module.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import _OutputOp

from edgemtl.models import MultiTaskNet, narrowed, prunable_channels

__all__ = ["Group", "Member", "cut", "net_groups"]

_GRAPH = torch_pruning.DependencyGraph()
"""Its table of layer types says how each is cut."""


@dataclass(frozen=True)
class Member:
    """One side of a layer: the channel `places[i]` of its outputs (or inputs) is the group's channel `channels[i]`."""

    module: str
    outputs: bool
    places: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that can be removed together: `size` of them in each of `parts`, which keep equally many.

    A part is what must keep the same channels; most groups have one, the experts of a layer one each. `tasks` are those
    whose outputs depend on them, `convolutions` the plan's names of what gets fewer outputs.
    """

    name: str
    size: int
    tasks: tuple[str, ...]
    parts: tuple[tuple[Member, ...], ...]
    convolutions: tuple[str, ...]


def net_groups(net: MultiTaskNet) -> list[Group]:
    """The groups of a static net, in order of execution.

    Left out are channels that a task's output consists of, and those that `prunable_channels` leaves out.
    """
    names = {f"blocks.{name}": name for name in prunable_channels(net.plan)}
    reached = _reached(net, torch.zeros(1, 3, *net.input_size))
    found: dict[str, Group] = {}
    for members in _traced(net):
        givers = [m.module for m in members if m.outputs and _gives(net.get_submodule(m.module))]
        planned = [_plan_name(module) for module in givers]
        if givers and all(f"blocks.{name}" in names for name in planned):
            tasks = tuple(t.name for t in net.tasks if any(t.name in reached[module] for module in givers))
            made = Group(planned[0], len(members[0].channels), tasks, (members,), tuple(dict.fromkeys(planned)))
            found[made.name] = _merged(found.get(made.name), made)
    order = list(names.values())
    return sorted(found.values(), key=lambda group: min(order.index(name) for name in group.convolutions))


def cut(net: MultiTaskNet, groups: Iterable[Group], kept: Mapping[str, Sequence[Sequence[int]]]) -> MultiTaskNet:
    """A copy of the net with only the channels `kept` of each group that is named there, part by part.

    Statistics of batch normalisation are those of the whole net: `recalibrate` it before its outputs are used.
    """
    chosen = [group for group in groups if group.name in kept]
    blocks = copy.deepcopy(net.blocks)
    gone: dict[tuple[str, bool], set[int]] = {}
    for group in chosen:
        for members, keep in zip(group.parts, kept[group.name], strict=True):
            stay = set(keep)
            for m in members:
                places = (place for place, channel in zip(m.places, m.channels, strict=True) if channel not in stay)
                gone.setdefault((m.module, m.outputs), set()).update(places)
    for (name, outputs), places_gone in gone.items():
        layer = blocks.get_submodule(name.removeprefix("blocks."))
        pruner = _GRAPH.get_pruner_of_module(layer)
        (pruner.prune_out_channels if outputs else pruner.prune_in_channels)(layer, sorted(places_gone))
    channels = {name: len(kept[group.name][0]) for group in chosen for name in group.convolutions}
    return MultiTaskNet(narrowed(net.plan, channels), net.tasks, blocks).eval()


def _traced(net: nn.Module) -> list[tuple[Member, ...]]:
    """The members of every group of the dependency graph that holds no output of the net."""
    height, width = net.input_size  # type: ignore[misc]
    names = {module: name for name, module in net.named_modules()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(net, torch.zeros(1, 3, height, width), verbose=False)
        groups = list(graph.get_all_groups())
    return [
        tuple(_member(graph, names, item) for item in group if item.dep.target.module in names)
        for group in groups
        if not any(isinstance(item.dep.target.module, _OutputOp) for item in group)
    ]


def _member(graph: Any, names: Mapping[nn.Module, str], item: Any) -> Member:
    outputs = bool(graph.is_out_channel_pruning_fn(item.dep.handler))
    return Member(names[item.dep.target.module], outputs, tuple(item.idxs), tuple(item.root_idxs))


def _reached(net: MultiTaskNet, image: Tensor) -> dict[str, set[str]]:
    """For every module with parameters the tasks whose outputs depend on them."""
    owned = {f"{name}.{key}": name for name, m in net.named_modules() for key, _ in m.named_parameters(recurse=False)}
    parameters = dict(net.named_parameters())
    found: dict[str, set[str]] = {name: set() for name in owned.values()}
    with torch.enable_grad():
        for task, output in net.eval()(image).items():
            slopes = torch.autograd.grad(output.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
            for key, slope in zip(parameters, slopes, strict=True):
                if slope is not None:
                    found[owned[key]].add(task)
    return found


def _gives(layer: nn.Module) -> bool:
    """Whether a layer decides how many channels there are: no normalisation, and no depthwise convolution."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _plan_name(module: str) -> str:
    """`blocks.s1_1.dense.conv` is `s1_1.dense` in the plan, `blocks.b2.mixture.experts.7.first` `b2.experts.first`."""
    name = module.removeprefix("blocks.")
    expert = re.fullmatch(r"(.+)\.mixture\.experts\.\d+\.(\w+)", name)
    if expert:
        return f"{expert[1]}.experts.{expert[2]}"
    return name.removesuffix(".conv") if name.count(".") > 1 else name


def _merged(before: Group | None, found: Group) -> Group:
    """Groups of one name (a layer's experts) are one group of several parts."""
    if before is None:
        return found
    tasks = tuple(dict.fromkeys((*before.tasks, *found.tasks)))
    return replace(before, tasks=tasks, parts=(*before.parts, *found.parts))
