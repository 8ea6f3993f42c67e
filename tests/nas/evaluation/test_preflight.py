from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import PreflightRow
from edgemtl.nas.evaluation.preflight import keeps_all, limits_of, preflight_budgets, preflight_floors
from edgemtl.spaces import Design, Space
from edgemtl.testing.landscape import PAIR, Paper, evaluate, problem, space
from edgemtl.units import parse_budget


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


class Counting(Paper):
    """Remembers what it was asked to time."""

    def __init__(self) -> None:
        self.timed: list[str] = []

    def time(self, candidate: Design) -> Mapping[str, float]:
        self.timed.append(candidate.key)
        return super().time(candidate)


def rows(pair: Space, *budgets: str, clock: Paper | None = None) -> list[PreflightRow]:
    return preflight_budgets(pair, [parse_budget(text) for text in budgets], clock or Paper())  # type: ignore[arg-type]


def test_a_row_says_what_three_designs_take(pair: Space) -> None:
    (row,) = rows(pair, "5MFLOPs")
    costs = [design.cost().flops for design in (pair.smallest(), pair.middle(), pair.largest())]
    assert [row.smallest, row.middle, row.largest] == costs
    assert (row.limit, row.satisfiable) == (5e6, True)


def test_the_smallest_is_the_least_of_every_uniform_precision(pair: Space) -> None:
    size, speed = rows(pair, "1GB", "1s")
    uniform = pair.uniform(pair.smallest())
    assert len(uniform) == 2
    assert size.smallest == min(design.cost().weight_bytes for design in uniform) < pair.smallest().cost().weight_bytes
    assert speed.smallest == min(evaluate(design).latency_ms[""] for design in uniform)
    assert speed.middle == evaluate(pair.middle()).latency_ms[""]


def test_a_share_and_a_tasks_own_part(pair: Space) -> None:
    share, own = rows(pair, "60%ms", "depth:70%FLOPs")
    assert math.isclose(share.limit, 0.6 * share.largest)
    assert own.largest == pair.largest().cost(["depth"]).flops
    assert math.isclose(own.limit, 0.7 * own.largest)
    assert [limit.value for limit in limits_of([share, own])] == [share.limit, own.limit]


def test_a_design_is_timed_once_for_all_budgets(pair: Space) -> None:
    clock = Counting()
    rows(pair, "1s", "80%ms", "depth:1s", "1GFLOPs", clock=clock)
    assert len(clock.timed) == len(set(clock.timed)) == 4


def test_without_a_limit_in_ms_nothing_is_timed(pair: Space) -> None:
    clock = Counting()
    assert rows(pair, clock=clock) == []
    rows(pair, "1GFLOPs", "5MB", clock=clock)
    assert clock.timed == []


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        (
            ["1kFLOPs"],
            "budget '1kFLOPs' allows 1.00 kFLOPs (500 MACs), but the smallest design of space tiny takes 1.80",
        ),
        (["1GFLOPs", "10B"], "budget '10B' allows 10.0 B, but the smallest design of space tiny takes 4.90 kB"),
        (["1us"], "budget '1us' allows 0.00100 ms, but the smallest design of space tiny takes 0.00391 ms"),
        (["depth:1kMACs"], "budget 'depth:1kMACs' allows 2.00 kFLOPs (1.00 kMACs), but the smallest design"),
        (["1%FLOPs"], "but the smallest design of space tiny takes 1.80 MFLOPs (902 kMACs)"),
    ],
)
def test_a_budget_that_nothing_keeps_says_the_smallest(pair: Space, budgets: list[str], expected: str) -> None:
    with pytest.raises(UserError) as error:
        rows(pair, *budgets)
    assert expected in str(error.value)
    assert "raise the budget, choose another space, or a smaller --size" in str(error.value)
    assert "\n" not in str(error.value)


class Simulated(Counting):
    """Scores designs by the landscape, and remembers which."""

    def __init__(self) -> None:
        super().__init__()
        self.scored: list[str] = []

    def simulated(self, candidate: Design) -> Mapping[str, Mapping[str, float]]:
        self.scored.append(candidate.key)
        return evaluate(candidate).metrics


def test_a_floor_is_looked_at_in_three_designs(pair: Space) -> None:
    scorer, task = Simulated(), problem(pair, floors=["depth=5%"])
    (row,) = preflight_floors(task, scorer)  # type: ignore[arg-type]
    assert row.largest == 0 < row.middle < row.smallest
    assert row.smallest == -task.changes(evaluate(pair.smallest()).metrics)["depth"]
    assert scorer.scored == [pair.smallest().key, pair.middle().key]
    assert preflight_floors(problem(pair), scorer) == []  # type: ignore[arg-type]
    assert len(scorer.scored) == 2, "without a floor nothing is scored"


@pytest.mark.parametrize(
    ("budget", "floor", "known"),
    [
        ("100%FLOPs", "depth=0%", "largest"),
        ("{middle}FLOPs", "depth=50%", "middle"),
        ("{middle}FLOPs", "depth=0%", ""),
        ("{smallest}FLOPs", "depth=90%", "smallest"),
        ("{smallest}FLOPs", "depth=0.1%", ""),
    ],
)
def test_what_is_known_of_all_limits_together(pair: Space, budget: str, floor: str, known: str) -> None:
    costs = {name: getattr(pair, name)().cost().flops for name in ("smallest", "middle")}
    filled = budget.format(**costs)
    task = problem(pair, [filled], [floor])
    floors = preflight_floors(task, Simulated())  # type: ignore[arg-type]
    assert keeps_all(task, rows(pair, filled), floors) == known


def test_a_value_is_looked_at_in_its_own_unit_and_refused_where_the_largest_misses_it(pair: Space) -> None:
    largest = evaluate(pair.largest()).metrics["depth"]["rmse"]
    scorer, kept = Simulated(), problem(pair, floors=[f"depth<{largest + 0.01:.6f}"])
    (row,) = preflight_floors(kept, scorer)  # type: ignore[arg-type]
    assert row.largest == largest < row.middle < row.smallest == evaluate(pair.smallest()).metrics["depth"]["rmse"]
    assert keeps_all(kept, [], [row]) == "largest"
    missed, unused = problem(pair, floors=[f"depth<{largest - 0.01:.6f}"]), Simulated()
    with pytest.raises(UserError, match=r"the largest design of space tiny has rmse .* m on validation images"):
        preflight_floors(missed, unused)  # type: ignore[arg-type]
    assert unused.scored == [], "it is known before anything else is scored"
