"""What a caller may hand to an engine, what is refused in one line, and that nothing stays open behind it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, export_bundle
from edgemtl.runtime import Engine, open_engine, prepare_image
from edgemtl.tasks import by_tensor
from edgemtl.testing import SIZE, samples_for, small_net

TARGETS = ("onnxruntime", "openvino", "streaming")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "first"
    net = small_net("fused")
    samples = samples_for(net, 2)
    export_bundle(net, "fp32", ExportRequest(TARGETS), folder, Evidence(samples, samples))
    return folder


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def test_a_string_is_one_task(bundle: Path, photo: NDArray[np.uint8]) -> None:
    with Engine(bundle, threads=1) as engine:
        wanted = by_tensor(engine.run(photo, ["depth"]))["depth"]
        for found in (by_tensor(engine.run(photo, "depth")), by_tensor(engine.session.run(NORMALISED, "depth"))):
            assert list(found) == ["depth"]
        np.testing.assert_array_equal(by_tensor(engine.run(photo, "depth"))["depth"], wanted)
        assert list(engine.predict(photo, "depth")) == ["depth"]
        engine.switch("depth")
        assert engine.active == ("depth",)
        with pytest.raises(UserError, match="unknown task 'dept': did you mean depth"):
            engine.switch("dept")


def test_files_pil_images_and_arrays_are_one(bundle: Path, photo: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    with Engine(bundle, threads=1) as engine, os.scandir(tmp_path) as entries:
        wanted = by_tensor(engine.run(photo, "depth"))["depth"]
        flipped = np.ascontiguousarray(photo[:, ::-1])[:, ::-1]
        given = [path, str(path), next(entries), Image.fromarray(photo), Image.open(path), flipped]
        for image in (*given, prepare_image(photo, SIZE)):
            np.testing.assert_array_equal(by_tensor(engine.run(image, "depth"))["depth"], wanted)
        grey = photo[:, :, 0]
        Image.fromarray(grey).save(path)
        for image in (grey, Image.fromarray(grey), np.stack([grey] * 3, axis=2)):
            np.testing.assert_array_equal(
                by_tensor(engine.run(image, "depth"))["depth"], by_tensor(engine.run(path, "depth"))["depth"]
            )


NORMALISED = np.zeros((1, 3, *SIZE), np.float32)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (None, "NoneType"),
        ([[1, 2], [3, 4]], "type list"),
        (7, "type int"),
        (b"photo.png", "type bytes"),
        (torch.zeros(1, 3, *SIZE), "type Tensor"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.array("photo.png"), r"shape \(\)"),
        (NORMALISED.astype(np.float64), "float64"),
        (NORMALISED[:, :, :8], r"the engine reads \(1, 3, 32, 64\)"),
        (np.where(np.arange(SIZE[1]) == 3, np.nan, NORMALISED).astype(np.float32), "NaN or infinite"),
        (np.full_like(NORMALISED, np.inf), "NaN or infinite"),
        (Image.new("I;16", (8, 8)), "16 bits"),
        (Image.new("RGBA", (8, 8)), "transparent everywhere"),
        ("none.png", "missing|No such file"),
        ("", "missing|regular|No such file"),
        ("a\0b.png", "null"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(bundle: Path, wrong: Any, reason: str) -> None:
    with Engine(bundle, threads=1) as engine:
        for call in (engine.run, engine.predict):
            with pytest.raises(UserError, match=reason) as caught:
                call(wrong)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [5, [1], [None], [b"depth"], b"depth", {"depth": 1}.values()])
def test_what_names_no_task_is_refused(bundle: Path, photo: NDArray[np.uint8], wrong: Any) -> None:
    with Engine(bundle, threads=1) as engine:
        for call in (
            engine.switch,
            lambda tasks: by_tensor(engine.run(photo, tasks)),
            lambda tasks: engine.predict(photo, tasks),
        ):
            with pytest.raises(UserError, match="semseg, depth, normals") as caught:
                call(wrong)
            assert "\n" not in str(caught.value)


def test_an_engine_opens_for_one_mode_that_a_string_names(bundle: Path) -> None:
    for target in TARGETS:
        for modes in ("depth", ["depth"], [["depth"]]):
            with closing(open_engine(bundle / f"engines/{target}", 1, modes=modes)) as session:
                assert list(by_tensor(session.run(NORMALISED, "depth"))) == ["depth"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_closed_engine_answers_in_one_line(bundle: Path, photo: NDArray[np.uint8], target: str) -> None:
    engine = Engine(bundle, target)
    for _ in range(2):
        engine.close()
        engine.session.close()
    calls: list[Callable[[], object]] = [
        lambda: by_tensor(engine.run(photo)),
        lambda: engine.predict(photo, "depth"),
        lambda: engine.switch("depth"),
        lambda: engine.set_level(budget="1MB"),
        lambda: by_tensor(engine.session.run(NORMALISED, "depth")),
        lambda: engine.session.operator_times(NORMALISED, "depth", 1),
        engine.__enter__,
    ]
    for call in calls:
        with pytest.raises(UserError, match="was closed: open it again"):
            call()


@pytest.mark.parametrize("target", TARGETS)
def test_a_dropped_engine_leaves_no_file_open(bundle: Path, photo: NDArray[np.uint8], target: str) -> None:
    def use() -> None:
        Engine(bundle, target).run(photo, "depth")

    use()  # what a runtime opens once for the process
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        use()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
