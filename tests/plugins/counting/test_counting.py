"""A kind of task with tensors of different rank, ragged labels and suppression, plugged in from one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from plugged import install

from edgemtl.bundle import read_manifest
from edgemtl.data import open_source
from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, Plain, export_run
from edgemtl.nas.search import SearchRequest, search
from edgemtl.report import draw_prediction, write_report
from edgemtl.results import read_result
from edgemtl.runtime import Engine
from edgemtl.spaces import load_space
from edgemtl.tasks import KINDS, Target, Task, all_kinds, find_kind, kind_of, make_task
from edgemtl.testing import KindConformance
from edgemtl.train import Recipe, train_supernet

CLASSES = ("car", "dog")
SIZE = (32, 64)
DATA = """\
images: {train: images/train, validation: images/validation, test: images/test}
tasks:
  cars: {kind: counting, csv: boxes.csv, image: file, classes: [car, dog], partial: true}
  depth: {kind: depth, files: "depth/{split}/{name}.npy"}
"""
SPACE = """\
schema: edgemtl.space/1
family: cnn
input: [32, 64]
cnn:
  stem: {width: [8]}
  stages:
    - {name: a, stride: 2, width: [8, 16], depth: [1, 2], block: [fused], expand: [1]}
    - {name: b, stride: 2, width: [8, 16], depth: [1], block: [fused], expand: [1]}
  features: [a, b]
  decoder: {width: [8]}
