"""A bundle appears whole or not at all, predicts what its net predicts, and is refused once anything was changed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from edgemtl.bundle import Manifest, read_manifest
from edgemtl.data import Sample, collate
from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, Origin, Tolerance, export_bundle, export_onnx
from edgemtl.export import placing as _placing
from edgemtl.export import request as _request
from edgemtl.models import MultiTaskNet
from edgemtl.profiling import count_graph
from edgemtl.progress import Progress, silent
from edgemtl.runtime import Engine
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing import SIZE, samples_for, small_net

ONNXRUNTIME = find_target("onnxruntime")

LOOSE = Tolerance(reduced_metric=2.0)


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    return small_net("fused")


@pytest.fixture(scope="module")
def samples(net: MultiTaskNet) -> list[Sample]:
    return samples_for(net)


def export(net: MultiTaskNet, samples: list[Sample], folder: Path, precision: Any = "fp32", **more: Any) -> Manifest:
    """What `more` says goes where it belongs: the request, the evidence, or the call."""
    request = {name: more.pop(name) for name in ("targets", "device", "exact", "portable") if name in more}
    evidence = {name: more.pop(name) for name in ("calibration", "validation", "ranges", "tolerance") if name in more}
    images = Evidence(**{"calibration": samples, "validation": samples, **evidence})
    return export_bundle(net, precision, ExportRequest(**{"targets": "onnxruntime", **request}), folder, images, **more)


@pytest.fixture(scope="module")
def bundle(net: MultiTaskNet, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "first"
    origin = Origin(space="cnn", family="cnn", design={"s1.width": 16}, seed=3, data={"name": "made here"})
    export(net, samples, folder, targets=["onnxruntime", "openvino"], origin=origin)
    return folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_manifest_says_what_was_exported(net: MultiTaskNet, bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert [task.name for task in manifest.tasks] == ["semseg", "depth", "normals"]
    assert (manifest.input.height, manifest.input.width) == SIZE
    assert manifest.design == {"s1.width": 16}
    assert manifest.provenance.seed == 3
    assert manifest.provenance.environment["python"]
    assert set(manifest.targets) == {"onnxruntime", "openvino"}
    assert ("semseg", "depth", "normals") in manifest.modes
    assert manifest.targets["onnxruntime"].flags == {task: f"want_{task}" for task in ("semseg", "depth", "normals")}
    assert manifest.targets["openvino"].flags == {}
    stated = {task.name: (task.outputs[0].unit, task.formula, task.result) for task in manifest.tasks}
    assert stated["depth"] == ("log-metres", "exp(raw)", "metres")
    assert all(all(each) for each in stated.values())
    plan = net.plan.cost()
    assert (manifest.cost.flops, manifest.cost.params) == (plan.flops, plan.params)
    assert manifest.cost.paths["depth"].flops == net.plan.cost(tasks=["depth"]).flops
    on_disk = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest.files) == on_disk - {"manifest.json"}
    assert next(iter(json.loads((bundle / "manifest.json").read_text()))) == "schema"


def test_parity_of_fp32_is_exact_in_tensors_and_metrics(bundle: Path) -> None:
    for target in read_manifest(bundle).targets.values():
        assert set(target.parity) == {"semseg", "depth", "normals"}
        for task, parity in target.parity.items():
            assert all(output.relative_error < 1e-4 for output in parity.outputs.values())
            assert parity.images == 4 and parity.split == "validation"
            assert parity.tolerance == f"{parity.metric} at most 0.5 % apart, outputs 0.001"
            assert parity.torch == pytest.approx(parity.engine, rel=1e-2, abs=1e-2), task
    assert target.parity["semseg"].torch == pytest.approx(1.0)
    units = {
        (task, name): output.unit for task, parity in target.parity.items() for name, output in parity.outputs.items()
    }
    assert units == {
        ("semseg", "logits"): "logits", ("depth", "log_metres"): "log-metres",
        ("normals", "vectors"): "vector components",
    }  # fmt: skip


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_engine_predicts_what_the_net_predicts(
    net: MultiTaskNet, samples: list[Sample], bundle: Path, target: str
) -> None:
    with Engine(bundle, target, threads=1) as engine:
        image = samples[1].image
        assert [task.name for task in engine.tasks] == ["semseg", "depth", "normals"]
        shapes = {task.name: task.outputs[0].shape for task in engine.manifest.tasks}
        assert {task: value.shape for task, value in by_tensor(engine.run(image)).items()} == shapes
        found = engine.predict(image, ["depth", "semseg"])
        assert set(found) == {"depth", "semseg"}
        with torch.no_grad():
            exact = by_tensor(net(torch.from_numpy(collate([samples[1]]).image)))
        np.testing.assert_allclose(found["depth"], exact["depth"][0, 0].exp().numpy(), rtol=1e-3)
        assert (found["semseg"] == samples[1].targets["semseg"]).mean() > 0.999
        unit = torch.nn.functional.normalize(exact["normals"][0], dim=0).permute(1, 2, 0)
        np.testing.assert_allclose(engine.predict(image)["normals"], unit.numpy(), atol=1e-3)
        first = by_tensor(engine.run(image, ["depth"]))["depth"]
        kept = first.copy()
        engine.run(samples[2].image, ["depth"])
        np.testing.assert_array_equal(first, kept, err_msg="what an engine gave stays what it was")


def test_engine_reads_files_of_any_size_and_refuses_what_is_no_image(bundle: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("no picture")
    with Engine(bundle, threads=1) as engine:
        assert engine.target == "onnxruntime"
        from_file = by_tensor(engine.run(tmp_path / "photo.png", ["depth"]))["depth"]
        np.testing.assert_array_equal(from_file, by_tensor(engine.run(picture, ["depth"]))["depth"])
        assert from_file.shape == (1, 1, *SIZE)
        for wrong in (picture[:, :, :1], picture.astype(np.float64), tmp_path / "text.png", tmp_path / "none.png"):
            with pytest.raises(UserError, match=r"image|picture|none.png: cannot be read"):
                engine.run(wrong, ["depth"])
        with pytest.raises(UserError, match="did you mean depth"):
            engine.run(picture, ["dept"])


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_switch_needs_nothing_but_the_open_engine(copy: Path, samples: list[Sample], target: str) -> None:
    image = samples[0].image
    with Engine(copy, target, threads=1) as engine:
        every = ("semseg", "depth", "normals")
        assert engine.active == every == tuple(by_tensor(engine.run(image)))
        exact = {tasks: by_tensor(engine.run(image, tasks)) for tasks in [("depth",), ("semseg", "normals"), every]}
        session, before = engine.session, every
        shutil.rmtree(copy)
        for tasks, wanted in exact.items():
            assert engine.switch(tasks) == before
            before = engine.active
            assert engine.active == tasks and engine.session is session
            found = by_tensor(engine.run(image))
            assert set(found) == set(tasks) == set(engine.predict(image))
            for task in tasks:
                np.testing.assert_array_equal(found[task], wanted[task])
        engine.switch(["normals", "depth"])
        for wrong, stated in ((["depht"], "did you mean depth"), ([], "at least one of")):
            with pytest.raises(UserError, match=stated) as caught:
                engine.switch(wrong)
            assert "\n" not in str(caught.value)
        assert engine.active == ("depth", "normals"), "a refused switch changes nothing"
        assert set(by_tensor(engine.run(image, ["semseg"]))) == {"semseg"}
        assert set(by_tensor(engine.run(image))) == {"depth", "normals"}


def test_engine_of_a_target_that_is_not_there(bundle: Path) -> None:
    with pytest.raises(UserError, match="did you mean openvino"):
        Engine(bundle, "openvin")


def test_int8_beyond_its_tolerance_fails_and_names_task_and_block(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    precision = {"engine": "fp32", **dict.fromkeys(net.blocks, "int8")}
    with pytest.raises(UserError, match=r"task semseg: miou 1 in PyTorch.* worse where 3\.0% is allowed") as caught:
        export(net, samples, tmp_path / "b", precision)
    assert any(f"diverges: {block} " in str(caught.value) for block in net.blocks)
    assert "by precision alone" in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_int8_within_a_wide_tolerance_is_exported_with_its_loss(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    precision = {"engine": "fp32", "s3_1": "int8"}
    manifest = export(net, samples, tmp_path / "b", precision, tolerance=LOOSE)
    parity = manifest.targets["onnxruntime"].parity["semseg"]
    assert parity.torch == pytest.approx(1.0)
    assert 0.5 < parity.engine < 1.0
    assert parity.metric_allowed == LOOSE.reduced_metric
    assert parity.difference_allowed is None, "where INT8 is on the path its metric alone decides"
    assert manifest.precision == precision


def test_a_target_without_the_engine_precision_runs_fp32_and_says_so(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    export(net, samples, tmp_path / "b", "bf16", targets=["onnxruntime", "openvino"], tolerance=LOOSE)
    stated = {
        name: json.loads((tmp_path / "b" / "engines" / name / "engine.json").read_text())
        for name in ("onnxruntime", "openvino")
    }
    assert stated["onnxruntime"]["options"]["precision"] == {"engine": "fp32"}
    honoured = "bf16" if "bf16" in load_device("host").precisions else "fp32"
    assert stated["openvino"]["options"]["precision"] == {"engine": honoured}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_adds_its_engine_and_keeps_what_else_a_bundle_holds(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    export(net, samples, folder)
    for name in ("profile.json", "notes.txt", "engines/onnxruntime/mine.txt"):
        (folder / name).write_text("mine")
    before = contents(folder)
    manifest = export(net, samples, folder, targets=["openvino"])
    assert set(manifest.targets) == {"onnxruntime", "openvino"} and manifest == read_manifest(folder)
    after = contents(folder)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    for target in manifest.targets:
        with Engine(folder, target, threads=1) as engine:
            assert set(by_tensor(engine.run(samples[0].image))) == {"semseg", "depth", "normals"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_the_same_export_again_changes_no_engine(net: MultiTaskNet, samples: list[Sample], copy: Path) -> None:
    before = contents(copy)
    manifest = export(net, samples, copy)
    assert set(manifest.targets) == {"onnxruntime", "openvino"}
    del before["manifest.json"]
    assert {name: content for name, content in contents(copy).items() if name != "manifest.json"} == before


def test_an_engine_that_has_changed_takes_the_place_of_the_old_one(
    net: MultiTaskNet, samples: list[Sample], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the runtime: what it wrote goes, what somebody put beside it stays."""
    build = type(ONNXRUNTIME).build

    def otherwise(self: Any, net: Any, precision: Any, ranges: Any, folder: Path) -> Any:
        files = build(self, net, precision, ranges, folder)
        model = onnx.load(folder / "model.onnx")
        model.producer_version = "another"
        onnx.save(model, folder / "model.onnx")
        return files

    monkeypatch.setattr(type(ONNXRUNTIME), "build", otherwise)
    (copy / "engines" / "onnxruntime" / "mine.txt").write_text("mine")
    manifest = export(net, samples, copy)
    assert manifest.targets["onnxruntime"].folder == "engines/onnxruntime-2"
    assert sorted(contents(copy / "engines" / "onnxruntime")) == ["mine.txt"]
    assert read_manifest(copy) == manifest
    with Engine(copy, "onnxruntime", threads=1) as engine:
        assert set(by_tensor(engine.run(samples[0].image))) == {"semseg", "depth", "normals"}


