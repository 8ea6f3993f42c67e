"""docs/deploy.md and docs/running.md say what is so: their Python and C++ run, and give what `Engine` gives."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgemtl.export import Evidence, ExportRequest, Plain, export_bundle, export_plain
from edgemtl.runtime import Engine
from edgemtl.runtime import engine as _engine
from edgemtl.tasks import KINDS
from edgemtl.testing import SIZE, samples_for, small_net

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "deploy.md").read_text(encoding="utf-8")
ORT_HOME = "ONNXRUNTIME_HOME"
"""The environment variable that names an unpacked release of ONNX Runtime, or a folder with its `include` alone."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.M | re.S)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's commands leave, of a small net that nobody trained."""
    position = tmp_path_factory.mktemp("deploy")
    net = small_net("fused")
    samples = samples_for(net, 2)
    evidence = Evidence(samples, samples)
    whole = Plain(["depth", "semseg"], normalisation=True, postprocessing=True)
    both = ExportRequest(["onnxruntime", "openvino"])
    export_bundle(net, "fp32", both, position / "runs/first/bundle", evidence)
    export_plain(net, "fp32", both, position / "runs/first/plain", evidence, whole)
    export_plain(net, "fp32", ExportRequest("onnxruntime"), position / "runs/first/raw", evidence)
    coarse = Image.fromarray(np.random.default_rng(4).integers(0, 256, (6, 9, 3), np.uint8))
    photo = coarse.resize((300, 200), Image.Resampling.BICUBIC)
    photo.save(position / "photo.jpg", quality=95)
    return position


@pytest.fixture
def here(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(exported)
    yield exported


def test_every_python_snippet_gives_what_the_engine_gives(here: Path) -> None:
    with Engine("runs/first/bundle") as engine:
        expected = engine.predict("photo.jpg")
    snippets = blocks(PAGE, "python")
    assert len(snippets) == 4
    names: dict[str, Any] = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"deploy.md, Python block {number + 1}", "exec"), names)
        np.testing.assert_allclose(np.squeeze(names["metres"]), expected["depth"], rtol=1e-4)
        assert (np.squeeze(names["classes"]) == expected["semseg"]).mean() > 0.999


def test_small_pictures_are_enlarged_as_the_engine_enlarges_them(here: Path) -> None:
    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[0].split("session = ")[0], names)
    for size in ((20, 10), (300, 10), (20, 100), (SIZE[1], SIZE[0])):
        Image.open("photo.jpg").resize(size).save("other.png")
        values = names["pixels_of"]("other.png", *SIZE)
        np.testing.assert_array_equal(_engine.normalize(values[None]), _engine.prepare_image("other.png", SIZE))


def test_what_is_transparent_shows_white_as_in_the_engine(here: Path) -> None:
    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[0].split("session = ")[0], names)
    photo = Image.open("photo.jpg").resize(SIZE[::-1])
    veil = Image.linear_gradient("L").resize(SIZE[::-1])
    palette = photo.quantize(16)
    for mode in ("RGBA", "LA", "P"):
        if mode == "P":
            palette.save("veiled.png", transparency=int(np.median(np.asarray(palette))))
        else:
            veiled = photo.convert(mode)
            veiled.putalpha(veil)
            veiled.save("veiled.png")
        values = names["pixels_of"]("veiled.png", *SIZE)
        np.testing.assert_array_equal(values, _engine.load_image("veiled.png"))
        assert (values != np.asarray(Image.open("veiled.png").convert("RGB"))).any()


def test_pictures_shrink_as_the_page_says() -> None:
    """The mean of the pixels whose centres lie in the area of the new one: rows first, rounded after each direction."""

    def columns(pixels: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
        step, centres = len(pixels) / count, np.arange(len(pixels)) + 0.5
        areas = [(centres > index * step) & (centres <= (index + 1) * step) for index in range(count)]
        return np.array([np.floor(pixels[area].mean(axis=0) + 0.5) for area in areas]).astype(np.uint8)

    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    for height, width in ((16, 20), (37, 11), (9, 53), (1, 1)):
        expected = columns(columns(pixels.transpose(1, 0, 2), width).transpose(1, 0, 2), height)
        np.testing.assert_array_equal(_engine.resize_picture(pixels, (height, width)), expected)


def test_the_page_knows_every_kind_of_task() -> None:
    rows = PAGE.split("## What goes in and what comes out")[1].split("## Python")[0]
    for kind in KINDS.names():
        assert re.search(rf"^\| .*\b{kind}\b", rows, flags=re.M), kind


def test_the_page_on_running_runs(here: Path) -> None:
    snippet = blocks((DOCS / "running.md").read_text(encoding="utf-8"), "python")[0]
    names: dict[str, Any] = {}
    exec(compile(snippet, "running.md, Python block 1", "exec"), names)
    assert set(names["everything"]) == {"semseg", "depth", "normals"} and set(names["both"]) == {"semseg", "depth"}
    assert names["depth"].shape == SIZE


def test_examples_in_docstrings_run(here: Path) -> None:
    found = doctest.testmod(_engine)
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["onnxruntime", "openvino"])
def test_every_cpp_program_compiles_and_gives_what_the_engine_gives(here: Path, number: int) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    program = blocks(PAGE, "cpp")[number]
    build, run = (line.removeprefix("// ") for line in program.splitlines()[:2])
    Path("depth.cpp").write_text(program)
    (_lay_out_onnxruntime, _lay_out_openvino)[number]()
    with Engine("runs/first/bundle") as engine:
        pixels = _engine.resize_picture(_engine.load_image("photo.jpg"), SIZE)
        expected = engine.predict(pixels)
    Path("image.rgb").write_bytes(pixels.tobytes())
    subprocess.run(shlex.split(build), check=True)
    output = subprocess.run(shlex.split(run), text=True, capture_output=True, check=True).stdout
    found = re.fullmatch(r"(\S+) m, class (\d+)\n", output)
    assert found, output
    row, column = SIZE[0] // 2, SIZE[1] // 2
    assert float(found[1]) == pytest.approx(expected["depth"][row, column], rel=1e-4)
    assert int(found[2]) == expected["semseg"][row, column]


def _lay_out_onnxruntime() -> None:
    """A release as the page has it: its headers, and the library of the installed wheel."""
    import onnxruntime

    home = os.environ.get(ORT_HOME)
    if home is None:
        pytest.skip(f"no headers of ONNX Runtime: {ORT_HOME} names no release of it, and no package index has them")
    Path("onnxruntime/lib").mkdir(parents=True)
    Path("onnxruntime/include").symlink_to(Path(home) / "include")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        Path("onnxruntime/lib", name).symlink_to(library)


def _lay_out_openvino() -> None:
    """The wheel, with a library of the name that a linker looks for."""
    import openvino

    wheel = Path(openvino.__file__).parent
    Path("openvino/libs").mkdir(parents=True)
    Path("openvino/include").symlink_to(wheel / "include")
    for library in (wheel / "libs").iterdir():
        Path("openvino/libs", library.name).symlink_to(library)
    (library,) = (wheel / "libs").glob("libopenvino.so.*")
    Path("openvino/libs/libopenvino.so").symlink_to(library)
