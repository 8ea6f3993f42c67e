from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from as_processor import CLASSES, _flags, _masked_cpuinfo

ROOT = Path(__file__).parents[2]
X86 = platform.machine() == "x86_64" and "avx2" in _flags()
NEEDS_X86 = pytest.mark.skipif(not X86, reason="needs an x86-64 processor with AVX2")
NEEDS_TOOLS = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objdump")), reason="needs gcc and objdump")
SATURATION = """
import json, numpy as np, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from edgemtl.environment import environment
weights = np.full((64, 64), 127, np.int8)
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.UINT8, [64, 64])],
    [helper.make_tensor_value_info("y", TensorProto.INT32, [64, 64])],
    [numpy_helper.from_array(weights, "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
product = int(session.run(None, {"x": np.full((64, 64), 255, np.uint8)})[0][0, 0])
print(json.dumps({"product": product, **environment()["cpu"]}))
"""


@NEEDS_X86
@pytest.mark.parametrize("name", CLASSES)
def test_the_masked_processor_shows_no_newer_flag_and_says_what_it_is_held_to(name: str) -> None:
    text = _masked_cpuinfo(name)
    flags = set(re.findall(r"^flags\s*: (.*)$", text, re.MULTILINE)[0].split())
    assert flags == _flags() - CLASSES[name].hidden.keys()
    assert re.search(rf"^model name\s*: .*\(held to {name}\)$", text, re.MULTILINE)


@pytest.mark.slow
@NEEDS_X86
@NEEDS_TOOLS
def test_a_runtime_held_to_avx2_saturates_as_one_does(tmp_path: Path) -> None:
    """255 x 127 twice is 64,770, and half of that is what sixteen bits hold."""
    script = tmp_path / "saturation.py"
    script.write_text(SATURATION, encoding="utf-8")
    held = [sys.executable, str(ROOT / "benchmarks/as_processor.py"), "avx2", sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = json.loads(subprocess.run(held, check=True, capture_output=True, text=True, env=environment).stdout)
    assert found["class"] == "avx2"
    assert found["product"] == 64 // 2 * 32767


def test_another_class_is_refused() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/as_processor.py"), "pentium", "true"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert "avx2" in done.stderr
