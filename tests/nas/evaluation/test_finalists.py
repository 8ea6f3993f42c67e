from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgemtl.nas.evaluation import Candidate, finalists
from edgemtl.nas.evaluation.finalists import (
    Finalist,
    choose,
    fast_enough,
    front_of,
    is_uniform,
    measure_finalists,
    pick_architectures,
    precision_variants,
)
from edgemtl.nas.evaluation.problem import Evaluation, Problem
from edgemtl.spaces import Design, Space
from edgemtl.tasks import make_task
from edgemtl.testing.landscape import PAIR, TRAITS, Paper, evaluate, problem, space


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


@pytest.fixture(scope="module")
def designs(pair: Space) -> list[Design]:
    """Eight different architectures."""
    rng = random.Random(0)
    made: dict[str, Design] = {}
    while len(made) < 8:
        design = pair.random(rng)
        made.setdefault(repr(design.plan), design)
    return list(made.values())


def found(task: Problem, design: Design, delta: float, ms: float, ratio: float = 1.0, depth: float = 0.0) -> Finalist:
    """A finalist of a given delta_m and latency; `depth` moves quality from depth to the other task."""
    base = task.baseline
    metrics = {
        "semseg": {"miou": base["semseg"]["miou"] * (1 + delta + depth)},
        "depth": {"rmse": base["depth"]["rmse"] * (1 - delta + depth)},
    }
    candidate = Candidate(design, None, None)  # type: ignore[arg-type]
    return Finalist(candidate, Evaluation(design, metrics, {"": ms, "depth": ms, "semseg": ms}), ratio)


def architecture(design: Design) -> dict[str, object]:
    return {name: option for name, option in design.items() if not name.endswith(".precision")}


def test_variants_are_the_design_and_every_sensible_precision_of_its_net(pair: Space) -> None:
    design = pair.design({**pair.middle(), "s1_1.precision": "int8", "depth_neck.precision": "int8"})
    variants = precision_variants(pair, design)
    assert variants[0] == design
    assert len({variant.key for variant in variants}) == len(variants) == 5
    assert all(architecture(variant) == architecture(design) for variant in variants)
    eights = [{b for b, kind in v.precision.items() if kind == "int8"} for v in variants[1:]]
    blocks = {block.name for block in design.plan.blocks}
    decoders = {block.name for block in design.plan.blocks if block.task}
    ends = {"stem", "semseg_head", "depth_head"}
    assert sorted(eights, key=len) == sorted([set(), blocks, blocks - ends, blocks - decoders], key=len)


def test_a_uniform_design_is_not_its_own_double(pair: Space) -> None:
    variants = precision_variants(pair, pair.largest("int8"))
    assert len({variant.key for variant in variants}) == len(variants) == 4


def test_variants_of_an_engine_that_has_two_precisions(tmp_path: Path) -> None:
    both = space(tmp_path, PAIR, replace(TRAITS, engine_precisions=("fp32", "bf16")))
    variants = precision_variants(both, both.smallest())
    assert [v.precision["engine"] for v in variants].count("bf16") == len(variants) / 2 == 4


def test_a_target_without_int8_has_nothing_to_vary(tmp_path: Path) -> None:
    plain = space(tmp_path, PAIR, replace(TRAITS, block_precisions=("float",)))
    assert precision_variants(plain, plain.middle()) == [plain.middle()]


def test_a_task_with_an_underscore_keeps_its_decoder(tmp_path: Path) -> None:
    where = space(tmp_path, (make_task("left_depth", "depth"),))
    kept = precision_variants(where, where.largest("int8"))[-1]
    floats = {name for name, kind in kept.precision.items() if kind == "float"}
    assert floats == {"left_depth_neck", "left_depth_body", "left_depth_head"}


def test_uniform(pair: Space) -> None:
    assert is_uniform(pair.largest("int8"))
    assert is_uniform(pair.smallest())
    assert not is_uniform(pair.design({**pair.largest(), "stem.precision": "int8"}))


