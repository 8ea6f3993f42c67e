"""Shared weights for a whole space: one table of parameters, of which every design uses a prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgemtl.models.nets.blocks import Subpixel, build_block
from edgemtl.models.nets.experts import routing_loss
from edgemtl.models.nets.net import MultiTaskNet, Step, run_blocks
from edgemtl.spaces import BlockPlan, Choice, DesignSource, Plan, Values
from edgemtl.tasks import Task, map_outputs

__all__ = ["Activations", "SharedWeights", "Supernet", "recalibrate"]


@dataclass(frozen=True)
class Activations:
    """A forward pass as training sees it: raw `outputs` by task and name, the output of every `trunk` block by name.

    `routing` is the loss of the routers, where there are any; `private` are outputs of the blocks that one task alone
    runs, by name, its own of the trunk's kinds among them.
    """

    outputs: Mapping[str, Mapping[str, Tensor]]
    trunk: Mapping[str, Tensor]
    routing: Tensor | None = None
    private: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, net: MultiTaskNet, blocks: Mapping[str, Tensor]) -> Activations:
        """Those of a net whose `blocks` gave this in a training step."""
        trunk = {step.name: blocks[step.name] for step in net.wiring if step.task is None}
        private = {step.name: blocks[step.name] for step in net.wiring if step.task is not None}
        return cls(map_outputs(blocks.__getitem__, net.outputs), trunk, routing_loss(net), private)


class SharedWeights(Protocol):
    """The weights of a space's designs, which training updates: a `Supernet`, or those of one net."""

    tasks: tuple[Task, ...]

    @property
    def has_statistics(self) -> bool:
        """Whether batch norms keep statistics of their own; else they take the batch's."""
        ...

    @property
    def shared(self) -> dict[str, nn.Parameter]:
        """Every parameter that is trained, by name."""
        ...

    def __call__(self, image: Tensor, values: Values) -> Activations:
        """Outputs of the design `values` for images (N, 3, H, W)."""
        ...

    def extract(self, values: Values) -> MultiTaskNet:
        """The design's static net with its own copy of the weights; `recalibrate` it first, unless `has_statistics`."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move the parameters to a device."""
        ...


