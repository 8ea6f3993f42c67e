from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from grid import grid_space
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_space
from torch import Tensor
from toys import TRAINED

from edgemtl.spaces import load_space
from edgemtl.train.distill import StageEnd, differing_stages, feature_distance, stage_ends


def features(seed: int, channels: int, names: tuple[str, ...] = ("a", "b")) -> dict[StageEnd, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {(name, None): torch.randn(2, channels, 3, 4, generator=generator) for name in names}


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


def test_tokens_and_vectors_are_compared_like_the_maps_that_they_are() -> None:
    student, teacher = features(4, 5)["a", None], features(5, 8)["a", None]
    tokens = [{("top", "depth"): value.flatten(2).transpose(1, 2)} for value in (student, teacher)]
    expected = float(feature_distance({("top", "depth"): student}, {("top", "depth"): teacher}))
    assert float(feature_distance(*tokens)) == pytest.approx(expected, rel=1e-5)
    vectors = [{("last", None): value[:, :, 0, 0]} for value in (student, teacher)]
    at_one_place = [{("last", None): value[:, :, :1, :1]} for value in (student, teacher)]
    assert float(feature_distance(*vectors)) == pytest.approx(float(feature_distance(*at_one_place)), rel=1e-5)


def test_a_copy_of_a_task_learns_from_what_tasks_share_in_the_largest_design() -> None:
    student, teacher = features(6, 5)["a", None], features(7, 8)["a", None]
    shared = feature_distance({("1/8", "depth"): student}, {("1/8", None): teacher})
    assert float(shared) == float(feature_distance({("1/8", None): student}, {("1/8", None): teacher}))
    assert float(feature_distance({("1/8", "depth"): student}, {("1/4", None): teacher})) == 0


@pytest.mark.parametrize(("size", "number"), [("largest", 2), ("smallest", 1)])
def test_a_stage_of_a_convolutional_net_ends_where_decoders_read_it(tmp_path: Path, size: str, number: int) -> None:
    space = small_space(tmp_path)
    design = space.largest() if size == "largest" else space.smallest()
    ends = stage_ends(space.plan(design), space.stages)
    assert ends == {("last", None): "last"} | {(name, None): f"{name}_{number}" for name in "acd"}
    assert differing_stages(space) == {"a", "c", "d", "last"}


def test_the_stages_of_a_grid_are_its_resolutions(tmp_path: Path) -> None:
    space = grid_space(tmp_path)
    ends = stage_ends(space.plan(space.largest()), space.stages)
    assert ends == {(f"1/{4 << path}", None): f"s2p{path}_2" for path in range(3)}
    assert differing_stages(space) == {"1/4", "1/8", "1/16"}
    smallest = stage_ends(space.plan(space.smallest()), space.stages)
    assert smallest == {("1/4", None): "open0", ("1/16", "kind"): "open2"}, "maps read the finest, a class the coarsest"


def test_a_transformer_is_compared_where_its_decoders_read_tokens_and_not_where_all_designs_are_alike() -> None:
    space = load_space("moe-vit", TRAINED)
    ends = stage_ends(space.plan(space.smallest()), space.stages)
    tokens = {("top", task.name): f"top_{task.name}" for task in TRAINED}
    assert ends == {(stem, None): stem for stem in ("stem2", "stem3")} | tokens
    assert differing_stages(space) == {"top"}