def test_the_best_of_the_front_are_refined(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, ["0.02ms"])
    given = [
        found(task, designs[0], -0.30, 0.004),
        found(task, designs[1], -0.01, 0.019),
        found(task, designs[2], -0.20, 0.010),
        found(task, designs[3], -0.25, 0.011),  # beaten by the one before
        found(task, designs[4], 0.10, 0.021),  # over the budget
    ]
    evaluations = [finalist.evaluation for finalist in given]
    assert pick_architectures(task, evaluations, 2) == [designs[1], designs[2]]
    assert pick_architectures(task, evaluations, 9) == [designs[1], designs[2], designs[0]]


def test_where_nothing_is_feasible_the_nearest_are_refined(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, ["0.02ms"], ["depth=5%"])
    first, second, third = [design for design in designs if design.plan != pair.largest().plan][:3]
    given = [found(task, first, 0.0, 0.040), found(task, second, -0.30, 0.010), found(task, third, -0.10, 0.021)]
    evaluations = [f.evaluation for f in given]
    assert pick_architectures(task, evaluations, 1) == [third]
    assert pick_architectures(task, evaluations, 2) == [third, second, pair.largest()], "it keeps every floor"
    counted = problem(pair, ["90%FLOPs"], ["depth=5%"])
    assert pair.largest() not in pick_architectures(counted, evaluations[1:2], 2), "it is over the budget"


def test_the_fastest_within_half_a_point_of_the_best_is_chosen(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, ["0.02ms"])
    given = [
        found(task, designs[0], -0.020, 0.015),
        found(task, designs[1], -0.0245, 0.008),
        found(task, designs[2], -0.031, 0.004),  # too much worse
        found(task, designs[3], 0.200, 0.030),  # over the budget
        found(task, designs[4], -0.022, 0.008),
    ]
    assert choose(task, given) is given[4]
    assert choose(task, given[:2]) is given[1]
    assert choose(task, [given[0], given[2]]) is given[0]
    assert choose(replace(task, noise=0.006), given) is given[0], "scores are off by more than half a point"


def test_floors_for_every_task_and_no_budget_ask_for_the_fastest(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, floors=["depth=5%", "semseg=5%"])
    given = [
        found(task, designs[0], -0.010, 0.015),
        found(task, designs[1], -0.045, 0.008),
        found(task, designs[2], -0.060, 0.004),  # below both floors
        found(task, designs[3], -0.030, 0.011),
    ]
    assert task.seeks_speed and choose(task, given) is given[1]
    assert pick_architectures(task, [each.evaluation for each in given], 2) == [designs[1], designs[3]]
    assert choose(replace(task, floors=task.floors[:1]), given) is given[0], "the other task may lose no more for speed"
    assert choose(replace(task, preference={"depth": 2.0, "semseg": 1.0}), given) is given[0]


def test_where_nothing_is_feasible_the_nearest_is_chosen(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, ["0.02ms"], ["depth=5%"])
    given = [found(task, designs[0], 0.0, 0.030), found(task, designs[1], 0.0, 0.010, depth=0.2)]
    assert choose(task, given) is given[1]
    assert not task.feasible(choose(task, given).evaluation)


def test_the_nearest_breaks_least_in_all_not_least_in_one(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, ["0.02ms"], ["depth=5%"])
    given = [
        found(task, designs[0], 0.0, 0.0222, depth=0.15),  # 11 % too slow and 10 points of depth
        found(task, designs[1], 0.0, 0.0100, depth=0.17),  # 12 points of depth
    ]
    assert choose(task, given) is given[1]


def test_an_architecture_is_refined_once(pair: Space) -> None:
    task = problem(pair)
    large, small = pair.largest(), pair.smallest()
    eight_bit = pair.design({**large, "stem.precision": "int8"})
    given = [found(task, large, 0.0, 0.03), found(task, eight_bit, -0.01, 0.02), found(task, small, -0.2, 0.01)]
    assert pick_architectures(task, [f.evaluation for f in given], 2) == [large, small]


def test_what_a_uniform_precision_beats_is_dropped_unless_nothing_else_is_feasible(
    pair: Space, designs: list[Design]
) -> None:
    task = problem(pair, ["0.02ms"])
    slow, over = found(task, designs[0], -0.01, 0.015, 1.1), found(task, designs[2], 0.0, 0.030)
    fast = found(task, designs[1], -0.05, 0.010, 0.9)
    assert fast_enough(task, [slow, fast, over]) == [fast]
    assert fast_enough(task, [slow, over]) == [slow, over]


