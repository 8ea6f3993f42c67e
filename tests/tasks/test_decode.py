"""Post-processing against its formulas, on values where a careless version fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgemtl.errors import UserError
from edgemtl.tasks import all_kinds, kind_of, make_task

RNG = np.random.default_rng(0)


def decoded(kind: str, raw: np.ndarray, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """A prediction of a task's only output."""
    task = make_task("t", kind, raw.shape[1])
    prediction: np.ndarray = kind_of(task).decode(task, {task.outputs[0].name: raw}, image_size or raw.shape[2:])
    return prediction


def test_argmax_gives_classes() -> None:
    logits = RNG.normal(size=(1, 4, 3, 5)).astype(np.float32)
    classes = decoded("segmentation", logits)
    assert classes.shape == (3, 5)
    assert all(logits[0, classes[y, x], y, x] == logits[0, :, y, x].max() for y in range(3) for x in range(5))


def test_exp_gives_metres() -> None:
    np.testing.assert_allclose(decoded("depth", np.full((1, 1, 2, 3), np.log(2.5), np.float32)), np.full((2, 3), 2.5))


def test_normals_have_length_one_and_a_zero_vector_stays_finite() -> None:
    raw = RNG.normal(size=(1, 3, 4, 4)).astype(np.float32)
    raw[0, :, 0, 0] = 0
    unit = decoded("normals", raw)
    assert unit.shape == (4, 4, 3)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=2).ravel()[1:], 1, rtol=1e-5)
    assert np.isfinite(unit).all()


def test_sigmoid_and_softmax_survive_large_logits() -> None:
    large = np.array([[[[-1000.0, 0.0, 1000.0]]]], np.float32)
    np.testing.assert_allclose(decoded("edges", large), [[0, 0.5, 1]])
    np.testing.assert_allclose(decoded("classification", np.array([[1000.0, 0.0]], np.float32)), [1, 0])


def test_peaks_are_x_y_and_value() -> None:
    maps = np.zeros((1, 2, 4, 6), np.float32)
    maps[0, 0, 3, 1], maps[0, 1, 0, 5] = 0.9, 0.4
    np.testing.assert_allclose(decoded("keypoints", maps), [[1, 3, 0.9], [5, 0, 0.4]])
    larger = decoded("keypoints", maps, (8, 24))  # the middle of a pixel stays a middle
    np.testing.assert_allclose(larger, [[5.5, 6.5, 0.9], [21.5, 0.5, 0.4]])


def test_every_kind_gives_finite_predictions_and_an_unknown_one_is_refused() -> None:
    for kind in all_kinds():
        task = make_task("t", kind.name, kind.channels or 2)
        shapes = {output.name: (1, output.channels, *((4, 4) if output.dense else ())) for output in task.outputs}
        raw = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        assert np.isfinite(kind.decode(task, raw, (4, 4))).all()
    with pytest.raises(UserError, match="unknown task kind 'edgse': did you mean edges"):
        kind_of(replace(make_task("t", "edges"), kind="edgse"))
