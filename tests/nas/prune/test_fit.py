"""Channels under budgets, on groups whose costs and losses are known formulas."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgemtl.errors import UserError
from edgemtl.nas.prune.criterion import TrialOutcome
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.fit import FIRST_TOLERANCE, Budgeted, by_map, by_trial
from edgemtl.nas.prune.map import Curve, PruneMap, steps
from edgemtl.nas.prune.trials import Trials
from edgemtl.progress import Progress

SIZES = {"trunk": 40, "wide": 64, "own": 24}
TASKS = {"trunk": ("depth", "semseg"), "wide": ("depth", "semseg"), "own": ("depth",)}
HARM = {"trunk": {"depth": 0.9, "semseg": 0.3}, "wide": {"depth": 0.05, "semseg": 0.1}, "own": {"depth": 0.2}}
GROUPS = [Group(name, size, TASKS[name], ((),), (f"{name}.conv",)) for name, size in SIZES.items()]
EVEN = {"depth": 1.0, "semseg": 1.0}


def rise(name: str, kept: int, task: str) -> float:
    return HARM[name].get(task, 0.0) * ((SIZES[name] - kept) / SIZES[name]) ** 2


def work(kept: Mapping[str, int]) -> float:
    return kept["trunk"] * kept["wide"] + 30 * kept["own"]


def within(part: float) -> Budgeted:
    """The groups, under a budget of a part of their work."""
    return Budgeted(GROUPS, 8, lambda channels: [work(channels) / (part * work(SIZES))])


def measured() -> PruneMap:
    curves = {
        name: Curve(size, {count: {t: rise(name, count, t) for t in TASKS[name]} for count in steps(size, 8)})
        for name, size in SIZES.items()
    }
    return PruneMap({"depth": 1.0, "semseg": 1.0}, {}, curves)


def harm(kept: Mapping[str, int], weights: Mapping[str, float]) -> float:
    return sum(weights[t] * rise(name, count, t) for name, count in kept.items() for t in TASKS[name])


@pytest.mark.parametrize("part", [0.95, 0.8, 0.6, 0.4, 0.25])
def test_the_map_is_answered_nearly_as_well_as_by_trying_everything(part: float) -> None:
    found = by_map(within(part), measured(), EVEN).channels
    every = itertools.product(*([size, *steps(size, 8)] for size in SIZES.values()))
    possible = [dict(zip(SIZES, counts, strict=True)) for counts in every]
    best = min((k for k in possible if work(k) <= part * work(SIZES)), key=lambda k: harm(k, EVEN))
    assert work(found) <= part * work(SIZES)
    assert harm(found, EVEN) <= 1.5 * harm(best, EVEN) + 0.01


def test_nothing_more_fits_into_the_budget() -> None:
    for part in (0.9, 0.7, 0.5, 0.3):
        kept = by_map(within(part), measured(), EVEN).channels
        for name, size in SIZES.items():
            wider = {**kept, name: min(size, kept[name] + 8)}
            assert wider == kept or work(wider) > part * work(SIZES)


def test_a_task_that_counts_more_keeps_more_of_what_it_needs() -> None:
    even = by_map(within(0.5), measured(), EVEN).channels
    guarded = by_map(within(0.5), measured(), {"depth": 20.0, "semseg": 0.05}).channels
    assert guarded["wide"] < even["wide"]
    assert guarded["trunk"] >= even["trunk"]


def test_a_budget_that_holds_already_removes_nothing() -> None:
    assert by_map(within(1.0), measured(), EVEN).channels == SIZES


def oracle(kept: Mapping[str, int], group: Group, limits: Mapping[str, float]) -> TrialOutcome:
    losses = {t: 1 + sum(rise(name, count, t) for name, count in kept.items()) for t in limits}
    over = {t: loss / limits[t] for t, loss in losses.items() if loss > limits[t]}
    return TrialOutcome(losses, max(over, key=lambda t: over[t]) if over else None)


@pytest.mark.parametrize("part", [0.9, 0.6, 0.3])
def test_trials_meet_the_budget_and_ask_only_the_tasks_that_a_group_reaches(part: float) -> None:
    scopes: dict[str, set[str]] = {name: set() for name in SIZES}

    def criterion(kept: Mapping[str, int], group: Group, limits: Mapping[str, float]) -> TrialOutcome:
        scopes[group.name] |= set(limits)
        return oracle(kept, group, limits)

    found = by_trial(within(part), criterion, EVEN, EVEN)
    assert work(found.channels) <= part * work(SIZES)
    assert all(tuple(sorted(tasks)) in (TASKS[name], ()) for name, tasks in scopes.items())
    assert scopes["trunk"] or scopes["wide"]
    assert set(found.blocked.values()) <= {"depth", "semseg"}
    assert found.blocked.get("own", "depth") == "depth"


def test_a_pass_ends_when_the_budget_holds_or_cannot() -> None:
    passes: dict[str, list[str]] = {}

    def hear(event: Progress) -> None:
        head, _, name = event.text.rpartition(", ")
        passes.setdefault(head if name in SIZES else event.text, []).append(name)

    found = by_trial(within(0.9), oracle, EVEN, EVEN, hear)
    assert work(found.channels) <= 0.9 * work(SIZES)
    assert any("own" not in names for names in passes.values())


def test_a_group_may_cost_in_proportion_to_what_it_can_save() -> None:
    """A task's limit follows what groups so far can save, of all that those which reach the task can."""
    first: dict[str, Mapping[str, float]] = {}

    def criterion(kept: Mapping[str, int], group: Group, limits: Mapping[str, float]) -> TrialOutcome:
        first.setdefault(group.name, limits)
        return oracle(kept, group, limits)

    by_trial(within(0.2), criterion, EVEN, EVEN)
    saved = {name: work(SIZES) - work({**SIZES, name: 8}) for name in SIZES}
    order = sorted(SIZES, key=lambda name: -saved[name])
    assert list(first) == order
    for task in EVEN:
        reaching, done = [name for name in order if task in TASKS[name]], 0.0
        for name in reaching:
            done += saved[name] / sum(saved[each] for each in reaching)
            assert first[name][task] == pytest.approx(1 + FIRST_TOLERANCE * done)