def test_a_mixture_of_precisions_must_be_clearly_faster_than_each_alone(pair: Space) -> None:
    task = problem(pair, ["0.02ms"])
    alone = found(task, pair.largest("int8"), -0.05, 0.010, 1.0)
    mixed = pair.design({**pair.largest("int8"), "stem.precision": "float"})
    by_chance, clearly = found(task, mixed, -0.01, 0.0098, 0.98), found(task, mixed, -0.01, 0.009, 0.9)
    assert fast_enough(task, [alone, by_chance]) == [alone]
    assert fast_enough(task, [alone, clearly]) == [alone, clearly]


def test_a_floor_decides_between_designs_of_equal_delta_m(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, floors=["depth=5%"])
    given = [found(task, designs[0], -0.02, 0.005, depth=0.10), found(task, designs[1], -0.02, 0.009)]
    assert choose(task, given) is given[1]
    assert choose(problem(pair), given) is given[0]


def test_the_front_has_the_feasible_ones_that_nobody_beats(pair: Space, designs: list[Design]) -> None:
    task = problem(pair, ["0.02ms"])
    given = [
        found(task, designs[0], -0.02, 0.015),
        found(task, designs[1], -0.10, 0.005),
        found(task, designs[2], -0.11, 0.006),
        found(task, designs[3], 0.10, 0.030),
    ]
    assert front_of(task, given) == given[:2]
    assert front_of(task, given[3:]) == given[3:]


class PaperEngines(Paper):
    """An evaluator whose figures come from the landscape, where a search would build and time engines."""

    is_timed = True
    scopes = ("",)

    def candidate(self, design: Design) -> Candidate:  # type: ignore[override]
        return Candidate(design, None, None)  # type: ignore[arg-type]

    def ranges(self, net: object) -> None:
        return None

    def simulated(self, candidate: Candidate) -> Mapping[str, Mapping[str, float]]:
        return evaluate(candidate.design).metrics


@pytest.fixture
def on_paper(monkeypatch: pytest.MonkeyPatch) -> PaperEngines:
    def time(evaluator: object, candidates: Sequence[Candidate]) -> list[dict[str, float]]:
        return [dict(evaluate(candidate.design).latency_ms) for candidate in candidates]

    monkeypatch.setattr(finalists, "_time", time)
    return PaperEngines()


