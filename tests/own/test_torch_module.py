"""Torch modules of users, through PyTorch's own exporter."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import own_nets
import pytest
import torch
from own_nets import SIZE

from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, export_own_net
from edgemtl.own import open_net, propose_tasks
from edgemtl.own.inputs import GREY


def line_of(text: str) -> int:
    lines = Path(own_nets.__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_module_is_taken_with_the_names_of_its_outputs() -> None:
    net = open_net("own_nets:build", SIZE)
    assert net.outputs == {"parsing": (1, 5, *SIZE), "pose.points": (1, 4), "pose.score": (1, 4)}
    assert list(propose_tasks(net).tasks) == ["parsing", "pose"]
    pixels = np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32)
    with torch.no_grad():
        theirs = own_nets.build().eval()(torch.from_numpy(pixels))
    np.testing.assert_allclose(net.reference(pixels)["parsing"], theirs.parsing.numpy(), rtol=1e-5, atol=1e-6)


def test_a_grey_module_reads_the_luminance_of_an_image(tmp_path: Path) -> None:
    net = open_net("own_nets:build_grey", SIZE)
    assert net.channels == 1 and propose_tasks(net).input.mean == (0.0, 0.0, 0.0)
    pixels = np.random.default_rng(0).random((1, 3, *SIZE), np.float32)
    grey = torch.from_numpy(np.tensordot(np.array(GREY, np.float32), pixels, (0, 1))[:, None])
    with torch.no_grad():
        theirs = own_nets.build_grey().eval()(grey)["parsing"].numpy()
    np.testing.assert_allclose(net.reference(pixels)["parsing"], theirs, rtol=1e-5, atol=1e-6)
    manifest = export_own_net(net, propose_tasks(net), ExportRequest("onnxruntime"), tmp_path / "bundle")
    assert manifest.targets["onnxruntime"].parity


def test_files_and_lines_of_its_code_are_no_part_of_it() -> None:
    content = open_net("own_nets:build", SIZE).model.SerializeToString()
    assert b"own_nets.py" not in content and b"stack_trace" not in content


def test_outputs_may_be_called_as_the_exporter_calls_its_own_tensors() -> None:
    net = open_net("own_nets:build_normalized", SIZE)
    assert set(net.outputs) == {"norm", "mean", "image"} and net.input == "module.image"
    pixels = np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(net.model.SerializeToString())
    for name, value in net.reference(pixels).items():
        np.testing.assert_allclose(session.run([name], {net.input: pixels})[0], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("build_conditional", f"control flow on values (own_nets.py, line {line_of('if image.mean() > 0')})"),
        ("build_nothing", "returns a str, not a torch.nn.Module"),
        ("built", "did you mean build"),
        ("build_for_four_channels", "by --size, or return a module that takes one image alone, in RGB or grey"),
        ("build_with_text", "returns a str as name: tensors alone are wanted"),
        ("build_traced", "it is TorchScript (Conv2d), which torch.export does not read: return the module that was"),
        ("build_quantized", "its Linear rounds values already: the net is quantized, give it as it was before"),
        ("build_without_file", "own_nets:build_without_file failed: FileNotFoundError"),
    ],
)
def test_a_module_that_cannot_be_taken_is_refused_with_its_line(function: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as refusal:
        open_net(f"own_nets:{function}", SIZE)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            "build_without_counterpart",
            f"operator aten._linalg_svd has no counterpart in ONNX (own_nets.py, line {line_of('svdvals')})",
        ),
        ("build_dropping", "changes from call to call"),
    ],
)
def test_what_torch_cannot_export_is_refused_by_its_operator(function: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        open_net(f"own_nets:{function}", SIZE)
