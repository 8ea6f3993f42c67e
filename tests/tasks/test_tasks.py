from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.errors import UserError
from edgemtl.tasks import (
    Task,
    all_kinds,
    check_tasks,
    delta_m,
    kind_of,
    make_task,
    relative_change,
    remaining_drop,
    worst_task,
)

SEMSEG = make_task("semseg", "segmentation", classes=("wall", "floor"))
DEPTH = make_task("depth", "depth")
NORMALS = make_task("normals", "normals")
TASKS = (SEMSEG, DEPTH, NORMALS)
BASELINE = {"semseg": {"miou": 0.5}, "depth": {"rmse": 0.4, "delta1": 0.9}, "normals": {"mean_angle": 20.0}}
METRICS = {"semseg": {"miou": 0.45}, "depth": {"rmse": 0.5, "delta1": 0.99}, "normals": {"mean_angle": 18.0}}
positive = st.floats(0.01, 100)


def test_directions_of_every_kind() -> None:
    """Errors fall when a model gets better, accuracies rise."""
    better = {kind.name: kind.metrics[0].higher_is_better for kind in all_kinds()}
    assert better == {
        "segmentation": True, "depth": False, "normals": False, "edges": True, "saliency": True, "keypoints": True,
        "classification": True, "regression": False, "raw": True,
    }  # fmt: skip


def test_relative_change_is_positive_where_it_is_better() -> None:
    assert math.isclose(relative_change(SEMSEG, {"miou": 0.55}, {"miou": 0.5}), 0.1)
    assert math.isclose(relative_change(DEPTH, {"rmse": 0.5}, {"rmse": 0.4}), -0.25)


def test_only_the_first_metric_decides() -> None:
    assert relative_change(DEPTH, {"rmse": 0.4, "delta1": 0.1}, {"rmse": 0.4, "delta1": 0.9}) == 0


def test_delta_m_by_hand() -> None:
    """Minus 10 % of mIoU, plus 25 % of RMSE (worse), minus 10 % of angle (better)."""
    assert math.isclose(delta_m(TASKS, METRICS, BASELINE), (-0.1 - 0.25 + 0.1) / 3)


def test_delta_m_weighted_by_hand() -> None:
    preference = {"semseg": 0.0, "depth": 3.0}
    assert math.isclose(delta_m(TASKS, METRICS, BASELINE, preference), (3 * -0.25 + 0.1) / 4)


def test_worst_task() -> None:
    name, change = worst_task(TASKS, METRICS, BASELINE)
    assert name == "depth"
    assert math.isclose(change, -0.25)


@settings(deadline=None)
@given(positive, positive, positive)
def test_the_baseline_itself_has_no_change(miou: float, rmse: float, angle: float) -> None:
    metrics = {"semseg": {"miou": miou}, "depth": {"rmse": rmse}, "normals": {"mean_angle": angle}}
    assert delta_m(TASKS, metrics, metrics) == 0


@settings(deadline=None)
@given(st.lists(positive, min_size=3, max_size=3), st.floats(1.001, 2))
def test_delta_m_lies_between_the_tasks_own_changes(weights: list[float], factor: float) -> None:
    metrics = {name: {key: value * factor for key, value in scores.items()} for name, scores in BASELINE.items()}
    changes = [relative_change(task, metrics[task.name], BASELINE[task.name]) for task in TASKS]
    mean = delta_m(TASKS, metrics, BASELINE, dict(zip(BASELINE, weights, strict=True)))
    assert min(changes) <= mean <= max(changes)
    assert worst_task(TASKS, metrics, BASELINE)[1] == min(changes)


def test_what_is_left_of_a_drop_by_hand() -> None:
    """20 % of 0.4 m let 0.48 m pass: from 0.44 m that is 1/11 more. 10 % of 0.5 let 0.45 pass: of 0.48 1/16 less."""
    assert math.isclose(remaining_drop(DEPTH, {"rmse": 0.44}, {"rmse": 0.4}, 0.2), 0.04 / 0.44)
    assert math.isclose(remaining_drop(SEMSEG, {"miou": 0.48}, {"miou": 0.5}, 0.1), 0.03 / 0.48)
    assert math.isclose(remaining_drop(DEPTH, {"rmse": 0.5}, {"rmse": 0.4}, 0.2), -0.02 / 0.5)  # broken already


