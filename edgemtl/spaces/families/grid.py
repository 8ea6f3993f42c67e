"""The grid family: a trunk of parallel resolutions, of whose blocks and fusion edges every task keeps its own.

The space is FBNetV5's (Wu et al. 2021): paths at strides 4, 8, 16 and 32 run side by side, and between two stages each
path may add what the others found (HRNet's fusion, Wang et al. 2019). Only the topology is chosen: a mask for each
task over blocks, edges, and the paths that its decoder reads; channels and kernels are what the YAML says. Ours: every
choice adds to the path it stands in (`x + f(x)`, nothing after the sum), so that to skip it is exactly to leave `x`
as it is, and no mask can cut a task off; and the finest path is read for every task's maps, the coarsest for its
vectors.

Tasks share what they compute alike: a block is computed once for all that keep the same blocks before it. Where they do
not, each has a copy of its own, which begins with the supernet's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from edgemtl.errors import UserError
from edgemtl.schema import Strict
from edgemtl.spaces.choices import Choice, Values
from edgemtl.spaces.families.cnn import (
    DecoderSpec,
    Repeats,
    Width,
    decoder_slots,
    dense_decoder,
    dense_outputs,
    pooled_decoder,
    pooled_outputs,
)
from edgemtl.spaces.plan import BlockPlan, ConvPlan, Plan
from edgemtl.spaces.slots import Slot
from edgemtl.tasks import Task

__all__ = ["KEEP", "SKIP", "GridSpec", "grid_blocks", "grid_choices", "grid_idle", "grid_plan", "mask_name"]

SKIP, KEEP = "skip", "keep"
_STEM_STRIDE = 2


def _eight(width: int) -> int:
    if width % 8:
        raise ValueError(f"width {width} must be a multiple of 8")
    return width


GridWidth = Annotated[Width, AfterValidator(_eight)]


class PathSpec(Strict):
    """One resolution: its channels, and the kind of its residual blocks (as in the CNN family)."""

    width: GridWidth
    block: Literal["fused", "depthwise"] = "fused"


class GridSpec(Strict):
    """The part of a space's YAML that this family reads.

    `paths` are at strides 4, 8, 16, …; each runs `blocks` residual blocks in each of `stages` stages, `expand` times as
    wide inside.
    """

    activation: Literal["relu", "relu6"] = "relu"
    stem: GridWidth
    paths: tuple[PathSpec, ...] = Field(min_length=2, max_length=4)
    stages: Repeats
    blocks: Repeats
    expand: Repeats
    decoder: DecoderSpec

    @model_validator(mode="after")
    def _fixed(self) -> GridSpec:
        if len(self.decoder.width) > 1 or len(self.decoder.depth) > 1:
            raise ValueError("a grid chooses the topology only: give the decoder one width and one depth")
        return self


@dataclass(frozen=True)
class _Step:
    """One addition to a path: block number `number` of a stage, or an edge that brings in the path `source`."""

    name: str
    path: int
    source: int | None = None


def _opening(path: int) -> str:
    return f"open{path}"


def _steps(spec: GridSpec) -> Iterator[list[_Step]]:
    """Steps in the order in which they run: those in one list read what was there before any of them."""
    paths = range(len(spec.paths))
    for stage in range(1, spec.stages + 1):
        if stage > 1:
            yield [_Step(f"f{stage}p{a}to{b}", b, a) for b in paths for a in paths if a != b]
        for number in range(1, spec.blocks + 1):
            yield [_Step(f"s{stage}p{path}_{number}", path) for path in paths]


def _trunk(spec: GridSpec) -> list[str]:
    openings = [_opening(path) for path in range(len(spec.paths))]
    return ["stem", *openings, *(step.name for steps in _steps(spec) for step in steps)]


def _read(path: int) -> str:
    return f"read{path}"


def mask_name(task: str, position: str) -> str:
    """The choice of a task to keep or skip a block, an edge or a path's end."""
    return f"{task}.{position}"


