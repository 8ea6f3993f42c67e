"""LINAS as an Optuna sampler: measure a batch, fit predictors, run NSGA-II on them, measure what they propose.

Cummings et al. 2022, with SimQ-NAS's joint genome of architecture and precision. Ours: proposals are canonical designs
never measured before, the inner run begins at the measured front, exact costs are counted and constrain it.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study

from edgemtl.nas.evaluation import Evaluation, Problem, non_dominated
from edgemtl.nas.search.strategies.predictor import LatencyPredictor, Predictor, features
from edgemtl.nas.search.strategies.sampler import DesignSampler, draw, measured_in
from edgemtl.spaces import Design

__all__ = ["GENERATIONS", "LinasSampler", "first_designs"]

GENERATIONS = 60
_POPULATION = 40
_DRAWS = 400
Array = NDArray[np.float64]
PredictLatency = Callable[[Sequence[Design], Array], Array]
"""From designs and their rows of `features` to latencies in ms."""


class LinasSampler(DesignSampler):
    """Proposes the designs of one batch after another; every batch is predicted from all that were evaluated before it.

    The first batch spreads over the affordable designs. `batch` is how many are measured between two fits, by any
    number of workers. State lives in the study alone, so a resumed or a second worker's sampler continues from what is
    stored. `generations` are those of each inner search.
    """

    def __init__(self, problem: Problem, seed: int, batch: int, generations: int = GENERATIONS) -> None:
        super().__init__(problem, seed)
        self._batch, self._generations = batch, generations
        self._proposed: tuple[int, list[Design]] = (-1, [])

    def next_design(self, study: Study, position: int) -> Design:
        """The design of its batch at that position; where the batch has no more, one of it again."""
        number, offset = divmod(position, self._batch)
        if self._proposed[0] != number:  # else it is what would be proposed again
            self._proposed = number, self._propose(study, number)
        designs = self._proposed[1]
        return designs[offset % len(designs)]

    def evaluated_before(self, position: int) -> int:
        """The batches before."""
        return position - position % self._batch

    def _propose(self, study: Study, number: int) -> list[Design]:
        """The designs of batch `number`: they follow from the evaluations of the batches before it.

        None was evaluated there; spread ones fill up what the inner search leaves.
        """
        begun = number * self._batch
        rng, evaluations = random.Random(f"{self._seed}/{begun}"), measured_in(study, self._problem, begun)
        seen = {evaluation.design.key for evaluation in evaluations}
        if len(evaluations) < self._batch:
            return first_designs(self._problem, self._batch, rng, seen)
        proposed = _inner_search(self._problem, evaluations, rng, self._generations)
        fresh = [d for d in proposed if d.key not in seen][: self._batch]
        if len(fresh) == self._batch:
            return fresh
        seen |= {design.key for design in fresh}
        return [*fresh, *first_designs(self._problem, self._batch - len(fresh), rng, seen)]


def first_designs(problem: Problem, count: int, rng: random.Random, seen: set[str]) -> list[Design]:
    """Affordable designs spread over sizes, half of them of those that the supernet was trained near, if any.

    Each uniform precision takes its turn, so that every one is seen at every size: what a precision gains depends on
    the blocks, and a draw of every block's precision would never be uniform. Under floors alone the largest comes
    first, in each of them: it keeps floors, and what a precision costs shows where nothing else is lost.
    """
    space = problem.space
    largest = space.uniform(space.largest()) if problem.seeks_speed else []
    begun = [design for design in largest if design.key not in seen][: count // 2]
    seen = seen | {design.key for design in begun}
    begun += _over_sizes(_pools(problem, problem.trained_near, seen), (count - len(begun)) // 2)
    seen |= {design.key for design in begun}
    drawn = [*(space.random(rng) for _ in range(_DRAWS)), space.middle(), space.smallest()]
    return [*begun, *_over_sizes(_pools(problem, drawn, seen), count - len(begun))] or [problem.cheapest()]


def _pools(problem: Problem, designs: Sequence[Design], seen: set[str]) -> list[dict[str, Design]]:
    """The affordable ones by key, a pool for each uniform precision."""
    kinds = zip(*(problem.space.uniform(design) for design in designs), strict=True)
    return [{d.key: d for d in kind if problem.affordable(d) and d.key not in seen} for kind in kinds]


def _over_sizes(pools: Sequence[dict[str, Design]], count: int) -> list[Design]:
    """Designs of the pools in turn: for each of `count` targets of FLOPs the nearest one."""
    designs = {key: design for pool in pools for key, design in pool.items()}
    if len(designs) <= count:
        return list(designs.values())
    sizes = {key: float(np.log(design.cost().flops)) for key, design in designs.items()}
    lightest, heaviest = min(sizes.values()), max(sizes.values())
    picked: list[Design] = []
    for turn, wanted in enumerate(np.linspace(heaviest, lightest + 0.3 * (heaviest - lightest), count)):
        left = pools[turn % len(pools)].keys() & designs.keys() or designs.keys()
        nearest = min(sorted(left), key=lambda key: abs(sizes[key] - wanted))
        picked.append(designs.pop(nearest))
    return picked


class _Predicted:
    """Predictors of every task's relative change, and of other metrics and of latencies that limits need."""

    def __init__(self, problem: Problem, evaluations: Sequence[Evaluation]) -> None:
        self._problem = problem
        rows = features(problem.space, [e.design for e in evaluations])
        changes = [problem.changes(e.metrics) for e in evaluations]
        designs = [e.design for e in evaluations]
        self.changes = {
            t.name: Predictor(rows, list(np.array([c[t.name] for c in changes]) - self._expected(designs, t.name)))
            for t in problem.space.tasks
        }
        self.others = {
            floor.text: Predictor(rows, [floor.change(e.metrics, problem.baseline) for e in evaluations])
            for floor in problem.floors
            if not floor.decides
        }
        timed = {""} if "latency" in problem.objective_names else set()
        scopes = {limit.budget.task or "" for limit in problem.limits if not limit.exact} | timed
        self.latency_ms = {scope: self._latency(evaluations, rows, scope) for scope in scopes}

    def _latency(self, evaluations: Sequence[Evaluation], rows: Array, scope: str) -> PredictLatency:
        """The prediction of the problem's table, else of what is learnt from the evaluations."""
        if (table := self._problem.latency) is not None:
            return lambda designs, rows: table.predict(designs, scope)
        return LatencyPredictor(
            [e.design for e in evaluations], [e.latency_ms[scope] for e in evaluations], rows, scope
        )

    def _expected(self, designs: Sequence[Design], task: str) -> NDArray[np.float64]:
        """A task's change as the sensitivity map has it; the predictors learn what that leaves over."""
        sensitivity = self._problem.sensitivity
        return sensitivity.expect(designs, task) if sensitivity else np.zeros(len(designs))

    def __call__(self, designs: Sequence[Design]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Objectives (n, k) and constraints (n, m), as pymoo wants them: to be minimised, and at most 0."""
        problem = self._problem
        rows = features(problem.space, designs)
        changes = {name: self._expected(designs, name) + predict(rows) for name, predict in self.changes.items()}
        latency = {scope: predict(designs, rows) for scope, predict in self.latency_ms.items()}
        weights = problem.preference
        known = {name: -change for name, change in changes.items()}
        known["delta_m"] = np.average([known[n] for n in changes], axis=0, weights=[weights[n] for n in changes])
        known |= {"latency": latency[""]} if "" in latency else {}
        for name in problem.objective_names:
            if name not in known:
                known[name] = np.array([problem.count(name, design) for design in designs])
        objectives = np.stack([known[name] for name in problem.objective_names], axis=1)
        excess = []
        for limit in problem.limits:
            values = np.array([limit.count(d) for d in designs]) if limit.exact else latency[limit.budget.task or ""]
            excess.append(values / limit.value - 1)
        for floor in problem.floors:
            change = changes[floor.task.name] if floor.decides else self.others[floor.text](rows)
            excess.append(-change - floor.drop(problem.baseline))
        return objectives, np.stack(excess, axis=1) if excess else np.zeros((len(designs), 1))


def _inner_search(
    problem: Problem, evaluations: Sequence[Evaluation], rng: random.Random, generations: int
) -> list[Design]:
    """The affordable designs of the last population of a search on the predictors, from the measured front on."""
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.optimize import minimize

    space, predicted = problem.space, _Predicted(problem, evaluations)
    known: dict[tuple[int, ...], tuple[Array, Array]] = {}  # a population proposes many a genome again
    upper = np.array([len(choice.options) - 1 for choice in space.choices])

    class Inner(PymooProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                n_var=len(upper),
                n_obj=len(problem.objective_names),
                n_ieq_constr=max(1, len(problem.limits) + len(problem.floors)),
                xl=0,
                xu=upper,
                vtype=int,
            )

        def _evaluate(self, x: NDArray[np.int64], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            genomes = [tuple(map(int, genome)) for genome in x]
            if new := [genome for genome in dict.fromkeys(genomes) if genome not in known]:
                rows = zip(*predicted([space.decode(genome) for genome in new]), strict=True)
                known.update(zip(new, rows, strict=True))
            out["F"], out["G"] = map(np.stack, zip(*(known[genome] for genome in genomes), strict=True))

    candidates = [e for e in evaluations if problem.feasible(e)] or list(evaluations)
    front = [candidates[i].design for i in non_dominated([problem.objectives(e) for e in candidates])]
    start = [space.encode(d) for d in [*front, *(draw(problem, rng) for _ in range(_POPULATION))]][:_POPULATION]
    algorithm = _algorithm(len(problem.objective_names), np.array(start), len(upper))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = minimize(Inner(), algorithm, ("n_gen", generations), seed=rng.randrange(2**31))
    designs = {design.key: design for design in (space.decode(x) for x in outcome.pop.get("X"))}
    affordable = [design for design in designs.values() if problem.affordable(design)]
    return _in_turns(affordable, predicted, problem)


def _algorithm(objectives: int, start: NDArray[np.int64], choices: int) -> Any:
    """NSGA-II for two objectives; U-NSGA-III for more, of which NSGA-II would call nearly every design good.

    (Deb et al. 2002; Seada and Deb 2016, with the reference directions of Das and Dennis 1998.)
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.unsga3 import UNSGA3
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.util.ref_dirs import get_reference_directions

    repair = RoundingRepair()
    shared = {
        "pop_size": _POPULATION,
        "sampling": start,
        "crossover": SBX(prob=0.9, eta=15, vtype=float, repair=repair),
        "mutation": PM(prob_var=2 / choices, eta=20, vtype=float, repair=repair),
        "eliminate_duplicates": True,
    }
    if objectives <= 2:
        return NSGA2(**shared)
    partitions = next(n for n in range(_POPULATION, 0, -1) if comb(n + objectives - 1, n) <= _POPULATION or n == 1)
    return UNSGA3(get_reference_directions("das-dennis", objectives, n_partitions=partitions), **shared)


def _in_turns(designs: Sequence[Design], predicted: _Predicted, problem: Problem) -> list[Design]:
    """The best predicted within the limits, and in turn with them those furthest along the predicted front.

    Half of a batch looks where the budget ends, or the floors do, which is what was asked; the other half keeps the
    front and the predictors wide. Where nothing is limited the whole front is what was asked.
    """
    if not designs:
        return []
    objectives, excess = predicted(designs)
    scaled = (objectives - objectives.min(0)) / np.maximum(np.ptp(objectives, axis=0), 1e-12)
    names, limited = problem.objective_names, problem.limits or problem.floors
    seeks_cost = problem.seeks_speed and problem.cost in names
    sought = scaled[:, names.index(problem.cost)] if seeks_cost else objectives[:, 0]
    best_first = [int(i) for i in np.argsort(sought + 10 * np.maximum(excess, 0).sum(1), kind="stable")]
    order: list[int] = []
    while len(order) < len(designs):
        if not order or (limited and len(order) % 2 == 0):
            order.append(next(index for index in best_first if index not in order))
        else:
            distance = np.min(np.abs(scaled[:, None] - scaled[order]).sum(2), axis=1)
            distance[order] = -1
            order.append(int(np.argmax(distance)))
    return [designs[index] for index in order]
