from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgemtl.data import PseudoLabelled, Sample, collate, onnx_teacher
from edgemtl.data.folder import FolderSource
from edgemtl.errors import UserError
from edgemtl.files.images import normalize
from edgemtl.tasks import Task, make_task

SIZE = (16, 24)
TASKS = (
    make_task("semseg", "segmentation", 3),
    make_task("depth", "depth"),
    make_task("normals", "normals"),
    make_task("edges", "edges"),
    make_task("label", "classification", 4),
    make_task("pose", "regression", 2),
)
SPEC = """\
images: {train: images/train, validation: images/val, test: images/test}
tasks:
  depth: {kind: depth, files: "depth/{name}.png", scale: 0.001}
  edges: {kind: edges, files: "edges/{name}.png", teacher: edges.onnx}
"""
Array = NDArray[np.float32]
EDGES = next(task for task in TASKS if task.name == "edges")


class Bare:
    """A source of one image with a label of depth only."""

    name, size, license_note, fingerprint = "bare", SIZE, "", "0"
    tasks = TASKS

    def split(self, name: str) -> list[Sample]:
        targets = {
            "semseg": np.zeros(SIZE, np.int64), "depth": np.full(SIZE, 2.0, np.float32),
            "normals": np.zeros((*SIZE, 3), np.float32), "edges": np.zeros(SIZE, np.float32),
            "label": np.asarray(0), "pose": np.zeros(2, np.float32),
        }  # fmt: skip
        masks = {task.name: np.full(SIZE if task.dense else (), task.name == "depth") for task in TASKS}
        image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        return [Sample(image, targets, masks)]


def raw_of(task: Task) -> dict[str, Array]:
    (output,) = task.outputs
    shape = (1, task.channels, *(SIZE if output.dense else ()))
    return {output.name: np.random.default_rng(len(task.name)).normal(size=shape).astype(np.float32)}


def test_every_kind_of_label_is_taken_from_raw_outputs() -> None:
    source = PseudoLabelled(Bare(), {task.name: lambda image, task=task: raw_of(task) for task in TASKS})  # type: ignore[misc]
    sample, raw = source.split("train")[0], {task.name: next(iter(raw_of(task).values()))[0] for task in TASKS}
    found = sample.targets
    np.testing.assert_array_equal(found["depth"], 2.0)  # a label that is there stays
    np.testing.assert_array_equal(found["semseg"], raw["semseg"].argmax(0))
    lengths = np.linalg.norm(raw["normals"], axis=0)
    np.testing.assert_allclose(found["normals"], (raw["normals"] / lengths).transpose(1, 2, 0), rtol=1e-5)
    np.testing.assert_array_equal(found["edges"], raw["edges"][0] > 0)
    assert found["label"] == raw["label"].argmax()
    np.testing.assert_array_equal(found["pose"], raw["pose"])
    assert all(mask.all() for mask in sample.masks.values())
    batch = collate([sample, sample], TASKS)
    assert batch.targets["semseg"].dtype == np.int64
    assert batch.targets["normals"].shape == (2, 3, *SIZE)


def test_a_teacher_sees_the_normalised_image_and_may_know_nothing_of_a_pixel() -> None:
    def teacher(image: Array) -> dict[str, Array]:
        raw = image[:, :1].copy()
        raw[..., 0] = np.nan
        return {EDGES.outputs[0].name: raw}

    sample = PseudoLabelled(Bare(), {"edges": teacher}).split("train")[0]
    expected = normalize(sample.image[None])[0, 0] > 0
    assert not sample.masks["edges"][:, 0].any()
    np.testing.assert_array_equal(sample.targets["edges"][:, 1:], expected[:, 1:])
    assert np.isfinite(sample.targets["edges"]).all()


def test_who_taught_is_part_of_the_identity() -> None:
    plain = Bare().fingerprint
    one, other = (PseudoLabelled(Bare(), {"edges": raw_of}, [mark]).fingerprint for mark in "ab")  # type: ignore[dict-item]
    assert len({plain, one, other}) == 3


