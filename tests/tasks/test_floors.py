from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from edgemtl.errors import UserError
from edgemtl.tasks import Floor, make_task, parse_floor

SEMSEG, DEPTH, NORMALS = make_task("semseg", "segmentation", 3), make_task("depth", "depth"), make_task("up", "normals")
TASKS = (SEMSEG, DEPTH, NORMALS)
METRICS = [(task, metric) for task in TASKS for metric in task.metrics]
BASE = {
    "semseg": {"miou": 0.57},
    "depth": {"rmse": 0.87, "abs_rel": 0.12, "delta1": 0.84},
    "up": {"mean_angle": 17.7, "within_11": 0.6},
}
percents = st.decimals(0, "9999", places=9, allow_nan=False, allow_infinity=False)
values = st.decimals("-999999999", "999999999", places=9, allow_nan=False, allow_infinity=False)


def sign_of(higher_is_better: bool) -> str:
    return ">" if higher_is_better else "<"


@pytest.mark.parametrize(
    ("text", "metric", "allowed", "relative", "canonical"),
    [
        ("depth=2%", "rmse", 0.02, True, "depth=2%"),
        ("semseg=0.50%", "miou", 0.005, True, "semseg=0.5%"),
        ("semseg=100%", "miou", 1.0, True, "semseg=100%"),
        ("depth.rmse=2%", "rmse", 0.02, True, "depth=2%"),
        ("depth.abs_rel=2%", "abs_rel", 0.02, True, "depth.abs_rel=2%"),
        ("semseg.miou>0.5", "miou", 0.5, False, "semseg.miou>0.5"),
        ("semseg>.5", "miou", 0.5, False, "semseg.miou>0.5"),
        ("depth.rmse<0.900", "rmse", 0.9, False, "depth.rmse<0.9"),
        ("depth.delta1>0.8", "delta1", 0.8, False, "depth.delta1>0.8"),
        ("up.mean_angle<20", "mean_angle", 20.0, False, "up.mean_angle<20"),
        ("depth<0.000000001", "rmse", 1e-9, False, "depth.rmse<0.000000001"),
        ("semseg>-0", "miou", 0.0, False, "semseg.miou>0"),
    ],
)
def test_floors_as_they_are_written(text: str, metric: str, allowed: float, relative: bool, canonical: str) -> None:
    floor = parse_floor(text, TASKS)
    assert (floor.metric.name, floor.allowed, floor.relative) == (metric, allowed, relative)
    assert floor.text == canonical
    assert parse_floor(canonical, TASKS) == floor


@settings(deadline=None)
@given(st.sampled_from(METRICS), percents, values, st.booleans())
def test_every_floor_reads_back_from_its_text(pair: tuple, percent: object, value: object, relative: bool) -> None:  # type: ignore[type-arg]
    task, metric = pair
    amount = f"={percent:f}%" if relative else f"{sign_of(metric.higher_is_better)}{value:f}"
    floor = parse_floor(f"{task.name}.{metric.name}{amount}", TASKS)
    assert floor.allowed == (float(str(percent)) / 100 if relative else float(str(value)))
    assert parse_floor(floor.text, TASKS) == floor
    assert "e" not in floor.text.partition(metric.name)[2]


@settings(deadline=None)
@given(st.one_of(st.text(max_size=20), st.from_regex(r"(depth|semseg)(\.\w+)?[<>=]=?-?\d*\.?\d*%?", fullmatch=True)))
def test_any_text_is_a_floor_or_a_user_error_of_one_line(text: str) -> None:
    try:
        floor = parse_floor(text, TASKS)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert math.isfinite(floor.allowed) and parse_floor(floor.text, TASKS) == floor


@settings(deadline=None)
@given(st.sampled_from(METRICS), st.floats(0, 0.9), st.floats(0.1, 1.9))
def test_a_relative_floor_and_the_value_it_comes_to_agree(pair: tuple, drop: float, share: float) -> None:  # type: ignore[type-arg]
    """Both are kept, or both are missed, by the same fraction of the baseline's metric."""
    task, metric = pair
    relative = Floor(task, metric, drop)
    absolute = Floor(task, metric, relative.worst(BASE), relative=False)
    assert absolute.drop(BASE) == pytest.approx(drop, abs=1e-12)
    base = BASE[task.name][metric.name]
    metrics = {**BASE, task.name: {**BASE[task.name], metric.name: share * base}}
    missed = relative.shortfall(relative.value(metrics, BASE))
    assert absolute.shortfall(absolute.value(metrics, BASE)) / base == pytest.approx(missed, abs=1e-12)


def test_the_value_itself_is_allowed() -> None:
    for text, value, kept in (("semseg>0.57", 0.57, True), ("semseg>0.57", 0.569, False), ("depth<0.87", 0.88, False)):
        assert (parse_floor(text, TASKS).shortfall(value) <= 0) is kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("depth", "it has no amount (without quotes a shell takes > and < for itself): write TASK=PERCENT"),
        ("semseg.miou", "it has no amount"),
        ("", "write TASK=PERCENT"),
        ("depth=2", "write TASK=PERCENT, 0 % to 9999 %"),
        ("depth=-2%", "write TASK=PERCENT"),
        ("depth=two%", "for example depth=2%"),
        (f"depth={'9' * 400}%", "0 % to 9999 %"),
        (f"depth=2.{'0' * 250}%", "0 % to 9999 %"),
        ("semseg.miou > 0.5", "no space belongs in it"),
        ("semseg.miou>=0.5", "it is > or < alone, and allows the value itself"),
        ("semseg.miou>50%", "in the metric's own unit, for example 'semseg.miou>0.5'"),
        ("semseg.miou>half", "TASK.METRIC>VALUE"),
        ("semseg.miou>", "TASK.METRIC>VALUE"),
        ("semseg.miou>1e-3", "TASK.METRIC>VALUE"),
        ("semseg.miou>nan", "TASK.METRIC>VALUE"),
        ("dept=2%", "unknown task in floor 'dept': did you mean depth? allowed: depth, semseg, up"),
        ("dept.rmse<0.9", "unknown task in floor 'dept': did you mean depth?"),
        (">0.5", "unknown task in floor ''"),
        ("semseg.mio>0.5", "unknown metric of task semseg in floor 'mio': did you mean miou? allowed: miou"),
        ("depth.miou>0.5", "unknown metric of task depth in floor 'miou': allowed: abs_rel, delta1, rmse"),
        ("depth.=2%", "unknown metric of task depth in floor ''"),
        ("semseg<0.5", "higher is better of miou, so a floor on it is 'semseg.miou>0.5'"),
        ("depth.rmse>0.9", "lower is better of rmse, so a floor on it is 'depth.rmse<0.9'"),
    ],
)
def test_a_bad_floor_is_one_line_that_says_what_is_wanted(text: str, expected: str) -> None:
    line = refused(lambda: parse_floor(text, TASKS))
    assert expected in line
    assert len(line) < 450


def test_no_task_is_called_as_a_floor_is_written() -> None:
    for sign in "<>":
        assert f"holds {sign!r}" in refused(lambda: make_task(f"a{sign}b", "depth"))  # noqa: B023
