"""`edgemtl profile` of an ONNX file, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.cli import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A convolution, and a head whose product no rule knows; height and width are open."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["map"], name="/map/Conv"),
        helper.make_node("Flatten", ["map"], ["rows"], axis=3),
        helper.make_node("CDist", ["rows", "rows"], ["far"], name="/far/CDist", domain="com.microsoft"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [-1, 3, "h", "w"])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("map", "far")]
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(nodes, "g", [image], outputs, [weight])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_the_table_and_the_json_name_what_was_not_counted(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "CDist of com.microsoft '/far/CDist': its FLOPs are not counted, no rule says what it multiplies"
    assert main(["profile", str(file), "--shape", "image=1x3x8x6", "--runs", "2"]) == 0
    shown = capsys.readouterr().out
    assert f"note: {note}" in shown
    counted = shown.partition("Counted on the graph")[2].partition("Where the time goes")[0].splitlines()
    rows = {line.split()[0]: line for line in counted if line.split()}
    assert "not counted" in rows["all"] and "not counted" in rows["far"]
    assert "(576 MACs)" in rows["shared"] and "12" in rows["shared"] and "48.0 B" in rows["shared"]
    assert main(["profile", str(file), "--shape", "1x3x8x6", "--runs", "2", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["counts"]["total"]["macs"], found["counts"]["trunk"]["macs"]) == (None, 576)
    assert found["inputs"] == {"image": [1, 3, 8, 6]} and found["notes"] == [note]
    assert json.loads((file.parent / "net.profile.json").read_text())["notes"] == [note]


@pytest.mark.parametrize("shape", ["image=1x4x8x6", "picture=1x3x8x6", "image=3x8"])
def test_a_shape_that_does_not_fit_is_one_line(file: Path, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(file), "--shape", shape]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1
