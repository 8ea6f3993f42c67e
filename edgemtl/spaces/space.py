"""Spaces and designs: what a search may choose, and one choice of everything.

A space is a YAML file in `nas/`, read for given tasks: its family says which architecture choices it means, and every
block adds a choice of precision. A design is canonical: a choice that another one switches off holds its first
option, so that equal nets are equal designs and none is measured twice.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemtl.blocks import BlockRecord
from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.files.json import check_schema
from edgemtl.files.share import find_shared, list_shared
from edgemtl.files.yaml import read_yaml
from edgemtl.schema import first_problem
from edgemtl.spaces.choices import Choice, Option
from edgemtl.spaces.family import Family, find_family
from edgemtl.spaces.narrow import prunable_channels, with_channels
from edgemtl.spaces.plan import Cost, Plan
from edgemtl.spaces.records import block_records
from edgemtl.tasks import Task
from edgemtl.traits import USUAL_STORAGE, Storage, TargetTraits
from edgemtl.units import Quantity

__all__ = ["Design", "Space", "load_space", "space_names"]

ENGINE = "engine.precision"
SCHEMA = "edgemtl.space/1"
FILE_LIMIT_BYTES = 64 * 1024
SIDE_LIMIT = 8192
PARAMS_LIMIT = 10**9
_SPREAD = 0.35


@dataclass(frozen=True)
class Design(Mapping[str, Option]):
    """One option for each choice of a space, canonical and hashable; JSON through `as_json`.

    `pruned` are the channels of convolutions that pruning made narrower than the options say, by name and in the plan's
    order: as a mapping a design gives its options alone.

    >>> from edgemtl.tasks import make_task
    >>> space = load_space("cnn", [make_task("depth", "depth")])
    >>> design = space.design({**space.smallest(), "s1.width": 32})
    >>> design["s1.width"], design == space.smallest()
    (32, False)
    """

    space: Space = field(repr=False, compare=False, hash=False)
    options: tuple[tuple[str, Option], ...]
    pruned: tuple[tuple[str, int], ...] = ()

    def __getitem__(self, name: str) -> Option:
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self.options)

    @cached_property
    def _table(self) -> dict[str, Option]:
        return dict(self.options)

    @cached_property
    def plan(self) -> Plan:
        """The static net that this design means."""
        whole = self.space.plan(self)
        return with_channels(whole, dict(self.pruned)) if self.pruned else whole

    @cached_property
    def precision(self) -> dict[str, str]:
        """Precision of the engine and of every block that this design has."""
        chosen = {c.precision_of: str(self[c.name]) for c in self.space.choices if c.precision_of}
        blocks = {block.parameters: chosen.get(block.origin, "float") for block in self.plan.blocks}
        return {"engine": chosen.get("engine", "fp32"), **blocks}

    def in_float(self) -> Design:
        """The same architecture, with every block and the engine in float."""
        largest = self.space.largest()
        plain = {choice.name: largest[choice.name] for choice in self.space.choices if is_precision(choice)}
        return self.space.design({**self, **plain}, self.pruned)

    def cost(self, tasks: str | Sequence[str] | None = None) -> Cost:
        """Exact FLOPs, parameters, bytes, and what the space's target counts itself, of what `tasks` (all) run."""
        scope = tasks if tasks is None or isinstance(tasks, str) else tuple(tasks)
        if scope not in self._costs:
            self._costs[scope] = self.plan.cost(self.precision, tasks, self.space.storage, self.space.quantities)
        return self._costs[scope]

    @cached_property
    def _costs(self) -> dict[str | tuple[str, ...] | None, Cost]:
        """Costs that were counted, by their tasks: a search reads each of them for several limits and predictors."""
        return {}

    @cached_property
    def blocks(self) -> tuple[BlockRecord, ...]:
        """Records of the blocks for reports, in order of execution; they sum to the design's cost."""
        space = self.space
        slots = space.family.blocks(space.spec, space.tasks)
        tasks = [task.name for task in space.tasks]
        return block_records(self.plan, tasks, self.precision, slots, space.storage)

    def path(self, task: str) -> dict[str, str]:
        """The blocks that one task runs, with their precisions."""
        if task not in (names := [t.name for t in self.space.tasks]):
            raise unknown_name("task", task, names)
        return {block.parameters: self.precision[block.parameters] for block in self.plan.path([task])}

    @cached_property
    def key(self) -> str:
        """A short hash that names this design's files."""
        content = [self.options, self.pruned] if self.pruned else self.options
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, Option]:
        """The options, and `BLOCK.CONVOLUTION.channels` of what was pruned."""
        return {**self._table, **{f"{name}.channels": count for name, count in self.pruned}}


