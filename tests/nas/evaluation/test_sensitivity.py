from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import Ask

from edgemtl.errors import UserError
from edgemtl.nas.evaluation.problem import Metrics
from edgemtl.nas.evaluation.sensitivity import (
    Sensitivity,
    find_sensitivity,
    measure_into_run,
    measure_sensitivity,
    one_step_down,
    read_sensitivity,
    share_sensitivity,
    write_sensitivity,
)
from edgemtl.nas.search import SearchRequest, search
from edgemtl.nas.search.strategies.linas import LinasSampler
from edgemtl.progress import Progress, silent
from edgemtl.spaces import Design, Space
from edgemtl.testing.landscape import PAIR, drive, evaluate, problem, space

MADE_FOR = {"supernet_sha256": "a", "data_fingerprint": "b"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


@pytest.fixture(scope="module")
def found(pair: Space) -> Sensitivity:
    return measure_sensitivity(pair, score, score(pair.largest()))


def score(design: Design) -> Metrics:
    return evaluate(design).metrics


def test_each_design_of_the_map_differs_from_the_largest_in_one_choice(pair: Space) -> None:
    largest = pair.largest()
    lowered = one_step_down(pair)
    assert "s2.kernel" not in lowered, "fused blocks have no such choice"
    for name, design in lowered.items():
        assert [key for key in largest if design[key] != largest[key]] == [name]


def test_what_was_measured_is_what_is_expected(pair: Space, found: Sensitivity) -> None:
    baseline = score(pair.largest())
    task = problem(pair)
    assert found.expect([pair.largest()], "depth")[0] == 0
    for design in one_step_down(pair).values():
        real = task.changes(score(design))
        for name in baseline:
            assert found.expect([design], name)[0] == pytest.approx(real[name])


def test_two_choices_multiply(pair: Space, found: Sensitivity) -> None:
    both = pair.design({**pair.largest(), "s1.width": 8, "depth.width": 8})
    kept = (1 + found.changes["s1.width"]["depth"]) * (1 + found.changes["depth.width"]["depth"])
    assert found.expect([both], "depth")[0] == pytest.approx(kept - 1)


@given(st.data())
def test_a_smaller_net_is_never_expected_to_be_better(pair: Space, data: st.DataObject) -> None:
    names = list(one_step_down(pair))
    losses = {name: {"depth": data.draw(st.floats(-3, 0))} for name in names}
    sensitivity = Sensitivity(losses)
    values = {c.name: data.draw(st.sampled_from(c.options)) for c in pair.choices}
    expected = float(sensitivity.expect([pair.design(values)], "depth")[0])
    assert -1 <= expected <= 0
    assert math.isfinite(expected)


def test_a_map_leads_the_search_to_better_designs(pair: Space, found: Sensitivity) -> None:
    """At the same number of evaluations, over three seeds."""
    plain = problem(pair, ["50%ms"])
    best = []
    for task in (plain, replace(plain, sensitivity=found)):
        tops = []
        for seed in range(3):
            measured, _ = drive(task, LinasSampler(task, seed, 6, generations=10), 12)
            tops.append(max(task.delta_m(e.metrics) for e in measured if task.feasible(e)))
        best.append(sum(tops) / len(tops))
    assert best[1] >= best[0]


def test_a_file_keeps_the_map_and_knows_what_it_was_made_for(tmp_path: Path, found: Sensitivity) -> None:
    path = tmp_path / "sensitivity.json"
    assert read_sensitivity(path, MADE_FOR) is None
    write_sensitivity(path, found, MADE_FOR)
    assert read_sensitivity(path, MADE_FOR) == found
    assert read_sensitivity(path, {**MADE_FOR, "supernet_sha256": "another"}) is None
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "changes"}))
    with pytest.raises(UserError, match="holds no changes"):
        read_sensitivity(path, MADE_FOR)
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match="sensitivity"):
        read_sensitivity(path, MADE_FOR)


