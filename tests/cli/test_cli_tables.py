"""What the tables of a search say of its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_data import profile_content

from edgemtl.cli.screen import Screen
from edgemtl.cli.search import show_preflight
from edgemtl.cli.tables import show_profile, show_result
from edgemtl.nas.evaluation import FloorRow, PreflightRow
from edgemtl.nas.search import Preflight
from edgemtl.profiling import Profile
from edgemtl.results import Entry, FineTuning, Latency, LimitCheck, Result
from edgemtl.tasks import make_task, parse_floor
from edgemtl.units import parse_budget

ROWS = (PreflightRow(parse_budget("3MB"), 3e6, 1e6, 2e6, 6e6),)
DEPTH = [make_task("depth", "depth")]
FLOORS = (
    FloorRow(parse_floor("depth=5%", DEPTH), 0.4, 0.1, 0.0),
    FloorRow(parse_floor("depth<0.9", DEPTH), 1.31, 0.95, 0.871),
)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def table_of(event: Preflight, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    show_preflight(Screen(), event)
    return [" ".join(line.split()).split(" lost") for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("floors", "keeps_all", "says"),
    [
        (FLOORS, "", "all together - - - - known after the search"),
        (FLOORS, "middle", "all together - - - - yes, the middle design does"),
        (None, "", "floors - - - - known once weights are learnt"),
    ],
)
def test_the_table_before_a_search_looks_at_floors(
    capsys: pytest.CaptureFixture[str], floors: Any, keeps_all: str, says: str
) -> None:
    lines = table_of(Preflight("preflight", 1, 1, rows=ROWS, floors=floors, keeps_all=keeps_all), capsys)
    assert [says] in lines
    assert (["floor depth=5% 5 %", " 40 %", " 10 %", " 0 %", " yes, by the largest"] in lines) == bool(floors)
    assert (["floor depth.rmse<0.9 0.9 m 1.31 m 0.95 m 0.871 m yes, by the largest"] in lines) == bool(floors)


def test_one_budget_alone_needs_no_last_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert not any("together" in line[0] for line in table_of(Preflight("preflight", 1, 1, rows=ROWS), capsys))


def limit(kind: Any, text: str, quantity: str, allowed: float, value: float) -> LimitCheck:
    excess = value - allowed if kind == "floor" else value / allowed - 1
    return LimitCheck(
        kind=kind,
        text=text,
        quantity=quantity,
        task="depth" if kind == "floor" else None,
        allowed=allowed,
        value=value,
        excess=excess,
        kept=excess <= 0,
    )


def test_the_result_names_the_limit_that_is_broken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    limits = (limit("budget", "3MB", "weight_bytes", 3e6, 1.02e6), limit("floor", "depth=5%", "drop", 0.05, 0.072))
    best = Entry(
        design={"a": 1}, flops=2, macs=1, params=1, bytes=1_020_000, latency_ms=None, metrics={"depth": {"rmse": 0.5}},
        delta_m=-0.072, weighted_delta_m=-0.08, paths={}, feasible=False, kind="candidate", name="best", limits=limits,
    )  # fmt: skip
    result = Result(
        command="edgemtl search", seed=0, data="photos", space="cnn", strategy="linas", budgets=("3MB",),
        floors=("depth=5%",), preference={"depth": 2.0, "semseg": 1.0}, feasible=False, best=best, front=(best,),
        evaluations=1, seconds=1.0, environment={},
    )  # fmt: skip
    show_result(Screen(), result)
    shown = capsys.readouterr().out
    assert (
        "nearest (floor depth=5%: depth loses 7.2 % on validation images where 5 % is allowed, missed by 2.2 %)"
        in shown
    )
    assert "3MB" not in shown, "it is kept"
    assert "weighted delta_m: the mean of tasks weighted by depth=2,semseg=1" in shown
    assert "-7.20 %" in shown and "-8.00 %" in shown
    assert "trained for" not in shown
    tuned = best.model_copy(update={"fine_tuning": FineTuning(steps=150, delta_m_before=-0.05, delta_m_after=-0.021)})
    show_result(Screen(), result.model_copy(update={"best": tuned}))
    trained = "the chosen design was trained for 150 steps: validation delta_m -5.00 % to -2.10 %"
    assert trained in capsys.readouterr().out


def test_a_predicted_latency_stands_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    on_host: dict[str, str] = {"device": "host", "runtime": "onnxruntime"}
    entries = [
        Entry(
            design={"a": number}, flops=2, macs=1, params=1, bytes=8, latency_ms=latency, paths={}, name=f"net{number}",
            metrics={"depth": {"rmse": 0.5}}, delta_m=0.0,
        )
        for number, latency in enumerate(
            (Latency(value=5, kind="predicted", error=0.031, **on_host), Latency(value=6, kind="measured", **on_host))
        )
    ]  # fmt: skip
    result = Result(
        command="edgemtl search", seed=0, data="photos", space="cnn", strategy="linas", budgets=(), feasible=True,
        best=entries[0], front=tuple(entries), evaluations=2, seconds=1.0, environment={},
        known_from={"latency of candidates": "predicted by a table"},
    )  # fmt: skip
    show_result(Screen(), result)
    shown = " ".join(capsys.readouterr().out.split())
    assert "5.00 predicted (error 3.1 %)" in shown and "6.00" in shown
    assert "latency of candidates: predicted by a table" in shown


def test_a_profile_says_what_the_machine_was_like_and_how_often_power_was_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figure = {"mj": 12.5, "uncertainty_mj": 0.25}
    energy = {"rails": ["VDD_IN"], "rate_hz": 96.4, "idle_w": 4.2, "modes": {"all tasks": figure}, "visits": {}}
    state = {"before": {"power_mode": "15W", "temperatures_c": {"tj-thermal": 47.0}}}
    content = {**profile_content(), "energy": {**energy, "marginal": {}}, "environment": {"sensors": state}}
    show_profile(Screen(), Profile.model_validate(content))
    shown = capsys.readouterr().out
    assert "Energy of a call in mJ, above 4.2 W of idling: VDD_IN, read 96 times a second" in shown
    assert "while it was measured: power mode 15W; up to 47.0 °C (tj-thermal); throttling is not known" in shown
