"""Before a search begins: what the smallest, a middle and the largest design cost, and whether the budgets can be kept.

ModelOpt prints such a table for one score; here it is made for every budget, and latency is measured on exported
engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemtl.errors import UserError
from edgemtl.nas._evaluator import Evaluator
from edgemtl.nas._problem import Limit
from edgemtl.nas._space import Design, Space
from edgemtl.units import Budget, format_quantity

__all__ = ["PreflightRow", "limits_of", "preflight", "too_tight"]


@dataclass(frozen=True)
class PreflightRow:
    """One budget: its limit and what three designs of the space take of it, in the quantity's own unit.

    `smallest` is the least that any uniform choice of precision gives the smallest net.
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


def preflight(space: Space, budgets: Sequence[Budget], evaluator: Evaluator) -> list[PreflightRow]:
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
            raise UserError(too_tight(row.budget, row.limit, row.smallest, space))
    return rows


def limits_of(rows: Sequence[PreflightRow]) -> tuple[Limit, ...]:
    """The budgets with their limits resolved."""
    return tuple(Limit(row.budget, row.limit) for row in rows)


def _quantity(budget: Budget, design: Design, evaluator: Evaluator, timed: dict[str, Mapping[str, float]]) -> float:
    if (limit := Limit(budget, 0)).exact:
        return limit.count(design)
    if design.key not in timed:
        timed[design.key] = evaluator.time(evaluator.candidate(design))
    return timed[design.key][budget.task or ""]


def too_tight(budget: Budget, limit: float, smallest: float, space: Space) -> str:
    """The line for a budget that even the smallest design exceeds, and how far one can go."""
    given, least = (format_quantity(budget.quantity, value) for value in (limit, smallest))
    return (
        f"budget {budget.text!r} allows {given}, but the smallest design of space {space.name} takes {least}: "
        "raise the budget, choose another space, or a smaller --size"
    )
