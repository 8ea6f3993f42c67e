"""A plain file answers alone what an engine answers: one input, fixed tasks and shapes, no flags."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray

from edgemtl.bundle import Manifest, read_manifest
from edgemtl.data import Sample
from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, Plain, Tolerance, export_bundle, export_plain
from edgemtl.export.plain_readme import readme, write_readme
from edgemtl.export.wrap import _Maker
from edgemtl.models import MultiTaskNet
from edgemtl.progress import Progress, silent
from edgemtl.runtime import Engine
from edgemtl.tasks import by_tensor
from edgemtl.testing import SIZE, experts_net, images, samples_for, small_net

Arrays = dict[str, NDArray[Any]]
TARGETS = ("onnxruntime", "openvino")
LOOSE = Tolerance(reduced_metric=2.0)
RAW, WHOLE = Plain(), Plain(normalisation=True, postprocessing=True)


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    return small_net("fused")


@pytest.fixture(scope="module")
def samples(net: MultiTaskNet) -> list[Sample]:
    return samples_for(net, 3)


@pytest.fixture(scope="module")
def mixed(net: MultiTaskNet) -> dict[str, str]:
    """Float convolutions between INT8 ones: what ONNX Runtime would quantize unasked."""
    return {"engine": "fp32"} | {name: ("float", "int8")[number % 2] for number, name in enumerate(net.blocks)}


@pytest.fixture(scope="module")
def bundle(net: MultiTaskNet, samples: list[Sample], mixed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "first"
    export_bundle(net, mixed, ExportRequest(TARGETS), folder, Evidence(samples, samples, tolerance=LOOSE))
    return folder


def export(net: MultiTaskNet, samples: list[Sample], folder: Path, layout: Plain = RAW, **more: Any) -> Manifest:
    precision, targets = more.pop("precision", "fp32"), more.pop("targets", TARGETS)
    report, request = more.pop("report", silent), ExportRequest(targets, **more)
    evidence = Evidence(samples, samples, tolerance=LOOSE)
    return export_plain(net, precision, request, folder, evidence, layout, report=report)


def answers(folder: Path, target: str, image: NDArray[Any]) -> Arrays:
    """What a plain file gives, opened by its runtime with nothing but what the manifest says."""
    part = read_manifest(folder).targets[target]
    model = folder / part.folder / part.files[0]
    if target == "onnxruntime":
        assert not part.options
        session = ort.InferenceSession(model)
        (given,) = session.get_inputs()
        assert (given.name, tuple(given.shape)) == ("image", image.shape)
        names = [info.name for info in session.get_outputs()]
        return dict(zip(names, session.run(None, {"image": image}), strict=True))
    compiled = ov.compile_model(model, "CPU", part.options)
    found = compiled(image)
    return {output.any_name: found[output].copy() for output in compiled.outputs}


@pytest.mark.parametrize("target", TARGETS)
def test_raw_outputs_are_the_engines(
    net: MultiTaskNet, samples: list[Sample], mixed: Any, bundle: Path, tmp_path: Path, target: str
) -> None:
    manifest = export(net, samples, tmp_path / "plain", precision=mixed, targets=[target])
    with Engine(bundle, target) as engine:
        for sample in samples:
            image = images(1, seed=3).numpy() if sample is samples[0] else _normalised(engine, sample.image)
            expected, found = by_tensor(engine.run(image)), answers(tmp_path / "plain", target, image)
            assert set(found) == {"semseg", "depth", "normals"}
            for task in manifest.tasks:
                assert found[task.name].shape == task.outputs[0].shape == expected[task.name].shape
                np.testing.assert_allclose(found[task.name], expected[task.name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_with_everything_inside_it_predicts_what_the_engine_predicts(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path, target: str
) -> None:
    export_bundle(net, "fp32", ExportRequest(target), tmp_path / "bundle", Evidence(samples, samples))
    manifest = export(net, samples, tmp_path / "plain", WHOLE, targets=target)
    assert (manifest.input.layout, manifest.input.dtype, manifest.input.scale) == ("NHWC", "uint8", 1)
    with Engine(tmp_path / "bundle", target) as engine:
        for sample in samples:
            expected, found = engine.predict(sample.image), answers(tmp_path / "plain", target, sample.image[None])
            for task in manifest.tasks:
                (output,) = task.outputs
                value = found[task.name]
                assert (value.shape, value.dtype.name) == (output.shape, output.dtype)
                if task.kind == "segmentation":
                    assert (value[0] == expected[task.name]).mean() > 0.999
                else:
                    np.testing.assert_allclose(value[0], expected[task.name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", ["float", "int8"])
def test_int8_with_everything_inside_is_the_engines_to_the_bit(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path, first: str
) -> None:
    """In ONNX Runtime, whose normalisation rounds as NumPy's: no first rounding to eight bits falls otherwise."""
    precision = {name: "int8" if first == "int8" or number % 2 else first for number, name in enumerate(net.blocks)}
    export(net, samples, tmp_path / "plain", WHOLE, precision=precision, targets=["onnxruntime"])
    evidence = Evidence(samples, samples, tolerance=LOOSE)
    export_bundle(net, precision, ExportRequest("onnxruntime"), tmp_path / "bundle", evidence)
    with Engine(tmp_path / "bundle", "onnxruntime") as engine:
        for sample in samples:
            expected, found = (
                engine.predict(sample.image),
                answers(tmp_path / "plain", "onnxruntime", sample.image[None]),
            )
            np.testing.assert_array_equal(found["semseg"][0], expected["semseg"])
            np.testing.assert_allclose(found["depth"][0], expected["depth"], rtol=1e-6)
            np.testing.assert_allclose(found["normals"][0], expected["normals"], atol=1e-6)


