"""The schemes of Arm, and the portable one, on Arm's own kernels: emulated, but the very instructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from arm_root import missing, run_on_arm

from edgemtl.devices import any_processor, load_device
from edgemtl.models.quantization import calibrate, simulate
from edgemtl.runtime.backends.onnxruntime import DISABLED_OPTIMIZERS
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

LACKING = missing()
CPUS = {"raspberry-pi-4": "cortex-a72", "raspberry-pi-5": "max"}


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=LACKING)
@pytest.mark.parametrize("block", ["fused", "depthwise"])
@pytest.mark.parametrize("built_for", ["its own", "any", "x86-vnni"])
@pytest.mark.parametrize("board", CPUS)
def test_int8_on_arm_is_the_simulation(tmp_path: Path, board: str, built_for: str, block: str) -> None:
    """Its own scheme is signed; unsigned ones, of seven bits and of eight, are no less exact there."""
    device = load_device("x86-vnni" if built_for == "x86-vnni" else board)
    target = find_target("onnxruntime", any_processor(device) if built_for == "any" else device)
    assert target.scheme.activation == ("int8" if built_for == "its own" else "uint8")
    net, batch = small_net(block, "relu6"), images(4, seed=7)
    precision, ranges = dict.fromkeys(net.blocks, "int8"), calibrate(net, images(8))
    target.build(net, precision, ranges, tmp_path)
    found = run_on_arm(CPUS[board], tmp_path / "model.onnx", batch.numpy(), DISABLED_OPTIMIZERS)
    simulated = by_tensor(simulate(net, precision, ranges, target.scheme)(batch))
    same = np.concatenate([(found[task] == value.numpy()).ravel() for task, value in simulated.items()])
    assert same.mean() >= 0.97
