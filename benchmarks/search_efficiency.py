"""Evaluations that strategies need to the same hypervolume: LINAS against NSGA-II, TPE and random draws.

A thousand real evaluations for each strategy and seed would take days, so the strategies are asked on a measured
surrogate: some hundred designs of the shipped space are evaluated as a search does it (validation metrics of the
quantized net, latency of the ONNX Runtime engine), and boosted trees fitted to them answer instead (`_surrogate.py`).
How far these are off is told by rows: on designs of the table that were held out, and on designs of the fronts that
the strategies found, which are evaluated in truth at the end. What is compared is the strategies' own work, their
samplers as `edgemtl search` makes them, without budgets; LINAS gets no sensitivity map, which would be a head start.

A design is a point of two coordinates: delta_m lost, over what the smallest net in float loses, and latency, over that
of the largest net in float. The hypervolume is that below the reference point (1, 1). NSGA-II makes all its
evaluations; what it reaches with them is the target of its seed, and each strategy's figure is after how many
evaluations it first reached that. A strategy that never did is counted with all its evaluations, which flatters it; how
often that was is in the raw figures. LINAS measures batches of 12, its default, NSGA-II has a population of 50 as in
the paper (Cummings et al. 2022), which reports 155 evaluations against 1,000. The first batch of NSGA-II and of TPE is
drawn as LINAS draws, three designs of four in one precision: with independent draws of each block's NSGA-II makes a
thousand evaluations to where LINAS is after twenty, which says more of the draws than of the strategies.

The table takes half an hour on two cores with AVX-512, the strategies as long; the table is kept in --work.
--quick has a table of 24 designs on small images and 100 evaluations of one seed, in under three minutes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _common import Outcome, Row, main, say
from _figures import hypervolume, kendall
from _runs import RUNS, scenes_evaluator, supernet_hash
from _surrogate import Surrogate, measured, split_table, table_designs

from edgemtl.nas.evaluation import Evaluation, Evaluator, Problem, record, space_distributions
from edgemtl.nas.search.strategies import make_strategy
from edgemtl.spaces import Space

STRATEGIES = ("nsga2", "linas", "tpe", "random")
BATCH = {"nsga2": 50}
DEFAULT_BATCH = 12
SEEDS = (0, 1, 2, 3, 4)
EVALUATIONS, QUICK_EVALUATIONS = 1000, 100
TABLE, QUICK_TABLE = 300, 24
QUICK_SIZE = (96, 128)
CHECKED, QUICK_CHECKED = 12, 3
REFERENCE = (1.0, 1.0)


@dataclass(frozen=True)
class Scale:
    """The units of the two coordinates: delta_m that the smallest net loses, and the largest net's latency in ms."""

    lost: float
    latency_ms: float

    def point(self, problem: Problem, evaluation: Evaluation) -> tuple[float, float]:
        """A design as a point; less is better."""
        minus_delta, latency_ms = problem.objectives(evaluation)
        return minus_delta / self.lost, latency_ms / self.latency_ms


@dataclass(frozen=True)
class Climb:
    """The hypervolume after each evaluation, and the evaluations on the front at the end."""

    volumes: list[float]
    front: list[Evaluation]

    @property
    def steps(self) -> dict[int, float]:
        """The hypervolume from each evaluation on that made it larger."""
        pairs = zip([0.0, *self.volumes], self.volumes, strict=False)
        return {number: after for number, (before, after) in enumerate(pairs, 1) if after > before}

    def reached(self, target: float) -> int | None:
        """The number of evaluations after which the target was first reached; None where it was not."""
        return next((number for number, volume in enumerate(self.volumes, 1) if volume >= target), None)


