"""Post-processing against its formulas, on values where a careless version fails."""

from __future__ import annotations

import numpy as np
import pytest

from edgemtl.errors import UserError
from edgemtl.runtime import postprocess
from edgemtl.tasks.task import KINDS

RNG = np.random.default_rng(0)


def test_argmax_gives_classes() -> None:
    logits = RNG.normal(size=(1, 4, 3, 5)).astype(np.float32)
    classes = postprocess("argmax", logits)
    assert classes.shape == (3, 5)
    assert all(logits[0, classes[y, x], y, x] == logits[0, :, y, x].max() for y in range(3) for x in range(5))


def test_exp_gives_metres() -> None:
    np.testing.assert_allclose(postprocess("exp", np.full((1, 1, 2, 3), np.log(2.5), np.float32)), np.full((2, 3), 2.5))


def test_normals_have_length_one_and_a_zero_vector_stays_finite() -> None:
    raw = RNG.normal(size=(1, 3, 4, 4)).astype(np.float32)
    raw[0, :, 0, 0] = 0
    unit = postprocess("normalize", raw)
    assert unit.shape == (4, 4, 3)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=2).ravel()[1:], 1, rtol=1e-5)
    assert np.isfinite(unit).all()


def test_sigmoid_and_softmax_survive_large_logits() -> None:
    large = np.array([[[[-1000.0, 0.0, 1000.0]]]], np.float32)
    np.testing.assert_allclose(postprocess("sigmoid", large), [[0, 0.5, 1]])
    np.testing.assert_allclose(postprocess("softmax", np.array([[1000.0, 0.0]], np.float32)), [1, 0])


def test_peaks_are_x_y_and_value() -> None:
    maps = np.zeros((1, 2, 4, 6), np.float32)
    maps[0, 0, 3, 1], maps[0, 1, 0, 5] = 0.9, 0.4
    np.testing.assert_allclose(postprocess("peaks", maps), [[1, 3, 0.9], [5, 0, 0.4]])


def test_every_kind_has_its_step_and_an_unknown_one_is_refused() -> None:
    for kind in KINDS.values():
        shape = (1, kind.channels or 2, 4, 4) if kind.dense else (1, 2)
        assert np.isfinite(postprocess(kind.postprocess, RNG.normal(size=shape).astype(np.float32))).all()
    with pytest.raises(UserError, match="did you mean softmax"):
        postprocess("sofmax", np.zeros((1, 2), np.float32))
