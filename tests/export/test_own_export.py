"""Bundles of nets of one's own: every mode of every engine is the net, and all verbs open them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from own_nets import SIZE, channels_last, many_tasks, model_of, saved, three_tasks, weight
from PIL import Image
from refusals import refused

from edgemtl.bundle import Manifest, read_manifest
from edgemtl.cli import main
from edgemtl.errors import UnsupportedError
from edgemtl.export import ExportRequest, Rounding, export_own_net
from edgemtl.own import Declaration, DeclaredTask, OwnNet, Pixels, open_net, propose_tasks
from edgemtl.runtime import Engine, prepare_image

TARGETS = ("onnxruntime", "openvino")
PIXELS = Pixels(colour="BGR", scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def photo(folder: Path) -> Path:
    values = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(values).save(folder / "photo.png")
    return folder / "photo.png"


def exported(model: object, folder: Path, declaration: Declaration | None = None) -> tuple[OwnNet, Path, Manifest]:
    net = open_net(str(saved(model, folder)))  # type: ignore[arg-type]
    out = folder / "bundle"
    manifest = export_own_net(net, declaration or propose_tasks(net), ExportRequest(TARGETS), out, [photo(folder)])
    return net, out, manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[OwnNet, Path, Manifest]:
    return exported(three_tasks(), tmp_path_factory.mktemp("own"))


def modes(names: Sequence[str]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, count) for count in range(1, len(names) + 1)))


@pytest.mark.parametrize("target", TARGETS)
def test_every_mode_gives_what_the_net_gives(bundle: tuple[OwnNet, Path, Manifest], target: str) -> None:
    net, folder, manifest = bundle
    image = prepare_image(folder.parent / "photo.png", SIZE, manifest.input)
    theirs = net.reference(image)
    pose = {"points": "pose.points", "score": "pose.score"}
    tensors = {"parsing": {"logits": "parsing"}, "pose": pose, "best": {"best": "best"}}
    with Engine(folder, target) as engine:
        for mode in modes(list(tensors)):
            outputs = engine.run(folder.parent / "photo.png", mode)
            assert set(outputs) == set(mode)
            for task in mode:
                for name, tensor in tensors[task].items():
                    np.testing.assert_allclose(outputs[task][name], theirs[tensor], rtol=1e-4, atol=1e-5)
        assert engine.predict(image, "parsing")["parsing"].shape == SIZE


def test_the_manifest_says_what_the_net_is_and_how_near_engines_are(bundle: tuple[OwnNet, Path, Manifest]) -> None:
    _, folder, manifest = bundle
    assert read_manifest(folder) == manifest
    assert manifest.family == "own" and manifest.provenance.net == "theirs.onnx"
    pose = next(task for task in manifest.tasks if task.name == "pose")
    assert [(output.name, output.tensor, output.shape) for output in pose.outputs] == [
        ("points", "pose.points", (1, 4)),
        ("score", "pose.score", (1, 4)),
    ]
    for target in TARGETS:
        parity = manifest.targets[target].parity
        assert parity["parsing"].metric == "miou" and parity["parsing"].engine == 1.0
        assert parity["pose"].metric == "agreement" and parity["pose"].engine > 0.999
        assert all(out.relative_error < 1e-3 for each in parity.values() for out in each.outputs.values())
    assert manifest.cost.paths["pose"].flops < manifest.cost.flops
    assert {block.task for block in manifest.blocks} == {None, "parsing", "pose", "best"}


def test_bytes_channels_last_and_vectors_come_through(tmp_path: Path) -> None:
    declaration = Declaration(
        input=PIXELS, tasks={"values": DeclaredTask(outputs=("Identity:0",))}, unused=("Identity_1:0",)
    )
    net, folder, manifest = exported(channels_last(), tmp_path, declaration)
    pixels = np.asarray(Image.open(tmp_path / "photo.png"))[..., ::-1]
    theirs = net.reference(pixels.transpose(2, 0, 1)[None].astype(np.float32))["Identity:0"]
    assert manifest.modes == (("values",),)
    for target in TARGETS:
        with Engine(folder, target) as engine:
            np.testing.assert_allclose(engine.run(tmp_path / "photo.png")["values"]["Identity"][0], theirs, rtol=1e-4)


def test_one_number_an_image_without_an_axis_of_its_own_comes_through(tmp_path: Path) -> None:
    """As `head(x).squeeze(1)` gives it, (1,)."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["a"], ["map"], name="pool"),
        helper.make_node("ReduceSum", ["map", "axes"], ["age"], name="sum", keepdims=0),
    ]
    constants = [weight("w", 4, 3, 3, 3), numpy_helper.from_array(np.array([1, 2, 3]), "axes")]
    net, folder, manifest = exported(
        model_of(nodes, dict.fromkeys(("age", "map"), TensorProto.FLOAT), constants), tmp_path
    )
    assert net.outputs["age"] == (1,) and manifest.targets["onnxruntime"].parity["age"].engine > 0.999
    image = prepare_image(tmp_path / "photo.png", SIZE, manifest.input)
    for target in TARGETS:
        with Engine(folder, target) as engine:
            np.testing.assert_allclose(
                engine.run(tmp_path / "photo.png", "age")["age"]["age"], net.reference(image)["age"], rtol=1e-4
            )
    assert main(["run", str(folder), str(tmp_path / "photo.png"), "--out", str(tmp_path / "drawn")]) == 0


