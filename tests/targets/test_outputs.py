"""A task of two outputs, a map and a vector, from the families of nets to every kind of engine."""

from __future__ import annotations

import itertools
import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from experts import experts_yaml
from grid import GRID
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from small import SMALL, pictures, small_space, with_batch_statistics

from edgemtl.export import export_onnx
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.models.quantization import Ranges, calibrate, simulate
from edgemtl.profiling import count_graph
from edgemtl.runtime import EngineSpec, open_engine
from edgemtl.spaces import Space, prunable_channels, with_channels
from edgemtl.targets import PlainTarget, find_target
from edgemtl.tasks import Metric, Output, Task, by_tensor, make_task, map_outputs
from edgemtl.testing import images, settle

Outputs = dict[str, dict[str, NDArray[np.float32]]]
CROWD = Task(
    "crowd",
    "counting",
    1,
    metrics=(Metric("mae", higher_is_better=False),),
    outputs=(
        Output("density", 1, dense=True, unit="persons"),
        Output("count", 2, dense=False, unit="persons"),
        Output("parts", 3, dense=True),
    ),
)
TASKS = (make_task("depth", "depth"), CROWD, make_task("kind", "classification", 4))
TEXTS = {"cnn": SMALL, "grid": GRID, "vit": experts_yaml("kept: [2, 4], top_k: [1, 2]")}
NAMES = tuple(task.name for task in TASKS)
TENSORS = ("depth", "crowd.density", "crowd.count", "crowd.parts", "kind")


