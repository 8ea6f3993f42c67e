"""Nets of one's own for a Jetson: held against a version's rules, built and run by what refuses as the board's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from own_nets import SIZE, saved, three_tasks
from PIL import Image
from tensorrt_fake import VERSIONS, FakeCuda, fake_tensorrt, write_board

from edgemtl.cli import main
from edgemtl.devices import load_device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export import ExportRequest, Rounding, export_own_net
from edgemtl.jetpack import JETPACKS
from edgemtl.own import expected_outputs, image_input, open_net, propose_tasks, resolve
from edgemtl.runtime import EngineSpec, prepare_image
from edgemtl.runtime.tensorrt.cuda import Cuda
from edgemtl.runtime.tensorrt.session import open_session
from edgemtl.targets import lint
from edgemtl.tasks import by_tensor

ORIN = load_device("jetson-orin-nano")


def photos(folder: Path, count: int = 6) -> Path:
    (folder / "photos").mkdir(exist_ok=True)
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(values).save(folder / "photos" / f"{number}.png")
    return folder / "photos"


@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-4), ("int8", 0.2)])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_its_tasks_and_runs_any_of_them(
    version: str, precision: str, apart: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    net, pictures = open_net(str(saved(three_tasks(), tmp_path))), photos(tmp_path)
    declaration, rounding = propose_tasks(net), Rounding(precision, pictures if precision == "int8" else None)
    out = tmp_path / "out"
    manifest = export_own_net(net, declaration, ExportRequest("tensorrt", ORIN), out, rounding=rounding)
    engine = manifest.targets["tensorrt"]
    assert set(engine.flags) == {"parsing", "pose", "best"} and not engine.parity
    model = onnx.load(out / engine.folder / "model.onnx")
    assert not [problem for each in VERSIONS for problem in lint(model, each)]
    kinds = {node.op_type for node in model.graph.node}
    assert "If" in kinds and ("QuantizeLinear" in kinds) == (precision == "int8")
    trt, folder = fake_tensorrt(version), out / engine.folder
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    root, library = write_board(tmp_path / "board"), FakeCuda()
    session = open_session(folder, EngineSpec.read(folder), 0, None, lambda: Cuda(library), root)
    resolved = resolve(net, declaration)
    picture = np.asarray(Image.open(pictures / "0.png"))
    image = prepare_image(picture, net.size, image_input(net, resolved))
    expected = by_tensor(expected_outputs(net, resolved, image))
    for tasks in (["parsing"], ["pose"], ["parsing", "pose", "best"]):
        for name, value in by_tensor(session.run(image, tasks)).items():
            if name != "best":  # classes, of which rounding may choose another
                assert np.linalg.norm(value - expected[name]) <= apart * np.linalg.norm(expected[name])
    session.close()


def normalised(bias: bool, opset: int = 17) -> onnx.ModelProto:
    """A head behind a layer normalisation over the channels of each pixel, with ONNX's own epsilon and axis."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(8, 3, 3, 3)), "scale": rng.normal(size=8), "shift": rng.normal(size=8)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["a"], ["b"], name="last", perm=[0, 2, 3, 1]),
        helper.make_node("LayerNormalization", ["b", "scale", *(["shift"] if bias else [])], ["c"], name="norm"),
        helper.make_node("Transpose", ["c"], ["y"], name="first", perm=[0, 3, 1, 2]),
    ]
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "normalised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, *SIZE])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_normalisation_is_written_for_8_5(bias: bool, tmp_path: Path) -> None:
    net = open_net(str(saved(normalised(bias), tmp_path)))
    declaration = propose_tasks(net)
    out = tmp_path / "out"
    manifest = export_own_net(net, declaration, ExportRequest("tensorrt", ORIN, jetpack="5.1"), out)
    assert manifest.targets["tensorrt"].hardware.endswith("with JetPack 5.1")
    file = out / manifest.targets["tensorrt"].folder / "model.onnx"
    assert "LayerNormalization" not in {node.op_type for node in onnx.load(file).graph.node}
    image = np.random.default_rng(1).normal(size=(1, 3, *SIZE)).astype(np.float32)
    values = [_run(path, image) for path in (file, tmp_path / "theirs.onnx")]
    np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-4)


def _run(path: Path, image: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


def test_what_a_version_refuses_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    net = open_net(str(saved(normalised(True, opset=18), tmp_path)))
    declaration, out = propose_tasks(net), tmp_path / "out"
    with pytest.raises(UnsupportedError, match=r"TensorRT 8\.5.*rule 'opset'.*or choose a newer JetPack"):
        export_own_net(net, declaration, ExportRequest("tensorrt", ORIN, jetpack="5.1"), out)
    assert not out.exists()
    export_own_net(net, declaration, ExportRequest("tensorrt", ORIN, jetpack="6.2"), out)
    with pytest.raises(UnsupportedError, match=r"FP32 and INT8 on the GPU alone .* leave fp16 out"):
        export_own_net(net, declaration, ExportRequest("tensorrt", ORIN), tmp_path / "half", rounding=Rounding("fp16"))
    with pytest.raises(UserError, match="decides the graphs of the target tensorrt alone"):
        export_own_net(net, declaration, ExportRequest("onnxruntime", jetpack="6.2"), tmp_path / "other")


def test_the_command_line_takes_a_jetpack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    net = str(saved(three_tasks(), tmp_path))
    (tmp_path / "tasks.yaml").write_text(_proposal(net, capsys))
    words = ["--tasks", "tasks.yaml", "--target", "tensorrt", "--device", "jetson-orin-nano", "--out", "orin"]
    assert main(["export", net, *words, "--jetpack", "6.2"]) == 0
    shown = "".join(capsys.readouterr())
    assert "next: edgemtl profile orin --device ssh://USER@BOARD" in shown and "edgemtl run" not in shown
    (build,) = EngineSpec.read(tmp_path / "orin/engines/tensorrt").options["builds"]
    assert JETPACKS["6.2"].tensorrt.startswith("10") and build["network_flags"] == ["STRONGLY_TYPED"]


def _proposal(net: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["tasks", "--net", net]) == 0
    return capsys.readouterr().out