def test_a_task_with_less_tolerance_blocks_more() -> None:
    strict = by_trial(within(0.6), oracle, EVEN, {"depth": 0.1, "semseg": 1.0})
    lax = by_trial(within(0.6), oracle, EVEN, {"depth": 10.0, "semseg": 1.0})
    final = {name: oracle(fit.channels, GROUPS[0], EVEN).losses for name, fit in (("strict", strict), ("lax", lax))}
    assert final["strict"]["depth"] <= final["lax"]["depth"]
    assert "depth" in strict.blocked.values()


def test_a_budget_at_the_very_reach_is_met() -> None:
    least = within(1.0).least
    assert by_trial(within(work(least) / work(SIZES)), oracle, EVEN, EVEN).channels == least


@pytest.mark.parametrize(
    ("size", "multiple", "expected"),
    [(64, 8, [56, 48, 40, 32, 24, 16, 8]), (20, 8, [16, 8]), (8, 8, []), (200, 32, [192, 160, 128, 96, 64, 32])],
)
def test_counts_are_multiples_and_an_eighth_at_least(size: int, multiple: int, expected: list[int]) -> None:
    assert steps(size, multiple) == expected


def test_a_curve_never_rises_with_more_channels_and_ends_at_nothing() -> None:
    curve = Curve(32, {8: {"depth": 0.1}, 16: {"depth": 0.4}, 24: {"depth": -0.2}})
    assert [curve.rise(kept, "depth") for kept in (8, 16, 20, 24, 32)] == pytest.approx([0.4, 0.4, 0.2, 0.0, 0.0])


def test_trials_answer_for_limits_that_they_were_not_made_with(tmp_path: Path) -> None:
    trials = Trials(tmp_path / "trials.jsonl")
    trials.add("whole", TrialOutcome({"depth": 1.0, "semseg": 2.0}))
    trials.add("part", TrialOutcome({"depth": 1.5, "semseg": 0.3}, "depth"))
    again = Trials(tmp_path / "trials.jsonl")
    assert again.outcome("whole", {"depth": 1.1, "semseg": 2.1}) == TrialOutcome({"depth": 1.0, "semseg": 2.0})
    assert again.outcome("whole", {"depth": 0.9, "semseg": 1.0}) == TrialOutcome(
        {"depth": 1.0, "semseg": 2.0}, "semseg"
    )
    assert again.outcome("part", {"depth": 1.4, "semseg": 2.0}) == TrialOutcome({"depth": 1.5, "semseg": 0.3}, "depth")
    assert again.outcome("part", {"depth": 1.6, "semseg": 2.0}) is None
    assert again.outcome("other", {"depth": 1.0}) is None
    (tmp_path / "trials.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match="damaged"):
        Trials(tmp_path / "trials.jsonl")