def grid_choices(spec: GridSpec, tasks: Sequence[Task]) -> tuple[Choice, ...]:
    """A mask for every task: `TASK.BLOCK`, `TASK.EDGE`, and `TASK.readP` for the paths that a dense decoder may leave.

    Raises `UserError` where a task is called like a part of the trunk.
    """
    trunk = _trunk(spec)
    for task in tasks:
        if task.name in trunk:
            raise UserError(f"task {task.name!r} is called like a part of the trunk ({', '.join(trunk)}): rename it")
    choices = []
    for task in tasks:
        names = [step.name for steps in _steps(spec) for step in steps]
        names += [_read(path) for path in range(1, len(spec.paths))] if dense_outputs(task) else []
        choices += [Choice(mask_name(task.name, name), (SKIP, KEEP), task.name, mask_of=name) for name in names]
    return tuple(choices)


def grid_blocks(spec: GridSpec, tasks: Sequence[Task]) -> dict[str, Slot]:
    """Every block that some design has; `grid_idle` lists the trunk blocks that a design lacks.

    Each resolution is a row; its first convolution stands in column 0, and all edges between two stages in one.
    """
    rows = [f"1/{4 << path}" for path in range(len(spec.paths))]
    slots = {"stem": Slot(stage="stem")}
    slots |= {_opening(path): Slot(stage=row, column=0) for path, row in enumerate(rows)}
    for column, steps in enumerate(_steps(spec), 1):
        for step in steps:
            slots[step.name] = Slot(stage=rows[step.path], column=column, link=step.source is not None)
    return slots | decoder_slots(tasks)


@dataclass(frozen=True)
class _Wire:
    """One value of the trunk: the block that gives it, and the numbers of the values that this one reads."""

    block: str
    path: int
    reads: tuple[int, ...]


class _Wiring:
    """The values of all tasks' trunks; tasks that do the same to the same value have one value."""

    def __init__(self, spec: GridSpec) -> None:
        self.spec = spec
        self.wires: list[_Wire] = []
        self._numbers: dict[_Wire, int] = {}

    def value(self, block: str, path: int, *reads: int) -> int:
        wire = _Wire(block, path, reads)
        if wire not in self._numbers:
            self._numbers[wire] = len(self.wires)
            self.wires.append(wire)
        return self._numbers[wire]

    def ends(self, task: Task, values: Values) -> list[int]:
        """The last value of each path under a task's mask."""
        source, now = self.value("stem", 0), list[int]()
        for path in range(len(self.spec.paths)):
            source = self.value(_opening(path), path, source)
            now.append(source)
        for steps in _steps(self.spec):
            before = list(now)
            for step in steps:
                if values.get(mask_name(task.name, step.name), SKIP) == KEEP:
                    others = () if step.source is None else (before[step.source],)
                    now[step.path] = self.value(step.name, step.path, *others, now[step.path])
        return now

    def upstream(self, ends: Sequence[int]) -> list[int]:
        """The numbers of all values that `ends` depend on, in order of execution."""
        wanted = set(ends)
        for number in range(max(ends), -1, -1):
            if number in wanted:
                wanted.update(self.wires[number].reads)
        return sorted(wanted)


def _read_ends(spec: GridSpec, task: Task, values: Values, ends: Sequence[int]) -> dict[int, int]:
    """The paths that a task's decoders read, with their last values."""
    paths = {*_dense_paths(spec, task, values), *([len(ends) - 1] if pooled_outputs(task) else [])}
    return {path: ends[path] for path in sorted(paths)}


def _dense_paths(spec: GridSpec, task: Task, values: Values) -> list[int]:
    """The paths that the decoder of a task's dense outputs reads; pooled ones read the coarsest."""
    if not dense_outputs(task):
        return []
    coarser = range(1, len(spec.paths))
    return [0, *(path for path in coarser if values.get(mask_name(task.name, _read(path)), SKIP) == KEEP)]


def grid_idle(spec: GridSpec, tasks: Sequence[Task], values: Values) -> list[str]:
    """Choices without effect: masks over blocks that nothing leads from to the task, and precisions of no block."""
    wiring, idle, run = _Wiring(spec), list[str](), set[str]()
    for task in tasks:
        reads = _read_ends(spec, task, values, wiring.ends(task, values))
        reached = {wiring.wires[number].block for number in wiring.upstream(list(reads.values()))}
        run |= reached
        idle += [
            mask_name(task.name, step.name) for steps in _steps(spec) for step in steps if step.name not in reached
        ]
    return idle + [f"{name}.precision" for name in _trunk(spec) if name not in run]


