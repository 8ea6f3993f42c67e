from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.report.metrics import Change, changes, deciding_metric, format_change, format_metric, worst_change
from edgemtl.results import Entry
from edgemtl.tasks import KINDS, all_kinds, find_kind, make_task, relative_change


def entry(metrics: dict[str, dict[str, float]], **changed: Any) -> Entry:
    fields: dict[str, Any] = {"design": {}, "flops": 2, "macs": 1, "params": 1, "bytes": 4, "latency_ms": None}
    return Entry.model_validate({**fields, "metrics": metrics, "delta_m": None, "paths": {}, **changed})


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS.names()), st.floats(0.01, 100), st.floats(0.01, 100))
def test_changes_agree_with_the_ground_floor(kind: str, value: float, base: float) -> None:
    task = make_task("t", kind, find_kind(kind).channels or 3)
    name = task.metric.name
    found = changes(entry({"t": {name: value}}), entry({"t": {name: base}}), {"t": kind})
    assert found[0].metric == task.metric
    assert found[0].relative == pytest.approx(relative_change(task, {name: value}, {name: base}))


def test_the_deciding_metric_is_the_first_of_its_kind() -> None:
    for kind in all_kinds():
        scores = {metric.name: 1.0 for metric in reversed(kind.metrics)}
        assert deciding_metric(scores) == kind.metrics[0]
        assert deciding_metric(scores, kind.name) == kind.metrics[0]
    assert deciding_metric({"something": 1.0}) is None


def test_worst_task_and_missing_scores() -> None:
    best = entry({"depth": {"rmse": 0.5}, "semseg": {"miou": 0.5}, "odd": {"x": 1.0}, "edges": {"ods_f": 1.0}})
    base = entry({"depth": {"rmse": 0.4}, "semseg": {"miou": 0.4}, "odd": {"x": 2.0}})
    found = changes(best, base, {})
    assert {change.task: round(change.relative, 3) for change in found} == {"depth": -0.25, "semseg": 0.25}
    worst = worst_change(found)
    assert isinstance(worst, Change) and worst.task == "depth"
    assert worst_change([]) is None


@pytest.mark.parametrize(
    ("name", "value", "text"), [("rmse", 0.4123, "0.412 m"), ("mean_angle", 18.157, "18.16 deg"), ("x", 0.5, "0.500")]
)
def test_scores_carry_their_units(name: str, value: float, text: str) -> None:
    assert format_metric(name, value) == text


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0123, "+1.2 %"), (-0.034, "-3.4 %"), (0.0, "0.0 %"), (1e-5, "0.0 %")]
)
def test_changes_are_signed(fraction: float, text: str) -> None:
    assert format_change(fraction) == text
