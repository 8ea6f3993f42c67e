from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from refusals import refused

from edgemtl.nas.evaluation.problem import Evaluation, Limit, Problem, check_objectives, non_dominated
from edgemtl.spaces import Design, Space
from edgemtl.tasks import delta_m
from edgemtl.testing.landscape import PAIR, evaluate, problem, space
from edgemtl.units import parse_budget

coordinate = st.integers(0, 5).map(float)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


def worse(problem: Problem, factor: float) -> Evaluation:
    """The largest design with a depth error that is `factor` times the baseline's."""
    found = evaluate(problem.space.largest())
    return Evaluation(
        found.design,
        {**found.metrics, "depth": {"rmse": factor * problem.baseline["depth"]["rmse"]}},
        found.latency_ms,
    )


@settings(deadline=None)
@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[coordinate] * n), max_size=12)))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[float, ...]]) -> None:
    found = non_dominated(points)
    assert found == sorted(set(found))
    front = {points[i] for i in found}
    assert len(front) == len(found)
    for p in set(points):
        beaten = any(q != p and all(b <= a for a, b in zip(p, q, strict=True)) for q in points)
        assert (p in front) != beaten


@settings(deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=12), st.randoms())
def test_the_front_does_not_depend_on_the_order(points: list[tuple[float, float]], rng: object) -> None:
    shuffled = sorted(points, key=lambda _: rng.random())  # type: ignore[attr-defined]
    assert {points[i] for i in non_dominated(points)} == {shuffled[i] for i in non_dominated(shuffled)}


def test_a_budget_on_flops_is_counted(pair: Space) -> None:
    small, large = pair.smallest(), pair.largest()
    task = problem(pair, [f"{small.cost().flops}FLOPs"])
    assert task.affordable(small)
    assert not task.affordable(large)
    assert task.violation(evaluate(small)) == 0
    assert math.isclose(task.violation(evaluate(large)), large.cost().flops / small.cost().flops - 1)


def test_a_share_is_of_the_largest_design(pair: Space) -> None:
    (limit,) = problem(pair, ["60%FLOPs"]).limits
    assert math.isclose(limit.value, 0.6 * pair.largest().cost().flops)
    (limit,) = problem(pair, ["50%MB"]).limits
    assert math.isclose(limit.value, 0.5 * pair.largest().cost().weight_bytes)
    (limit,) = problem(pair, ["depth:75%ms"]).limits
    assert math.isclose(limit.value, 0.75 * evaluate(pair.largest()).latency_ms["depth"])


def test_a_tasks_own_budget_counts_its_path_alone(pair: Space) -> None:
    design = pair.largest()
    (limit,) = problem(pair, ["depth:1GFLOPs"]).limits
    assert limit.exact
    assert limit.count(design) == design.cost(["depth"]).flops < design.cost().flops


def test_int8_makes_weights_smaller_and_flops_equal(pair: Space) -> None:
    flops, size = problem(pair, ["1GFLOPs", "1GB"]).limits
    plain, eight = pair.largest(), pair.largest("int8")
    assert flops.count(plain) == flops.count(eight)
    assert size.count(eight) < size.count(plain) / 2


def test_latency_is_measured_not_counted(pair: Space) -> None:
    found = evaluate(pair.largest())
    task = problem(pair, [f"{found.latency_ms[''] / 2:.9f}ms", "1GFLOPs"])
    assert task.affordable(found.design)
    assert not task.feasible(found)
    assert math.isclose(task.violation(found), 1, rel_tol=1e-6)


def test_several_budgets_all_hold(pair: Space) -> None:
    small = pair.smallest()
    counts = small.cost()
    assert problem(pair, [f"{counts.flops}FLOPs", f"{counts.weight_bytes}B"]).affordable(small)
    assert not problem(pair, [f"{counts.flops}FLOPs", f"{counts.weight_bytes - 1}B"]).affordable(small)


def test_a_floor_is_a_tasks_own_limit(pair: Space) -> None:
    task = problem(pair, floors=["depth=2%"])
    assert task.feasible(worse(task, 1.019))
    assert not task.feasible(worse(task, 1.021))
    assert math.isclose(task.violation(worse(task, 1.05)), 0.03)
    assert problem(pair).feasible(worse(task, 3))


def test_a_broken_limit_is_named_with_how_much(pair: Space) -> None:
    small = pair.smallest().cost().flops
    task = problem(pair, [f"{small}FLOPs", "1GB"], ["depth=2%", "semseg=5%"])
    checks = task.checks(worse(task, 1.05))
    assert [(check.name, check.kept) for check in checks] == [
        (f"{small}FLOPs", False), ("1GB", True), ("floor depth=2%", False), ("floor semseg=5%", True),
    ]  # fmt: skip
    assert checks[2].words == "depth loses 5 % on validation images where 2 % is allowed, missed by 3 %"
    assert checks[3].words == "semseg loses 0 % on validation images where 5 % is allowed"
    assert "takes" in checks[0].words and "is allowed" in checks[0].words
    assert task.violation(worse(task, 1.05)) == pytest.approx(checks[0].excess + 0.03)


