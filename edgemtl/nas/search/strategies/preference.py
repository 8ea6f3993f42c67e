"""From a preference over tasks and a budget to widths, in milliseconds: control after training.

The rule is ECMT's (Aich et al. 2023): the decoder of a more preferred task gets the larger share, and the encoder is
searched within the rest of the budget. No code of it is public, and how it is done here is ours: ladders of decoders,
encoders found once by greedy descents, quality predicted by the supernet's sensitivity map, every cost counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import Limit, Sensitivity, too_tight
from edgemtl.spaces import ENGINE, BlockPlan, Choice, Design, Option, Plan, Space, is_precision
from edgemtl.traits import Storage
from edgemtl.units import Quantity

__all__ = ["PreferenceTable", "make_table", "ranked_for", "widths_for"]

Array = NDArray[np.float64]
Values = Mapping[str, Option]

_COUNTED = ("flops", "params", "weight_bytes")
_RECOUNTS = 20
_FLOOR_WEIGHT = 10.0
"""A point below a floor weighs as much as so many points of quality."""


@dataclass(frozen=True)
class PreferenceTable:
    """All that a preference needs to be answered, made once for a space and a supernet's sensitivity map.

    `ladders` hold each task's decoders, smallest first: no rung has a choice below that of the rung before. `encoders`
    are options of the trunk, the smallest first. Quality is the logarithm of what is left of a task's score: of
    encoders (encoders, tasks), and of each task's rungs. Costs have a column for each of `quantities` in each of
    `kinds` of precision: `trunk` maps "" and each task to what its path has of the trunk (encoders, columns),
    `decoders` each task to (encoders, rungs, columns).
    """

    space: Space
    ladders: Mapping[str, tuple[Values, ...]]
    encoders: tuple[Values, ...]
    quality: Array
    rung_quality: Mapping[str, Array]
    kinds: tuple[str, ...]
    quantities: tuple[str, ...]
    trunk: Mapping[str, Array]
    decoders: Mapping[str, Array]

    def taken(self, limit: Limit, rungs: Mapping[str, int], kind: str) -> Array:
        """Amount of a limit that each encoder takes, with these rungs in one precision: (encoders,)."""
        column = len(self.quantities) * self.kinds.index(kind) + self.quantities.index(limit.budget.quantity)
        scope = limit.budget.task
        own = (self.decoders[name][:, rungs[name], column] for name in (rungs if scope is None else [scope]))
        total: Array = np.add.reduce([self.trunk[scope or ""][:, column], *own])
        return total

    def changes(self, rungs: Mapping[str, int]) -> Array:
        """Expected relative change of every task with each encoder: (encoders, tasks), better is positive."""
        own = [self.rung_quality[task.name][rungs[task.name]] for task in self.space.tasks]
        changes: Array = np.expm1(self.quality + np.array(own))
        return changes

    def shares(self, preference: Mapping[str, float]) -> Array:
        """The preference on the simplex, in the order of the tasks."""
        weights = np.array([float(preference.get(task.name, 1.0)) for task in self.space.tasks])
        shares: Array = weights / weights.sum()
        return shares


def widths_for(
    table: PreferenceTable,
    preference: Mapping[str, float],
    limits: Sequence[Limit],
    drops: Mapping[str, float] | None = None,
    precision: Values | None = None,
) -> Design:
    """The design for a preference (weights of tasks) within counted limits, in milliseconds; see `ranked_for`."""
    return next(_answers(table, preference, limits, drops, precision))


def ranked_for(
    table: PreferenceTable,
    preference: Mapping[str, float],
    limits: Sequence[Limit],
    drops: Mapping[str, float] | None = None,
    precision: Values | None = None,
) -> list[Design]:
    """The design for a preference, then its neighbours: all decoders larger or smaller, best expected first.

    A task's rung is its share of the preference, times the number of tasks, times a scale that the limits alone decide
    (where equal shares promise most): so it never falls as the preference rises. Where the smallest encoder does not
    fit, the least preferred decoder shrinks first. The encoder is the one with the best weighted quality that fits;
    `drops` are the fractions that tasks with floors may lose, which count as far as they are predicted. `precision`
    holds options of precision choices (none: float).

    Every design keeps every limit, counted exactly. Raises `UserError` for a limit that is measured (ms), and for one
    that the smallest design exceeds, saying what that takes.
    """
    design_of = {design.key: design for design in _answers(table, preference, limits, drops, precision)}
    return list(design_of.values())


def _answers(
    table: PreferenceTable,
    preference: Mapping[str, float],
    limits: Sequence[Limit],
    drops: Mapping[str, float] | None,
    precision: Values | None,
) -> Iterator[Design]:
    """One design after another; at least one."""
    for limit in limits:
        if not limit.exact:
            raise UserError(
                f"budget {limit.budget.text!r} is measured, not counted: give FLOPs, MACs or MB, "
                "or search with --strategy preference, which measures"
            )
    chooser = _Chooser(table, tuple(limits), dict(drops or {}), dict(precision or {}))
    equal = np.full(len(table.space.tasks), 1 / len(table.space.tasks))
    scale = max(_scales(table), key=lambda scale: chooser.expected(equal, scale))
    shares = table.shares(preference)
    first = chooser.designs(shares, scale) or [chooser.smallest()]
    yield from first
    others = [other for other in _scales(table) if other != scale]
    for other in sorted(others, key=lambda other: -chooser.expected(shares, other)):
        yield from chooser.designs(shares, other)


def _scales(table: PreferenceTable) -> list[float]:
    """Shares of the longest ladder that equal preferences may get."""
    steps = max(len(ladder) for ladder in table.ladders.values()) - 1
    return [number / steps for number in range(1, steps + 1)] or [1.0]


@dataclass(frozen=True)
class _Chooser:
    """Limits and allowed drops over a table, in one precision."""

    table: PreferenceTable
    limits: tuple[Limit, ...]
    drops: Mapping[str, float]
    precision: Values

    @property
    def _kind(self) -> str:
        return next((kind for kind in self.table.kinds if kind in self.precision.values()), self.table.kinds[0])

    def expected(self, shares: Array, scale: float) -> float:
        """The weighted quality that is expected at a scale; minus infinity where nothing fits."""
        rungs = self._rungs(shares, scale)
        return -np.inf if rungs is None else float(self._scores(shares, rungs).max())

    def designs(self, shares: Array, scale: float) -> list[Design]:
        """The best design at a scale that keeps every limit when it is counted; none where nothing fits."""
        rungs = self._rungs(shares, scale)
        if rungs is None:
            return []
        scores = self._scores(shares, rungs)
        for encoder in np.argsort(-scores, kind="stable")[:_RECOUNTS]:
            if np.isfinite(scores[encoder]):
                design = self._design(int(encoder), rungs)
                if all(limit.count(design) <= limit.value for limit in self.limits):
                    return [design]
        return []

    def smallest(self) -> Design:
        """The smallest design where it keeps every limit; else a `UserError` with what it takes of one."""
        design = self._design(0, dict.fromkeys(self.table.ladders, 0))
        for limit in self.limits:
            if limit.count(design) > limit.value:
                raise UserError(too_tight(limit.budget, limit.value, limit.count(design), self.table.space))
        return design

    def _design(self, encoder: int, rungs: Mapping[str, int]) -> Design:
        own = {name: option for task, rung in rungs.items() for name, option in self.table.ladders[task][rung].items()}
        return self.table.space.design({**self.table.encoders[encoder], **own, **self.precision})

    def _rungs(self, shares: Array, scale: float) -> dict[str, int] | None:
        """Each task's rung, lowered from the least preferred task on until the smallest encoder fits; none if never."""
        rungs, wanted = {}, {}
        for task, share in zip(self.table.space.tasks, shares, strict=True):
            last = len(self.table.ladders[task.name]) - 1
            rungs[task.name] = int(last * min(1.0, scale * len(shares) * share) + 0.5)
            wanted[task.name] = share
        while over := self._over(rungs):
            lowered = [name for name in over if rungs[name]]
            if not lowered:
                return None
            rungs[min(lowered, key=lambda name: (wanted[name], -rungs[name]))] -= 1
        return rungs

    def _over(self, rungs: Mapping[str, int]) -> list[str]:
        """The tasks whose decoders count in a limit that the smallest encoder exceeds."""
        unmet = [limit for limit in self.limits if self.table.taken(limit, rungs, self._kind)[0] > limit.value]
        everyone = any(limit.budget.task is None for limit in unmet)
        named = {limit.budget.task for limit in unmet}
        return [name for name in rungs if everyone or name in named]

    def _scores(self, shares: Array, rungs: Mapping[str, int]) -> Array:
        """Weighted quality of each encoder; minus infinity where it does not fit."""
        changes = self.table.changes(rungs)
        scores: Array = changes @ shares
        names = [task.name for task in self.table.space.tasks]
        for task, drop in self.drops.items():
            scores -= _FLOOR_WEIGHT * np.maximum(0.0, -changes[:, names.index(task)] - drop)
        for limit in self.limits:
            scores[self.table.taken(limit, rungs, self._kind) > limit.value] = -np.inf
        return scores


