from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from refusals import refused
from small_world import Ask

from edgemtl.nas.evaluation import Problem
from edgemtl.nas.latency import (
    MeasuredDesign,
    TableKey,
    design_parts,
    fit_table,
    making,
    spread_designs,
    table_files,
    write_table,
)
from edgemtl.nas.runs import TUNING, fine_tune
from edgemtl.nas.search import latency, search
from edgemtl.nas.search.latency import check_latency, with_latency_table
from edgemtl.nas.search.setup import Setup, set_up
from edgemtl.progress import Progress
from edgemtl.runs import read_config
from edgemtl.testing.landscape import evaluate, problem

TABLES = "supernet.latency.*.json"
MEASURED = {"latency of candidates": "measured now"}
Decide = Callable[..., tuple[Problem, list[str]]]


@pytest.fixture
def decide(ask: Ask, tmp_path: Path) -> Decide:
    """What a search decides about its latencies, and its notes."""

    def decided(before: str = "", **changes: object) -> tuple[Problem, list[str]]:
        notes = list[Progress]()
        setup = set_up(ask(tmp_path / "run", **changes))
        error = {"": 0.1} if before == "predicted" else {}
        done = [replace(evaluate(setup.space.middle()), latency_error=error)] if before else []
        return with_latency_table(setup, problem(setup.space), done, notes.append), [each.text for each in notes]

    return decided


def write_paper_table(setup: Setup, home: Path, **changes: object) -> Path:
    """A table of latencies that follow FLOPs, made on no engine, by the supernet; `changes` are those of its key."""
    measured = []
    for design in spread_designs(setup.space, 8):
        macs = [part.macs for part in design_parts(design)]
        whole = sum(macs) / 1e6 + 0.1
        measured.append(MeasuredDesign(design, {"": (whole,)}, tuple(each / 1e6 for each in macs), 0.1))
    own: TableKey = latency._key(setup)
    path, key = table_files(home / "supernet.safetensors", own)[0], own.model_copy(update=changes)
    write_table(path, key, measured, 1.0, fit_table(measured))
    return path


@pytest.fixture
def table(ask: Ask, home: Path, tmp_path: Path) -> Path:
    """A table beside the supernet."""
    return write_paper_table(set_up(ask(tmp_path / "run")), home)


@pytest.fixture(autouse=True)
def nothing_left(home: Path) -> object:
    """No table is left in the home that tests share."""
    yield
    for table in home.glob(TABLES):
        table.unlink()


def test_a_search_makes_a_table_predicts_candidates_and_measures_finalists(
    ask: Ask, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "DESIGNS", 5)
    monkeypatch.setattr(making, "PASSES", 1)
    monkeypatch.setattr(latency, "ERROR_LIMIT", 1e9)
    events = list[Progress]()
    result = search(ask(tmp_path / "run", latency="predicted"), events.append)
    assert all("predicted (error" in event.text for event in events if event.stage == "search")
    (note,) = (event.text for event in events if not event.total)
    (table,) = home.glob(TABLES)
    assert table.name in note and "designs held out" in note
    assert result.known_from["latency of candidates"] == f"predicted by {note.partition(';')[0]}"
    for entry in result.front:
        assert entry.latency_ms is not None
        assert (entry.latency_ms.kind, entry.latency_ms.error) == ("measured", None)
    assert (tmp_path / "run" / "latency.json").read_bytes() == table.read_bytes()


def test_a_table_that_fits_serves_again_and_the_run_keeps_it(decide: Decide, table: Path, tmp_path: Path) -> None:
    decided, notes = decide()
    assert decided.latency is not None and len(notes) == 1
    assert "candidates are predicted, close calls and finalists measured" in notes[0]
    assert (tmp_path / "run" / "latency.json").read_bytes() == table.read_bytes()
    table.unlink()
    assert decide(before="measured")[0].latency is not None, "a run goes on with the table that it began with"


def test_without_a_table_a_short_search_measures(decide: Decide) -> None:
    decided, notes = decide()
    assert (decided.latency, decided.known_from, notes) == (None, MEASURED, [])


def test_measured_is_measured(decide: Decide, table: Path) -> None:
    assert decide(latency="measured")[0].known_from == MEASURED


def test_a_run_that_began_without_a_table_goes_on_without(decide: Decide, table: Path) -> None:
    assert decide(before="measured")[0].latency is None


