from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_world import Ask

from edgemtl.errors import UserError
from edgemtl.nas.evaluation.problem import Limit, Problem
from edgemtl.nas.evaluation.sensitivity import Sensitivity, measure_sensitivity
from edgemtl.nas.search import SearchRequest, search
from edgemtl.nas.search.strategies.preference import PreferenceTable, make_table, ranked_for, widths_for
from edgemtl.nas.search.strategies.preference_sampler import PreferenceSampler
from edgemtl.progress import Progress
from edgemtl.spaces import Design, Space, load_space
from edgemtl.spaces.space import is_precision
from edgemtl.tasks import make_task
from edgemtl.testing.landscape import PAIR, TINY, drive, evaluate, problem, space
from edgemtl.units import parse_budget

DEEP = TINY.replace("decoder: {width: [8, 16], depth: [1]}", "decoder: {width: [8, 16, 24], depth: [1, 2]}")
THREE = (*PAIR, make_task("kind", "classification", 4))
WEIGHT = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0])


def mapped(where: Space) -> Sensitivity:
    baseline = evaluate(where.largest()).metrics
    return measure_sensitivity(where, lambda design: evaluate(design).metrics, baseline)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("deep"), THREE, text=DEEP)


@pytest.fixture(scope="module")
def table(deep: Space) -> PreferenceTable:
    return make_table(deep, mapped(deep))


def limit(where: Space, text: str) -> Limit:
    """A counted budget, a share of what the largest design takes."""
    budget = parse_budget(text)
    return Limit(budget, budget.limit(Limit(budget, 0).count(where.largest())))


def rung(table: PreferenceTable, design: Design, task: str) -> int:
    ladder = table.ladders[task]
    return next(n for n, values in enumerate(ladder) if all(design[name] == option for name, option in values.items()))


def share(table: PreferenceTable, design: Design, task: str) -> float:
    """How far up its ladder a task's decoder stands."""
    return rung(table, design, task) / (len(table.ladders[task]) - 1)


def test_a_ladder_leads_from_the_smallest_to_the_largest_decoder_in_single_steps(
    deep: Space, table: PreferenceTable
) -> None:
    for task in deep.tasks:
        names = [c.name for c in deep.choices if c.task == task.name and not is_precision(c)]
        ladder = table.ladders[task.name]
        positions = [[deep_index(deep, name, values) for name in names] for values in ladder]
        assert all(ladder[0][name] == deep.smallest()[name] for name in names)
        assert all(ladder[-1][name] == deep.largest()[name] for name in names)
        for low, high in itertools.pairwise(positions):
            assert sorted(b - a for a, b in zip(low, high, strict=True)) == [0] * (len(names) - 1) + [1]


