from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys import Toys, toy_space

from edgemtl.errors import UserError
from edgemtl.export.parity import measure_parity
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.tasks import map_outputs


@pytest.fixture
def net(tmp_path: Path) -> MultiTaskNet:
    space = toy_space(tmp_path)
    return Supernet.of(space).extract(space.largest()).eval()


def run_of(net: MultiTaskNet, broken: str = "", value: float = 0.0) -> Any:
    """The net as an engine, which gives `value` for the first number of a task that is `broken`."""

    def run(image: NDArray[np.float32], tasks: Sequence[str]) -> Any:
        with torch.no_grad():
            outputs = map_outputs(Tensor.numpy, net(torch.from_numpy(image)))
        for tensor in outputs.get(broken, {}).values():
            tensor.flat[0] = value
        return {task: outputs[task] for task in tasks}

    return run


def test_a_net_is_at_parity_with_itself(net: MultiTaskNet) -> None:
    parity = measure_parity(net, run_of(net), Toys().split("validation"))
    assert {each.torch == each.engine for each in parity.values()} == {True}
    assert {output.max_abs_error for each in parity.values() for output in each.outputs.values()} == {0}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_refused_by_name(net: MultiTaskNet, value: float) -> None:
    with pytest.raises(UserError, match=r"task depth: the engine's output .* is not finite on validation images"):
        measure_parity(net, run_of(net, "depth", value), Toys().split("validation"))
