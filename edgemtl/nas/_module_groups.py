"""Groups and costs of a user's own module, which nothing describes but the module itself.

The dependency graph is made for it as for any net, and then not believed: of every group half the channels are cut on
trial. A group counts only where the module still runs, gives outputs of the same shapes, and gives the same values as
with those channels silent (where they are not normalised together). Any other stays whole, with the reason. From the
shapes that a cut leaves comes the exact cost of every count of channels.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.models import Cost
from edgemtl.nas._cut import Group, Member, reads_along
from edgemtl.nas._groups import cut, gives, reached_by, traced
from edgemtl.nas._module_net import ModuleNet

__all__ = ["ModuleCosts", "module_groups"]

TOLERANCE = 1e-3
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.InstanceNorm2d, nn.PReLU)
_NORMS = (nn.LayerNorm, nn.GroupNorm)
"""What normalises channels by each other: silence is then not absence."""


@dataclass(frozen=True)
class _Parameter:
    """One parameter: its shape, which dimension loses how many places by channel of which group, what it costs.

    `macs` are the multiply-accumulates of one image for each of its values.
    """

    shape: tuple[int, ...]
    macs: float
    tasks: frozenset[str]
    shrinks: Mapping[int, tuple[tuple[str, int], ...]]

    def values(self, gone: Mapping[str, int]) -> int:
        """How many values it has where groups have lost `gone` channels."""
        count = 1
        for dimension, size in enumerate(self.shape):
            count *= size - sum(each * gone.get(name, 0) for name, each in self.shrinks.get(dimension, ()))
        return count


@dataclass(frozen=True)
class ModuleCosts:
    """What a module takes of each quantity for any counts of channels.

    FLOPs are those of convolutions and linear layers, which shrink with their channels, and of products of activations
    (`other_macs`), which are counted whole, and for every task; parameters are all that the module has, as they are.
    """

    sizes: Mapping[str, int]
    parameters: tuple[_Parameter, ...]
    other_macs: int

    def cost(self, kept: Mapping[str, int], task: str | None = None) -> Cost:
        """The cost of all tasks, or of what one of them depends on."""
        gone = {name: size - kept.get(name, size) for name, size in self.sizes.items()}
        macs, params = float(self.other_macs), 0
        for each in self.parameters:
            if task is None or task in each.tasks:
                count = each.values(gone)
                params += count
                macs += count * each.macs
        return Cost(2 * round(macs), params, 4 * params)


def module_groups(
    net: ModuleNet, dimensions: Mapping[str, int | None]
) -> tuple[list[Group], dict[str, str], ModuleCosts]:
    """The groups of a module, why other channels stay whole (by the layer that gives them), and its costs."""
    reached, image = reached_by(net), torch.randn(1, 3, *net.input_size, generator=torch.Generator().manual_seed(0))
    found, whole = list[Group](), dict[str, str]()
    shrinks: dict[str, dict[int, list[tuple[str, int]]]] = {}
    before = {name: tuple(p.shape) for name, p in net.named_parameters()}
    order = [name for name, _ in net.named_modules()]
    for members in traced(net, dimensions):
        given = {m.module for m in members if m.outputs and m.dimension is None and gives(net.get_submodule(m.module))}
        if not given:
            continue
        givers = sorted(given, key=order.index)
        name = givers[0].removeprefix("module.")
        tasks = tuple(t.name for t in net.tasks if any(t.name in reached[module] for module in givers))
        layers = tuple(module.removeprefix("module.") for module in givers)
        group = Group(name, len(members[0].channels), tasks, (members,), layers)
        narrow = _half(net, group, image)
        if isinstance(narrow, str):
            whole[name] = narrow
            continue
        found.append(group)
        lost = len(_odd(group))
        for key, parameter in narrow.named_parameters():
            for dimension, (had, has) in enumerate(zip(before[key], parameter.shape, strict=True)):
                if had != has:
                    shrinks.setdefault(key, {}).setdefault(dimension, []).append((name, (had - has) // lost))
    found.sort(key=lambda group: order.index(f"module.{group.name}"))
    return found, whole, _costs(net, found, shrinks, reached, image)


def _odd(group: Group) -> list[int]:
    return list(range(1, group.size, 2))


def _half(net: ModuleNet, group: Group, image: Tensor) -> ModuleNet | str:
    """The net with every second channel of a group cut, or why that cannot be done."""
    if group.size < 2:
        return "it has one channel"
    if not group.tasks:
        return "no task depends on it"
    (members,) = group.parts
    for m in members:
        if m.dimension is None and (reason := _refused(net.get_submodule(m.module))):
            return reason
        if set(Counter(m.channels).values()) != {len(m.channels) // group.size}:
            return "its channels do not take equal parts of a layer"
    try:
        narrow = cut(net, [group], {group.name: [list(range(0, group.size, 2))]})
        with torch.no_grad():
            given, whole = narrow(image), net(image)
            silent = _silenced(net, members, set(_odd(group)))(image)
    except Exception:  # whatever the module's own code says to other shapes
        return "the module does not run with fewer of them"
    if any(given[name].shape != value.shape for name, value in whole.items()):
        return "an output consists of them"
    normed = any(isinstance(net.get_submodule(m.module), _NORMS) for m in members if m.dimension is None)
    if not normed and not all(_same(given[name], value) for name, value in silent.items()):
        return "the dependency graph does not follow them to all that reads them"
    return narrow


def _refused(layer: nn.Module) -> str:
    """Why a layer cannot lose any channels; empty where it can."""
    if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups not in (1, layer.out_channels):
        return "a grouped convolution reads or gives them"
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1:
        return "a normalisation over several dimensions reads them"
    if isinstance(layer, nn.GroupNorm):
        return "" if layer.num_groups == 1 else "a normalisation by groups of channels reads them"
    if isinstance(layer, (*_LAYERS, nn.LayerNorm)):
        return ""
    return f"{type(layer).__name__} reads or gives them"


def _silenced(net: ModuleNet, members: Sequence[Member], channels: set[int]) -> ModuleNet:
    """A copy in which nothing that reads these channels hears them."""
    made = ModuleNet(copy.deepcopy(net.module), net.tasks, net.input_size)
    with torch.no_grad():
        for m in members:
            if not m.outputs:
                layer = made.get_submodule(m.module)
                places = [place for place, channel in zip(m.places, m.channels, strict=True) if channel in channels]
                layer.weight.index_fill_(reads_along(layer), torch.tensor(places), 0.0)  # type: ignore[operator]
    return made.eval()


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * max(1.0, float(b.abs().max())))


def _costs(
    net: ModuleNet,
    groups: Sequence[Group],
    shrinks: Mapping[str, Mapping[int, Sequence[tuple[str, int]]]],
    reached: Mapping[str, set[str]],
    image: Tensor,
) -> ModuleCosts:
    macs = _macs_by_weight(net, image)
    parameters = [
        _Parameter(
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
    """For every weight of a convolution or linear layer the places that each of its values is multiplied at."""
    found: dict[str, float] = {}

    def hook(name: str, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        shape = given[0].shape if getattr(layer, "transposed", False) else output.shape
        places = shape[2:].numel() if isinstance(layer, nn.modules.conv._ConvNd) else shape[:-1].numel()
        found[f"{name}.weight"] = found.get(f"{name}.weight", 0.0) + places

    layers = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    hooks = [m.register_forward_hook(lambda m, given, out, n=n: hook(n, m, given, out)) for n, m in layers]
    try:
        with torch.no_grad():
            net(image)
    finally:
        for each in hooks:
            each.remove()
    return found


def _all_macs(net: ModuleNet, image: Tensor) -> int:
    """Multiply-accumulates of one image, products of activations among them.

    With derivatives, since torch's own attention is one operator without, whose products are not counted.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(image)
    return int(counter.get_total_flops()) // 2
