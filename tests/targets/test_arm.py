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
from edgemtl.devices import Device, any_processor
from edgemtl.errors import UserError
from edgemtl.models import TaskNet
from edgemtl.models.quantization import calibrate, simulate
from edgemtl.profiling import profile
from edgemtl.targets import ExportTarget, find_target, measurer_of
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

LACKING = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKING), reason=LACKING)]


@pytest.fixture(scope="module", params=CPUS)
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with emulated_board(request.param, tmp_path_factory.mktemp("board")) as device:
        yield device


def outputs(
    net: TaskNet, precision: str, target: ExportTarget, folder: Path
) -> tuple[Mapping[str, NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]:
    """Raw outputs of an engine on the board, and of its simulation."""
    batch, tasks = images(1, seed=7), [task.name for task in net.tasks]
    precisions, ranges = dict.fromkeys(net.blocks, precision), calibrate(net, images(8))
    target.build(net, precisions, ranges, folder)
    with closing(measurer_of(target).open(folder, 1, [tasks])) as session:
        engine = by_tensor(session.run(batch.numpy(), tasks))
    with torch.no_grad():
        simulated = by_tensor(simulate(net, precisions, ranges, target.scheme)(batch))
    return engine, {name: value.numpy() for name, value in simulated.items()}


def equal_values(net: TaskNet, target: ExportTarget, folder: Path) -> float:
    engine, simulated = outputs(net, "int8", target, folder)
    return float(np.concatenate([(engine[name] == value).ravel() for name, value in simulated.items()]).mean())


@pytest.mark.parametrize("block", ["fused", "depthwise"])
def test_int8_on_arm_is_the_simulation(board: Device, tmp_path: Path, block: str) -> None:
    target = find_target("onnxruntime", board)
    assert (target.scheme.activation, target.scheme.weight_limit) == ("int8", 127)
    assert equal_values(small_net(block, "relu6"), target, tmp_path) >= 0.97


def test_what_is_right_on_every_processor_is_right_on_arm(board: Device, tmp_path: Path) -> None:
    """Unsigned activations and weights of seven bits."""
    portable = any_processor(board).model_copy(update={"measurer": "ssh"})
    target = find_target("onnxruntime", portable)
    assert (target.scheme.activation, target.scheme.weight_limit) == ("uint8", EXACT_WEIGHT)
    assert equal_values(small_net("fused", "relu6"), target, tmp_path) >= 0.97


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_float_on_arm_is_the_net(board: Device, tmp_path: Path, runtime: str) -> None:
    engine, simulated = outputs(small_net("depthwise"), "float", find_target(runtime, board), tmp_path)
    for name, value in simulated.items():
        np.testing.assert_allclose(engine[name], value, rtol=1e-3, atol=1e-4 * np.ptp(value))


def test_the_agent_profiles_a_bundle_there(board: Device, tmp_path: Path) -> None:
    folder, _ = bundle_in(tmp_path / "bundle")
    measured = profile(folder, board.reach.url, runs=20, threads=1)
    assert "aarch64" in measured.environment["platform"]
    assert measured.environment["cpu"]["class"] == board.arithmetic
    assert [mode.latency.n for mode in measured.modes] == [20, 20, 20]


def test_an_engine_that_needs_another_processor_is_refused(board: Device, tmp_path: Path) -> None:
    """A board whose file says another processor than the one that answers."""
    other = board.model_copy(update={"arithmetic": "avx512-vnni"})
    target = find_target("onnxruntime", other)
    net = small_net("fused")
    target.build(net, {"engine": "fp32"}, None, tmp_path)
    with pytest.raises(UserError, match=f"multiplies with {board.arithmetic}, .* says avx512-vnni"):
        measurer_of(target).open(tmp_path)