def test_a_transformer_in_timms_style_comes_through(tmp_path: Path) -> None:
    net = open_net("timm_vit:build", SIZE)
    tasks = {"kind": DeclaredTask(outputs=("output_0",)), "parsing": DeclaredTask(outputs=("output_1",))}
    manifest = export_own_net(
        net, Declaration(tasks=tasks), ExportRequest(TARGETS), tmp_path / "bundle", [photo(tmp_path)]
    )
    for target in TARGETS:
        outputs = [each for parity in manifest.targets[target].parity.values() for each in parity.outputs.values()]
        assert len(outputs) == 2 and all(each.relative_error < 1e-5 for each in outputs)


def test_of_many_tasks_it_says_which_share_of_the_modes_was_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(many_tasks(7), tmp_path)
    export = ["export", str(path), "--target", "onnxruntime", "--image", str(photo(tmp_path))]
    assert main([*export, "--out", str(tmp_path / "mine")]) == 0
    shown = capsys.readouterr()
    assert "65 of 127 modes on the first" in shown.out
    assert "runs compared with the net" in shown.err
    target = read_manifest(tmp_path / "mine").targets["onnxruntime"]
    assert target.modes_checked == 64 and target.parity["head6"].images == 1


def test_a_net_that_gives_no_number_is_refused(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Log", ["x"], ["y"])], {"y": TensorProto.FLOAT})  # of negative values too
    net, request = open_net(str(saved(model, tmp_path))), ExportRequest("onnxruntime")
    words = refused(lambda: export_own_net(net, propose_tasks(net), request, tmp_path / "out", [photo(tmp_path)]))
    assert "output y of theirs.onnx is not finite on an image of the check" in words
    assert not (tmp_path / "out").exists()


def test_another_net_is_not_added_and_other_targets_are_refused(
    bundle: tuple[OwnNet, Path, Manifest], tmp_path: Path
) -> None:
    net, folder, _ = bundle
    declaration = propose_tasks(net)
    other = declaration.model_copy(update={"input": PIXELS})
    again = ExportRequest("onnxruntime")
    assert "holds another net" in refused(lambda: export_own_net(net, other, again, folder, [photo(tmp_path)]))
    with pytest.raises(UnsupportedError, match="target streaming writes no engine of a net of one's own"):
        export_own_net(net, declaration, ExportRequest("streaming"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gpu_has_an_engine_that_is_built_and_not_checked(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    net = open_net(str(saved(three_tasks(), tmp_path)))
    out, request, half = tmp_path / "out", ExportRequest("tensorrt-rtx"), Rounding("fp16")
    manifest = export_own_net(net, propose_tasks(net), request, out, [photo(tmp_path)])
    engine = manifest.targets["tensorrt-rtx"]
    assert not engine.parity and engine.modes_checked == 0 and set(engine.flags) == {"parsing", "pose", "best"}
    assert (out / engine.folder / "engine.plan").stat().st_size > 10_000
    with pytest.raises(UnsupportedError, match="tensorrt-rtx has FP32 and INT8 alone for a net of one's own"):
        export_own_net(net, propose_tasks(net), request, tmp_path / "half", [photo(tmp_path)], rounding=half)


def test_the_command_line_takes_a_net_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(three_tasks(), tmp_path)
    picture = str(photo(tmp_path))
    assert main(["tasks", "--net", "theirs.onnx"]) == 0
    (tmp_path / "tasks.yaml").write_text(capsys.readouterr().out)
    export = ["export", "theirs.onnx", "--target", "onnxruntime", "--image", picture]
    assert main([*export, "--tasks", "tasks.yaml", "--out", "mine"]) == 0
    assert "every mode (7) on the first" in capsys.readouterr().out
    assert main(["run", "mine", picture, "--format", "json"]) == 0
    drawn = json.loads(capsys.readouterr().out)[0]["tasks"]
    assert set(drawn) == {"parsing", "pose", "best"} and drawn["pose"]["points"]["shape"] == [4]
    assert main(["report", "mine", "--out", "page.html"]) == 0
    assert "trunk_1" in (tmp_path / "page.html").read_text()
    assert main([*export, "--out", "mine", "--design", "baseline"]) == 1
    assert "--design belongs to a run, theirs.onnx is a net of one's own" in capsys.readouterr().err
    assert main(export) == 1
    assert "does not say where its bundle goes: give --out" in capsys.readouterr().err
    assert main(["export", "runs/none", "--target", "onnxruntime", "--size", "32x32"]) == 1
    assert "--size belongs to a net of one's own" in capsys.readouterr().err