def grid_plan(spec: GridSpec, tasks: Sequence[Task], values: Values, size: tuple[int, int]) -> Plan:
    """The net that `values` mean at the input size (H, W)."""
    wiring = _Wiring(spec)
    reads = {task.name: _read_ends(spec, task, values, wiring.ends(task, values)) for task in tasks}
    users: dict[int, list[str]] = {}
    for task in tasks:
        for number in wiring.upstream(list(reads[task.name].values())):
            users.setdefault(number, []).append(task.name)
    names = _names(wiring, users)
    blocks: dict[int, BlockPlan] = {}
    for number in sorted(users):
        wire = wiring.wires[number]
        inputs = tuple(names[read] for read in wire.reads) or ("image",)
        owner = users[number][0] if len(users[number]) == 1 < len(tasks) else None
        block = _trunk_block(spec, wire, [wiring.wires[read].path for read in wire.reads], size)
        copied = wire.block if names[number] != wire.block else ""
        blocks[number] = replace(block, name=names[number], task=owner, inputs=inputs, cut_from=copied)
    decoders = []
    for task in tasks:
        ends = {path: blocks[number] for path, number in reads[task.name].items()}
        decoders += _decoder(spec, task, values, ends, size)
    return Plan(size, (*blocks.values(), *decoders))


def _names(wiring: _Wiring, users: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """A name for each value: its block's, and its tasks' where the block has several copies."""
    copies: dict[str, int] = {}
    for number in users:
        copies[wiring.wires[number].block] = copies.get(wiring.wires[number].block, 0) + 1
    names = {}
    for number, tasks in users.items():
        block = wiring.wires[number].block
        names[number] = block if copies[block] == 1 else "__".join((block, *tasks))
    return names


def _trunk_block(spec: GridSpec, wire: _Wire, sources: Sequence[int], size: tuple[int, int]) -> BlockPlan:
    """The plan of a trunk block, its name and wiring left to be filled in."""
    if wire.block == "stem":
        height, width = (side // _STEM_STRIDE for side in size)
        conv = ConvPlan("conv", 3, spec.stem, 3, 2, 1, height, width)
        return BlockPlan("stem", "conv", None, (conv,), (), activation=spec.activation)
    path, height, width = spec.paths[wire.path], *(side >> wire.path + 2 for side in size)
    if wire.block == _opening(wire.path):
        inputs = spec.paths[wire.path - 1].width if wire.path else spec.stem
        conv = ConvPlan("conv", inputs, path.width, 3, 2, 1, height, width)
        return BlockPlan(wire.block, "conv", None, (conv,), (), activation=spec.activation)
    if len(sources) > 1:
        return _edge(spec, wire, sources[0], size)
    hidden = path.width * spec.expand
    last = ConvPlan("project" if path.block == "fused" else "pointwise", hidden, path.width, 1, 1, 1, height, width)
    if path.block == "fused":
        convs: tuple[ConvPlan, ...] = (ConvPlan("dense", path.width, hidden, 3, 1, 1, height, width), last)
    else:
        expand = ConvPlan("expand", path.width, hidden, 1, 1, 1, height, width)
        convs = (expand, ConvPlan("depthwise", hidden, hidden, 3, 1, hidden, height, width), last)
    return BlockPlan(wire.block, path.block, None, convs, (), True, spec.activation)


def _edge(spec: GridSpec, wire: _Wire, source: int, size: tuple[int, int]) -> BlockPlan:
    """From a coarser path 1x1 and enlarged, from a finer one 3x3 with the stride between them."""
    up = source > wire.path
    height, width = (side >> (source if up else wire.path) + 2 for side in size)
    kernel, stride = (1, 1) if up else (3, 2 ** (wire.path - source))
    conv = ConvPlan("conv", spec.paths[source].width, spec.paths[wire.path].width, kernel, stride, 1, height, width)
    enlarge = 2 ** (source - wire.path) if up else 1
    return BlockPlan(wire.block, "merge", None, (conv,), (), True, "none", enlarge=enlarge)


def _decoder(
    spec: GridSpec, task: Task, values: Values, reads: Mapping[int, BlockPlan], size: tuple[int, int]
) -> list[BlockPlan]:
    """A task's own blocks, which read these ends of paths."""
    paths = _dense_paths(spec, task, values)
    taps = [(reads[path].name, spec.paths[path].width, size[0] >> path + 2, size[1] >> path + 2) for path in paths]
    dense = dense_decoder(spec.decoder, task, values, taps, [f"p{path}" for path in paths])
    return dense + pooled_decoder(spec.decoder, task, values, reads[max(reads)])