def test_teachers_of_unknown_tasks_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean edges"):
        PseudoLabelled(Bare(), {"edge": lambda image: {"logits": image}})
    small = PseudoLabelled(Bare(), {"edges": lambda image: {EDGES.outputs[0].name: image[:, :1, ::2]}})
    with pytest.raises(UserError, match=r"edges.*\(1, 1, 8, 24\).*\(1, 1, 16, 24\) is wanted"):
        small.split("train")[0]
    for wrong in (lambda image: image[:, :1], lambda image: {"edges_of_another": image[:, :1]}):
        bare = PseudoLabelled(Bare(), {"edges": wrong})  # type: ignore[dict-item]
        with pytest.raises(UserError, match=r"edges.*a dict of the raw outputs logits is wanted"):
            bare.split("train")[0]


def write_teacher(path: Path, outputs: tuple[str, ...] = ("edges",), channels: int = 3) -> Path:
    """Brightness less one half, as logits."""
    weight = np.full((1, channels, 1, 1), 1 / channels, np.float32)
    nodes = [helper.make_node("Conv", ["image", "w"], [name]) for name in outputs]
    size = ["n", None, "h", "w_"]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "teacher",
        [info("image", TensorProto.FLOAT, [*size[:1], channels, *size[2:]])],
        [info(name, TensorProto.FLOAT, [*size[:1], 1, *size[2:]]) for name in outputs],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for number in range(count):
            for position, array in (
                (f"images/{split}", rng.integers(0, 256, (32, 48, 3), np.uint8)),
                ("depth", rng.integers(500, 9000, (32, 48)).astype(np.uint16)),
            ):
                path = root / position / f"{split}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    (root / "data.yaml").write_text(SPEC)
    write_teacher(root / "edges.onnx")
    return root


def test_a_folder_may_name_a_teacher_and_lack_every_label(folder: Path) -> None:
    source = FolderSource(folder, SIZE)
    sample = source.split("train")[0]
    np.testing.assert_array_equal(sample.targets["edges"], normalize(sample.image[None])[0].mean(0) > 0)
    assert sample.masks["edges"].all()
    assert source.check().labelled["train"] == {"depth": 1.0, "edges": 0.0}
    write_teacher(folder / "edges.onnx", ("a", "edges"))
    assert FolderSource(folder, SIZE).fingerprint != source.fingerprint


def test_a_label_that_is_there_is_kept(folder: Path) -> None:
    (folder / "edges").mkdir()
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(folder / "edges" / "train0.png")
    samples = FolderSource(folder, SIZE).split("train")
    assert not samples[0].targets["edges"].any()
    assert samples[1].targets["edges"].any()


def pipe_of_weights(path: Path) -> None:
    """The teacher with weights in another file, which is a pipe that nobody writes to."""
    model = onnx.load(path)
    weight = numpy_helper.from_array(np.ones(1, np.float32), "outside")
    onnx.external_data_helper.set_external_data(weight, "weights.bin")
    weight.data_location = TensorProto.EXTERNAL
    model.graph.initializer.append(weight)
    path.write_bytes(model.SerializeToString())
    os.mkfifo(path.parent / "weights.bin")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: (root / "edges.onnx").unlink(), "edges.onnx: the teacher of task 'edges' is missing"),
        (lambda root: (root / "edges.onnx").write_bytes(b"onnx"), "is no ONNX model"),
        (lambda root: pipe_of_weights(root / "edges.onnx"), "weights.bin: it is a pipe"),
        (lambda root: write_teacher(root / "edges.onnx", ("a", "b")), "one called 'edges'"),
        (
            lambda root: (root / "data.yaml").write_text(SPEC.replace("edges.onnx", "../edges.onnx")),
            "leaves the folder",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_a_problem_of_the_data(folder: Path, change: object, reason: str) -> None:
    assert callable(change)
    change(folder)
    with pytest.raises(UserError, match=reason):
        FolderSource(folder, SIZE)


def test_a_teacher_for_other_images_is_named(folder: Path) -> None:
    teacher = onnx_teacher(write_teacher(folder / "one.onnx", channels=1), EDGES)
    with pytest.raises(UserError, match=r"one\.onnx.*cannot run on an image of 16 x 24"):
        teacher(np.zeros((1, 3, *SIZE), np.float32))
