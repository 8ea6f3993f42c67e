"""A network as data: the convolutions of each block, before any tensor exists.

A family turns options into a `Plan`; the static net is built from it and its cost is counted from it, so that the two
cannot disagree. Counting a plan takes microseconds, which is what lets a search count instead of predict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgemtl.targets import INT8_CHANNEL_BYTES

__all__ = ["BlockPlan", "ConvPlan", "Cost", "Plan"]


@dataclass(frozen=True)
class ConvPlan:
    """One convolution (or, with `height` = `width` = 1 and `kernel` = 1, a linear layer) and the size of its output."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    height: int
    width: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.outputs * (self.inputs // self.groups) * self.kernel**2 * self.height * self.width

    @property
    def weights(self) -> int:
        """Weights without the bias."""
        return self.outputs * (self.inputs // self.groups) * self.kernel**2

    @property
    def params(self) -> int:
        """Weights and biases once batch normalisation is folded in."""
        return self.weights + self.outputs

    def bytes(self, precision: str, channel_bytes: int) -> int:
        """Bytes as they are stored: 4 a float; under INT8 1 a weight and `channel_bytes` an output channel.

        To these come the scale and the zero point of a rounded tensor, 5 bytes: two tensors are counted, what the
        convolution reads or writes and a sum or an enlargement after it.
        """
        return self.weights + channel_bytes * self.outputs + 10 if precision == "int8" else 4 * self.params


@dataclass(frozen=True)
class BlockPlan:
    """A block of the trunk (`task` is None) or of one task's decoder: what `kind` of block, and its convolutions."""

    name: str
    kind: str
    task: str | None
    convs: tuple[ConvPlan, ...]
    inputs: tuple[str, ...]
    residual: bool = False
    activation: str = "relu"


@dataclass(frozen=True)
class Cost:
    """Exact cost of one image: FLOPs (two a MAC), parameters and bytes of weights."""

    flops: int
    params: int
    weight_bytes: int


@dataclass(frozen=True)
class Plan:
    """A whole static net: input size (H, W) and its blocks in order of execution."""

    input_size: tuple[int, int]
    blocks: tuple[BlockPlan, ...]

    def path(self, tasks: Iterable[str]) -> tuple[BlockPlan, ...]:
        """The blocks that tasks run, in order: their own, and all that those read."""
        wanted, needed = set(tasks), set[str]()
        for block in reversed(self.blocks):
            if block.task in wanted or block.name in needed:
                needed |= {block.name, *block.inputs}
        return tuple(block for block in self.blocks if block.name in needed)

    def cost(
        self,
        precision: Mapping[str, str] | None = None,
        tasks: Iterable[str] | None = None,
        int8_channel_bytes: int = INT8_CHANNEL_BYTES,
    ) -> Cost:
        """Cost of the blocks that `tasks` (all by default) run; shared blocks count once. Blocks default to float.

        `int8_channel_bytes` is what a target stores for each output channel beside its INT8 weights.
        """
        flops = params = weight_bytes = 0
        for block in self.blocks if tasks is None else self.path(tasks):
            kind = (precision or {}).get(block.name, "float")
            for conv in block.convs:
                flops += 2 * conv.macs
                params += conv.params
                weight_bytes += conv.bytes(kind, int8_channel_bytes)
        return Cost(flops, params, weight_bytes)
