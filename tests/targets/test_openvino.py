"""OpenVINO honours the contract of targets, in FP32 and BF16, with whole engines and with a trunk and heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.models.quantization import calibrate
from edgemtl.runtime import open_engine
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing import TargetConformance, experts_net, images, small_net

OPENVINO = find_target("openvino")


class TestOpenVino(TargetConformance):
    """The contract."""

    target = OPENVINO


def test_two_of_three_tasks_get_what_all_three_get(tmp_path: Path) -> None:
    """Two run as trunk and heads that share tensors, three as one engine; calls in between change nothing."""
    net, image = small_net("fused"), images(1).numpy()
    OPENVINO.build(net, {"engine": "fp32"}, None, tmp_path)
    session = open_engine(tmp_path, threads=1)
    whole = {task: value.copy() for task, value in by_tensor(session.run(image, session.tasks)).items()}
    session.run(images(1, seed=3).numpy(), ["semseg", "depth"])
    for task, value in by_tensor(session.run(image, ["semseg", "depth"])).items():
        np.testing.assert_allclose(value, whole[task], rtol=1e-4, atol=1e-5)
    session.close()


def test_modes_named_at_opening_are_ready_and_no_others(tmp_path: Path) -> None:
    net, image = small_net(), images(1).numpy()
    OPENVINO.build(net, {"engine": "fp32"}, None, tmp_path)
    session = open_engine(tmp_path, threads=1, modes=[["depth", "normals"]])
    assert set(by_tensor(session.run(image, ["normals", "depth"]))) == {"depth", "normals"}
    with pytest.raises(UserError, match=r"ready are depth\+normals"):
        session.run(image, ["depth"])
    session.close()


def convolution_precisions(compiled: Any) -> set[str]:
    """Precisions that convolutions read, by the compiled model's own account."""
    operators = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ordered_ops()]
    infos = [{key: str(value.value) for key, value in info.items()} for info in operators]
    return {info["runtimePrecision"] for info in infos if info["layerType"] == "Convolution"}


def test_int8_reaches_the_integer_kernels(tmp_path: Path) -> None:
    import openvino as ov

    net = small_net("fused")
    OPENVINO.build(net, dict.fromkeys(net.blocks, "int8"), calibrate(net, images(8)), tmp_path)
    compiled = ov.Core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert convolution_precisions(compiled) == {"u8"}


def test_int8_stays_fp32_on_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its integer kernels there come with FP16 ones, which are wrong by percents: `test_arm.py` runs them."""
    net = small_net("fused")
    OPENVINO.build(net, dict.fromkeys(net.blocks, "int8"), calibrate(net, images(8)), tmp_path)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    session = open_engine(tmp_path, threads=1, modes=[["depth"]])
    assert convolution_precisions(session._read().mode(("depth",))) == {"f32"}
    session.close()


def test_files_of_two_engines_do_not_mix(tmp_path: Path) -> None:
    """A model without its shared tensors is refused with a reason instead of computing something else."""
    OPENVINO.build(small_net(), {"engine": "fp32"}, None, tmp_path / "a")
    OPENVINO.build(small_net("fused", widths=(16, 24)), {"engine": "fp32"}, None, tmp_path / "b")
    for name in ("model.xml", "model.bin"):
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(UserError, match="do not belong together"):
        open_engine(tmp_path / "a", threads=1)


def test_a_damaged_model_is_refused_in_one_line(tmp_path: Path) -> None:
    OPENVINO.build(small_net(), {"engine": "fp32"}, None, tmp_path)
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(UserError, match=r"cannot open .*model\.xml") as caught:
        open_engine(tmp_path, threads=1)
    assert "\n" not in str(caught.value)


def test_attention_over_so_few_tokens_that_the_compiler_crashes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="cannot compile attention over 8 tokens: give images of 9") as caught:
        OPENVINO.build(experts_net(None, (32, 64)), {"engine": "fp32"}, None, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
