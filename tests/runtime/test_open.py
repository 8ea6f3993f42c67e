"""Opening an engine folder: what is no engine is refused in one line, and plugged-in backends are found."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from plugged import install

from edgemtl.errors import UserError
from edgemtl.runtime import EngineSpec, open_engine, runtime_names
from edgemtl.tasks import by_tensor

PLUGGED = """
class Opened:
    tasks, run, operator_times, close = ("a", "b"), None, None, None

    def __init__(self, *given):
        self.given = given
"""
SPEC = EngineSpec("mine", "my-runtime", ("a", "b"), (1, 3, 4, 4), {"model": "model.bin"}, {"level": 2})


def test_a_spec_is_read_as_it_was_written(tmp_path: Path) -> None:
    SPEC.write(tmp_path)
    assert EngineSpec.read(tmp_path) == SPEC


def test_a_plugged_in_backend_opens_its_engines(site: Path) -> None:
    install(site, "edgemtl.runtimes", "my-runtime = my_runtime:Opened", PLUGGED)
    SPEC.write(site)
    assert vars(open_engine(site, threads=3, modes=[["a"]]))["given"] == (site, SPEC, 3, [["a"]])
    cpus = ["onnxruntime", "openvino", "streaming"]
    assert runtime_names() == ["hls4ml", "my-runtime", *cpus, "tensorrt", "tensorrt-rtx"]


def test_a_plugged_in_backend_that_fails_is_named(site: Path) -> None:
    install(site, "edgemtl.runtimes", "my-runtime = my_runtime:opened", "def opened(folder): ...\n")
    SPEC.write(site)
    with pytest.raises(UserError, match=r"^runtime 'my-runtime', which my_runtime:opened brings, fails \(TypeError: "):
        open_engine(site)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": "edgemtl.engine/9"}, "this version reads"),
        ({"runtime": "onnxruntme"}, "did you mean onnxruntime"),
        ({"files": {"model": "../model.bin"}}, "lies outside"),
        ({"files": 3}, "is damaged"),
        ({"input": [1, 3]}, "is damaged"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    SPEC.write(tmp_path)
    content = json.loads((tmp_path / "engine.json").read_text()) | change
    (tmp_path / "engine.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=reason) as caught:
        open_engine(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_options_that_name_no_outputs_are_refused(tmp_path: Path, runtime: str) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["image"], ["a"])],
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 4])],
            [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 3, 4, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    files = {"model": "model.onnx", "weights": "model.onnx"}
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    image = np.ones((1, 3, 4, 4), np.float32)
    good = EngineSpec(runtime, runtime, ("a",), (1, 3, 4, 4), files, {"outputs": {"a": {"x": "a"}}})
    good.write(tmp_path)
    if runtime == "onnxruntime":
        np.testing.assert_array_equal(by_tensor(open_engine(tmp_path).run(image, ["a"]))["a"], image)
    for options in (
        {},
        {"outputs": ["a"]},
        {"outputs": {"a": "a"}},
        {"outputs": {"a": {}}},
        {"outputs": {"a": {"x": 1}}},
    ):
        replace(good, options=options).write(tmp_path)
        with pytest.raises(UserError, match=r"no output tensor|cannot open"):
            open_engine(tmp_path)
    if runtime == "onnxruntime":
        for wrong in (replace(good, input=(1, 3, 8, 4)), replace(good, options={"outputs": {"a": {"x": "b"}}})):
            wrong.write(tmp_path)
            with pytest.raises(UserError, match="other inputs or outputs"):
                open_engine(tmp_path)


def test_what_is_no_engine_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no engine\.json"):
        open_engine(tmp_path)
    with pytest.raises(UserError, match="-1 threads"):
        open_engine(tmp_path, threads=-1)


def test_a_runtime_that_is_not_installed_gives_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, extra in (("onnxruntime", "all"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, name, None)
        spec = EngineSpec(
            name, name, ("a",), (1, 3, 4, 4), {"model": "m", "weights": "w"}, {"outputs": {"a": {"x": "a"}}}
        )
        folder = tmp_path / name
        spec.write(folder)
        for file in spec.files.values():
            (folder / file).write_bytes(b"")
        with pytest.raises(UserError, match=rf"pip install 'edgemtl\[{extra}\]'"):
            open_engine(folder)


def test_the_runtime_needs_no_torch() -> None:
    code = "import sys, edgemtl.runtime, edgemtl.bundle; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