def test_tasks_are_fixed_and_nothing_of_others_is_left(
    net: MultiTaskNet, samples: list[Sample], mixed: Any, tmp_path: Path
) -> None:
    whole = export(net, samples, tmp_path / "all", precision=mixed)
    for tasks in ("depth", ["normals", "depth"]):
        folder = tmp_path / "-".join(tasks)
        manifest = export(net, samples, folder, Plain(tasks), precision=mixed)
        names = {"depth"} if tasks == "depth" else {"depth", "normals"}
        assert {task.name for task in manifest.tasks} == names and manifest.cost.flops < whole.cost.flops
        assert manifest.modes == (tuple(task.name for task in manifest.tasks),)
        image = images(1).numpy()
        for target in TARGETS:
            found, expected = answers(folder, target, image), answers(tmp_path / "all", target, image)
            assert set(found) == names
            for name, value in found.items():
                np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)
        graph = onnx.load(folder / "engines/onnxruntime/model.onnx").graph
        assert not [node.name for node in graph.node if "semseg" in node.name or node.op_type == "If"]


def test_every_shape_is_closed(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    export(net, samples, tmp_path / "plain", WHOLE, targets=["onnxruntime"])
    graph = onnx.load(tmp_path / "plain/engines/onnxruntime/model.onnx").graph
    shapes = {info.name: info.type.tensor_type.shape.dim for info in (*graph.input, *graph.output, *graph.value_info)}
    assert all(size.dim_value > 0 for sizes in shapes.values() for size in sizes)
    assert {name for node in graph.node for name in node.output} <= set(shapes)


def test_experts_become_a_plain_file_too(tmp_path: Path) -> None:
    net, size = experts_net(None), (64, 96)
    samples = samples_for(net, 2)
    export(net, samples, tmp_path / "plain")
    image = images(1, size).numpy()
    with torch.no_grad():
        expected = by_tensor(net(torch.from_numpy(image)))
    for target in TARGETS:
        for name, value in answers(tmp_path / "plain", target, image).items():
            np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-3, atol=1e-3)


