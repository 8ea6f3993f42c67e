from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgemtl.errors import UserError
from edgemtl.results import Entry, Latency, Result, read_result, write_result

KEYS = {
    "schema", "command", "seed", "data", "space", "strategy", "budgets", "feasible", "best", "front", "evaluations",
    "seconds", "environment",
}  # fmt: skip


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "design": {"s1.width": 16, "s1.block": "fused", "s1_1.precision": "int8"},
        "flops": 2_000_000,
        "macs": 1_000_000,
        "params": 1234,
        "bytes": 4936,
        "latency_ms": {"value": 1.5, "kind": "measured", "device": "host", "runtime": "onnxruntime"},
        "metrics": {"depth": {"rmse": 0.4}, "semseg": {"miou": 0.5}},
        "delta_m": -0.01,
        "paths": {"depth": {"flops": 1_000_000, "params": 900}, "semseg": {"flops": 1_500_000, "params": 1000}},
        **changes,
    }


def result(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "edgemtl.result/1",
        "command": "edgemtl search --budget 2MFLOPs",
        "seed": 0,
        "data": "scenes",
        "space": "cnn",
        "strategy": "nsga2",
        "budgets": ["2MFLOPs"],
        "feasible": True,
        "best": entry(),
        "front": [entry(kind="baseline", delta_m=0.0), entry()],
        "evaluations": 12,
        "seconds": 3.5,
        "environment": {"python": "3.11"},
        **changes,
    }


def test_round_trip_keeps_exactly_the_keys(tmp_path: Path) -> None:
    write_result(tmp_path, Result.model_validate(result()))
    written = json.loads((tmp_path / "result.json").read_text())
    assert set(written) == KEYS
    assert written == result()
    again = read_result(tmp_path)
    assert again.tasks == ("depth", "semseg")
    assert again.baseline is not None and again.baseline.delta_m == 0.0
    assert read_result(tmp_path / "result.json") == again


def test_the_schema_is_written_even_when_it_was_left_to_default(tmp_path: Path) -> None:
    content = result()
    del content["schema"]
    write_result(tmp_path, Result(**content))
    assert json.loads((tmp_path / "result.json").read_text())["schema"] == "edgemtl.result/1"


def test_an_infeasible_search_has_no_best(tmp_path: Path) -> None:
    write_result(tmp_path, Result.model_validate(result(best=None, front=[], feasible=False)))
    assert read_result(tmp_path).tasks == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(result())[:-40], "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "schema 'list'"),
        ('{"schema": "olive.result/3"}', "olive.result/3"),
        (json.dumps({"schema": "edgemtl.result/1"}), "command: Field required"),
        (json.dumps(result(surprise=1)), "surprise: Extra inputs"),
        (json.dumps(result(seconds=-1)), "seconds"),
        (json.dumps(result(best=entry(delta_m=float("nan")))), "NaN is no number of JSON"),
        (json.dumps(result(best=entry(macs=5))), "not twice the macs"),
        (
            json.dumps(
                result(best=entry(latency_ms={"value": 1, "kind": "guessed", "device": "host", "runtime": "x"}))
            ),
            "kind",
        ),
    ],
)
def test_damaged_and_foreign_files_give_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_result(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_result_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no result\.json: give the folder that edgemtl search wrote"):
        read_result(tmp_path)


def test_entries_are_immutable() -> None:
    assert Entry.model_config["frozen"] and Result.model_config["frozen"]


@pytest.mark.parametrize("changed", [{"seconds": "12"}, {"evaluations": True}, {"evaluations": 3.0}, {"feasible": 1}])
def test_nothing_is_taken_for_something_else(tmp_path: Path, changed: dict[str, object]) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result() | changed))
    with pytest.raises(UserError, match=next(iter(changed))):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("changes", "origin"),
    [
        ({"kind": "measured"}, "measured"),
        ({"kind": "predicted", "error": 0.031}, "predicted (error 3.1 %)"),
        ({"kind": "estimated", "error": 0.14}, "estimated (error 14.0 %)"),
        (
            {"kind": "estimated", "error": 0.14, "fitted_on": "amx/onnxruntime"},
            "estimated (error 14.0 % on amx/onnxruntime)",
        ),
        ({"kind": "estimated"}, "estimated (error not known)"),
    ],
)
def test_a_latency_says_how_it_was_obtained(changes: dict[str, Any], origin: str) -> None:
    assert Latency(value=1.0, device="host", runtime="onnxruntime", **changes).origin == origin