"""


@pytest.fixture(scope="module", autouse=True)
def plugged_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The kind as an installed package brings it: by an entry point."""
    site = tmp_path_factory.mktemp("site")
    install(site, "edgemtl.kinds", "counting = counting:KIND", module=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        patch.syspath_prepend(str(site))
        forget_kinds()
        yield
    forget_kinds()


def forget_kinds() -> None:
    """Forget the kinds that were looked up: packages do not come and go, but in tests they do."""
    for looked_up in (find_kind, all_kinds):
        looked_up.cache_clear()


def boxes_of(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes of some pixels each, on a grid, so that none covers another's centre."""
    rows, columns = np.mgrid[4 : size[0] - 4 : 8, 4 : size[1] - 4 : 8]
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    chosen = centres[rng.permutation(len(centres))[: rng.integers(1, 5)]]
    return np.concatenate([rng.integers(0, 2, (len(chosen), 1)), chosen - 2, chosen + 2], axis=1).astype(np.float32)


class TestCounting(KindConformance):
    """The suite that every kind passes."""

    @property
    def task(self) -> Task:  # type: ignore[override]
        return make_task("cars", "counting", classes=CLASSES)

    def label(self, rng: np.random.Generator) -> Target:
        return boxes_of(rng, self.image_size), np.asarray(True)

    def outputs_of(self, label: Target) -> Mapping[str, NDArray[np.float32]]:
        from counting.learning import bells

        heat = bells(torch.from_numpy(label[0]), torch.zeros(2, *self.image_size)).clamp(1e-4, 1 - 1e-4).logit()
        counts = np.bincount(label[0][:, 0].astype(int), minlength=2).astype(np.float32)
        return {"heat": heat[None].numpy(), "count": counts[None]}


def test_it_is_found_among_the_kinds() -> None:
    assert "counting" in KINDS.names()
    task = make_task("cars", "counting", classes=CLASSES)
    assert [(output.name, output.dense) for output in task.outputs] == [("heat", True), ("count", False)]
    with pytest.raises(UserError, match="unknown task kind 'countign': did you mean counting"):
        make_task("cars", "countign", classes=CLASSES)


def test_a_prediction_holds_the_centres_in_pixels_of_the_photo() -> None:
    task = make_task("cars", "counting", classes=CLASSES)
    heat = np.full((1, 2, 10, 20), -8, np.float32)
    heat[0, 1, 4, 6:8] = 3, 4  # two neighbours: the larger one stays
    prediction = kind_of(task).decode(task, {"heat": heat, "count": np.array([[-0.2, 1.1]], np.float32)}, (20, 40))
    np.testing.assert_allclose(prediction["points"], [[1, 14.5, 8.5, 0.982]], atol=1e-3)
    np.testing.assert_allclose(prediction["counts"], [0, 1.1], atol=1e-6)
    assert kind_of(task).summarize(task, prediction).words == "0.0 car, 1.1 dog"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on a folder of photos with a table of boxes, trained for a few steps and searched."""
    home = tmp_path_factory.mktemp("home")
    write_photos(home / "photos")
    (home / "nas").mkdir()
    (home / "nas" / "small.yaml").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        source = open_source("photos", SIZE)
        recipe = Recipe(steps=3, batch=4, sizes=(1.0,), bf16=False)
        supernet = train_supernet(load_space("small", source.tasks), source, recipe, home / "trained")
        few = {"space": "small", "data": "photos", "evaluations": 2, "batch": 2, "threads": 1, "finetune": 0}
        search(SearchRequest(home / "run", ("100%FLOPs",), supernet=supernet, **few))  # type: ignore[arg-type]
        yield home / "run"


def write_photos(folder: Path) -> None:
    """Photos with squares in the colour of their class; a twelfth of them without any, one not labelled at all."""
    rng, lines = np.random.default_rng(0), ["file,class,x0,y0,x1,y1"]
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "depth" / split).mkdir(parents=True)
        for number in range(count):
            name, image = f"{split}{number}", rng.integers(0, 40, (*SIZE, 3), np.uint8)
            boxes = boxes_of(rng, SIZE) if number % 12 else np.zeros((0, 5))
            for kind, x0, y0, x1, y1 in boxes.astype(int).tolist():
                image[y0 : y1 + 1, x0 : x1 + 1] = ((255, 60, 60), (60, 255, 60))[kind]
                lines.append(f"{name},{CLASSES[kind]},{x0},{y0},{x1},{y1}")
            lines += [f"{name},,,,,"] if not len(boxes) and number else []
            Image.fromarray(image).save(folder / "images" / split / f"{name}.png")
            np.save(folder / "depth" / split / f"{name}.npy", 2 + image[..., 0] / np.float32(255))
    (folder / "boxes.csv").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(DATA)


def test_it_is_declared_trained_and_searched(run: Path) -> None:
    result = read_result(run)
    assert result.best is not None
    assert result.best.metrics["cars"].keys() == {"count_error", "found"}
    assert np.isfinite([*result.best.metrics["cars"].values()]).all()


def test_it_is_exported_run_and_drawn(run: Path) -> None:
    manifest = export_run(run, ExportRequest("onnxruntime"))
    (cars,) = (task for task in manifest.tasks if task.kind == "counting")
    assert [(output.tensor, len(output.shape or ())) for output in cars.outputs] == [
        ("cars.heat", 4),
        ("cars.count", 2),
    ]
    parity = manifest.targets["onnxruntime"].parity["cars"]
    assert parity.outputs.keys() == {"heat", "count"} and parity.metric == "count_error"
    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    with Engine(run / "bundle") as engine:
        assert engine.run(photo, "cars")["cars"].keys() == {"heat", "count"}
        prediction = engine.predict(photo, "cars")["cars"]
        task = next(task for task in engine.tasks if task.name == "cars")
    assert prediction["counts"].shape == (2,) and prediction["points"].shape[1] == 4
    assert draw_prediction(task, prediction, photo).width == 320
    assert "cars" in write_report(run).read_text()


def test_a_plain_file_holds_the_suppression(run: Path, tmp_path: Path) -> None:
    """Peaks of the map that it gives are the centres that `decode` tells, but for the size of the photo."""
    raw, decoded = (tmp_path / name for name in ("raw", "decoded"))
    for out, inside in ((raw, False), (decoded, True)):
        export_run(run, ExportRequest("onnxruntime"), out, layout=Plain("cars", postprocessing=inside))
    image = np.random.default_rng(0).standard_normal((1, 3, *SIZE)).astype(np.float32)
    names = ["cars.heat", "cars.count"]
    sessions = [onnxruntime.InferenceSession(out / "engines/onnxruntime/model.onnx") for out in (raw, decoded)]
    given, made = (dict(zip(names, session.run(names, {"image": image}), strict=True)) for session in sessions)
    task = make_task("cars", "counting", classes=CLASSES)
    prediction = kind_of(task).decode(task, {"heat": given["cars.heat"], "count": given["cars.count"]}, SIZE)
    (declared,) = read_manifest(decoded).tasks
    assert [output.unit for output in declared.outputs] == ["probability of a centre", "objects"]
    np.testing.assert_allclose(made["cars.count"][0], prediction["counts"], atol=1e-6)
    channel, row, column = np.nonzero(made["cars.heat"][0] > 0.5)
    assert np.array_equal(np.stack([channel, column, row], axis=1), prediction["points"][:, :3])


def test_without_its_package_a_data_set_says_what_is_unknown(run: Path) -> None:
    text = (run.parent / "photos" / "data.yaml").read_text().replace("kind: counting", "kind: countign")
    (run.parent / "photos" / "other.yaml").write_text(text)
    with pytest.raises(UserError, match="unknown kind 'countign': did you mean counting"):
        open_source("photos/other.yaml", SIZE)