def test_a_map_goes_on_where_it_was_stopped(pair: Space, tmp_path: Path, found: Sensitivity) -> None:
    scored = list[str]()

    def stopped(design: Design) -> Metrics:
        scored.append(design.key)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return score(design)

    baseline = score(pair.largest())
    with pytest.raises(KeyboardInterrupt):
        measure_into_run(tmp_path, MADE_FOR, pair, stopped, baseline, silent)
    assert measure_into_run(tmp_path, MADE_FOR, pair, stopped, baseline, silent) == found
    assert len(scored) == len(one_step_down(pair)) + 1
    assert [path.name for path in tmp_path.iterdir()] == ["sensitivity.json"]
    assert read_sensitivity(tmp_path / "sensitivity.json", MADE_FOR) == found


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A supernet next to which no other test puts a map."""
    return Path(shutil.copy(home / "supernet.safetensors", tmp_path))


def test_a_search_measures_the_map_once(ask: Ask, tmp_path: Path, own: Path) -> None:
    events: list[Progress] = []
    request = ask(tmp_path / "run", supernet=own, evaluations=8, batch=4)
    search(request, events.append)
    tried = [event for event in events if event.stage == "sensitivity"]
    assert tried[-1].done == tried[-1].total > 3
    stored = json.loads((request.out / "sensitivity.json").read_text())
    assert stored["changes"].keys() == one_step_down_of(request).keys()
    events.clear()
    search(SearchRequest(**(vars(request) | {"resume": True, "evaluations": 9})), events.append)
    assert not [event for event in events if event.stage == "sensitivity"]


def test_a_search_that_is_shorter_than_the_map_does_without(ask: Ask, tmp_path: Path, own: Path) -> None:
    events: list[Progress] = []
    request = ask(tmp_path / "run", supernet=own, evaluations=4)
    search(request, events.append)
    assert not [event for event in events if event.stage == "sensitivity"]
    assert not (request.out / "sensitivity.json").exists()


def one_step_down_of(request: SearchRequest) -> dict[str, Design]:
    from edgemtl.nas.runs import RunFolder

    return one_step_down(RunFolder(request.out).space())


def test_a_map_of_a_run_lies_next_to_the_supernet_unless_there_is_one_of_the_same_weights(
    tmp_path: Path, found: Sensitivity
) -> None:
    supernet, run, shared = tmp_path / "a.safetensors", tmp_path / "run", tmp_path / "a.sensitivity.json"
    run.mkdir()
    write_sensitivity(run / "sensitivity.json", found, MADE_FOR)
    for stale in (None, {**MADE_FOR, "supernet_sha256": "earlier weights"}):
        if stale:
            write_sensitivity(shared, found, stale)
        share_sensitivity(supernet, run, MADE_FOR)
        assert find_sensitivity(supernet, tmp_path, MADE_FOR) == found
    of_other_data = {**MADE_FOR, "data_fingerprint": "other images"}
    write_sensitivity(shared, found, of_other_data)
    share_sensitivity(supernet, run, MADE_FOR)
    assert read_sensitivity(shared, of_other_data) == found
    share_sensitivity(tmp_path / "nowhere" / "a.safetensors", run, MADE_FOR)
    assert not (tmp_path / "nowhere").exists()


def test_a_run_goes_on_with_the_map_that_it_began_with_or_without_one(ask: Ask, tmp_path: Path, own: Path) -> None:
    """Whatever other searches in the same supernet have measured since: else it would propose other designs."""
    changes: dict[str, Any] = {"supernet": own, "target": "tensorrt-rtx"}
    shared, origin = tmp_path / "supernet.sensitivity.json", "the map beside the supernet supernet.safetensors"

    def known_from(name: str, evaluations: int, resume: bool = False) -> str | None:
        request = ask(tmp_path / name, evaluations=evaluations, batch=4, resume=resume, **changes)
        return search(request).known_from.get("sensitivities")

    assert known_from("short", 2) is None
    assert known_from("long", 8) == "measured in this run" and shared.is_file()
    assert known_from("short", 3, resume=True) is None
    assert known_from("new", 2) == origin
    shared.unlink()
    assert known_from("new", 3, resume=True) == origin
    assert known_from("long", 9, resume=True) == "measured in this run"
