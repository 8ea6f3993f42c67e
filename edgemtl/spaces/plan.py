"""A network as data: the convolutions (and experts) of each block, before any tensor exists.

A family turns options into a `Plan`; the static net is built from it and its cost is counted from it, so that the two
cannot disagree. Counting a plan takes microseconds, which is what lets a search count instead of predict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgemtl.errors import UserError
from edgemtl.traits import USUAL_STORAGE, Storage
from edgemtl.units import Quantity

__all__ = [
    "BlockPlan",
    "Condition",
    "ConvPlan",
    "Cost",
    "ExpertsPlan",
    "Plan",
    "WeightPlan",
    "expert_capacity",
]

ROUTERS = "routers"
"""Where a block keeps its routers, one a task: they stay in float, since rounded gates choose other experts."""


@dataclass(frozen=True)
class ConvPlan:
    """One convolution (or, with `height` = `width` = 1 and `kernel` = 1, a linear layer) and the size of its output.

    Those of edgemtl's own nets have a bias, if only by the batch normalisation that is folded in. Weights of a layer
    with `four_bits` have four in "int4", which leaves any other layer in float.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    height: int
    width: int
    has_bias: bool = True
    four_bits: bool = False

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
        return self.weights + self.biases

    @property
    def biases(self) -> int:
        """One for each output channel, or none."""
        return self.outputs if self.has_bias else 0

    def bytes(self, precision: str, storage: Storage) -> int:
        """Bytes in a block's precision, as a target stores them."""
        if precision == "int4" and self.four_bits:
            return storage.of_four_bits(self.inputs, self.outputs, self.has_bias)
        return storage.of_layer(precision, self.weights, self.outputs, self.has_bias)


@dataclass(frozen=True)
class WeightPlan:
    """A table of parameters that is stored once for all its readers: those of `convs`, and `others`.

    A router's stay `floating` whatever the precision.
    """

    name: str
    convs: tuple[ConvPlan, ...]
    others: int = 0
    floating: bool = False

    @property
    def params(self) -> int:
        """Weights, biases and others."""
        return sum(conv.params for conv in self.convs) + self.others

    def bytes(self, precision: str, storage: Storage) -> int:
        """Bytes as a target stores them (`ConvPlan.bytes`); `others` are floats."""
        stored = "float" if self.floating else precision
        return sum(conv.bytes(stored, storage) for conv in self.convs) + 4 * self.others


@dataclass(frozen=True)
class Condition:
    """Task input of a gate that all tasks share: task number `task` of `tasks`; the gate scores `experts`."""

    task: int
    tasks: int
    experts: int


@dataclass(frozen=True)
class ExpertsPlan:
    """A mixture of experts as one task sees it: which of the layer's experts it may reach, and how many a token does.

    `numbers` are the experts' own numbers, in the order of the `router`'s outputs; each is the linear layers `first`
    and `second`, which are planned as if every token went through. `renormalise` divides the kept gates by their sum;
    `noise` is what training adds to the router's logits, as a standard deviation times the number of experts. Of one
    image's tokens an expert takes at most `capacity` times an even share (None: unlimited). Where
    there is a `condition` the router is a gate of all tasks, conditioned on the task; that is a constant of a static
    net, so it is counted as what is left of it, a router of the task's own.
    """

    router: ConvPlan
    numbers: tuple[int, ...]
    top_k: int
    first: ConvPlan
    second: ConvPlan
    renormalise: bool = False
    noise: float = 0.0
    condition: Condition | None = None
    capacity: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot route."""
        count = len(self.numbers)
        if not count:
            raise UserError(f"router {self.router.name} reaches no expert: keep one or more for every task")
        if not 1 <= self.top_k <= count:
            raise UserError(f"top-{self.top_k} routing among {count} experts: give 1 to {count}")

    @property
    def tokens(self) -> int:
        """How many tokens an image has."""
        return self.first.height * self.first.width

    @property
    def expert_capacity(self) -> int:
        """The most tokens of an image that an expert takes."""
        return expert_capacity(self.capacity, self.tokens, len(self.numbers), self.top_k)

    def tables(self, parameters: str) -> Iterator[WeightPlan]:
        """The router's parameters and each expert's, of a block that keeps them under this name."""
        yield WeightPlan(f"{parameters}.{ROUTERS}.{self.router.name}", (self.router,), floating=True)
        for number in self.numbers:
            yield WeightPlan(f"{parameters}.experts.{number}", (self.first, self.second))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image when no token is dropped and no slot is padded.

        Where tokens are routed, the sum of a token's expert outputs is a product with its gates.
        """
        routed = self.top_k < len(self.numbers)
        combined = self.top_k * self.second.outputs * self.second.height * self.second.width if routed else 0
        return self.router.macs + self.top_k * (self.first.macs + self.second.macs) + combined


def expert_capacity(capacity: float | None, tokens: int, experts: int, top_k: int) -> int:
    """Most tokens of an image that an expert takes: `capacity` times an even share, all of them for None."""
    return tokens if capacity is None else min(tokens, math.ceil(capacity * top_k * tokens / experts))


