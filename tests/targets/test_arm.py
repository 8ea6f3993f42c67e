"""Engines for Arm opened by the agent on an emulated board: its own kernels, the very instructions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_board import CPUS, emulated_board, missing
from numpy.typing import NDArray
from two_heads import bundle_in

from edgemtl.arithmetic import EXACT_WEIGHT
from edgemtl.devices import HOST, Device, any_processor, load_device
from edgemtl.errors import UserError
from edgemtl.models import TaskNet
from edgemtl.models.quantization import calibrate, simulate
from edgemtl.profiling import find_measurer, profile
from edgemtl.targets import ExportTarget, find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

LACKING = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKING), reason=LACKING)]


@pytest.fixture(scope="module", params=CPUS)
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with emulated_board(request.param, tmp_path_factory.mktemp("board")) as device:
        yield device


def outputs(
    net: TaskNet, precision: str, target: ExportTarget, board: Device, folder: Path
) -> tuple[Mapping[str, NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]:
    """Raw outputs of an engine on the board, and of its simulation."""
    batch, tasks = images(1, seed=7), [task.name for task in net.tasks]
    precisions, ranges = dict.fromkeys(net.blocks, precision), calibrate(net, images(8))
    target.build(net, precisions, ranges, folder)
    with closing(find_measurer(board, target.traits.name).open(folder, 1, [tasks])) as session:
        engine = by_tensor(session.run(batch.numpy(), tasks))
    with torch.no_grad():
        simulated = by_tensor(simulate(net, precisions, ranges, target.scheme)(batch))
    return engine, {name: value.numpy() for name, value in simulated.items()}


def equal_values(engine: Mapping[str, NDArray[np.float32]], simulated: Mapping[str, NDArray[np.float32]]) -> float:
    return float(np.concatenate([(engine[name] == value).ravel() for name, value in simulated.items()]).mean())


@pytest.mark.parametrize("block", ["fused", "depthwise"])
def test_int8_on_arm_is_the_simulation(board: Device, tmp_path: Path, block: str) -> None:
    target = find_target("onnxruntime", board)
    assert (target.scheme.activation, target.scheme.weight_limit) == ("int8", 127)
    assert equal_values(*outputs(small_net(block, "relu6"), "int8", target, board, tmp_path)) >= 0.97


def test_what_is_right_on_every_processor_is_right_on_arm(board: Device, tmp_path: Path) -> None:
    """Unsigned activations and weights of seven bits, as a bundle that was exported on x86 has them."""
    target = find_target("onnxruntime", any_processor(load_device(HOST)))
    assert (target.scheme.activation, target.scheme.weight_limit) == ("uint8", EXACT_WEIGHT)
    assert equal_values(*outputs(small_net("fused", "relu6"), "int8", target, board, tmp_path)) >= 0.97


def test_openvino_computes_int8_engines_without_fp16(board: Device, tmp_path: Path) -> None:
    """Its own transformations for Arm would be percents apart."""
    target = find_target("openvino", any_processor(load_device(HOST)))
    engine, simulated = outputs(small_net("fused", "relu6"), "int8", target, board, tmp_path)
    for name, value in simulated.items():
        assert np.abs(engine[name] - value).mean() <= 1e-4 * np.ptp(value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_float_on_arm_is_the_net(board: Device, tmp_path: Path, runtime: str) -> None:
    net = small_net("depthwise")
    engine, simulated = outputs(net, "float", find_target(runtime, board), board, tmp_path)
    for name, value in simulated.items():
        np.testing.assert_allclose(engine[name], value, rtol=1e-3, atol=1e-4 * np.ptp(value))


def test_the_agent_profiles_a_bundle_there(board: Device, tmp_path: Path) -> None:
    folder, _ = bundle_in(tmp_path / "bundle")
    measured = profile(folder, board.reach.url, runs=20, threads=1)
    assert "aarch64" in measured.environment["platform"]
    assert measured.environment["cpu"]["class"] == board.arithmetic
    assert [mode.latency.n for mode in measured.modes] == [20, 20, 20]


def test_another_processor_than_the_device_s_is_refused(board: Device, tmp_path: Path) -> None:
    other = board.model_copy(update={"arithmetic": "avx512-vnni"})
    find_target("onnxruntime", other).build(small_net("fused"), {"engine": "fp32"}, None, tmp_path)
    with pytest.raises(UserError, match=f"multiplies with {board.arithmetic}, .* says avx512-vnni"):
        find_measurer(other, "onnxruntime").open(tmp_path)
