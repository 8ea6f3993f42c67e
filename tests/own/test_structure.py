"""A graph alone tells shapes, trunk, tasks' own parts, residual sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from own_nets import SIZE, channels_last, model_of, saved, three_tasks, weight

from edgemtl.blocks import cost_by_owner
from edgemtl.own import (
    Declaration,
    DeclaredTask,
    as_text,
    block_records,
    open_net,
    propose_tasks,
    read_declaration,
    resolve,
    task_model,
)
from edgemtl.profiling import count_graph
from edgemtl.runtime import block_of


@pytest.mark.parametrize("image", [(1, 3, *SIZE), ("batch", 3, "height", "width")])
def test_a_net_for_one_image_has_fixed_shapes_and_its_own_outputs(image: tuple[int | str, ...], tmp_path: Path) -> None:
    path = saved(three_tasks(image), tmp_path)
    net = open_net(str(path), SIZE)
    assert net.outputs == {"parsing": (1, 5, *SIZE), "pose.points": (1, 4), "pose.score": (1, 4), "best": (1, 8, 12)}
    left = {node.op_type for node in net.model.graph.node}
    assert not left & {"Shape", "Slice", "Concat"} and "Reshape" in left
    pixels = np.random.default_rng(1).normal(size=(1, 3, *SIZE)).astype(np.float32)
    theirs = onnxruntime.InferenceSession(str(path)).run(None, {"x": pixels})
    for own, value in zip(net.reference(pixels).values(), theirs, strict=True):
        np.testing.assert_allclose(own, value, rtol=1e-5, atol=1e-6)
    folded = onnxruntime.InferenceSession(net.model.SerializeToString()).run(None, {"x": pixels})
    for own, value in zip(folded, theirs, strict=True):
        np.testing.assert_allclose(own, value, rtol=1e-5, atol=1e-6)


def test_tasks_are_proposed_from_names_and_shapes_and_read_back(tmp_path: Path) -> None:
    net = open_net(str(saved(three_tasks(), tmp_path)))
    proposed = propose_tasks(net)
    assert {name: (task.kind, task.outputs) for name, task in proposed.tasks.items()} == {
        "parsing": ("segmentation", ("parsing",)),
        "pose": ("raw", {"points": "pose.points", "score": "pose.score"}),
        "best": ("raw", {"best": "best"}),
    }
    (tmp_path / "tasks.yaml").write_text(as_text(proposed))
    assert read_declaration(tmp_path / "tasks.yaml") == proposed
    resolved = resolve(net, proposed)
    assert (resolved.tasks[0].kind, resolved.tasks[0].channels) == ("segmentation", 5)
    assert [output.sizes for output in resolved.tasks[1].outputs] == [(4,), (4,)]


def test_maps_with_channels_last_are_proposed_raw(tmp_path: Path) -> None:
    """Their height would be taken for classes."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["a"], name="c"),
        helper.make_node("Transpose", ["a"], ["segments"], perm=[0, 2, 3, 1]),
    ]
    model = model_of(nodes, {"segments": TensorProto.FLOAT}, [weight("w", 4, 3, 3, 3)], (1, 16, 24, 3))
    assert propose_tasks(open_net(str(saved(model, tmp_path)))).tasks["segments"].kind == "raw"


def test_trunk_tasks_and_sums_are_found(tmp_path: Path) -> None:
    net = open_net(str(saved(three_tasks(), tmp_path)))
    model, structure = task_model(net, resolve(net, propose_tasks(net)))
    onnx.checker.check_model(model.model, full_check=True)
    operators = {block.name: [node.op_type for node in block.nodes] for block in structure.blocks}
    assert operators["trunk_1"] == ["Conv", "Relu"] and operators["trunk_2"] == ["Conv", "Add"]
    assert operators["parsing-best_1"] == ["Conv"] and operators["parsing_1"] == ["Resize"]
    owners = {block.name: structure.owner(block) for block in structure.blocks}
    assert owners["pose_1"] == "pose" and owners["trunk_1"] is None and owners["parsing-best_1"] is None
    (residual,) = structure.sums
    assert residual.block == "trunk_2" and residual.skips
    records = {record.name: record for record in block_records(model, structure)}
    assert records["trunk_2"].inputs == ("trunk_1",) and records["trunk_1"].inputs == ("image",)
    assert records["trunk_1"].flops == 2 * 8 * 27 * (SIZE[0] // 2) * (SIZE[1] // 2)
    cost, parts = count_graph(model.model), cost_by_owner(list(records.values()))
    assert sum(part.flops for part in parts.values()) == cost.total.flops
    assert sum(part.params for part in parts.values()) == cost.total.params
    finals = {info.name for info in model.model.graph.output}
    for block in structure.blocks:
        for node in block.nodes:
            assert block_of(node.name) == block.name
            assert all(block_of(tensor) == block.name for tensor in node.output if tensor not in finals)


def test_layout_type_and_batch_are_brought_to_what_engines_read(tmp_path: Path) -> None:
    net = open_net(str(saved(channels_last(), tmp_path)))
    assert (net.layout, net.size, net.outputs["Identity:0"]) == ("NHWC", SIZE, (4,))
    assert propose_tasks(net).input.mean == (0, 0, 0)
    declared = Declaration(
        tasks={"values": DeclaredTask(outputs=("Identity:0",)), "map": DeclaredTask(outputs=("Identity_1:0",))}
    )
    model, _ = task_model(net, resolve(net, declared))
    onnx.checker.check_model(model.model, full_check=True)
    image = np.floor(np.random.default_rng(0).uniform(0, 255, (1, 3, *SIZE))).astype(np.float32)
    session = onnxruntime.InferenceSession(model.model.SerializeToString())
    values, maps = session.run(["values", "map"], {"image": image})
    theirs = net.reference(image)
    assert values.shape == (1, 4) and maps.shape == theirs["Identity_1:0"].shape
    np.testing.assert_allclose(values[0], theirs["Identity:0"], rtol=1e-5)
    np.testing.assert_allclose(maps, theirs["Identity_1:0"], rtol=1e-5)