def test_a_worker_that_joins_one_that_predicts_does_so_too(decide: Decide, table: Path) -> None:
    assert decide(before="predicted")[0].latency is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime_version": "0.1"},
        {"arithmetic": "fpga", "processor": "another"},
        {"threads": 64},
        {"fingerprint": "0123"},
    ],
)
def test_a_stale_table_is_noticed_and_refused_where_it_was_named(
    decide: Decide, ask: Ask, home: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    setup = set_up(ask(tmp_path / "run"))
    path = write_paper_table(setup, home, **changes)
    decided, notes = decide()
    assert decided.latency is None and len(notes) == 1
    for name, value in changes.items():
        assert f"{name.replace('_', ' ')} {value} (" in notes[0]
    assert notes[0].endswith("engines are measured")
    line = refused(lambda: check_latency(set_up(ask(tmp_path / "run", latency=str(path)))))
    assert "does not fit this search" in line and "--latency predicted, which makes one" in line


def test_a_damaged_table_that_nobody_named_is_noticed_and_does_not_stop_the_search(decide: Decide, table: Path) -> None:
    table.write_text(table.read_text()[:300])
    decided, (line,) = decide()
    assert decided.latency is None and decided.known_from == MEASURED
    assert f"latency table {table} is not valid JSON" in line and line.endswith("; engines are measured")


def test_a_table_that_lacks_a_task_does_not_fit(decide: Decide, table: Path) -> None:
    _, notes = decide(budgets=("depth:100ms",))
    assert "it has no latency of depth alone" in notes[0]


def test_a_table_that_is_not_sure_is_not_predicted_with(
    decide: Decide, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "ERROR_LIMIT", -1.0)
    decided, notes = decide()
    assert decided.latency is None
    assert "of all tasks it is more: engines are measured" in notes[0]


def test_a_table_follows_what_it_was_made_of(decide: Decide, table: Path) -> None:
    decided, _ = decide()
    assert decided.latency is not None
    rng = random.Random(0)
    designs = [decided.space.random(rng) for _ in range(20)]
    macs = [sum(part.macs for part in design_parts(design)) for design in designs]
    order = sorted(range(20), key=macs.__getitem__)
    predicted = decided.latency.predict(designs)
    assert predicted[order[-1]] > predicted[order[0]]


def test_a_foreign_or_missing_table_is_refused_in_one_line(ask: Ask, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"schema": "edgemtl.result/1"}')
    line = refused(lambda: search(ask(tmp_path / "a", latency=str(foreign))))
    assert "this version reads 'edgemtl.latency/1': give another, or --latency predicted, which makes one" in line
    line = refused(lambda: search(ask(tmp_path / "b", latency="predict")))
    assert line == "--latency predict: no such file; give auto, measured, predicted, or a latency table"
    line = refused(lambda: search(ask(tmp_path / "c", latency="predicted", device="raspberry-pi-5")))
    assert "--latency predicted: device raspberry-pi-5" in line
    assert not any((tmp_path / name).exists() for name in "abc")


def test_a_board_that_nothing_reaches_is_searched_for_on_estimates(ask: Ask, tmp_path: Path) -> None:
    """The budget names the board; every latency is called an estimate, with its error where efficiencies are fitted."""
    events = list[Progress]()
    budgets = ("90%ms@jetson-orin-nano", "depth:1s")
    result = search(ask(tmp_path / "run", budgets=budgets, evaluations=3), events.append)
    (note,) = (event.text for event in events if not event.total and "estimates" in event.text)
    assert "nothing is timed: roofline of jetson-orin-nano/tensorrt by the rates that its file states" in note
    assert result.known_from["latency"].startswith("estimated by the roofline of jetson-orin-nano/tensorrt")
    assert all(" ms estimated" in event.text for event in events if event.stage == "search" and event.done)
    assert result.best is not None and [check.text for check in result.best.limits] == [*budgets]
    for entry in result.front:
        assert entry.latency_ms is not None and entry.latency_ms.value > 0
        assert (entry.latency_ms.kind, entry.latency_ms.device) == ("estimated", "jetson-orin-nano")
    config = read_config(tmp_path / "run")
    assert (config.device.name, config.target) == ("jetson-orin-nano", "tensorrt")
    recipe = replace(TUNING, steps=1, batch=2, sizes=(1.0,))
    tuned = fine_tune(tmp_path / "run", tmp_path / "tuned", recipe).best
    assert tuned is not None and tuned.latency_ms == result.best.latency_ms, "an estimate follows from the design alone"


def test_an_objective_in_latency_is_estimated_too_and_counts_are_not(ask: Ask, tmp_path: Path) -> None:
    timed = set_up(ask(tmp_path / "run", device="raspberry-pi-5", objectives=("delta_m", "latency")))
    assert timed.evaluator.is_timed and timed.evaluator.estimate is not None
    counted = set_up(ask(tmp_path / "run", device="raspberry-pi-5"))
    assert not counted.evaluator.is_timed and counted.evaluator.estimate is None


def test_two_boards_are_not_one_search(ask: Ask, tmp_path: Path) -> None:
    budgets = ("8ms@raspberry-pi-5", "8ms@raspberry-pi-4")
    for device in ("host", "raspberry-pi-5"):
        message = refused(partial(set_up, ask(tmp_path / "run", budgets=budgets, device=device)))
        assert "budgets name the devices raspberry-pi-5 and raspberry-pi-4: a search serves one" in message


def test_a_board_that_nothing_reaches_cannot_be_measured(ask: Ask, tmp_path: Path) -> None:
    setup = set_up(ask(tmp_path / "run", budgets=("1s@raspberry-pi-5",), latency="measured"))
    message = refused(lambda: check_latency(setup))
    assert message.startswith(
        "--latency measured: device raspberry-pi-5 (arm-dot) is not this machine; leave it out for"
    )
