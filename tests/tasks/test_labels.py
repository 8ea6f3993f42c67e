from __future__ import annotations

import numpy as np
import pytest

from edgemtl.errors import UserError
from edgemtl.tasks import find_kind
from edgemtl.tasks.binary.labels import BinarySpec
from edgemtl.tasks.depth.labels import DepthSpec
from edgemtl.tasks.keypoints.labels import KeypointsSpec
from edgemtl.tasks.normals.labels import NormalsSpec
from edgemtl.tasks.segmentation.labels import SegmentationSpec

FILES = {"files": "x/{name}.npy"}


def depth(**keys: float) -> DepthSpec:
    return DepthSpec(kind="depth", **FILES, **keys)  # type: ignore[arg-type]


def test_class_ids_may_begin_anywhere_and_void_may_come_first() -> None:
    spec = SegmentationSpec(kind="segmentation", **FILES, classes=["a", "b"], first=1, ignore=0)  # type: ignore[arg-type]
    target, mask = spec.decode(np.array([[0, 1, 2]], np.uint8))
    assert target[mask].tolist() == [0, 1]
    assert mask.tolist() == [[False, True, True]]
    with pytest.raises(UserError, match=r"the values 3, 9 in 3 pixels: allowed are 1 to 2 and 0 \(ignore\)"):
        spec.decode(np.array([[3, 9, 3, 1]], np.uint8))
    none = SegmentationSpec(kind="segmentation", **FILES, classes=["a", "b"], ignore=None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"the value 255 in 1 pixel: allowed are 0 to 1;"):
        none.decode(np.array([[0, 255]], np.uint8))
    with pytest.raises(UserError, match=r"1, 2, 3, 4, 5 and 2 more|2, 3, 4, 5, 6 and 1 more"):
        none.decode(np.arange(8).reshape(1, 8))


def test_depth_is_metres_and_what_is_none_is_masked() -> None:
    raw = np.array([[0.0, np.nan, np.inf, 2.5, -np.inf]], np.float32)
    target, mask = depth().decode(raw)
    assert mask.tolist() == [[False, False, False, True, False]]
    assert target[mask].tolist() == [2.5]
    assert np.isfinite(np.log(target)).all()
    target, mask = depth(scale=0.5, invalid=-1, max_m=4).decode(np.array([[-1, 3, 8, 9]], np.int32))
    assert mask.tolist() == [[False, True, True, False]]
    assert target[mask].tolist() == [1.5, 4]
    with pytest.raises(UserError, match=r"the value -1 in 1 pixel, -1 m with `scale` not set"):
        depth().decode(np.array([[-1.0, 2]]))
    with pytest.raises(UserError, match=r"1200 to 3000 m"):
        depth().decode(np.array([[1200.0, 3000, 2]]))


def test_normals_are_made_unit_and_zero_vectors_are_masked() -> None:
    spec = NormalsSpec(kind="normals", **FILES)  # type: ignore[arg-type]
    target, mask = spec.decode(np.array([[[0, 0, -1.1], [0, 0, 0], [np.nan, 0, 1], [0.6, 0.8, 0]]]))
    assert mask.tolist() == [[True, False, False, True]]
    assert np.allclose(target[0, 0], [0, 0, -1])
    assert np.allclose(target[0, 3], [0.6, 0.8, 0])
    assert np.allclose(np.linalg.norm(target, axis=-1), 1)
    grey = np.full((2, 2, 3), 127, np.uint8)
    assert not spec.decode(grey)[1].any()
    with pytest.raises(UserError, match=r"length 2\.00"):
        spec.decode(np.full((2, 2, 3), 2 / np.sqrt(3)))


def test_maps_are_zero_and_one() -> None:
    plain = BinarySpec(kind="edges", **FILES)  # type: ignore[arg-type]
    for high in (1, 255):
        assert plain.decode(np.array([[0, high]], np.uint8))[0].tolist() == [[0, 1]]
    assert plain.decode(np.array([[True, False]]))[0].tolist() == [[1, 0]]
    soft = BinarySpec(kind="saliency", **FILES, threshold=127, ignore=7)  # type: ignore[arg-type]
    target, mask = soft.decode(np.array([[127, 128, 7]], np.uint8))
    assert target.tolist() == [[0, 1, 0]]
    assert mask.tolist() == [[True, True, False]]


def test_edges_survive_shrinking_and_enlarging_picks() -> None:
    edges = np.zeros((30, 40), np.float32)
    edges[:, 7] = 1
    valid = np.ones((30, 40), bool)
    small, mask = find_kind("edges").resize((edges, valid), (30, 40), (7, 9))
    assert small.sum() == 7
    assert (small.sum(1) == 1).all()
    assert mask.all()
    large, _ = find_kind("edges").resize((edges, valid), (30, 40), (60, 80))
    assert np.array_equal(large, edges.repeat(2, 0).repeat(2, 1))
    picked, _ = find_kind("segmentation").resize((np.arange(12).reshape(3, 4), np.ones((3, 4), bool)), (3, 4), (3, 2))
    assert picked.tolist() == [[1, 3], [5, 7], [9, 11]]
    off = valid.copy()
    off[:, 7] = False
    assert find_kind("edges").resize((edges, off), (30, 40), (7, 9))[0].sum() == 0


def test_points_stand_in_two_columns_each_and_may_be_missing() -> None:
    spec = KeypointsSpec(kind="keypoints", csv="points.csv", image="file", points=["nose", "left_eye"])
    assert spec.label_columns == ["nose_x", "nose_y", "left_eye_x", "left_eye_y"]
    points, mask = spec.parse([["3", "4.5", "", ""]])
    assert points.tolist() == [[3, 4.5], [0, 0]] and mask.tolist() == [True, False]
    assert not spec.parse([])[1].any()
    with pytest.raises(UserError, match="'' is no number"):
        spec.parse([["3", "", "1", "2"]])
    resized, _ = find_kind("keypoints").resize((points, mask), (10, 10), (20, 5))
    assert resized[0].tolist() == [1.25, 9.5]
