"""Cutting a group of a user's own module on trial: the dependency graph proposes, the module itself decides.

Of every group half the channels are cut. It counts only where the module still runs, gives outputs of the same shapes,
and gives the same values as with those channels silent (where they are not normalised together).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE, module2type

from edgemtl.errors import UserError
from edgemtl.models import ModuleNet
from edgemtl.nas.prune.cut import Group, Member, reads_along, shared_tensors, whole_size
from edgemtl.nas.prune.groups import cut_channels
from edgemtl.tasks import by_tensor

__all__ = ["Trial", "odd_channels"]

TOLERANCE = 1e-3
NOISE = 0.1
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.InstanceNorm2d, nn.PReLU)
_NORMS = (nn.LayerNorm, nn.GroupNorm)
"""Layers that normalise channels by each other: a zeroed channel is then not the same as a removed one."""


class Trial:
    """A module and batches of images (N, 3, H, W) to try cuts on: its own code may branch on what it sees.

    Raises `UserError` where an output is not finite.
    """

    def __init__(self, net: ModuleNet, images: Sequence[Tensor]) -> None:
        self._images = images
        _check_finite(net, images)
        self._net = _uneven(net, images)
        self._shared = list(shared_tensors(self._net))

    def half(self, group: Group) -> ModuleNet | str:
        """The net with every second channel of a group cut, or why that cannot be done."""
        if not group.tasks:
            return "no task depends on it"
        (members,) = group.parts
        if reason := self._layers_refuse(group.size, members) or self._ties_refuse(members):
            return reason
        try:
            narrow = cut_channels(self._net, [group], {group.name: [list(range(0, group.size, 2))]})
            given, silent = self._outputs(narrow), self._outputs(self._silenced(members, {*odd_channels(group)}))
        except Exception:  # whatever the module's own code says to other shapes
            return "the module does not run with fewer of them"
        if any(a.shape != b.shape for a, b in zip(given, self._whole, strict=True)):
            return "an output consists of them"
        normed = any(isinstance(self._net.get_submodule(m.module), _NORMS) for m in members if m.dimension is None)
        if not normed and not all(_same(a, b) for a, b in zip(given, silent, strict=True)):
            return "outputs without them differ from those with them silent: something unseen reads or normalises them"
        return narrow

    @cached_property
    def _whole(self) -> list[Tensor]:
        return self._outputs(self._net)

    def _outputs(self, net: ModuleNet) -> list[Tensor]:
        """Every task's output for every batch."""
        with torch.no_grad():
            return [value.clone() for images in self._images for value in by_tensor(net(images)).values()]

    def _layers_refuse(self, size: int, members: Sequence[Member]) -> str:
        """Why a layer cannot lose any channels; empty where all can."""
        for m in members:
            if m.dimension is None and (reason := _refused(self._net.get_submodule(m.module))):
                return reason
            if set(Counter(m.channels).values()) != {len(m.channels) // size}:
                return "its channels do not take equal parts of a layer"
        if size < 2:
            single = all(whole_size(self._net, m.side) == 1 for m in members if m.outputs)
            return "it has one channel" if single else "the dependency graph follows one of them alone"
        return ""

    def _ties_refuse(self, members: Sequence[Member]) -> str:
        """Why layers that share a parameter cannot be cut alike; empty where they can."""
        named = {m.module: self._net.get_submodule(m.module) for m in members if m.dimension is None}
        for names in self._shared:
            key = names[0].rpartition(".")[2]
            owners = {name.rpartition(".")[0].removeprefix("module."): self._owner(name) for name in names}
            layers = {layer: name for name, layer in owners.items() if module2type(layer) != OPTYPE.ELEMENTWISE}
            if len({_cut_of(layer, key, members, named) for layer in layers}) > 1:
                return f"{' and '.join(layers.values())} share one {key} and would lose different channels of it"
        return ""

    def _owner(self, name: str) -> nn.Module:
        return self._net.get_submodule(name.rpartition(".")[0])

    def _silenced(self, members: Sequence[Member], channels: set[int]) -> ModuleNet:
        """A copy in which nothing that reads these channels hears them."""
        made = self._net.copy()
        with torch.no_grad():
            for m in members:
                if not m.outputs:
                    layer = made.get_submodule(m.module)
                    positions = [
                        position
                        for position, channel in zip(m.positions, m.channels, strict=True)
                        if channel in channels
                    ]
                    layer.weight.index_fill_(reads_along(layer), torch.tensor(positions), 0.0)  # type: ignore[operator]
        return made


def odd_channels(group: Group) -> list[int]:
    """The channels that a trial cuts."""
    return list(range(1, group.size, 2))


def _cut_of(
    layer: nn.Module, key: str, members: Sequence[Member], named: Mapping[str, nn.Module]
) -> frozenset[tuple[bool, int, int]]:
    """Which positions of a layer's parameter stand for which channels of a group, by side; a bias has outputs alone."""
    one_sided = key == "bias" and isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
    sides = [m for m in members if named.get(m.module) is layer and (m.outputs or not one_sided)]
    return frozenset((m.outputs, *pair) for m in sides for pair in zip(m.positions, m.channels, strict=True))


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


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max().clamp(min=1e-12))


def _check_finite(net: ModuleNet, images: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for batch in images:
            for name, value in by_tensor(net(batch)).items():
                if not value.isfinite().all():
                    raise UserError(
                        f"output {name!r} is NaN or infinite on images of the data, or on a black one, so no cut "
                        "could be checked: mend the module's weights or its forward"
                    )


def _uneven(net: ModuleNet, images: Sequence[Tensor]) -> ModuleNet:
    """A copy whose channels all differ: values that are still alike, as after initialisation, get noise.

    A head of zeros, or a norm that begins with zeros, hears nothing: any cut before it would seem right. The net itself
    where the noise makes it fail.
    """
    made, random = net.copy(), torch.Generator().manual_seed(0)
    norms = [norm for norm in made.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    statistics = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None]
    try:
        with torch.no_grad():
            for tensor in (*made.parameters(), *statistics):
                if tensor.numel() > 1 and tensor.is_floating_point() and bool(tensor.min() == tensor.max()):
                    tensor.add_(NOISE * torch.rand(tensor.shape, generator=random))
            finite = all(bool(value.isfinite().all()) for batch in images for value in by_tensor(made(batch)).values())
    except Exception:  # her code may raise anything
        return net
    return made if finite else net