@dataclass(frozen=True)
class BlockPlan:
    """A block of the trunk (`task` is None) or of one task alone: what `kind` of block, and its convolutions.

    The first convolution reads what the block reads, each other one the one before it; where they are `parallel` each
    reads an input of its own, and their outputs are summed. A `residual` block adds its last input to what they give;
    the outputs of those that `tied` names are multiplied or added with each other, channel by channel. `shuffle` is by
    how much a sub-pixel step enlarges the sides: its channels become pixels. `enlarge` is by how much a merge enlarges
    what it adds to.

    Blocks with one `weights` name share their parameters: a layer after the first mixture of experts sees each task's
    own tokens through the same weights. `heads` of attention multiply activations with each other; such a block reads
    and gives tokens, and its convolutions are `queries`, `keys`, `values`, `proj` and those of its MLP. `others` are
    parameters beside weights and biases (layer norms, positions), so many for each channel that is read. Where tasks
    read a block of the trunk behind different ones, each has a copy of its own; `cut_from` is then the supernet's block
    whose parameters it begins with, and whose precision it takes. `output` is the one of its task's outputs that it
    gives, empty where it gives none. `products` are multiply-accumulates beside those of weights and of attention.
    """

    name: str
    kind: str
    task: str | None
    convs: tuple[ConvPlan, ...]
    inputs: tuple[str, ...]
    residual: bool = False
    activation: str = "relu"
    weights: str = ""
    heads: int = 0
    others: int = 0
    experts: ExpertsPlan | None = None
    cut_from: str = ""
    enlarge: int = 1
    shuffle: int = 1
    parallel: bool = False
    tied: tuple[str, ...] = ()
    output: str = ""
    products: int = 0

    @property
    def parameters(self) -> str:
        """The name under which the block's parameters are kept."""
        return self.weights or self.name

    @property
    def origin(self) -> str:
        """The name of its parameters in the supernet, and of its choice of precision."""
        return self.cut_from or self.parameters

    @property
    def tables(self) -> tuple[WeightPlan, ...]:
        """Every table of parameters that the block reads."""
        experts = self.experts.tables(self.parameters) if self.experts else ()
        return (WeightPlan(self.parameters, self.convs, self.others), *experts)

    @property
    def channels(self) -> int:
        """Output channels."""
        if self.heads:
            return self.convs[0].inputs
        return self.convs[-1].outputs // self.shuffle**2

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        routed = self.experts.macs if self.experts else 0
        return sum(conv.macs for conv in self.convs) + self.attention_macs + routed + self.products

    @property
    def attention_macs(self) -> int:
        """Those of the two products that attention makes of activations: scores, and values by scores."""
        return 2 * (self.convs[0].height * self.convs[0].width) ** 2 * self.convs[0].outputs if self.heads else 0


@dataclass(frozen=True)
class Cost:
    """Exact cost of one image: FLOPs (two a MAC), parameters, bytes of weights, and what a target counts itself."""

    flops: int
    params: int
    weight_bytes: int
    own: Mapping[str, float] = field(default_factory=dict)

    def amount(self, quantity: str) -> float:
        """Amount of a counted quantity, by name."""
        return float(self.own[quantity] if quantity in self.own else getattr(self, quantity))


@dataclass(frozen=True)
class Plan:
    """A whole static net: input size (H, W) and its blocks in order of execution."""

    input_size: tuple[int, int]
    blocks: tuple[BlockPlan, ...]

    @property
    def ends(self) -> set[str]:
        """Origins of the blocks that produce the tasks' outputs."""
        return {block.origin for block in self.blocks if block.output}

    def copies(self) -> dict[str, tuple[BlockPlan, ...]]:
        """The blocks that share each table of parameters, by its name."""
        copies: dict[str, tuple[BlockPlan, ...]] = {}
        for block in self.blocks:
            copies[block.parameters] = (*copies.get(block.parameters, ()), block)
        return copies

    def standing_alone(self) -> Plan:
        """The plan whose copied blocks are blocks of their own, as once they are trained."""
        return replace(self, blocks=tuple(replace(block, cut_from="") for block in self.blocks))

    def path(self, tasks: str | Iterable[str]) -> tuple[BlockPlan, ...]:
        """The blocks that tasks (a string is one) run, in order: their own, and all that those read."""
        wanted, needed = {tasks} if isinstance(tasks, str) else set(tasks), set[str]()
        for block in reversed(self.blocks):
            if block.task in wanted or block.name in needed:
                needed |= {block.name, *block.inputs}
        return tuple(block for block in self.blocks if block.name in needed)

    def cost(
        self,
        precision: Mapping[str, str] | None = None,
        tasks: str | Iterable[str] | None = None,
        storage: Storage = USUAL_STORAGE,
        quantities: Iterable[Quantity] = (),
    ) -> Cost:
        """Cost of the blocks that `tasks` (all by default) run; shared blocks count once. Blocks default to float.

        `storage` is a target's way of storing parameters, `quantities` are those that it counts itself.

        >>> from edgemtl.spaces import load_space
        >>> from edgemtl.tasks import make_task
        >>> tasks = [make_task("depth", "depth"), make_task("normals", "normals")]
        >>> plan = load_space("cnn", tasks).smallest().plan
        >>> plan.cost(tasks="depth").flops < plan.cost().flops
        True
        """
        flops = params = weight_bytes = 0
        counted: set[str] = set()
        blocks = self.blocks if tasks is None else self.path(tasks)
        for block in blocks:
            kind = (precision or {}).get(block.parameters, "float")
            flops += 2 * block.macs
            fresh = [table for table in block.tables if table.name not in counted]
            params += sum(table.params for table in fresh)
            weight_bytes += sum(table.bytes(kind, storage) for table in fresh)
            counted.update(table.name for table in fresh)
        own = {each.name: each.count(blocks, precision or {}) for each in quantities if each.count is not None}
        return Cost(flops, params, weight_bytes, own)
