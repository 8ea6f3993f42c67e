"""Every built-in kind of task conforms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from edgemtl.tasks import KINDS, Output, Target, make_task
from edgemtl.tasks.keypoints.learning import heatmaps
from edgemtl.testing import KindConformance

SIZE = KindConformance.image_size
Outputs = Mapping[str, NDArray[np.float32]]


def valid(rng: np.random.Generator) -> NDArray[np.bool_]:
    return rng.random(SIZE) < 0.8


def one_hot(ids: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    return np.moveaxis(np.float32(20) * np.eye(count, dtype=np.float32)[ids], -1, 0)[None]


class TestSegmentation(KindConformance):
    task = make_task("semseg", "segmentation", classes=("wall", "floor", "lamp"))

    def label(self, rng: np.random.Generator) -> Target:
        return rng.integers(0, 3, SIZE), valid(rng)

    def outputs_of(self, label: Target) -> Outputs:
        return {"logits": one_hot(label[0], 3)}


class TestDepth(KindConformance):
    task = make_task("depth", "depth")

    def label(self, rng: np.random.Generator) -> Target:
        return rng.uniform(0.5, 8, SIZE).astype(np.float32), valid(rng)

    def outputs_of(self, label: Target) -> Outputs:
        return {"log_metres": np.log(label[0])[None, None]}


class TestNormals(KindConformance):
    task = make_task("normals", "normals")

    def label(self, rng: np.random.Generator) -> Target:
        vectors = rng.standard_normal((*SIZE, 3))
        return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32), valid(rng)

    def outputs_of(self, label: Target) -> Outputs:
        return {"vectors": np.ascontiguousarray(label[0].transpose(2, 0, 1))[None]}


class TestEdges(KindConformance):
    task = make_task("edges", "edges")

    def label(self, rng: np.random.Generator) -> Target:
        return (rng.random(SIZE) < 0.2).astype(np.float32), valid(rng)

    def outputs_of(self, label: Target) -> Outputs:
        return {"logits": (np.float32(40) * label[0] - np.float32(20))[None, None]}


class TestSaliency(TestEdges):
    task = make_task("salient", "saliency")


class TestKeypoints(KindConformance):
    task = make_task("face", "keypoints", classes=("left_eye", "right_eye", "nose"))

    def label(self, rng: np.random.Generator) -> Target:
        points = rng.integers(0, SIZE[::-1], (3, 2)).astype(np.float32)
        return points, np.array([True, True, rng.random() < 0.5])

    def outputs_of(self, label: Target) -> Outputs:
        return {"heatmaps": heatmaps(torch.from_numpy(label[0])[None], *SIZE).numpy()}


class TestClassification(KindConformance):
    task = make_task("weather", "classification", classes=("dry", "rain", "snow"))

    def label(self, rng: np.random.Generator) -> Target:
        return np.asarray(rng.integers(0, 3), np.int64), np.asarray(True)

    def outputs_of(self, label: Target) -> Outputs:
        return {"logits": np.float32(20) * np.eye(3, dtype=np.float32)[label[0]][None]}


class TestRegression(KindConformance):
    task = make_task("pose", "regression", 2)

    def label(self, rng: np.random.Generator) -> Target:
        return rng.standard_normal(2).astype(np.float32), np.asarray(True)

    def outputs_of(self, label: Target) -> Outputs:
        return {"values": label[0][None]}


class TestRawTensors(KindConformance):
    task = make_task("theirs", "raw", outputs=[Output("points", 4, False), Output("map", 2, True)])

    def label(self, rng: np.random.Generator) -> Target:
        return rng.standard_normal(4 + 2 * SIZE[0] * SIZE[1]).astype(np.float32), np.asarray(True)

    def outputs_of(self, label: Target) -> Outputs:
        return {"points": label[0][None, :4], "map": label[0][4:].reshape(1, 2, *SIZE)}


def test_no_built_in_kind_is_left_out() -> None:
    suites = [each for each in globals().values() if isinstance(each, type) and issubclass(each, KindConformance)]
    assert {suite.task.kind for suite in suites if suite is not KindConformance} == set(KINDS.names())
