"""Groups and costs of a user's own module, which nothing describes but the module itself.

The dependency graph is made for it as for any net, and then checked: every group is cut on trial, and stays whole
where that fails. From the shapes that a cut leaves comes the exact cost of every count of channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.errors import UserError, reason_of
from edgemtl.models import ModuleNet
from edgemtl.nas.prune.cut import Group, Member
from edgemtl.nas.prune.groups import gives, reached_by, traced
from edgemtl.nas.prune.hooks import watched
from edgemtl.nas.prune.module_trial import Trial, odd_channels
from edgemtl.progress import Progress, Report, silent
from edgemtl.spaces import Cost

__all__ = ["ModuleCosts", "ParameterCost", "module_groups"]


@dataclass(frozen=True)
class ParameterCost:
    """One parameter: its shape, which dimension loses how many positions by channel of which group, its cost.

    `macs` are the multiply-accumulates of one image for each of its values.
    """

    name: str
    shape: tuple[int, ...]
    macs: float
    tasks: frozenset[str]
    shrinks: Mapping[int, tuple[tuple[str, int], ...]]

    def left(self, gone: Mapping[str, int]) -> tuple[int, ...]:
        """Its shape where groups have lost `gone` channels."""
        return tuple(
            size - sum(each * gone.get(name, 0) for name, each in self.shrinks.get(dimension, ()))
            for dimension, size in enumerate(self.shape)
        )


@dataclass(frozen=True)
class ModuleCosts:
    """Cost model of a module: each quantity for any counts of channels.

    FLOPs are those of convolutions and linear layers, which shrink with their channels, and of products of activations
    (`other_macs`), which are counted whole, and for every task; parameters are all that the module has, as they are.
    """

    sizes: Mapping[str, int]
    parameters: tuple[ParameterCost, ...]
    other_macs: int

    def gone(self, kept: Mapping[str, int]) -> dict[str, int]:
        """How many channels every group has lost where it keeps so many; one that is not named keeps all."""
        return {name: size - kept.get(name, size) for name, size in self.sizes.items()}

    def cost(self, kept: Mapping[str, int], task: str | None = None) -> Cost:
        """The cost of all tasks, or of what one of them depends on."""
        gone = self.gone(kept)
        macs, params = float(self.other_macs), 0
        for each in self.parameters:
            if task is None or task in each.tasks:
                count = math.prod(each.left(gone))
                params += count
                macs += count * each.macs
        return Cost(2 * round(macs), params, 4 * params)


def module_groups(
    net: ModuleNet, dimensions: Mapping[str, int | None], images: Sequence[Tensor] = (), report: Report = silent
) -> tuple[list[Group], dict[str, str], ModuleCosts]:
    """The groups of a module, why other channels stay whole (by the layer that gives them), and its costs.

    Cuts are tried on noise, on a black image, and on the batches `images` (N, 3, H, W), normalised. Raises `UserError`
    where no dependency graph can be made of the module.
    """
    reached, image = reached_by(net), torch.randn(1, 3, *net.input_size, generator=torch.Generator().manual_seed(0))
    groups, whole = list[Group](), dict[str, str]()
    shrinks: dict[str, dict[int, list[tuple[str, int]]]] = {}
    before = {name: tuple(p.shape) for name, p in net.named_parameters()}
    order = [name for name, _ in net.named_modules()]
    trial = Trial(net, [image, torch.zeros_like(image), *images])
    together = _traced(net, dimensions)
    for number, members in enumerate(together, 1):
        report(Progress("groups", number, len(together)))
        given = {m.module for m in members if m.outputs and m.dimension is None and gives(net.get_submodule(m.module))}
        if not given:
            continue
        givers = sorted(given, key=order.index)
        name = givers[0].removeprefix("module.")
        tasks = tuple(t.name for t in net.tasks if any(t.name in reached[module] for module in givers))
        layers = tuple(module.removeprefix("module.") for module in givers)
        group = Group(name, len(members[0].channels), tasks, (members,), layers)
        narrow = trial.half(group)
        if isinstance(narrow, str):
            whole[name] = narrow
            continue
        groups.append(group)
        lost = len(odd_channels(group))
        for key, parameter in narrow.named_parameters():
            for dimension, (had, has) in enumerate(zip(before[key], parameter.shape, strict=True)):
                if had != has:
                    shrinks.setdefault(key, {}).setdefault(dimension, []).append((name, (had - has) // lost))
    groups.sort(key=lambda group: order.index(f"module.{group.name}"))
    return groups, whole, _costs(net, groups, shrinks, reached, image)


def _traced(net: ModuleNet, dimensions: Mapping[str, int | None]) -> list[tuple[Member, ...]]:
    try:
        return traced(net, dimensions)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the graph is made by running the user's own code on what it may not expect
        message = reason_of(error)
        raise UserError(
            f"no dependency graph can be made of the module ({type(error).__name__}: {message}): it cannot be pruned"
        ) from error


def _costs(
    net: ModuleNet,
    groups: Sequence[Group],
    shrinks: Mapping[str, Mapping[int, Sequence[tuple[str, int]]]],
    reached: Mapping[str, set[str]],
    image: Tensor,
) -> ModuleCosts:
    macs = _macs_by_weight(net, image)
    parameters = [
        ParameterCost(
            name,
            tuple(p.shape),
            macs.get(name, 0.0),
            frozenset(reached[name.rpartition(".")[0]]),
            {dimension: tuple(by) for dimension, by in shrinks.get(name, {}).items()},
        )
        for name, p in net.named_parameters()
    ]
    costs = ModuleCosts({group.name: group.size for group in groups}, tuple(parameters), 0)
    return replace(costs, other_macs=max(0, _all_macs(net, image) - costs.cost({}).flops // 2))


def _macs_by_weight(net: ModuleNet, image: Tensor) -> dict[str, float]:
    """For every weight of a convolution or linear layer, the positions at which each of its values is multiplied.

    One that several layers share is counted for all of them, under its first name.
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    macs_of: dict[str, float] = {}

    layers = {
        path: layer for path, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
    }

    def see(path: str, read: tuple[Tensor, ...], given: Tensor) -> None:
        layer = layers[path]
        shape = read[0].shape if getattr(layer, "transposed", False) else given.shape
        positions = shape[2:].numel() if isinstance(layer, nn.modules.conv._ConvNd) else shape[:-1].numel()
        if (name := names.get(id(layer.weight))) is not None:
            macs_of[name] = macs_of.get(name, 0.0) + positions

    with watched(layers, see), torch.no_grad():
        net(image)
    return macs_of


def _all_macs(net: ModuleNet, image: Tensor) -> int:
    """Multiply-accumulates of one image, products of activations among them.

    With derivatives, since torch's own attention is one operator without, whose products are not counted.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(image)
    return int(counter.get_total_flops()) // 2
