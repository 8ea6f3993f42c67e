"""Channels and precision together: for each kind of precision the fewest channels removed that keep the budgets.

Two orders were measured: which channels each task misses least (the map of a pruning, weighed by the floors), and which
blocks lose least in INT8. A net in more INT8 needs fewer channels removed to be as fast, and loses elsewhere; so every
precision is tried on the widest net that is in time with it, on its own engine, and the floors decide between them.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from edgemtl.nas.evaluation import Limit
from edgemtl.nas.precision.bench import Cost
from edgemtl.nas.precision.finalists import Base, Candidate, budget_checks
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PRUNED_QUANTITIES, PrecisionRequest
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.prune import Fit, Narrowing, open_declared
from edgemtl.own import FLOAT_ENGINE, OwnPrecision
from edgemtl.progress import Progress, Report, note
from edgemtl.results import LimitCheck
from edgemtl.units import Budget

__all__ = [
    "LEVELS",
    "MARGIN",
    "TRAINING_FOLDER",
    "JointSearch",
    "needs_pruning",
    "open_narrowing",
    "share_of",
    "whole_cost",
]

LEVELS = 12
"""Widths that are tried, from the widest that counted budgets allow to the narrowest that can be left."""
MARGIN = 0.98
"""Part of a limit in ms that is aimed at: two measurements of one net differ by a little."""
TRAINING_FOLDER = "training"
"""Checkpoints of a fine-tuning, in the run's folder."""


def whole_cost(setup: Setup) -> Cost:
    """Counts of the net as it was given, in float."""
    return setup.bench.cost(OwnPrecision({"engine": FLOAT_ENGINE}))


def share_of(budget: Budget, counts: Cost) -> float:
    """The part of what the whole net takes, by its `counts`, that a counted budget allows."""
    return budget.limit(counts.amount(budget)) / max(counts.amount(budget), 1.0)


def needs_pruning(setup: Setup) -> bool:
    """Whether a budget is of what precision does not change, and asks for less than the net has."""
    counts = whole_cost(setup)
    return any(
        budget.limit(counts.amount(budget)) < counts.amount(budget)
        for budget in setup.budgets
        if budget.quantity in PRUNED_QUANTITIES
    )


def open_narrowing(request: PrecisionRequest, setup: Setup, report: Report) -> Narrowing:
    """The net as a module whose channels can be removed.

    Raises `UserError` where none can be, the module differs from the net, or a counted budget is below what is left.
    """
    declared = open_declared(request.net, request.net.name, request.declaration, str(request.data), report)
    opened = replace(declared, preference=setup.floors.preference).compensated(report)
    counts, limits = whole_cost(setup), list[Limit]()
    for budget in setup.budgets:
        if budget.quantity in PRUNED_QUANTITIES:
            limits.append(Limit(budget, share_of(budget, counts) * opened.prunable.amount(budget, {})))
    narrowing = Narrowing(opened, tuple(limits), setup.floors.drops, report)
    narrowing.check_feasible()
    return narrowing


class JointSearch:
    """Narrower forms of a net in precisions of their own; `base` are amounts of the whole net in float."""

    def __init__(self, request: PrecisionRequest, forms: NarrowForms, base: Base, report: Report) -> None:
        self._request, self._forms, self._whole = request, forms, forms.whole
        self._base, self._report = base, report

    def candidates(self) -> Iterator[Candidate]:
        """Every kind of precision on the widest net that keeps the budgets with it, as far as the floors are kept.

        Then all precisions of the width that stays furthest from the floors, or keeps them and is best by the
        preference; it is trained first where that was asked for.
        """
        tried, floors = self._tried(), self._whole.setup.floors
        gentlest = min(tried, key=lambda each: floors.rank(each.metrics)).setup.name
        tuning = self._request.tuning
        if tuning.steps:
            proposal = self._forms.tuned(gentlest, tuning, self._request.out / TRAINING_FOLDER)
            tried = [each for each in tried if each.setup.name != gentlest]  # the trained net stands for it
        else:
            proposal = self._forms.named(gentlest)
        within = [each for each in tried if floors.are_kept(each.metrics)]
        yield from {_key(each): each for each in (*within, *proposal.candidates())}.values()

    def _tried(self) -> list[Candidate]:
        """No block, those that keep the floors in the whole net, and all in INT8, each for every engine precision."""
        whole, tried = self._whole, list[Candidate]()
        kinds = [
            (engine, blocks)
            for engine in whole.engines
            for blocks in dict.fromkeys(((), whole.longest(engine), whole.setup.eight))
        ]
        for number, (engine, blocks) in enumerate(kinds):
            self._report(Progress("pruning", number, len(kinds), f"{engine}, {len(blocks)} blocks in INT8"))
            proposal, precision = self._widest(engine, blocks)
            tried.append(proposal.candidate(precision, f"{engine}-{len(blocks)}-int8"))
        self._report(Progress("pruning", len(kinds), len(kinds)))
        return tried

    def _widest(self, engine: str, blocks: Sequence[str]) -> tuple[Proposal, OwnPrecision]:
        """The widest net that keeps all budgets in a precision, the narrowest one where none does; by halving."""

        def made(level: int) -> tuple[Proposal, OwnPrecision]:
            proposal = self._proposal(level)
            return proposal, proposal.precision(engine, blocks)

        def is_within(level: int) -> bool:
            proposal, precision = made(level)
            return all(map(_kept, self._checks(proposal, precision)))

        count = len(self._levels)
        level = 0 if is_within(0) else bisect.bisect_left(range(count), True, lo=1, key=is_within)
        return made(min(level, count - 1))

    def _checks(self, proposal: Proposal, precision: OwnPrecision) -> Iterator[LimitCheck]:
        """The budgets, those that are counted first: an engine is timed only where they hold."""
        cost = proposal.setup.bench.cost(precision)
        counted, timed = list[Budget](), list[Budget]()
        for budget in proposal.setup.budgets:
            (counted if budget.counted else timed).append(budget)
        yield from budget_checks(counted, {}, cost, self._base)
        if timed:
            yield from budget_checks(timed, proposal.latency_ms(precision), cost, self._base)

    @cached_property
    def _levels(self) -> list[Fit]:
        levels = self._forms.narrowing.levels(LEVELS)
        note(self._report, f"{len(levels)} widths of the net")
        return levels

    def _proposal(self, level: int) -> Proposal:
        return self._forms.proposal(f"pruned-{level + 1}", self._levels[level])


def _kept(check: LimitCheck) -> bool:
    return check.kept and (check.quantity != "latency_ms" or check.value <= MARGIN * check.allowed)


def _key(candidate: Candidate) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Whatever has the same key is the same engine."""
    return candidate.setup.name, tuple(sorted(candidate.precision.values.items()))