@pytest.fixture(scope="module", params=TEXTS)
def space(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Space:
    return small_space(tmp_path_factory.mktemp(request.param), TASKS, TEXTS[request.param])


@pytest.fixture(scope="module")
def net(space: Space) -> MultiTaskNet:
    torch.manual_seed(0)
    made = Supernet.of(space).extract(space.random(random.Random(3)))
    settle(made)
    return made


@pytest.fixture(scope="module")
def image(net: MultiTaskNet) -> torch.Tensor:
    return images(1, net.input_size, seed=5)


def eight_bit(net: MultiTaskNet) -> tuple[dict[str, str], Ranges]:
    """Every block in INT8 but those that route tokens, where the last bit decides which experts they go to."""
    convolutions = [block.parameters for block in net.plan.blocks if not block.heads]
    return {"engine": "fp32", **dict.fromkeys(convolutions, "int8")}, calibrate(net, images(4, net.input_size))


def test_maps_share_a_decoder_and_vectors_another(space: Space) -> None:
    blocks = {block.name: block for block in space.largest().plan.blocks if block.name.startswith("crowd_")}
    assert set(blocks) == {
        "crowd_neck", "crowd_body", "crowd_head_density", "crowd_head_parts", "crowd_pool", "crowd_head_count",
    }  # fmt: skip
    for name, before, channels in (("density", "body", 16), ("parts", "body", 48), ("count", "pool", 2)):
        head = blocks[f"crowd_head_{name}"]
        assert (head.inputs, head.convs[-1].outputs, head.output) == ((f"crowd_{before}",), channels, name)
    announced = space.family.blocks(space.spec, TASKS)
    assert {name for name in announced if name.startswith("crowd_")} == set(blocks)
    assert {block.name for block in space.largest().plan.blocks if block.name.startswith(("depth_", "kind_"))} == {
        "depth_neck", "depth_body", "depth_head", "kind_neck", "kind_head",
    }  # fmt: skip


def test_a_design_is_cut_out_of_the_supernet(space: Space) -> None:
    torch.manual_seed(0)
    supernet, batch = Supernet.of(space), pictures(2, space.size)
    design = space.random(random.Random(1))
    with torch.no_grad():
        expected = by_tensor(supernet(batch, design).outputs)
        found = by_tensor(with_batch_statistics(supernet.extract(design))(batch))
    height, width = space.size
    assert tuple(found) == TENSORS
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == {
        "depth": (1, height, width), "crowd.density": (1, height, width), "crowd.count": (2,),
        "crowd.parts": (3, height, width), "kind": (4,),
    }  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def test_what_outputs_mean_is_never_pruned(net: MultiTaskNet) -> None:
    prunable = prunable_channels(net.plan)
    assert not [name for name in prunable if "_head" in name]
    assert "crowd_pool.linear" in prunable
    fewer = MultiTaskNet(with_channels(net.plan, {"crowd_pool.linear": 3, "crowd_body.conv1": 5}), TASKS).eval()
    shapes = {name: value.shape for name, value in by_tensor(fewer(images(1, net.input_size))).items()}
    assert shapes == {name: value.shape for name, value in by_tensor(net(images(1, net.input_size))).items()}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_in_eight_bits_is_its_simulation_in_every_subset(
    net: MultiTaskNet, image: torch.Tensor, tmp_path: Path, name: str
) -> None:
    target = find_target(name)
    precision, ranges = eight_bit(net)
    target.build(net, precision, ranges, tmp_path)
    with torch.no_grad():
        exact = by_tensor(net(image))
    simulated = simulate(net, precision, ranges, target.scheme)(image)
    with closing(open_engine(tmp_path, threads=1)) as session:
        for wanted in [names for size in (1, 2, 3) for names in itertools.combinations(NAMES, size)]:
            found = session.run(image.numpy(), wanted)
            assert {task: list(own) for task, own in found.items()} == {
                task.name: [output.name for output in task.outputs] for task in TASKS if task.name in wanted
            }
            expected = by_tensor({task: simulated[task] for task in wanted})
            for tensor, value in by_tensor(found).items():
                rounding = float((expected[tensor] - exact[tensor]).norm())
                apart = float(np.linalg.norm(value - expected[tensor].numpy()))
                assert apart <= 0.5 * rounding + 1e-3 * float(exact[tensor].norm()), (wanted, tensor)
        ran = {entry.block for entry in session.operator_times(image.numpy(), ["crowd"], 1)}
        assert not [block for block in ran if block.startswith(("depth_", "kind_"))]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_plain_file_has_an_output_for_each(net: MultiTaskNet, image: torch.Tensor, tmp_path: Path, name: str) -> None:
    target, given = find_target(name), []
    assert isinstance(target, PlainTarget)
    spec = target.build_plain(net, {"engine": "fp32"}, None, tmp_path, lambda model: given.append(model) or model)
    assert [output.name for output in given[0].graph.output] == list(TENSORS)
    spec.write(tmp_path)
    assert EngineSpec.read(tmp_path).outputs["crowd"]["count"] == "crowd.count"
    with closing(open_engine(tmp_path, threads=1, modes=[NAMES])) as session, torch.no_grad():
        assert_close(session.run(image.numpy(), NAMES), net, image)


def test_weights_are_streamed_for_every_subset(net: MultiTaskNet, image: torch.Tensor, tmp_path: Path) -> None:
    find_target("streaming").build(net, {}, None, tmp_path)
    with closing(open_engine(tmp_path)) as session, torch.no_grad():
        for wanted in (["crowd"], ["kind", "crowd"], NAMES):
            assert_close(session.run(image.numpy(), wanted), net.subset(sorted(wanted, key=NAMES.index)), image)


def test_the_onnx_file_says_which_outputs_a_task_has(net: MultiTaskNet, image: torch.Tensor, tmp_path: Path) -> None:
    export_onnx(net, tmp_path / "net.onnx")
    counts = count_graph(tmp_path / "net.onnx")
    assert list(counts.tasks) == list(NAMES)
    assert counts.paths["crowd"].flops == net.plan.cost(tasks="crowd").flops
    if not any(block.experts for block in net.plan.blocks):
        found = ReferenceEvaluator(str(tmp_path / "net.onnx")).run(list(TENSORS), {"image": image.numpy()})
        with torch.no_grad():
            for value, expected in zip(found, by_tensor(net(image)).values(), strict=True):
                np.testing.assert_allclose(value, expected.numpy(), rtol=1e-3, atol=1e-3)


def assert_close(found: Outputs, net: MultiTaskNet, image: torch.Tensor) -> None:
    expected = map_outputs(torch.Tensor.numpy, net(image))
    assert {task: list(own) for task, own in found.items()} == {task: list(own) for task, own in expected.items()}
    for name, value in by_tensor(found).items():
        np.testing.assert_allclose(value, by_tensor(expected)[name], rtol=1e-3, atol=1e-3)
