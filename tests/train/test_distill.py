from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgemtl.train.distill import feature_distance, stage_ends


def features(seed: int, channels: int, names: tuple[str, ...] = ("a", "b")) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, channels, 3, 4, generator=generator) for name in names}


def reference(student: np.ndarray, teacher: np.ndarray) -> float:
    """Place by place: one less the cosine of the channels, and the squared distance of the maps of energy."""
    count, channels, height, width = student.shape
    cosines = [
        student[n, :, y, x] @ teacher[n, :channels, y, x]
        / np.linalg.norm(student[n, :, y, x]) / np.linalg.norm(teacher[n, :channels, y, x])
        for n in range(count) for y in range(height) for x in range(width)
    ]  # fmt: skip
    apart = 0.0
    for one, other in zip((student**2).mean(1), (teacher**2).mean(1), strict=True):
        apart += float(((one / np.linalg.norm(one) - other / np.linalg.norm(other)) ** 2).sum())
    return 1 - float(np.mean(cosines)) + apart / count


def test_distance_is_the_mean_over_stages_of_slices_and_energy() -> None:
    student, teacher = features(0, 5), features(1, 8)
    expected = np.mean([reference(student[name].numpy(), teacher[name].numpy()) for name in student])
    assert float(feature_distance(student, teacher)) == pytest.approx(float(expected), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_identical_features_have_no_distance_and_a_common_scale_does_not_count(seed: int, scale: float) -> None:
    teacher = features(seed, 6)
    assert float(feature_distance(teacher, teacher)) == pytest.approx(0, abs=1e-6)
    larger = {name: scale * value for name, value in teacher.items()}
    assert float(feature_distance(larger, teacher)) == pytest.approx(0, abs=1e-5)
    assert float(feature_distance(features(seed + 1, 6), teacher)) > 0.1


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = features(2, 4), features(3, 6)
    for value in (*student.values(), *teacher.values()):
        value.requires_grad_()
    feature_distance(student, teacher).backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in student.values())
    assert all(value.grad is None for value in teacher.values())


def test_a_stage_ends_with_its_last_block() -> None:
    names = ["stem", "s1_1", "s1_2", "my_stage_1", "last"]
    given = {name: torch.full((1,), float(n)) for n, name in enumerate(names)}
    assert {name: float(value) for name, value in stage_ends(given).items()} == {"s1": 2.0, "my_stage": 3.0}