class Supernet(nn.Module):
    """The parameters of the largest nets of a space, and the rule by which a design cuts its own out of them.

    A design's parameter is the prefix of the shared one of that name in every dimension, and the centre of a kernel.
    Batch normalisation shares its scale and shift so; its statistics belong to a design (they differ with every
    width), so the supernet holds none: training normalises with the batch's, `recalibrate` measures an extracted
    net's own.

    `envelopes` are the largest net and those that differ from it in one choice: together they use every parameter.
    """

    has_statistics = False

    def __init__(self, plan: Callable[[Values], Plan], choices: Sequence[Choice], tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self._plan = plan
        self._skeleton = lru_cache(maxsize=256)(self._build_skeleton)
        self._template = lru_cache(maxsize=4096)(build_block)
        largest = {choice.name: choice.options[-1] for choice in choices}
        envelopes = [
            largest,
            *({**largest, choice.name: option} for choice in choices for option in choice.options[:-1]),
        ]
        self.envelopes = tuple(dict.fromkeys(plan(values) for values in envelopes))
        for envelope in _enlarging(self.envelopes):
            self._enlarge(envelope)

    @classmethod
    def of(cls, space: DesignSource) -> Supernet:
        """A supernet with fresh weights for every architecture of a space."""
        return cls(space.plan, space.architecture, space.tasks)

    @property
    def shared(self) -> dict[str, nn.Parameter]:
        """The table of shared parameters, by the name that every design's net gives them."""
        return {
            name.replace("/", "."): parameter for name, parameter in self._parameters.items() if parameter is not None
        }

    def part(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Slices of the shared parameter `name` for this shape: a prefix, the centre of a kernel."""
        return _prefix(self.shared[name], shape)

    def _enlarge(self, plan: Plan) -> None:
        skeleton, have = self._build_skeleton(plan), self.shared
        wanted = _origins(skeleton)
        short = [n for n, p in wanted.items() if n not in have or not _covers(have[n], p.shape)]
        if short:
            net = self._with_values(skeleton, short)
            fresh = _origins(net)
            heads = tuple(f"{name}.conv." for name, module in net.named_modules() if isinstance(module, Subpixel))
            for name in short:
                value = _initial(fresh[name])
                value = _one_for_all_subpixels(value) if name.startswith(heads) else value
                self.register_parameter(name.replace(".", "/"), nn.Parameter(value))

    def _with_values(self, skeleton: MultiTaskNet, names: Iterable[str]) -> MultiTaskNet:
        """The net with values in the blocks that have parameters of these names: the others are built for nothing."""
        owners = {name.split(".", 2)[1] for name in names}
        blocks = {
            name: build_block(*copies) if copies[0].origin in owners else skeleton.blocks[name]
            for name, copies in skeleton.plan.copies().items()
        }
        return MultiTaskNet(skeleton.plan, self.tasks, nn.ModuleDict(blocks))

    def _build_skeleton(self, plan: Plan) -> MultiTaskNet:
        """A net without values, of blocks that other skeletons have too: what a block reads does not change it."""
        with torch.device("meta"):
            blocks = {
                name: self._template(*(replace(block, inputs=()) for block in copies))
                for name, copies in plan.copies().items()
            }
            return MultiTaskNet(plan, self.tasks, nn.ModuleDict(blocks))

    def _cut(self, skeleton: MultiTaskNet) -> dict[str, Tensor]:
        shared = self.shared
        named = zip(skeleton.named_parameters(), _origin_names(skeleton), strict=True)
        return {name: _prefix(shared[origin], tuple(p.shape)) for (name, p), origin in named}

    def forward(self, image: Tensor, values: Values) -> Activations:
        """Outputs of a net under `values`, normalised with the batch's own statistics."""
        skeleton = self._skeleton(self._plan(values)).train()
        buffers = {name: _statistics(name, b, image.device) for name, b in skeleton.named_buffers()}
        state = {f"net.{name}": tensor for name, tensor in (self._cut(skeleton) | buffers).items()}
        blocks: dict[str, Tensor] = functional_call(_AllBlocks(skeleton), state, (image,))
        return Activations.of(skeleton, blocks)

    def extract(self, values: Values) -> MultiTaskNet:
        """A static net with its own copy of the design's weights; `recalibrate` it before its outputs are used."""
        shared = self.shared
        net = MultiTaskNet(self._plan(values), self.tasks).to(next(iter(shared.values())).device)
        with torch.no_grad():
            for origin, parameter in zip(_origin_names(net), net.parameters(), strict=True):
                parameter.copy_(_prefix(shared[origin], tuple(parameter.shape)))
        return net.eval()


class _AllBlocks(nn.Module):
    """A net that returns what every block gives, by name."""

    def __init__(self, net: MultiTaskNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.net.run_all(image)


def recalibrate(net: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object] | None = None) -> None:
    """Measure a static net's batch-norm statistics: the plain average over `batches` of images, as in US-Nets.

    `forward` runs the net in another way than by itself, with its norms; else what no norm reads is left out. The net
    is left in evaluation mode, on its own device. Weights do not change.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    net.eval()
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    run = forward or _until_norms(net)
    with torch.no_grad():
        for images in batches:
            run(images.to(norms[0].weight.device))
    net.eval()


def _until_norms(net: nn.Module) -> Callable[[Tensor], object]:
    """The forward pass of a net; of a `MultiTaskNet` without the blocks, such as heads, that no norm follows from."""
    if not isinstance(net, MultiTaskNet):
        return net
    needed, steps = set[str](), list[Step]()
    for step in reversed(net.wiring):
        norms = any(isinstance(module, nn.BatchNorm2d) for module in net.blocks[step.parameters].modules())
        if norms or step.name in needed:
            needed.update(step.inputs)
            steps.insert(0, step)
    return partial(run_blocks, net.blocks, steps)


def _enlarging(plans: Iterable[Plan]) -> Iterator[Plan]:
    """The plans with a block that those before them do not have: only these can need another parameter."""
    seen = set[BlockPlan]()
    for plan in plans:
        alone = partial(replace, task=None, inputs=(), weights="", cut_from="", output="")
        blocks = {alone(block, name=block.origin) for block in plan.blocks}
        if not blocks <= seen:
            seen |= blocks
            yield plan


def _origins(net: MultiTaskNet) -> dict[str, nn.Parameter]:
    """A net's parameters by the names that they have in the supernet; of copies one."""
    return dict(zip(_origin_names(net), net.parameters(), strict=True))


def _origin_names(net: MultiTaskNet) -> list[str]:
    """For each of a net's parameters, in order, its name in the supernet."""
    origins = {block.parameters: block.origin for block in net.plan.blocks}
    names = []
    for name, _ in net.named_parameters():
        _, block, rest = name.split(".", 2)
        names.append(f"blocks.{origins[block]}.{rest}")
    return names


def _covers(parameter: Tensor, shape: Sequence[int]) -> bool:
    return all(have >= want for have, want in zip(parameter.shape, shape, strict=True))


def _initial(parameter: Tensor) -> Tensor:
    """He initialisation for convolutions; what PyTorch gave for the rest."""
    value = parameter.detach().clone()
    if value.ndim == 4:
        nn.init.kaiming_normal_(value, mode="fan_out" if value.shape[1] > 1 else "fan_in", nonlinearity="relu")
    return value


def _one_for_all_subpixels(value: Tensor) -> Tensor:
    """Equal initial weights for the pixels of one position (ICNR, Aitken et al. 2017): no checkerboard to unlearn."""
    return value[:: Subpixel.factor**2].repeat_interleave(Subpixel.factor**2, 0)


def _prefix(parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A view of the prefix: one operation, whose gradient fills one table of zeros and not one for each dimension."""
    if tuple(parameter.shape) == shape:
        return parameter
    strides, start = parameter.stride(), parameter.storage_offset()
    if len(shape) == 4:
        start += sum((parameter.shape[axis] - shape[axis]) // 2 * strides[axis] for axis in (2, 3))
    return parameter.as_strided(shape, strides, start)


def _statistics(name: str, buffer: Tensor, device: torch.device) -> Tensor:
    if name.endswith("running_var"):
        return torch.ones(buffer.shape, dtype=buffer.dtype, device=device)
    return torch.zeros(buffer.shape, dtype=buffer.dtype, device=device)
