"""Before a search begins: what the smallest, a middle and the largest design cost and lose, and what can be kept.

ModelOpt prints such a table for one score; here it is made for every budget, and latency is measured on exported
engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgemtl.errors import UserError
from edgemtl.nas.evaluation.evaluator import Evaluator
from edgemtl.nas.evaluation.problem import Limit, Problem, check_floor
from edgemtl.profiling import Measurer
from edgemtl.spaces import Design, Space
from edgemtl.targets import ExportTarget, measurer_of
from edgemtl.tasks import Floor
from edgemtl.units import Budget, find_quantity, format_limit, format_quantity

__all__ = [
    "FloorRow",
    "PreflightRow",
    "check_budgets",
    "keeps_all",
    "limits_of",
    "preflight_budgets",
    "preflight_floors",
    "too_tight",
]


@dataclass(frozen=True)
class PreflightRow:
    """One budget: its limit and what three designs of the space take of it, in the quantity's own unit.

    `smallest` is the least that the smallest net takes in any uniform precision.
    """

    budget: Budget
    limit: float
    smallest: float
    middle: float
    largest: float

    @property
    def satisfiable(self) -> bool:
        """Whether the smallest design keeps the budget."""
        return self.smallest <= self.limit


@dataclass(frozen=True)
class FloorRow:
    """One floor: its amount in three designs of the space, in float: the fraction lost, or the metric's own value.

    The largest is the baseline, which loses nothing.
    """

    floor: Floor
    smallest: float
    middle: float
    largest: float


def preflight_budgets(space: Space, budgets: Sequence[Budget], evaluator: Evaluator) -> list[PreflightRow]:
    """A row for every budget; raises `UserError` where a budget cannot be met, saying what can."""
    smallest, middle, largest = space.uniform(space.smallest()), [space.middle()], [space.largest()]
    timed: dict[str, Mapping[str, float]] = {}

    def take(budget: Budget, designs: Sequence[Design]) -> float:
        return min(_quantity(budget, design, evaluator, timed) for design in designs)

    rows = []
    for budget in budgets:
        values = [take(budget, designs) for designs in (smallest, middle, largest)]
        rows.append(PreflightRow(budget, budget.limit(values[2]), *values))
    for row in rows:
        if not row.satisfiable:
            is_own = row.budget in evaluator.target.traits.limits
            remedy = "choose a larger device" if is_own else "raise the budget"
            raise UserError(too_tight(row.budget, row.limit, row.smallest, space, remedy))
    return rows


def preflight_floors(problem: Problem, evaluator: Evaluator) -> list[FloorRow]:
    """A row for every floor, by simulation on validation images; nothing is scored where there is no floor.

    Raises `UserError` for a floor that the largest design itself misses.
    """
    space, baseline = problem.space, problem.baseline
    for floor in problem.floors:
        if floor.shortfall(floor.value(baseline, baseline)) > 0:
            raise UserError(_too_high(floor, problem))
    if not problem.floors:
        return []
    scores = [evaluator.simulated(evaluator.candidate(design)) for design in (space.smallest(), space.middle())]
    return [
        FloorRow(floor, *(floor.value(metrics, baseline) for metrics in (*scores, baseline)))
        for floor in problem.floors
    ]


def keeps_all(problem: Problem, rows: Sequence[PreflightRow], floors: Sequence[FloorRow]) -> str:
    """Which of the three designs is known to keep all budgets and floors together; empty if only a search can tell.

    The smallest one's own latency is in no row, which has that of its fastest precision.
    """
    smallest = problem.space.smallest()
    budgets = {
        "largest": all(row.largest <= row.limit for row in rows),
        "middle": all(row.middle <= row.limit for row in rows),
        "smallest": problem.affordable(smallest) and all(limit.exact for limit in problem.limits),
    }
    keeping = (
        name
        for name, held in budgets.items()
        if held and all(row.floor.shortfall(getattr(row, name)) <= 0 for row in floors)
    )
    return next(keeping, "")


def limits_of(rows: Sequence[PreflightRow]) -> tuple[Limit, ...]:
    """The budgets with their limits resolved."""
    return tuple(Limit(row.budget, row.limit) for row in rows)


def _quantity(budget: Budget, design: Design, evaluator: Evaluator, timed: dict[str, Mapping[str, float]]) -> float:
    if (limit := Limit(budget, 0)).exact:
        return limit.count(design)
    if design.key not in timed:
        timed[design.key] = evaluator.time(evaluator.candidate(design))
    return timed[design.key][budget.task or ""]


def too_tight(budget: Budget, limit: float, smallest: float, space: Space, remedy: str = "raise the budget") -> str:
    """The line for a budget that even the smallest design exceeds, and how far one can go."""
    given, least = format_limit(budget.quantity, limit), format_quantity(budget.quantity, smallest)
    return (
        f"budget {budget.text!r} allows {given}, but the smallest design of space {space.name} takes {least}: "
        f"{remedy}, choose another space, or a smaller --size"
    )


def _too_high(floor: Floor, problem: Problem) -> str:
    """The line for a floor that even the largest design misses."""
    check = check_floor(floor, problem.baseline, problem.baseline)
    return (
        f"floor {floor.text!r}: the largest design of space {problem.space.name} has {floor.metric.name} "
        f"{check.amount(check.value)} on validation images, and no smaller one can be expected to do better: ask "
        "for less, or train the supernet further"
    )


def check_budgets(
    budgets: Iterable[Budget], target: ExportTarget, remedy: str = "", estimated: bool = False
) -> Measurer:
    """The measurer of the target's engines, after checking that every budget's quantity is counted or measured.

    Raises `UserError` for a quantity that another target counts, and where a budget is measured and nothing does that,
    or on another device; `remedy` names another way out. Latencies that are `estimated` need not be measured.
    """
    measurer, name, own = measurer_of(target), target.device.name, {each.name for each in target.traits.quantities}
    for budget in budgets:
        if budget.counted:
            if find_quantity(budget.quantity).count is not None and budget.quantity not in own:
                raise UserError(
                    f"budget {budget.text!r}: target {target.traits.name} does not count it; give FLOPs or MB"
                )
            continue
        if measurer.untimed is not None and not estimated:
            raise UserError(f"budget {budget.text!r}: {measurer.untimed.reason}; {remedy or measurer.untimed.remedy}")
        if budget.device not in (None, name):
            raise UserError(
                f"budget {budget.text!r}: latencies are those of device {name} here; "
                f"drop @{budget.device}, or give --device {budget.device}"
            )
    return measurer
