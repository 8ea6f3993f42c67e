from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UserError
from edgemtl.files.onnx import read_onnx


def small_model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "weight")
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    return helper.make_model(helper.make_graph([node], "g", shapes[:1], shapes[1:], [weight]))


def stored_outside(folder: Path, location: str) -> Path:
    model = small_model()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def test_a_model_is_read_with_its_files_of_weights(tmp_path: Path) -> None:
    path = stored_outside(tmp_path, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(np.full((4, 4), 3, np.float32).tobytes())
    assert read_onnx(path).graph.initializer[0].data_location == TensorProto.EXTERNAL
    whole = read_onnx(path, external_data=True)
    assert numpy_helper.to_array(whole.graph.initializer[0]).sum() == 48


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link"])
def test_files_of_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="lies outside it: refused"):
        read_onnx(stored_outside(tmp_path / "inner", location))


def test_files_of_weights_that_are_missing_short_or_no_files(tmp_path: Path) -> None:
    path = stored_outside(tmp_path, "weights.bin")
    with pytest.raises(UserError, match="cannot read weights of the ONNX file"):
        read_onnx(path)
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(UserError, match="it is a pipe"):
        read_onnx(path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a\xff\xff\xff\xff\x0f", bytes(100)])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match="is no ONNX model"):
        read_onnx(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="it is a directory"):
        read_onnx(tmp_path)