@pytest.mark.parametrize("change", ["precision", "weights"])
def test_a_bundle_of_another_net_is_left_alone(
    net: MultiTaskNet, samples: list[Sample], copy: Path, change: str
) -> None:
    before = contents(copy)
    other = small_net("fused") if change == "weights" else net
    if change == "weights":
        with torch.no_grad():
            next(other.parameters()).add_(0.01)
    with pytest.raises(UserError, match=r"holds another net.*choose another --out") as caught:
        export(other, samples, copy, "bf16" if change == "precision" else "fp32", targets=["openvino"])
    assert "\n" not in str(caught.value)
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_an_export_that_fails_changes_nothing(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    precision = {"engine": "fp32", **dict.fromkeys(net.blocks, "int8")}
    export(net, samples, tmp_path / "b", precision, tolerance=LOOSE)
    before = contents(tmp_path / "b")
    with pytest.raises(UserError, match="worse"):
        export(net, samples, tmp_path / "b", precision)
    assert contents(tmp_path / "b") == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def killed_export(net: MultiTaskNet, samples: list[Sample], folder: Path, moment: str) -> int | None:
    """The exit status of a process that exports and is killed in the middle: while it builds, or before a function."""

    def stop(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        if moment != "building":
            setattr(_placing, moment, stop)
        export(net, samples, folder, targets=["streaming"], report=stop if moment == "building" else silent)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize(
    ("moment", "there"), [("building", False), ("building", True), ("write_manifest", True), ("_settle", True)]
)
def test_what_a_killed_export_left_is_cleared_by_the_next(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path, moment: str, there: bool
) -> None:
    folder = tmp_path / "b"
    if there:
        export(net, samples, folder)
        (folder / "engines" / "mine").mkdir()
    before = contents(folder)
    assert killed_export(net, samples, folder, moment) == -signal.SIGKILL
    assert (tmp_path / ".b.new").is_dir()
    if there and moment != "_settle":
        read_manifest(folder)
        assert {name: contents(folder)[name] for name in before} == before
    manifest = export(net, samples, folder)
    assert "onnxruntime" in manifest.targets
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert set(contents(folder)) == {"manifest.json", *manifest.files}
    assert (folder / "engines" / "mine").is_dir() == there


@pytest.mark.parametrize("content", ["[]", "null", "3", "{"])
def test_a_list_of_moving_files_that_is_none_is_refused_in_one_line(copy: Path, content: str) -> None:
    (copy / "engines/strange").mkdir()
    (copy / "engines/strange/.edgemtl.moving.json").write_text(content)
    with pytest.raises(UserError, match=r"strange/.edgemtl.moving.json") as e, _placing.placing(copy):
        pass
    assert "\n" not in str(e.value)


def test_what_the_system_refuses_is_told_with_its_file(tmp_path: Path) -> None:
    missing = tmp_path / "calibration/photo.png"
    with pytest.raises(UserError, match=f"No such file or directory \\({missing}\\)"), _placing.placing(tmp_path / "b"):
        missing.read_bytes()


def test_a_scratch_folder_of_somebody_else_is_left_alone(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / ".b.new").mkdir()
    (tmp_path / ".b.new" / "mine").write_text("mine")
    with pytest.raises(UserError, match="edgemtl did not write it"):
        export(net, samples, tmp_path / "b")
    assert contents(tmp_path) == {".b.new/mine": b"mine"}


def test_an_interrupted_export_leaves_nothing(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    """Between two engines, the first of which is complete."""

    def interrupt(news: Progress) -> None:
        if "openvino" in news.text:
            assert list(tmp_path.rglob("onnxruntime/engine.json"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(net, samples, tmp_path / "b", targets=["onnxruntime", "openvino"], report=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_overwritten(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is no bundle"):
        export(net, samples, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        ({"targets": []}, "no target"),
        ({"targets": ["onnxrntime"]}, "did you mean onnxruntime"),
        ({"validation": []}, "no validation sample"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path, change: dict[str, Any], stated: str
) -> None:
    with pytest.raises(UserError, match=stated):
        export(net, samples, tmp_path / "b", **change)


def test_samples_of_another_size_are_refused(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    small = [Sample(sample.image[:16], sample.targets, sample.masks) for sample in samples]
    with pytest.raises(UserError, match="16 x 64, the net reads 32 x 64"):
        export(net, small, tmp_path / "b")


def _rewrite(folder: Path, change: Any) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize("opener", [read_manifest, Engine])
def test_a_changed_file_is_named_with_its_hash(copy: Path, opener: Any) -> None:
    path = copy / "engines" / "onnxruntime" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"engines/onnxruntime/model\.onnx .* was changed: its SHA-256 is [0-9a-f]{64}"):
        opener(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "engines" / "openvino" / "model.bin").unlink()
    with pytest.raises(UserError, match=r"lacks its file engines/openvino/model\.bin"):
        read_manifest(copy)


@pytest.mark.parametrize("schema", ["edgemtl.bundle/2", "other", None])
def test_another_schema_is_refused(copy: Path, schema: str | None) -> None:
    _rewrite(copy, lambda content: content.update(schema=schema))
    with pytest.raises(UserError, match=r"this version reads 'edgemtl\.bundle/1'"):
        read_manifest(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "engines/../../outside", "link/outside", "a\\..\\b"])
def test_a_path_that_leaves_the_folder_is_refused(copy: Path, name: str) -> None:
    (copy.parent / "outside").write_text("secret")
    (copy / "link").symlink_to(copy.parent)
    _rewrite(copy, lambda content: content["files"].update({name: "0" * 64}))
    with pytest.raises(UserError, match="lies outside it"):
        read_manifest(copy)


def test_an_engine_folder_that_leaves_the_bundle_is_refused(copy: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        target = content["targets"]["onnxruntime"]
        target["folder"] = "../copy/engines/onnxruntime"
        content["files"].update({f"{target['folder']}/{file}": "0" * 64 for file in target["files"]})

    _rewrite(copy, change)
    with pytest.raises(UserError, match="lies outside it"):
        read_manifest(copy)


@pytest.mark.parametrize("keep", [0, 1, 200, 1500])
def test_a_manifest_that_was_cut_off_is_refused(copy: Path, keep: int) -> None:
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text[:keep])
    with pytest.raises(UserError, match="not valid JSON"):
        read_manifest(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(tasks=[]),
        lambda content: content.update(surprise=1),
        lambda content: content["modes"].append(["unknown"]),
        lambda content: content["tasks"][0].update(kind="telepathy"),
        lambda content: content["tasks"].append(content["tasks"][0]),
        lambda content: content["files"].pop("engines/openvino/model.bin"),
        lambda content: content["input"].update(height=-1),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused_in_one_line(copy: Path, change: Any) -> None:
    _rewrite(copy, change)
    with pytest.raises(UserError, match=r"manifest .* cannot be used") as caught:
        read_manifest(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no bundle"):
        read_manifest(tmp_path)


def test_a_corrupted_model_with_a_matching_hash_is_refused_in_one_line(copy: Path) -> None:
    """A stranger can make hashes agree; the runtime's own refusal must then come out clean."""
    from edgemtl.files.seals import sha256

    path = copy / "engines" / "onnxruntime" / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    _rewrite(copy, lambda content: content["files"].update({"engines/onnxruntime/model.onnx": sha256(path)}))
    with pytest.raises(UserError, match=r"cannot open .*model\.onnx") as caught:
        Engine(copy)
    assert "\n" not in str(caught.value)


def test_a_bundle_can_be_moved(net: MultiTaskNet, samples: list[Sample], copy: Path) -> None:
    moved = copy.rename(copy.parent / "elsewhere")
    with Engine(moved, threads=1) as engine:
        assert (engine.predict(samples[0].image)["semseg"] == samples[0].targets["semseg"]).mean() > 0.999


def test_export_onnx_writes_one_file(net: MultiTaskNet, tmp_path: Path) -> None:
    path = export_onnx(net, tmp_path / "net.onnx")
    assert count_graph(path).total.flops == net.plan.cost().flops
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


class _Broken:
    """A target whose engines compute one block wrongly: as ONNX Runtime's, but with that block's weights halved."""

    device, traits, scheme, dispatch = (
        getattr(ONNXRUNTIME, name) for name in ("device", "traits", "scheme", "dispatch")
    )

    def build(self, net: MultiTaskNet, precision: Any, ranges: Any, folder: Path) -> list[Path]:
        files = ONNXRUNTIME.build(net, precision, ranges, folder)
        model = onnx.load(folder / "model.onnx")
        self._halve(model.graph)
        onnx.save(model, folder / "model.onnx")
        return files

    def _halve(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            if tensor.name.startswith("blocks.s2_1.") and tensor.name.endswith("weight"):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 2, tensor.name))
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    self._halve(attribute.g)


def test_a_runtime_that_computes_a_block_wrongly_is_found_out_by_name(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_request, "find_target", lambda name, device: _Broken())
    with pytest.raises(UserError, match=r"diverges: s2_1 .*the runtime computes it differently"):
        export(net, samples, tmp_path / "b")
    assert not list(tmp_path.iterdir())
