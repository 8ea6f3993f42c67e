"""Groups of prunable channels that are removed together, and the tasks that each group affects.

The dependency graph (DepGraph, Fang et al. 2023, as torch-pruning builds it) is made from all heads at once: a channel
of the trunk goes with all that reads it in any task. Which tasks a group reaches is read off the outputs' derivatives,
so that it holds for any module.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch_pruning
from torch import nn
from torch_pruning.ops import _OutputOp

from edgemtl.models import MultiTaskNet, TaskNet
from edgemtl.nas.prune.cut import Group, Member, keep_positions, positions_kept
from edgemtl.nas.prune.token_groups import token_groups
from edgemtl.spaces import Plan, prunable_channels

__all__ = ["Group", "Member", "cut_channels", "gives", "net_groups", "reached_by", "traced"]

Kept = Mapping[str, Sequence[Sequence[int]]]
Net = TypeVar("Net", bound=TaskNet)


def net_groups(net: MultiTaskNet) -> list[Group]:
    """The groups of a static net, in order of execution.

    Left out are channels that a task's output consists of, and those that `prunable_channels` leaves out.
    """
    order, names, reached = list(prunable_channels(net.plan)), _plan_names(net.plan), reached_by(net)
    groups = {group.name: group for group in token_groups(net, reached)}
    tokens = {name for group in groups.values() for name in group.convolutions}
    for members in traced(net, {}):
        givers = [m.module for m in members if m.outputs and gives(net.get_submodule(m.module))]
        planned = [names.get(module, "") for module in givers]
        if givers and set(planned) <= set(order) - tokens:
            tasks = tuple(t.name for t in net.tasks if any(t.name in reached[module] for module in givers))
            group = Group(planned[0], len(members[0].channels), tasks, (members,), tuple(dict.fromkeys(planned)))
            groups[group.name] = _merged(groups.get(group.name), group)
    return sorted(groups.values(), key=lambda group: min(order.index(name) for name in group.convolutions))


def cut_channels(net: Net, groups: Iterable[Group], kept: Kept) -> Net:
    """A copy of the net with only the channels `kept` of each group that is named there, part by part.

    Statistics of batch normalisation are those of the whole net: `recalibrate` it before its outputs are used.
    """
    chosen = [group for group in groups if group.name in kept]
    made = net.copy()
    keep_positions(made, positions_kept(net, chosen, kept))
    return made.with_channels({name: len(kept[group.name][0]) for group in chosen for name in group.convolutions})


def traced(net: TaskNet, dimensions: Mapping[str, int | None]) -> list[tuple[Member, ...]]:
    """The members of every group of the dependency graph that holds no output of the net.

    `dimensions` says of parameters that stand in no layer which of their dimensions holds channels, if any.
    """
    parameters = {name: net.get_parameter(name) for name in dimensions}
    names: dict[Any, str] = {module: name for name, module in net.named_modules()}
    names |= {parameter: name for name, parameter in parameters.items() if dimensions[name] is not None}
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            net,
            torch.zeros(1, 3, *net.input_size),
            unwrapped_parameters=[(p, dimensions[name]) for name, p in parameters.items() if p in names],
            ignored_params=[p for p in parameters.values() if p not in names],
            verbose=False,
        )
        groups = list(graph.get_all_groups())
    return [
        tuple(_member(graph, names, item, dimensions) for item in group if _has_channels(item.dep.target.module, names))
        for group in groups
        if not any(isinstance(item.dep.target.module, _OutputOp) for item in group)
    ]


def _has_channels(module: Any, names: Mapping[Any, str]) -> bool:
    """Whether it is a layer or a parameter of the net with channels of its own: one slope for all is none."""
    return module in names and not (isinstance(module, nn.PReLU) and module.num_parameters == 1)


def _member(graph: Any, names: Mapping[Any, str], item: Any, dimensions: Mapping[str, int | None]) -> Member:
    name, outputs = names[item.dep.target.module], bool(graph.is_out_channel_pruning_fn(item.dep.handler))
    return Member(name, outputs, tuple(item.idxs), tuple(item.root_idxs), dimensions.get(name))


def reached_by(net: TaskNet) -> dict[str, set[str]]:
    """For every module with parameters of its own the tasks whose outputs depend on them, shared ones included."""
    owners: dict[int, list[str]] = {}
    for name, module in net.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    tasks_of: dict[str, set[str]] = {name: set() for names in owners.values() for name in names}
    with torch.enable_grad():
        for task, outputs in net.eval()(torch.zeros(1, 3, *net.input_size)).items():
            total = torch.stack([output.sum() for output in outputs.values()]).sum()
            gradients = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
            for parameter, slope in zip(parameters, gradients, strict=True):
                if slope is not None:
                    for name in owners[id(parameter)]:
                        tasks_of[name].add(task)
    return tasks_of


def gives(layer: nn.Module) -> bool:
    """Whether a layer decides how many channels there are: no normalisation, and no depthwise convolution."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == 1)


def _plan_names(plan: Plan) -> dict[str, str]:
    """Name of each layer in the plan, by its path in the net; the experts of a layer share one name."""
    names: dict[str, str] = {}
    for block in plan.blocks:
        path = f"blocks.{block.parameters}"
        for conv in block.convs:
            name = f"{block.parameters}.{conv.name}"
            names |= {f"{path}.{conv.name}": name, f"{path}.{conv.name}.conv": name}
        if block.experts is not None:
            first = f"{block.parameters}.experts.{block.experts.first.name}"
            names |= {f"{path}.mixture.experts.{n}.{block.experts.first.name}": first for n in block.experts.numbers}
    return names


def _merged(before: Group | None, other: Group) -> Group:
    """Groups of one name (a layer's experts) are one group of several parts."""
    if before is None:
        return other
    tasks = tuple(dict.fromkeys((*before.tasks, *other.tasks)))
    return replace(before, tasks=tasks, parts=(*before.parts, *other.parts))