@settings(deadline=None)
@given(st.sampled_from([SEMSEG, DEPTH]), positive, positive, st.floats(0, 2))
def test_what_loses_the_rest_of_a_drop_loses_just_that_of_the_baseline(
    task: Task, base: float, value: float, max_drop: float
) -> None:
    name = task.metric.name
    rest = remaining_drop(task, {name: value}, {name: base}, max_drop)
    end = value * (1 - rest if task.metric.higher_is_better else 1 + rest)
    assert math.isclose(-relative_change(task, {name: end}, {name: base}), max_drop, rel_tol=1e-9, abs_tol=1e-9)
    change = relative_change(task, {name: value}, {name: base})
    assert rest == pytest.approx((max_drop + change) / (1 + change if task.metric.higher_is_better else 1 - change))


@pytest.mark.parametrize("value", [0.0, 0.4, 1.3, 40.0])
@pytest.mark.parametrize("base", [0.0, 0.4])
@pytest.mark.parametrize("task", [SEMSEG, DEPTH], ids=["higher", "lower"])
def test_what_is_left_of_a_drop_is_a_number_whatever_the_scores(task: Task, base: float, value: float) -> None:
    name = task.metric.name
    for max_drop in (0.0, 1.0, 99.99):
        assert math.isfinite(remaining_drop(task, {name: value}, {name: base}, max_drop))


def test_a_baseline_of_zero_does_not_divide_by_zero() -> None:
    assert math.isfinite(relative_change(SEMSEG, {"miou": 0.5}, {"miou": 0.0}))


def test_a_task_has_its_kinds_loss_metrics_and_output() -> None:
    assert (SEMSEG.channels, SEMSEG.classes, SEMSEG.metric.name) == (2, ("wall", "floor"), "miou")
    assert (kind_of(SEMSEG).loss, kind_of(SEMSEG).postprocess.name) == ("cross_entropy", "argmax")
    assert (DEPTH.channels, NORMALS.channels) == (1, 3)
    assert [(o.name, o.channels, o.dense) for o in NORMALS.outputs] == [("vectors", 3, True)]
    assert make_task("type", "classification", 4).dense is False


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("a", "segmentatoin", 3), "did you mean segmentation?"),
        (("a", "segmentation"), "needs its classes or its number of channels"),
        (("a", "classification", -3), "needs its classes or its number of channels"),
        (("a", "classification", 0), "needs its classes or its number of channels"),
        (("a", "depth", 2), "has 1 channels, not 2"),
        (("a", "classification", 3, ("x", "y")), "names 2 classes but has 3 channels"),
    ],
)
def test_a_task_that_cannot_be_is_refused(arguments: tuple[object, ...], expected: str) -> None:
    with pytest.raises(UserError) as error:
        make_task(*arguments)  # type: ignore[arg-type]
    assert expected in str(error.value)


@pytest.mark.parametrize("name", ["image", "want_depth", "want_"])
def test_no_task_is_called_like_an_input_of_engines(name: str) -> None:
    with pytest.raises(UserError, match="is called like an input of engines, which are image and want_TASK"):
        make_task(name, "depth")


def test_tasks_are_named_by_one_string_or_by_several() -> None:
    known = ("semseg", "depth", "d")
    assert check_tasks("depth", known) == ("depth",)
    assert check_tasks(["d", "semseg", "d"], known) == ("semseg", "d")
    for wrong, reason in (("dept", "did you mean depth"), ([], "at least one"), (3, "tasks 3"), (b"d", "task 100")):
        with pytest.raises(UserError, match=reason):
            check_tasks(wrong, known)  # type: ignore[arg-type]