def test_a_uniform_precision_that_a_slow_engine_held_back_is_timed_again(
    pair: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One engine in eight is slow for as long as it lives: what others are held against must not hang on it."""
    variants = [Candidate(variant, None, None) for variant in precision_variants(pair, pair.largest())]  # type: ignore[arg-type]
    alike = [is_uniform(candidate.design) for candidate in variants]
    eight_bit = next(n for n, c in enumerate(variants) if alike[n] and "int8" in c.design.precision.values())
    mixed = alike.index(False)

    def timed(evaluator: object, candidates: Sequence[Candidate], engines: int) -> list[dict[str, float]]:
        ms = [10.0] * len(variants)
        ms[eight_bit], ms[mixed] = (15.0, 15.0) if engines == 1 else (8.0, 8.0)
        return [{"": ms[variants.index(candidate)]} for candidate in candidates]

    monkeypatch.setattr(finalists, "timed_together", timed)
    found = finalists._time(PaperEngines(), variants)  # type: ignore[arg-type]
    assert found[eight_bit][""] == 8.0
    assert found[mixed][""] == 15.0


@pytest.mark.parametrize("block", ["fused", "depthwise"])
def test_no_finalist_is_slower_than_the_best_uniform_precision(pair: Space, on_paper: PaperEngines, block: str) -> None:
    """INT8 is faster for fused blocks on this landscape and slower for depthwise ones, as on real runtimes."""
    task = problem(pair)
    design = pair.design({**pair.largest(), "s2.block": block, "s2_1.precision": "int8"})
    kept = measure_finalists(task, on_paper, design, export_loss=1.0)  # type: ignore[arg-type]
    best = min(evaluate(variant).latency_ms[""] for variant in pair.uniform(design))
    assert kept
    for finalist in kept:
        assert finalist.evaluation.latency_ms[""] <= 1.011 * best
        assert finalist.ratio == pytest.approx(finalist.evaluation.latency_ms[""] / best)


def test_a_slower_precision_stays_where_only_it_keeps_a_floor(pair: Space, on_paper: PaperEngines) -> None:
    """Otherwise the fastest ones alone are left."""
    design = pair.largest()
    changes = {v.key: problem(pair).changes(evaluate(v).metrics)["depth"] for v in precision_variants(pair, design)}
    assert changes[design.key] == 0
    assert min(changes.values()) < 0
    loose = measure_finalists(problem(pair), on_paper, design, export_loss=1.0)  # type: ignore[arg-type]
    strict = measure_finalists(problem(pair, floors=["depth=0%"]), on_paper, design, export_loss=1.0)  # type: ignore[arg-type]
    assert design.key not in [f.candidate.design.key for f in loose]
    assert [f.candidate.design.key for f in strict] == [design.key]


def test_of_a_floor_that_all_break_the_variant_that_loses_least_is_chosen(pair: Space, on_paper: PaperEngines) -> None:
    """The plain net, which is slower than INT8: what is only slow may be the nearest."""
    task, design = problem(pair, floors=["depth=0%"]), pair.smallest()
    given = measure_finalists(task, on_paper, design, export_loss=1.0)  # type: ignore[arg-type]
    assert not any(task.feasible(f.evaluation) for f in given)
    chosen = choose(task, fast_enough(task, given))
    lost = [task.checks(f.evaluation)[0].value for f in given]
    assert task.checks(chosen.evaluation)[0].value == min(lost) < max(lost)
    assert chosen.ratio > 1


def test_what_an_export_would_refuse_is_no_finalist(pair: Space, on_paper: PaperEngines) -> None:
    """A net in INT8 that loses more than an export accepts against itself in FP32, however fast."""
    design = pair.largest()
    kept = measure_finalists(problem(pair), on_paper, design)  # type: ignore[arg-type]
    lost = {v.key: -min(problem(pair).changes(evaluate(v).metrics).values()) for v in precision_variants(pair, design)}
    assert max(lost.values()) > finalists.EXPORT_LOSS
    assert all(lost[f.candidate.design.key] <= finalists.EXPORT_LOSS for f in kept)
    assert kept


def test_what_does_not_run_here_is_not_varied_while_an_export_takes_it(pair: Space) -> None:
    blind = PaperEngines()
    blind.is_timed = False
    design = pair.design({**pair.largest(), "semseg_head.precision": "int8"})
    task = replace(problem(pair), measures_latency=False)
    (only,) = measure_finalists(task, blind, design)  # type: ignore[arg-type]
    assert only.candidate.design == design
    assert only.evaluation.latency_ms == {}


@pytest.mark.parametrize("floors", [[], ["depth=0%"]])
def test_what_an_export_would_refuse_is_no_finalist_where_nothing_runs_here(pair: Space, floors: list[str]) -> None:
    """It is held against its net in FP32, not against itself, and the net's other precisions stand in for it."""
    blind = PaperEngines()
    blind.is_timed = False
    task = replace(problem(pair, floors=floors), measures_latency=False)
    refused = pair.largest("int8")
    plain = evaluate(pair.largest()).metrics
    assert finalists._lost(task, evaluate(refused).metrics, plain) > finalists.EXPORT_LOSS
    kept = measure_finalists(task, blind, refused)  # type: ignore[arg-type]
    assert kept and refused not in [f.candidate.design for f in kept]
    for finalist in kept:
        assert architecture(finalist.candidate.design) == architecture(refused)
        assert finalists._lost(task, finalist.evaluation.metrics, plain) <= finalists.EXPORT_LOSS
        assert finalist.evaluation.latency_ms == {}
    assert choose(task, fast_enough(task, kept)).candidate.design == pair.largest(), "without a latency quality decides"
