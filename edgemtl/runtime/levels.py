"""Which level of a bundle a budget and a preference mean."""

from __future__ import annotations

from collections.abc import Mapping

from edgemtl.bundle import BundleLevel, Manifest
from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.units import Budget, format_quantity, parse_budget, parse_preference

__all__ = ["pick_level"]


def pick_level(manifest: Manifest, budget: str | None, prefer: str | Mapping[str, float] | None) -> int:
    """Number of the level that keeps a budget and whose preference is nearest; see `Engine.set_level`."""
    levels = manifest.levels
    if not levels:
        raise UserError(f"bundle {manifest.name} has one level only: export it again with --levels 5")
    wanted = _shares(_weights(manifest, prefer))
    if not isinstance(budget, (str, type(None))):
        raise UserError(f'budget {brief(budget)} given: give a quantity with its unit, for example "1GFLOPs"')
    affordable = range(len(levels)) if budget is None else _within(manifest, parse_budget(budget))

    def far(number: int) -> tuple[float, int]:
        shares = _shares(levels[number].preference)
        apart = sum(abs(shares[task] - share) for task, share in wanted.items())
        return round(apart, 9), -levels[number].cost.flops

    return min(affordable, key=far)


def _weights(manifest: Manifest, prefer: str | Mapping[str, float] | None) -> Mapping[str, float]:
    names = [task.name for task in manifest.tasks]
    if prefer is None:
        return manifest.levels[0].preference
    if isinstance(prefer, str):
        return parse_preference(prefer, names)
    if not isinstance(prefer, Mapping):
        raise UserError(f'preference {brief(prefer)} given: give "depth=2,semseg=1", or weights by task')
    for name, weight in prefer.items():
        if name not in names:
            raise unknown_name("task in preference", str(name), names)
        if not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise UserError(f"preference {name}={brief(weight)}: give a weight of 0 or more")
    weights = {name: float(prefer.get(name, 1.0)) for name in names}
    if not sum(weights.values()) > 0:
        raise UserError(f"preference {dict(prefer)}: the weights must add up to a finite number above 0")
    return weights


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _within(manifest: Manifest, budget: Budget) -> list[int]:
    """The levels that keep a budget; raises `UserError` where there is none, or levels do not record its quantity."""
    taken = [_taken(level, budget) for level in manifest.levels]
    limit = budget.limit(max(taken))
    affordable = [number for number, amount in enumerate(taken) if amount <= limit]
    if not affordable:
        least = format_quantity(budget.quantity, min(taken))
        raise UserError(
            f"bundle {manifest.name} has no level within {budget.text!r}: its smallest takes {least}; "
            "raise the budget, or export it again with more --levels"
        )
    return affordable


def _taken(level: BundleLevel, budget: Budget) -> float:
    cost = level.cost if budget.task is None else level.cost.paths.get(budget.task)
    if cost is None:
        raise unknown_name(f"task in budget {budget.text!r}:", str(budget.task), level.cost.paths)
    amount: float | None = getattr(cost, budget.quantity, None)
    if amount is None:
        raise UserError(
            f"budget {budget.text!r}: levels are told apart by FLOPs, MACs and parameters, of all tasks or one, and MB "
            "of weights; give one"
        )
    return amount