def test_manifest_and_readme_say_what_a_caller_needs(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    export(net, samples, tmp_path / "plain", Plain("depth"))
    manifest = json.loads((tmp_path / "plain/manifest.json").read_text())
    image = manifest["input"]
    assert (image["name"], image["layout"], image["colour"], image["dtype"]) == ("image", "NCHW", "RGB", "float32")
    assert (image["scale"], image["shrinking"], image["enlarging"]) == (255, "area", "bilinear")
    (task,) = manifest["tasks"]
    assert (task["formula"], task["result"], task["outputs"][0]["unit"]) == ("exp(raw)", "metres", "log-metres")
    assert task["outputs"][0]["shape"] == [1, 1, *SIZE]
    assert manifest["targets"]["openvino"]["options"] == {"INFERENCE_PRECISION_HINT": "f32"}
    page = (tmp_path / "plain/README.md").read_text()
    for word in ("log-metres", "exp(raw)", "engines/onnxruntime/model.onnx", "engines/openvino/model.xml", "RGB"):
        assert word in page


def test_a_reader_is_told_on_which_processors_int8_is_right(
    net: MultiTaskNet, samples: list[Sample], mixed: Any, tmp_path: Path
) -> None:
    server = load_device("host").model_copy(update={"arithmetic": "avx512-vnni"})
    needed = export(net, samples, tmp_path / "server", precision=mixed, targets="onnxruntime", device=server)
    assert needed.targets["onnxruntime"].needs == ("exact-int8",)
    assert "| processors with sums of eight-bit products that do not saturate" in _page(tmp_path / "server")
    anywhere = export(net, samples, tmp_path / "any", precision=mixed, targets="onnxruntime", portable=True)
    assert anywhere.targets["onnxruntime"].needs == ()
    assert "| every processor |" in _page(tmp_path / "any")


def _page(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_what_a_plain_layout_cannot_be_is_refused(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="target streaming writes files that edgemtl alone can open"):
        export(net, samples, tmp_path / "plain", targets=["streaming"])
    with pytest.raises(UserError, match="did you mean depth"):
        export(net, samples, tmp_path / "plain", Plain(["dept"]))
    assert not list(tmp_path.iterdir())
    export(net, samples, tmp_path / "plain", targets="onnxruntime")
    with pytest.raises(UserError, match="layout plain: its files are for their runtimes alone"):
        Engine(tmp_path / "plain")


def test_a_target_is_added_and_nothing_else_is_changed(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    export(net, samples, folder, targets="onnxruntime")
    before = (folder / "engines/onnxruntime/model.onnx").read_bytes()
    (folder / "notes.txt").write_text("mine")
    export(net, samples, folder, targets="openvino")
    assert set(read_manifest(folder).targets) == {"onnxruntime", "openvino"}
    assert (folder / "engines/onnxruntime/model.onnx").read_bytes() == before
    assert (folder / "notes.txt").read_text() == "mine"
    page = (folder / "README.md").read_text()
    assert "engines/onnxruntime/model.onnx" in page and "engines/openvino/model.xml" in page
    (folder / "README.md").write_text(f"{page}mine")
    notes: list[Progress] = []
    export(net, samples, folder, report=notes.append)
    assert (folder / "README.md").read_text() == f"{page}mine"
    assert sum("README.md is not as edgemtl wrote it, and stays" in note.text for note in notes) == 1
    with pytest.raises(UserError, match="other steps inside"):
        export(net, samples, folder, WHOLE)
    with pytest.raises(UserError, match="holds another net"):
        export(net, samples, folder, Plain("depth"))
    with pytest.raises(UserError, match="layout plain, not bundle"):
        export_bundle(net, "fp32", ExportRequest("onnxruntime"), folder, Evidence(samples, samples))


def test_a_page_of_any_earlier_export_is_written_anew(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    """As after a kill between the manifest and its page; what edgemtl did not write stays, and is not waited for."""
    manifest = export(net, samples, tmp_path / "plain", targets="onnxruntime")
    page = tmp_path / "plain/README.md"
    newer = manifest.model_copy(update={"name": "newer"})
    assert write_readme(tmp_path / "plain", newer) and page.read_text() == readme(newer)
    assert write_readme(tmp_path / "plain", manifest) and page.read_text() == readme(manifest)
    page.unlink()
    assert write_readme(tmp_path / "plain", manifest)
    for spoiled in (b"", b"\xff", readme(newer).replace("newer", "mine").encode(), f"{readme(newer)}\n".encode()):
        page.write_bytes(spoiled)
        assert not write_readme(tmp_path / "plain", manifest) and page.read_bytes() == spoiled
    page.unlink()
    os.mkfifo(page)
    assert not write_readme(tmp_path / "plain", manifest)
    page.unlink()
    page.symlink_to(tmp_path / "elsewhere.md")
    assert not write_readme(tmp_path / "plain", manifest) and page.is_symlink()


def test_the_bundles_own_file_is_described_for_a_plain_runtime(bundle: Path, samples: list[Sample]) -> None:
    """Flags and options of the manifest are all that it takes."""
    part = read_manifest(bundle).targets["onnxruntime"]
    options = ort.SessionOptions()
    for key, value in part.options.items():
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(bundle / part.folder / part.files[0], options)
    wanted = {flag: np.array([task == "depth"]) for task, flag in part.flags.items()}
    image = images(1).numpy()
    (found,) = session.run(["depth"], {"image": image, **wanted})
    with Engine(bundle, "onnxruntime") as engine:
        np.testing.assert_array_equal(found, by_tensor(engine.run(image, "depth"))["depth"])


def _normalised(engine: Engine, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    given = engine.manifest.input
    value = (image.astype(np.float32) / np.float32(given.scale) - np.float32(given.mean)) / np.float32(given.std)
    return np.ascontiguousarray(value.transpose(2, 0, 1)[None])


def test_steps_that_repeat_a_label_have_tensors_of_their_own() -> None:
    """A task with two outputs decodes each with the same operators."""
    maker = _Maker(onnx.GraphProto(), "postprocessing.pose", {})
    names = [
        maker.node("Relu", ["raw"], "step"),
        maker.node("Relu", ["raw"], "step"),
        maker.constant("step", np.zeros(1)),
    ]
    assert len(set(names)) == 3
    assert maker.node("Relu", ["raw"], "", output="pose") == "pose"