def test_a_broken_value_is_named_in_its_own_unit(pair: Space) -> None:
    base = problem(pair).baseline["depth"]["rmse"]
    task = problem(pair, floors=[f"depth<{base:.9f}", "semseg>0.001"])
    rmse, miou = task.checks(worse(task, 1.05))
    assert (rmse.quantity, rmse.metric, rmse.unit, rmse.kept, rmse.at_least) == ("score", "rmse", "m", False, False)
    assert rmse.excess == pytest.approx(0.05, abs=1e-6) and rmse.value == pytest.approx(1.05 * base)
    assert rmse.words.startswith("depth has rmse ") and " m is allowed, missed by " in rmse.words
    assert miou.kept and miou.at_least and miou.words.endswith("where at least 0.001 is allowed")


def test_what_has_no_finite_score_breaks_its_floor(pair: Space) -> None:
    task = problem(pair, floors=["depth=2%"])
    found = worse(task, math.nan)
    assert not task.feasible(found)
    assert task.violation(found) > 1e6


def test_no_limits_no_violation(pair: Space) -> None:
    assert problem(pair).violation(evaluate(pair.smallest())) == 0


def test_delta_m_of_the_baseline_is_zero_and_preference_weighs(pair: Space) -> None:
    task = problem(pair)
    assert task.delta_m(task.baseline) == 0
    heavy = problem(pair, preference={"semseg": 1.0, "depth": 3.0})
    found = worse(task, 1.2)
    assert math.isclose(task.delta_m(found.metrics), -0.1)
    assert math.isclose(heavy.delta_m(found.metrics), -0.15)
    assert heavy.delta_m(found.metrics) == delta_m(PAIR, found.metrics, heavy.baseline, heavy.preference)
    assert math.isclose(task.changes(found.metrics)["depth"], -0.2)


def test_objectives_are_minimised(pair: Space) -> None:
    task, found = problem(pair), evaluate(pair.smallest())
    assert task.objectives(found) == (-task.delta_m(found.metrics), found.latency_ms[""])
    blind = Problem(pair, (), (), task.preference, task.baseline, measures_latency=False)
    assert blind.objectives(Evaluation(found.design, found.metrics, {}))[1] == found.design.cost().flops


def test_objectives_are_any_that_are_named(pair: Space) -> None:
    task, found = problem(pair), worse(problem(pair), 1.2)
    named = replace(task, objectives_given=("depth", "params", "bytes", "delta_m", "flops", "latency"))
    cost = found.design.cost()
    expected = (0.2, cost.params, cost.weight_bytes, 0.1, cost.flops, found.latency_ms[""])
    assert named.objectives(found) == pytest.approx(expected)
    assert named.speed(found) == cost.params, "the first that is a cost"
    assert replace(task, objectives_given=("depth", "delta_m")).speed(found) == found.latency_ms[""]


@pytest.mark.parametrize(
    ("names", "timed", "expected"),
    [
        (("delta_m", "latncy"), True, "unknown objective 'latncy': did you mean latency"),
        (("delta_m",), True, "objectives delta_m given: give two or more different ones"),
        (("flops", "flops"), True, "give two or more different ones"),
        (("delta_m", "latency"), False, "objective latency: engines are not timed for this device here; give flops"),
    ],
)
def test_objectives_that_cannot_be_are_one_line(names: tuple[str, ...], timed: bool, expected: str) -> None:
    assert expected in refused(lambda: check_objectives(names, ["depth", "semseg"], timed))


def test_the_most_frugal_design_keeps_whatever_can_be_kept(pair: Space) -> None:
    least = min(design.cost().weight_bytes for design in pair.uniform(pair.smallest()))
    task = problem(pair, [f"{least}B"])
    assert task.affordable(task.cheapest())
    assert not task.affordable(pair.smallest())
    assert problem(pair).cheapest().cost().flops == pair.smallest().cost().flops


def test_the_pair_really_has_a_shared_trunk(tmp_path: Path) -> None:
    """What the tests above rely on: two tasks cost less together than apart."""
    design = space(tmp_path, PAIR).largest()
    apart = sum(design.cost([task.name]).flops for task in PAIR)
    assert design.cost().flops < apart


class Guess:
    """Predicts 2 ms of all tasks and 1 ms of depth alone."""

    errors: ClassVar[dict[str, float]] = {"": 0.05, "depth": 0.1}

    def predict(self, designs: Sequence[Design], scope: str = "") -> NDArray[np.float64]:
        return np.full(len(designs), 1.0 if scope else 2.0)


@pytest.mark.parametrize(
    ("budgets", "close"),
    [((), False), (("3ms",), False), (("1ms",), False), (("2.09ms",), True), (("3ms", "depth:0.95ms"), True)],
)
def test_a_latency_is_predicted_unless_a_limit_lies_within_its_error(
    pair: Space, budgets: tuple[str, ...], close: bool
) -> None:
    limits = tuple(Limit(parse_budget(text), parse_budget(text).value) for text in budgets)
    task = replace(problem(pair), limits=limits, latency=Guess())
    predicted = task.predict_latency(pair.largest())
    assert (predicted is None) == close
    assert predicted is None or predicted.latency_ms == {"": 2.0, "depth": 1.0}
    assert problem(pair).predict_latency(pair.largest()) is None
