from __future__ import annotations

from pathlib import Path

import pytest
from _surrogate import Surrogate, measured, split_table, table_designs
from search_efficiency import STRATEGIES, Climb, Scale, climb, counted, error_rows, problem_of, ratio_rows

from edgemtl.nas.evaluation import Evaluation, Problem
from edgemtl.nas.search.strategies import make_strategy
from edgemtl.spaces import Design, Space
from edgemtl.testing.landscape import PAIR, evaluate, space


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("space"), PAIR)


@pytest.fixture(scope="module")
def table(tiny: Space) -> list[Evaluation]:
    return [evaluate(design) for design in table_designs(tiny, 60)]


@pytest.fixture(scope="module")
def problem(tiny: Space, table: list[Evaluation]) -> Problem:
    return problem_of(tiny, table[0])


@pytest.fixture(scope="module")
def scale(problem: Problem, table: list[Evaluation]) -> Scale:
    return Scale(problem.objectives(table[1])[0], table[0].latency_ms[""])


def test_a_table_begins_with_both_ends_and_is_measured_once(tiny: Space, tmp_path: Path) -> None:
    designs, evaluated = table_designs(tiny, 6), list[str]()
    assert designs[:2] == [tiny.largest(), tiny.smallest()] and len({d.key for d in designs}) == 6

    def evaluate_once(design: Design) -> Evaluation:
        evaluated.append(design.key)
        return evaluate(design)

    first = measured(tmp_path, designs[:4], evaluate_once)
    again = measured(tmp_path, designs, evaluate_once)
    assert again[:4] == first == [evaluate(design) for design in designs[:4]]
    assert len(evaluated) == 6


def test_the_surrogate_is_near_on_designs_that_it_has_not_seen(
    tiny: Space, table: list[Evaluation], problem: Problem
) -> None:
    known, held_out = split_table(table)
    assert len(held_out) == 12 and not {e.design.key for e in held_out} & {e.design.key for e in known}
    rows, pairs = error_rows(problem, Surrogate.fitted(tiny, known), held_out)
    figures = {row.name: row.value for row in rows}
    assert figures["surrogate_delta_m_tau"] > 0.6
    assert figures["surrogate_latency_error"] < 25
    assert len(pairs) == 12


def test_both_ends_lie_on_the_edges_of_the_unit_square(table: list[Evaluation], problem: Problem, scale: Scale) -> None:
    assert scale.point(problem, table[0]) == (0, 1)
    assert scale.point(problem, table[1])[0] == 1


def test_a_climb_never_loses_volume_and_ends_at_its_target(problem: Problem, scale: Scale) -> None:
    def sampler() -> object:
        return make_strategy("random").sampler(problem, 0, 12)  # type: ignore[attr-defined]

    whole = climb(problem, sampler(), evaluate, scale, 25)  # type: ignore[arg-type]
    assert len(whole.volumes) == 25 and whole.volumes == sorted(whole.volumes)
    assert list(whole.steps.values()) == sorted(set(whole.volumes)) and whole.steps[1] == whole.volumes[0]
    halfway = whole.volumes[12]
    short = climb(problem, sampler(), evaluate, scale, 25, halfway)  # type: ignore[arg-type]
    assert len(short.volumes) == whole.reached(halfway) <= 13
    assert whole.reached(whole.volumes[-1] + 1) is None
    assert all(whole.front[0].latency_ms != other.latency_ms for other in whole.front[1:])


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_climbs_on_the_surrogate(
    name: str, table: list[Evaluation], problem: Problem, scale: Scale
) -> None:
    surrogate = Surrogate.fitted(problem.space, table)
    sampler = make_strategy(name).sampler(problem, 0, 6)  # type: ignore[attr-defined]
    climbed = climb(problem, sampler, surrogate, scale, 9)
    assert len(climbed.volumes) == 9 and climbed.volumes[-1] > 0


def test_what_was_not_reached_counts_in_full_and_is_told() -> None:
    slow, quick, never = Climb([0.1, 0.2, 0.3, 0.4], []), Climb([0.3, 0.4], []), Climb([0.1, 0.1, 0.1, 0.1], [])
    needed, unreached = counted({0: {"nsga2": slow, "linas": quick, "random": never}}, 4)
    assert needed == {"nsga2": [4], "linas": [2], "random": [4]}
    assert unreached == {"nsga2": 0, "linas": 0, "random": 1}
    rows = {row.name: row for row in ratio_rows(needed)}
    assert rows["nsga2_over_linas"].value == 2 and rows["nsga2_over_linas"].holds is False