def climb(
    problem: Problem,
    sampler: optuna.samplers.BaseSampler,
    evaluate: Callable[[Any], Evaluation],
    scale: Scale,
    most: int,
    target: float = float("inf"),
) -> Climb:
    """Let a sampler propose designs until the target is reached, at most so many."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    front: dict[tuple[float, float], Evaluation] = {}
    volumes: list[float] = []
    while len(volumes) < most and (not volumes or volumes[-1] < target):
        trial = study.ask(space_distributions(problem.space))
        evaluation = evaluate(problem.space.design(trial.params))
        record(trial, evaluation)
        study.tell(trial, list(problem.objectives(evaluation)))
        point = scale.point(problem, evaluation)
        if any(other[0] <= point[0] and other[1] <= point[1] for other in front):
            volumes.append(volumes[-1])
            continue
        front = {p: e for p, e in front.items() if not (point[0] <= p[0] and point[1] <= p[1])} | {point: evaluation}
        volumes.append(hypervolume(list(front), REFERENCE))
    return Climb(volumes, list(front.values()))


def run(options: argparse.Namespace) -> Outcome:
    """Fill the table, fit the surrogate, let the strategies climb on it."""
    quick = options.quick
    space, evaluator = scenes_evaluator("onnxruntime", size=QUICK_SIZE if quick else None)
    folder = (
        options.work / f"{space.size[0]}x{space.size[1]}-{supernet_hash('cnn')[:12]}-{evaluator.source.fingerprint}"
    )
    designs = table_designs(space, options.table or (QUICK_TABLE if quick else TABLE))
    table = measured(folder, designs, evaluator.evaluate)
    problem = problem_of(space, table[0])
    scale = Scale(problem.objectives(table[1])[0], table[0].latency_ms[""])
    known, held_out = split_table(table)
    rows, errors = error_rows(problem, Surrogate.fitted(space, known), held_out)
    surrogate = Surrogate.fitted(space, table)
    most = options.evaluations or (QUICK_EVALUATIONS if quick else EVALUATIONS)
    climbs = {seed: _climbs(problem, surrogate, scale, most, seed) for seed in SEEDS[: 1 if quick else None]}
    needed, unreached = counted(climbs, most)
    off = off_on_fronts(problem, evaluator, surrogate, climbs[SEEDS[0]], QUICK_CHECKED if quick else CHECKED)
    raw = {
        "reference_point": REFERENCE,
        "unit_of_delta_m_lost": scale.lost,
        "unit_of_latency_ms": scale.latency_ms,
        "evaluations_to_the_target": needed,
        "unreached": unreached,
        "hypervolume_from_evaluation": {
            seed: {name: each.steps for name, each in of_seed.items()} for seed, of_seed in climbs.items()
        },
        "table": len(table),
        "held_out": errors,
        "delta_m_error_on_fronts": off,
    }
    rows = [*ratio_rows(needed), *rows, Row("delta_m_error_on_fronts", statistics.fmean(map(abs, off)), "points")]
    return Outcome(rows, raw)


def problem_of(space: Space, largest: Evaluation) -> Problem:
    """Quality against latency, without limits, all tasks alike."""
    return Problem(space, (), (), dict.fromkeys((t.name for t in space.tasks), 1.0), largest.metrics, True)


def _climbs(problem: Problem, surrogate: Surrogate, scale: Scale, most: int, seed: int) -> dict[str, Climb]:
    """All strategies with one seed; NSGA-II first, which sets the target."""
    climbs: dict[str, Climb] = {}
    for name in STRATEGIES:
        target = climbs["nsga2"].volumes[-1] if climbs else float("inf")
        batch = BATCH.get(name, DEFAULT_BATCH)
        strategy: Any = make_strategy(name)  # none of these has a stage of its own: it is ready as it is
        climbs[name] = climb(problem, strategy.sampler(problem, seed, batch), surrogate, scale, most, target)
        say(f"seed {seed}, {name}: {climbs[name].volumes[-1]:.4f} after {len(climbs[name].volumes)} evaluations")
    return climbs


def counted(climbs: dict[int, dict[str, Climb]], most: int) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Evaluations to the target of each seed by strategy, and how often a strategy did not reach it."""
    reached = {
        name: [of_seed[name].reached(of_seed["nsga2"].volumes[-1]) for of_seed in climbs.values()]
        for name in next(iter(climbs.values()))
    }
    needed = {name: [most if each is None else each for each in counts] for name, counts in reached.items()}
    return needed, {name: counts.count(None) for name, counts in reached.items()}


def ratio_rows(needed: dict[str, list[int]]) -> list[Row]:
    """How many times the evaluations of LINAS the others need, on the mean of the seeds."""
    linas = statistics.fmean(needed["linas"])
    least, aim = {"nsga2": 3.0}, {"nsga2": 6.0}
    rows = [
        Row(f"{name}_over_linas", statistics.fmean(counts) / linas, "x", least.get(name), aim.get(name), False)
        for name, counts in needed.items()
        if name != "linas"
    ]
    return [*rows, Row("evaluations_of_linas", linas, "designs")]


def error_rows(
    problem: Problem, surrogate: Surrogate, held_out: Sequence[Evaluation]
) -> tuple[list[Row], list[dict[str, float]]]:
    """The surrogate against evaluations that it was not fitted to."""
    pairs = [
        {
            "delta_m": 100 * problem.delta_m(each.metrics),
            "delta_m_predicted": 100 * problem.delta_m(surrogate(each.design).metrics),
            "latency_ms": each.latency_ms[""],
            "latency_ms_predicted": surrogate(each.design).latency_ms[""],
        }
        for each in held_out
    ]
    columns = {name: np.array([pair[name] for pair in pairs]) for name in pairs[0]}
    off = np.abs(columns["delta_m_predicted"] - columns["delta_m"])
    slow = np.abs(columns["latency_ms_predicted"] / columns["latency_ms"] - 1)
    tau = kendall(columns["delta_m"].tolist(), columns["delta_m_predicted"].tolist())
    rows = [
        Row("surrogate_delta_m_tau", tau, "", lower_is_better=False),
        Row("surrogate_delta_m_error", float(off.mean()), "points"),
        Row("surrogate_latency_error", 100 * float(slow.mean()), "%"),
    ]
    return rows, pairs


def off_on_fronts(
    problem: Problem, evaluator: Evaluator, surrogate: Surrogate, climbs: dict[str, Climb], count: int
) -> list[float]:
    """Predicted less real delta_m, in points, of designs spread over the fronts of LINAS and NSGA-II."""
    designs = [
        front[number * len(front) // count].design
        for front in (climbs["linas"].front, climbs["nsga2"].front)
        for number in range(min(count, len(front)))
    ]
    return [
        100
        * (
            problem.delta_m(surrogate(design).metrics)
            - problem.delta_m(evaluator.simulated(evaluator.candidate(design)))
        )
        for design in {design.key: design for design in designs}.values()
    ]


def add(parser: argparse.ArgumentParser) -> None:
    """The options of size; what is not given is the full run's, or the quick one's."""
    parser.add_argument("--work", type=Path, default=RUNS / "search-efficiency", help="where the table is kept")
    parser.add_argument("--table", type=int, help=f"designs of the table, {TABLE} by default")
    parser.add_argument(
        "--evaluations", type=int, help=f"evaluations of each strategy at most, {EVALUATIONS} by default"
    )


if __name__ == "__main__":
    main(run, __doc__, add)