def make_table(space: Space, sensitivity: Sensitivity) -> PreferenceTable:
    """The table of a space whose supernet has this sensitivity map; takes seconds, once."""
    precisions = [choice for choice in space.choices if is_precision(choice) and choice.name != ENGINE]
    kinds = tuple(dict.fromkeys(str(option) for choice in precisions for option in choice.options))
    counter = _Counter(space, sensitivity, kinds or ("float",))
    ladders = {task.name: counter.ladder(task.name) for task in space.tasks}
    encoders = counter.encoders(ladders)
    trunk, decoders = counter.parts(encoders, ladders)
    largest = space.largest()
    return PreferenceTable(
        space=space,
        ladders=ladders,
        encoders=encoders,
        quality=counter.quality([space.design({**largest, **encoder}) for encoder in encoders]),
        rung_quality={
            task.name: sensitivity.logarithm(
                [space.design({**largest, **rung}) for rung in ladders[task.name]], task.name
            )
            for task in space.tasks
        },
        kinds=counter.kinds,
        quantities=(*_COUNTED, *(quantity.name for quantity in space.quantities)),
        trunk=trunk,
        decoders=decoders,
    )


@dataclass(frozen=True)
class _Counter:
    """Input of a table: expected quality and counted costs of designs."""

    space: Space
    sensitivity: Sensitivity
    kinds: tuple[str, ...]

    def quality(self, designs: Sequence[Design]) -> Array:
        """Logarithm of what is left of each task's score: (designs, tasks)."""
        return np.stack([self.sensitivity.logarithm(designs, task.name) for task in self.space.tasks], axis=1)

    def _choices(self, task: str | None) -> list[Choice]:
        """The architecture choices of the trunk, or of one task, that the map knows."""
        return [
            c
            for c in self.space.choices
            if c.task == task and not is_precision(c) and c.name in self.sensitivity.changes
        ]

    def ladder(self, task: str) -> tuple[Values, ...]:
        """Decoders of a task from the smallest to the largest: each step raises what gains most for its FLOPs."""
        choices, largest = self._choices(task), self.space.largest()
        rung: dict[str, Option] = {choice.name: choice.options[0] for choice in choices}
        rungs = [dict(rung)]

        def worth(step: Values) -> float:
            before, after = (self.space.design({**largest, **values}) for values in (rung, {**rung, **step}))
            gained = np.diff(self.sensitivity.logarithm([before, after], task))[0]
            return float(gained / max(after.cost().flops - before.cost().flops, 1))

        while steps := [_moved(choice, rung, 1) for choice in choices if rung[choice.name] != choice.options[-1]]:
            best: Values = max(steps, key=worth)
            rung |= best
            rungs.append(dict(rung))
        return tuple(rungs)

    def encoders(self, ladders: Mapping[str, tuple[Values, ...]]) -> tuple[Values, ...]:
        """Encoders worth having: all that greedy descents from the largest one met and that none of them beats.

        A descent takes the step down that loses least per FLOP, or per byte, for one task or for all alike.
        """
        middle = {name: option for ladder in ladders.values() for name, option in ladder[len(ladder) // 2].items()}
        seen: dict[tuple[Option, ...], tuple[Values, Array, Array]] = {}

        def look(values: Values) -> tuple[Values, Array, Array]:
            key = tuple(values.values())
            if key not in seen:
                design = self.space.design({**middle, **values})
                cost = design.cost()
                quality = self.quality([design])[0]
                seen[key] = (values, quality, np.array([cost.flops, cost.weight_bytes], np.float64))
            return seen[key]

        count = len(self.space.tasks)
        choices = self._choices(None)
        for weights in [np.full(count, 1 / count), *np.eye(count)]:
            for column in (0, 1):
                here = look({choice.name: choice.options[-1] for choice in choices})
                while steps := [_moved(c, here[0], -1) for c in choices if here[0][c.name] != c.options[0]]:
                    met = [look({**here[0], **step}) for step in steps]
                    here = min(met, key=lambda there: _loss_rate(here, there, weights, column))
        smallest, *others = sorted(seen.values(), key=lambda each: tuple(each[2]))
        return tuple(each[0] for each in [smallest, *_unbeaten(others)])

    def parts(
        self, encoders: Sequence[Values], ladders: Mapping[str, tuple[Values, ...]]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Costs of the trunk by scope and of every task's decoders by rung, with each encoder."""
        columns = len(self.kinds) * (len(_COUNTED) + len(self.space.quantities))
        longest = max(map(len, ladders.values()))
        trunk = {scope: np.zeros((len(encoders), columns)) for scope in ("", *ladders)}
        decoders = {task: np.zeros((len(encoders), len(ladder), columns)) for task, ladder in ladders.items()}
        for number, encoder in enumerate(encoders):
            for height in range(longest):
                rungs = {task: min(height, len(ladder) - 1) for task, ladder in ladders.items()}
                own = {name: option for task, rung in rungs.items() for name, option in ladders[task][rung].items()}
                plan = self.space.design({**encoder, **own}).plan
                stored = _stored(plan)
                for task, rung in rungs.items():
                    run = tuple(block for block in plan.blocks if block.task == task)
                    decoders[task][number, rung] = self._count(run, stored[task])
            for scope, costs in trunk.items():
                path = set(plan.path([scope])) if scope else set(plan.blocks)
                run = tuple(block for block in plan.blocks if block.task is None and block in path)
                costs[number] = self._count(run, tuple(block for block in stored[None] if block in path))
        return trunk, decoders

    def _count(self, run: tuple[BlockPlan, ...], stored: tuple[BlockPlan, ...]) -> list[float]:
        return _count(run, stored, self.kinds, self.space.storage, self.space.quantities)


@lru_cache(maxsize=1 << 14)
def _count(
    run: tuple[BlockPlan, ...],
    stored: tuple[BlockPlan, ...],
    kinds: tuple[str, ...],
    storage: Storage,
    quantities: tuple[Quantity, ...],
) -> list[float]:
    """Amount of each quantity in each precision: the blocks `run` are computed, parameters of `stored` kept."""
    costs: list[float] = []
    for kind in kinds:
        precision = {block.parameters: kind for block in (*run, *stored)}
        work = Plan((0, 0), run).cost(precision, quantities=quantities)
        kept = Plan((0, 0), stored).cost(precision, None, storage)
        costs += [work.flops, kept.params, kept.weight_bytes, *work.own.values()]
    return costs


def _moved(choice: Choice, values: Values, by: int) -> dict[str, Option]:
    return {choice.name: choice.options[choice.options.index(values[choice.name]) + by]}


def _loss_rate(
    here: tuple[Values, Array, Array], there: tuple[Values, Array, Array], weights: Array, column: int
) -> float:
    """Weighted quality that a step loses for each unit that it saves; what saves nothing comes last."""
    lost, saved = float(weights @ (here[1] - there[1])), float(here[2][column] - there[2][column])
    return lost / saved if saved > 0 else np.inf


def _unbeaten(seen: Iterable[tuple[Values, Array, Array]]) -> list[tuple[Values, Array, Array]]:
    """Those that no other one equals or beats in every task's quality and in both costs."""
    candidates = list(seen)
    points = np.array([[*-quality, *costs] for _, quality, costs in candidates])
    unbeaten = []
    for number, point in enumerate(points):
        as_good = (points <= point).all(axis=1)
        better = as_good & (points < point).any(axis=1)
        if not better.any() and not as_good[:number].any():
            unbeaten.append(candidates[number])
    return unbeaten


def _stored(plan: Plan) -> dict[str | None, tuple[BlockPlan, ...]]:
    """The blocks whose parameters one task alone has, and under None those of the trunk or of several tasks."""
    owners: dict[str, set[str | None]] = {}
    for block in plan.blocks:
        owners.setdefault(block.parameters, set()).add(block.task)
    blocks_of: dict[str | None, list[BlockPlan]] = {None: []}
    for block in plan.blocks:
        blocks_of.setdefault(block.task, [])
        blocks_of[block.task if len(owners[block.parameters]) == 1 else None].append(block)
    return {task: tuple(blocks) for task, blocks in blocks_of.items()}