@dataclass(frozen=True)
class Space:
    """The named choices of one network family for a list of tasks.

    `size` is the input's (H, W). `choices` hold every architecture choice, then a precision for every block, then the
    engine's. `storage` is how the target that the space is for stores parameters, and `quantities` are those that it
    counts itself; `left_out` are options of choices whose blocks that
    target lacks. `fingerprint` is a hash of all that decides what a design means.
    """

    name: str
    family: Family
    spec: Any
    tasks: tuple[Task, ...]
    size: tuple[int, int]
    choices: tuple[Choice, ...]
    storage: Storage = USUAL_STORAGE
    quantities: tuple[Quantity, ...] = ()
    left_out: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)

    def design(self, values: Mapping[str, Option], pruned: Iterable[tuple[str, int]] = ()) -> Design:
        """The canonical design of some options; raises `UserError` for an unknown choice or option.

        `pruned` makes it narrower (see `Design`); raises `UserError` too where its net has no such channels.
        """
        choice_of = {choice.name: choice for choice in self.choices}
        for name, option in values.items():
            if name not in choice_of:
                raise unknown_name(f"choice in space {self.name}:", name, choice_of)
            if (type(option), option) not in [(type(allowed), allowed) for allowed in choice_of[name].options]:
                raise UserError(
                    f"choice {name} cannot be {brief(option)}: allowed: {', '.join(map(str, choice_of[name].options))}"
                )
        full = {c.name: values.get(c.name, c.options[0]) for c in self.choices}
        for choice in self.choices:
            if not choice.active(full):
                full[choice.name] = choice.options[0]
        first = {choice.name: choice.options[0] for choice in self.choices}
        full |= {name: first[name] for name in self.family.idle(self.spec, self.tasks, full) if name in first}
        counts = dict(pruned)
        if not counts:
            return Design(self, tuple(full.items()))
        whole = self.plan(full)
        with_channels(whole, counts)
        fewer = {name: counts[name] for name, most in prunable_channels(whole).items() if counts.get(name, most) < most}
        return Design(self, tuple(full.items()), tuple(fewer.items()))

    def largest(self, precision: str = "float") -> Design:
        """The largest net, every block in `precision`."""
        return self.design(
            {
                c.name: precision if _is_block_precision(c) and precision in c.options else _largest_option(c)
                for c in self.choices
            }
        )

    def smallest(self) -> Design:
        """The net with every architecture choice at its first option, in float."""
        return self.design({})

    def random(self, rng: random.Random) -> Design:
        """Any design: precisions drawn uniformly, the architecture around a size that is drawn first.

        Independent draws of fifty choices would all be of middling size; so small and large nets are as likely.
        """
        size, values = rng.random(), {}
        for choice in self.choices:
            last = len(choice.options) - 1
            position = rng.random() if is_precision(choice) else min(1.0, max(0.0, rng.gauss(size, _SPREAD)))
            values[choice.name] = choice.options[round(position * last)]
        return self.design(values)

    def middle(self) -> Design:
        """Every architecture choice at its middle option, in float."""
        return self.design(
            {c.name: c.options[0] if is_precision(c) else c.options[len(c.options) // 2] for c in self.choices}
        )

    def uniform(self, design: Design) -> list[Design]:
        """A design's architecture in every uniform precision of the space: all blocks alike, for each engine's.

        A block that cannot have a precision has its first one.
        """
        blocks = [c for c in self.choices if _is_block_precision(c)]
        kinds = sorted({str(option) for c in blocks for option in c.options}) or ["float"]
        engines = next((c.options for c in self.choices if c.name == ENGINE), ("fp32",))
        design_of = {}
        for kind in kinds:
            for engine in engines:
                alike = {c.name: kind if kind in c.options else c.options[0] for c in blocks}
                values = {**design, **alike} | ({ENGINE: engine} if ENGINE in design else {})
                made = self.design(values, design.pruned)
                design_of[made.key] = made
        return list(design_of.values())

    def encode(self, design: Design) -> list[int]:
        """The genome: each choice's index into its options."""
        return [choice.options.index(design[choice.name]) for choice in self.choices]

    def decode(self, genome: Sequence[int]) -> Design:
        """The canonical design of a genome; `encode` of it may differ from `genome` where a gene has no effect."""
        return self.design({c.name: c.options[int(gene)] for c, gene in zip(self.choices, genome, strict=True)})

    def plan(self, values: Mapping[str, Option]) -> Plan:
        """The static net that options mean."""
        return self.family.plan(self.spec, self.tasks, values, self.size)

    @property
    def architecture(self) -> tuple[Choice, ...]:
        """The choices that decide which net is meant, without those of precision."""
        return tuple(choice for choice in self.choices if not is_precision(choice))

    @property
    def stages(self) -> dict[str, str]:
        """The stage of every block of the trunk, by the block's origin (`Slot.stage`)."""
        slots = self.family.blocks(self.spec, self.tasks)
        return {name: slot.stage for name, slot in slots.items() if slot.task is None and slot.stage is not None}

    def for_target(self, traits: TargetTraits) -> Space:
        """The space with the precisions and blocks that a target honours only, weights counted as it stores them.

        Raises `UserError` where every design has blocks that it lacks.
        """
        left_out = {
            choice.name: tuple(option for option in choice.options if option in traits.lacking)
            for choice in self.choices
            if choice.kind_of and set(choice.options) & set(traits.lacking)
        }
        choices = [_honoured(choice, traits) for choice in self.choices]
        space = replace(
            self,
            choices=tuple(c for c in choices if len(c.options) > 1 or c.name in left_out),
            storage=traits.storage,
            quantities=traits.quantities,
            left_out=left_out,
        )
        _check_blocks(space, traits)
        return space

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what a supernet's weights depend on: the family's specification, the tasks, the kinds of block."""
        tasks = [(t.name, t.kind, t.channels) for t in self.tasks]
        kinds = {block.name: block.kind for block in self.plan(self.largest()).blocks}
        content = json.dumps([self.spec.model_dump(mode="json"), tasks, kinds], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def is_precision(choice: Choice) -> bool:
    """Whether a choice is about precision rather than architecture."""
    return bool(choice.precision_of)


def _honoured(choice: Choice, traits: TargetTraits) -> Choice:
    """A choice with the options that a target has; of those that it has none of, the first."""
    if choice.kind_of:
        options = tuple(option for option in choice.options if option not in traits.lacking)
    elif is_precision(choice):
        honoured = traits.engine_precisions if choice.name == ENGINE else traits.block_precisions
        options = tuple(option for option in choice.options if option in honoured)
    else:
        return choice
    return replace(choice, options=options or choice.options[:1])


def _check_blocks(space: Space, traits: TargetTraits) -> None:
    """`UserError` where even the smallest design has blocks that a target lacks."""
    if not traits.lacking:
        return
    words = {word for block in space.smallest().plan.blocks for word in (block.kind, block.activation)}
    if lacking := sorted(words & set(traits.lacking)):
        raise UserError(
            f"target {traits.name} has no {' and no '.join(lacking)}, which every design of space {space.name} has: "
            "search another space, as --space cnn, or for another target"
        )


def _is_block_precision(choice: Choice) -> bool:
    return choice.precision_of not in ("", "engine")


def _largest_option(choice: Choice) -> Option:
    return choice.options[0] if is_precision(choice) else choice.options[-1]


def space_names() -> list[str]:
    """Names of the spaces that ship with edgemtl and of those in the working directory's `nas/`."""
    return list_shared("nas")


BlockPrecision = Literal["float", "int12", "int10", "int8"]
"""Precisions of a block, the most exact first."""
Side = Annotated[int, Field(ge=1, le=SIDE_LIMIT)]


class _File(BaseModel):
    """Fields of every space's file, besides the family's own part under the family's name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    schema_: str = Field(alias="schema")
    family: str
    input: tuple[Side, Side]
    precision: Annotated[tuple[BlockPrecision, ...], Field(min_length=1)] = ("float", "int8")


def load_space(name: str, tasks: Sequence[Task], size: tuple[int, int] | None = None) -> Space:
    """Read a space by name (or a path to its YAML) for `tasks`, at the input size (H, W) or its own default.

    Raises `UserError` for an unknown name, a wrong key or value (with its place), or a size that the family cannot
    take.

    >>> from edgemtl.tasks import make_task
    >>> space = load_space("cnn", [make_task("depth", "depth")], size=(96, 128))
    >>> space.smallest().cost().flops < space.largest().cost().flops
    True
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else find_shared("nas", f"{name}.yaml")
    if path is None or not path.is_file():
        raise unknown_name("space", name, space_names())
    if not tasks:
        raise UserError(f"space {name} needs at least one task")
    raw = _read_yaml(path)
    check_schema(raw, f"space {path}", SCHEMA, "compare it with a shipped space")
    try:
        head = _File.model_validate(raw)
        family = find_family(head.family)
        spec = family.spec.model_validate(raw.get(head.family))
    except ValidationError as error:
        raise UserError(f"space {path}: {first_problem(error)}") from error
    keys = {"schema", "family", "input", "precision", head.family}
    if unknown := sorted(map(str, raw.keys() - keys)):
        raise unknown_name(f"key in space {path}:", unknown[0], keys)
    chosen = size or head.input
    if any(not 0 < side <= SIDE_LIMIT or side % family.size_multiple for side in chosen):
        raise UserError(
            f"input size {chosen[0]}x{chosen[1]}: both sides must be positive multiples of {family.size_multiple}, "
            f"{SIDE_LIMIT} at most"
        )
    choices = (*family.choices(spec, tasks), *_precision_choices(family, spec, tasks, head.precision))
    space = Space(path.stem, family, spec, tuple(tasks), chosen, choices)
    if (params := space.largest().cost().params) > PARAMS_LIMIT:
        raise UserError(
            f"space {path}: its largest net has {params:,} parameters, {PARAMS_LIMIT:,} at most: give smaller options"
        )
    return space


def _precision_choices(family: Family, spec: Any, tasks: Sequence[Task], options: tuple[str, ...]) -> list[Choice]:
    slots = family.blocks(spec, tasks)
    choices = [Choice(f"{name}.precision", options, slot.task, slot.active_if, name) for name, slot in slots.items()]
    return [*choices, Choice(ENGINE, ("fp32", "bf16", "fp16"), precision_of="engine")]


def _read_yaml(path: Path) -> dict[str, Any]:
    _, raw = read_yaml(path, "space", FILE_LIMIT_BYTES)
    if not isinstance(raw, dict):
        raise UserError(f"space {path} must be a mapping with schema, family, input and the family's own part")
    return raw
