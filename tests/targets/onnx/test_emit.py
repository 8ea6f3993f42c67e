"""The traced graph and the ONNX file say exactly what the net computes."""

from __future__ import annotations

import json
import time

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgemtl.errors import UnsupportedError
from edgemtl.models.graph.evaluate import run_graph
from edgemtl.models.graph.graph import trace
from edgemtl.targets import emit
from edgemtl.tasks import by_tensor, make_task
from edgemtl.testing import TASKS, images, small_net


@pytest.mark.parametrize("block", ["depthwise", "fused"])
def test_folded_graph_computes_what_the_net_computes(block: str) -> None:
    net, image = small_net(block), images(2)
    graph = trace(net)
    assert "BatchNormalization" not in {node.op for node in graph.nodes}
    with torch.no_grad():
        expected = by_tensor(net(image))
    for task, value in by_tensor(run_graph(graph, image)).items():
        torch.testing.assert_close(value, expected[task], rtol=1e-4, atol=1e-4)


def test_onnx_model_computes_what_the_net_computes() -> None:
    """Checked with ONNX's own reference evaluator, which shares no code with any runtime."""
    tasks = (*TASKS, make_task("defect", "classification", classes=("no", "yes")))
    net, image = small_net(activation="relu6", tasks=tasks), images(1)
    model = emit(net)
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        expected = by_tensor(net(image))
    found = ReferenceEvaluator(model).run([task.name for task in tasks], {"image": image.numpy()})
    for task, value in zip(tasks, found, strict=True):
        np.testing.assert_allclose(value, expected[task.name].numpy(), rtol=1e-4, atol=1e-5)


def test_names_lead_back_to_blocks_and_metadata_to_tasks() -> None:
    net = small_net()
    model = emit(net)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["schema"] == "edgemtl.graph/1"
    assert json.loads(metadata["blocks"]) == net.block_tasks
    assert list(json.loads(metadata["tasks"])) == [task.name for task in TASKS]
    assert {node.name.split(".")[1] for node in model.graph.node} == set(net.blocks)
    assert [tuple(size.dim_value for size in out.type.tensor_type.shape.dim) for out in model.graph.output] == [
        (1, 5, 32, 64), (1, 1, 32, 64), (1, 3, 32, 64)
    ]  # fmt: skip


def test_names_of_a_subset_are_those_of_the_whole_net() -> None:
    net = small_net()
    whole = {node.name: node.inputs for node in trace(net).nodes}
    part = {node.name: node.inputs for node in trace(net.subset(["depth"])).nodes}
    assert part
    assert part.items() <= whole.items()


class _Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Softmax over channels, which no target of dense maps needs."""
        return torch.softmax(x, 1)


@pytest.mark.parametrize(
    ("module", "named"), [(nn.SELU(), "SELU"), (_Odd(), "softmax"), (nn.Conv2d(16, 16, 3, padding="same"), "conv")]
)
def test_what_has_no_operator_is_refused_by_name(module: nn.Module, named: str) -> None:
    net = small_net()
    net.blocks["stem"] = nn.Sequential(net.blocks["stem"], module)
    with pytest.raises(UnsupportedError, match=r"blocks\.stem") as caught:
        emit(net)
    assert named.lower() in str(caught.value).lower() or "blocks.stem.1" in str(caught.value)


def test_two_tasks_that_share_an_output_both_get_one() -> None:
    net = small_net()
    net.outputs["normals"] = net.outputs["depth"]
    model = emit(net)
    found = ReferenceEvaluator(model).run(["depth", "normals"], {"image": images(1).numpy()})
    np.testing.assert_array_equal(found[0], found[1])


def test_emission_takes_well_under_a_second() -> None:
    net = small_net(size=(192, 256))
    emit(net)
    start = time.process_time()  # that of this process: another one's work does not count
    emit(net)
    assert time.process_time() - start < 1.0


def test_the_same_net_gives_the_same_bytes() -> None:
    first, second = emit(small_net()), emit(small_net())
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