def deep_index(where: Space, name: str, values: Mapping[str, object]) -> int:
    options = next(c.options for c in where.choices if c.name == name)
    return list(options).index(values[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_table_counts_as_a_plan_does(deep: Space, table: PreferenceTable, kind: str) -> None:
    rungs = {"semseg": 2, "depth": 0, "kind": 1}
    own = {name: option for task, number in rungs.items() for name, option in table.ladders[task][number].items()}
    every = {c.name: kind for c in deep.choices if is_precision(c)}
    for text in ("1MB", "1GFLOPs", "semseg:1GFLOPs", "kind:1MB", "1Mparams", "depth:1Mparams"):
        taken = table.taken(Limit(parse_budget(text), 1), rungs, kind)
        for encoder, found in zip(table.encoders, taken, strict=True):
            assert found == Limit(parse_budget(text), 1).count(deep.design({**encoder, **own, **every}))


@settings(deadline=None)  # a busy machine takes its time
@given(
    weights=st.tuples(WEIGHT, WEIGHT, WEIGHT).filter(any),
    flops=st.integers(25, 110),
    size=st.integers(30, 110),
    precision=st.sampled_from(["float", "int8"]),
)
def test_no_counted_limit_is_exceeded_and_decoders_follow_the_preference(
    deep: Space, table: PreferenceTable, weights: tuple[float, ...], flops: int, size: int, precision: str
) -> None:
    preference = {task.name: weight for task, weight in zip(THREE, weights, strict=True)}
    limits = [limit(deep, f"{flops}%FLOPs"), limit(deep, f"{size}%MB")]
    chosen = {c.name: precision for c in deep.choices if is_precision(c)}
    for design in ranked_for(table, preference, limits, precision=chosen):
        assert all(each.count(design) <= each.value for each in limits)
        assert set(design.precision.values()) - {"fp32"} == {precision}
        a, b = "semseg", "depth"  # their ladders are alike
        if preference[a] > preference[b]:
            assert rung(table, design, a) >= rung(table, design, b)


@settings(deadline=None)  # a busy machine takes its time
@given(
    others=st.tuples(WEIGHT, WEIGHT).filter(any),
    low=st.floats(0, 4),
    more=st.floats(0, 4),
    flops=st.integers(70, 110),
)
def test_a_decoder_never_shrinks_as_its_task_is_preferred_more(
    deep: Space, table: PreferenceTable, others: tuple[float, float], low: float, more: float, flops: int
) -> None:
    limits = [limit(deep, f"{flops}%FLOPs")]
    rest = dict(zip(("depth", "kind"), others, strict=True))
    before, after = (widths_for(table, {"semseg": w, **rest}, limits) for w in (low, low + more))
    assert rung(table, after, "semseg") >= rung(table, before, "semseg")
    assert rung(table, after, "depth") <= rung(table, before, "depth")


def test_the_preferred_task_gets_what_another_gives_up(deep: Space, table: PreferenceTable) -> None:
    limits = [limit(deep, "50%FLOPs")]
    found = {
        name: widths_for(table, {"semseg": 0, "depth": 0, "kind": 0, name: 1}, limits) for name in ("semseg", "depth")
    }
    for name, other in (("semseg", "depth"), ("depth", "semseg")):
        assert share(table, found[name], name) == 1
        assert share(table, found[name], other) == 0


def test_the_least_preferred_decoder_shrinks_first(deep: Space, table: PreferenceTable) -> None:
    """Budgets that the smallest encoder and the wished decoders only just exceed."""
    preference = {"semseg": 3.0, "depth": 2.0, "kind": 1.0}
    wished = widths_for(table, preference, [])
    least = deep.design({**wished, **table.encoders[0]})
    tight = widths_for(table, preference, [Limit(parse_budget("1FLOPs"), least.cost().flops - 1)])
    assert all(tight[name] == option for name, option in table.encoders[0].items())
    lowered = [task.name for task in THREE if rung(table, tight, task.name) < rung(table, wished, task.name)]
    assert lowered[-1:] == ["kind"] or "semseg" not in lowered


def test_the_encoder_is_nearly_the_best_that_fits(deep: Space, table: PreferenceTable) -> None:
    """Against every encoder of the space with the same decoders."""
    sensitivity = mapped(deep)
    names = [c.name for c in deep.choices if c.task is None and not is_precision(c)]
    options = [next(c.options for c in deep.choices if c.name == name) for name in names]

    def quality(design: Design, weights: Mapping[str, float]) -> float:
        return sum(w * float(sensitivity.expect([design], task)[0]) for task, w in weights.items())

    for flops in (30, 45, 60, 80):
        for preference in ({"semseg": 1.0, "depth": 1.0, "kind": 1.0}, {"semseg": 3.0, "depth": 1.0, "kind": 0.0}):
            limits = [limit(deep, f"{flops}%FLOPs")]
            found = widths_for(table, preference, limits)
            every = [deep.design({**found, **dict(zip(names, v, strict=True))}) for v in itertools.product(*options)]
            best = max(quality(d, preference) for d in every if limits[0].count(d) <= limits[0].value)
            assert quality(found, preference) >= best - 0.02 * sum(preference.values())


def test_a_floor_counts_as_far_as_it_is_predicted(deep: Space) -> None:
    """One stage is all that matters to one task, the other stage to another."""
    rates = {"s1.width": {"semseg": -0.3}, "s1.expand": {"semseg": -0.3}, "s2.width": {"depth": -0.2}}
    none = dict.fromkeys((task.name for task in THREE), 0.0)
    sensitivity = Sensitivity({name: {**none, **each} for name, each in rates.items()})
    table, limits = make_table(deep, sensitivity), [limit(deep, "14%FLOPs")]
    preference = {"semseg": 5.0, "depth": 1.0, "kind": 0.0}
    before = float(sensitivity.expect([widths_for(table, preference, limits)], "depth")[0])
    assert before < -0.1
    floored = widths_for(table, preference, limits, {"depth": 0.1})
    assert float(sensitivity.expect([floored], "depth")[0]) > before


def test_what_cannot_be_kept_says_what_the_smallest_takes(deep: Space, table: PreferenceTable) -> None:
    equal = dict.fromkeys((task.name for task in THREE), 1.0)
    for text in ("1kFLOPs", "1B", "depth:1kMACs"):
        with pytest.raises(UserError) as error:
            widths_for(table, equal, [limit(deep, text)])
        assert f"budget {text!r} allows" in str(error.value)
        assert "but the smallest design of space tiny takes" in str(error.value)
    for text in ("depth:1kMACs",):
        budget = parse_budget(text)
        reach = Limit(budget, Limit(budget, 0).count(deep.smallest()))
        assert reach.count(widths_for(table, equal, [reach])) == reach.value


def test_a_latency_is_not_counted(table: PreferenceTable) -> None:
    with pytest.raises(UserError, match="budget '8ms' is measured, not counted"):
        widths_for(table, {}, [Limit(parse_budget("8ms"), 8)])


def test_experts_are_counted_too(tmp_path: Path) -> None:
    """A family whose tasks share parameters: what the table adds up is never less than the count."""
    where = load_space("moe-vit", PAIR, (64, 64))
    rates = {c.name: {task.name: -0.05 for task in PAIR} for c in where.choices if not is_precision(c)}
    made = make_table(where, Sensitivity(rates))
    for text in ("60%FLOPs", "60%MB", "depth:50%FLOPs"):
        each = limit(where, text)
        design = widths_for(made, {"depth": 3.0, "semseg": 1.0}, [each])
        assert 0.5 * each.value < each.count(design) <= each.value


@pytest.fixture(scope="module")
def timed(deep: Space) -> Problem:
    return replace(
        problem(deep, ["60%ms"], preference={"semseg": 3.0, "depth": 1.0, "kind": 1.0}), sensitivity=mapped(deep)
    )


def test_the_strategy_finds_the_flops_that_keep_a_latency(timed: Problem) -> None:
    found, _ = drive(timed, PreferenceSampler(timed, 0, 2), 24)
    kept = [e for e in found if timed.feasible(e)]
    assert kept
    (ms,) = timed.limits
    assert max(e.latency_ms[""] for e in kept) > 0.8 * ms.value


def test_the_strategy_repeats_itself_when_it_has_said_all(deep: Space) -> None:
    task = replace(problem(deep, ["60%FLOPs"]), sensitivity=mapped(deep))
    found, study = drive(task, PreferenceSampler(task, 0, 2), 12)
    keys = [e.design.key for e in found]
    assert len(set(keys)) <= 8
    assert len(set(keys[:2])) == 2 and keys[-1] in keys[:-1]
    assert all(task.affordable(e.design) for e in found)
    again, _ = drive(task, PreferenceSampler(task, 1, 2), 1, study)
    assert again[0].design.key in keys, "its state is the study"


def test_the_first_proposal_is_the_tables_answer(deep: Space, table: PreferenceTable) -> None:
    task = replace(
        problem(deep, ["60%FLOPs"], preference={"semseg": 3.0, "depth": 1.0, "kind": 1.0}), sensitivity=mapped(deep)
    )
    found, _ = drive(task, PreferenceSampler(task, 0, 2), 1)
    assert found[0].design.key == widths_for(table, task.preference, task.limits).key


def test_without_a_map_the_strategy_says_so(deep: Space) -> None:
    with pytest.raises(UserError, match="needs the sensitivity map"):
        PreferenceSampler(problem(deep), 0, 2)


def test_a_search_by_preference(ask: Ask, home: Path, tmp_path: Path) -> None:
    """The map that it measures serves whatever is searched in the same supernet afterwards."""
    events: list[Progress] = []
    own = Path(shutil.copy(home / "supernet.safetensors", tmp_path))
    request = ask(tmp_path / "run", supernet=own, strategy="preference", preference="depth=2", evaluations=4)
    result = search(request, events.append)
    assert result.known_from["sensitivities"] == "measured in this run"
    assert result.strategy == "preference" and result.feasible
    assert [event for event in events if event.stage == "sensitivity"], "the map is what it goes by"
    assert (request.out / "sensitivity.json").is_file()
    events.clear()
    search(SearchRequest(**(vars(request) | {"resume": True, "evaluations": 5})), events.append)
    assert not [event for event in events if event.stage == "sensitivity"]
    assert [event.done for event in events if event.stage == "search"] == [5]
    events.clear()
    other = search(replace(request, out=tmp_path / "other", preference="kind=2"), events.append)
    assert not [event for event in events if event.stage == "sensitivity"]
    assert other.known_from["sensitivities"] == "the map beside the supernet supernet.safetensors"


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        ("dept=2", "unknown task in preference 'dept': did you mean depth"),
        ("depth=0,kind=0", "the weights must add up to a finite number above 0"),
    ],
)
def test_a_preference_that_means_nothing_is_one_line(ask: Ask, tmp_path: Path, preference: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        search(ask(tmp_path / "run", strategy="preference", preference=preference))
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
