from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from experts import TASKS, decisive, experts_yaml
from small import small_space

from edgemtl.models import MultiTaskNet
from edgemtl.models.graph.evaluate import run_graph
from edgemtl.models.graph.graph import trace
from edgemtl.models.nets.experts import Experts
from edgemtl.models.quantization import calibrate
from edgemtl.profiling import count_graph
from edgemtl.runtime import Session, open_engine
from edgemtl.spaces import Design
from edgemtl.targets import find_target
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.tasks import by_tensor

YAML = experts_yaml("kept: [2, 4], top_k: [1, 2]")


Designs = list[tuple[Design, MultiTaskNet]]


@pytest.fixture(scope="module")
def designs(tmp_path_factory: pytest.TempPathFactory) -> Designs:
    return designs_of(YAML, tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Designs:
    """The same nets, whose experts take no more than an even share of an image's tokens."""
    return designs_of(YAML.replace("top_k: [1, 2]}", "top_k: [1, 2], capacity: 1}"), tmp_path_factory.mktemp("bounded"))


def designs_of(text: str, folder: Path) -> Designs:
    space = small_space(folder, TASKS, text)
    supernet = decisive(space)
    drawn = [space.largest(), space.smallest(), space.random(random.Random(1))]
    plain = [space.design({k: v for k, v in d.items() if not k.endswith("precision")}) for d in drawn]
    return [(design, supernet.extract(design)) for design in plain]


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@contextmanager
def engine(net: MultiTaskNet, target: str, folder: Path) -> Iterator[Session]:
    find_target(target).build(net, {}, None, folder)
    with closing(open_engine(folder, threads=1)) as session:
        yield session


def test_the_graph_computes_what_the_net_does(designs: Designs, image: torch.Tensor) -> None:
    for _, net in designs:
        with torch.no_grad():
            expected = by_tensor(net(image))
        for task, found in by_tensor(run_graph(trace(net), image)).items():
            assert torch.allclose(found, expected[task], atol=1e-5)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "streaming"])
def test_engines_route_as_the_net_does(
    designs: Designs, bounded: Designs, image: torch.Tensor, target: str, tmp_path: Path
) -> None:
    """Exactly: no token is dropped that the net does not drop itself; any task alone, and all together."""
    for number, (_, net) in enumerate([*designs, *bounded]):
        with torch.no_grad():
            expected = by_tensor(net(image))
        folder = tmp_path / str(number)
        folder.mkdir()
        with engine(net, target, folder) as session:
            for names in (["depth"], ["semseg"], ["semseg", "depth", "kind"]):
                for task, found in by_tensor(session.run(image.numpy(), names)).items():
                    assert np.abs(found - expected[task].numpy()).max() < 1e-4


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_of_equal_gates_those_of_the_earlier_tokens_are_kept(image: torch.Tensor, target: str, tmp_path: Path) -> None:
    """All gates are equal where the one that is left is divided by itself, many on an image of one colour."""
    bounded_to_one = "top_k: [1], capacity: 1}"
    cases = {
        "divided": (bounded_to_one.replace("}", ", renormalise: true}"), image),
        "one colour": (bounded_to_one, torch.full((1, 3, 64, 96), 0.3)),
    }
    for name, (experts, shown) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        _, net = designs_of(YAML.replace("top_k: [1, 2]}", experts), folder)[1]
        with torch.no_grad():
            expected = by_tensor(net(shown))["depth"].numpy()
        with engine(net, target, folder) as session:
            assert np.abs(by_tensor(session.run(shown.numpy(), "depth"))["depth"] - expected).max() < 1e-4, name


def run_file(model: onnx.ModelProto, image: torch.Tensor, task: str) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([task], {"image": image.numpy()})[0])


@pytest.mark.parametrize("dispatch", [DispatchPolicy("segments"), DispatchPolicy("buckets"), DispatchPolicy("masked")])
def test_every_form_gives_the_same(
    designs: Designs, bounded: Designs, image: torch.Tensor, dispatch: DispatchPolicy
) -> None:
    for _, net in [*designs, *bounded]:
        with torch.no_grad():
            expected = by_tensor(net(image))["depth"].numpy()
        assert np.abs(run_file(emit_graph(trace(net), dispatch), image, "depth") - expected).max() < 1e-4


def test_places_are_a_multiple_of_an_even_share() -> None:
    assert DispatchPolicy("buckets", 1.25).expert_capacity(tokens=196, experts=16, top_k=4) == 62
    assert DispatchPolicy("buckets", 100.0).expert_capacity(196, 16, 4) == 196
    assert DispatchPolicy("buckets").expert_capacity(196, 16, 4) == 196


def test_too_few_places_drop_tokens_and_nothing_else(designs: Designs, image: torch.Tensor) -> None:
    """The outputs differ from the exact ones, and are finite: what has no place counts as nothing."""
    _, net = designs[0]
    exact = run_file(emit_graph(trace(net), DispatchPolicy("buckets")), image, "depth")
    tight = run_file(emit_graph(trace(net), DispatchPolicy("buckets", 0.5)), image, "depth")
    assert np.isfinite(tight).all()
    assert np.abs(tight - exact).max() > 1e-3


def test_what_a_net_has_no_place_for_is_what_counts_least(designs: Designs, bounded: Designs) -> None:
    """Expert by expert: the largest gates of an image stay, as many as there are places, and all others go."""
    for (_, free), (_, bound) in zip(designs, bounded, strict=True):
        for layer, limited in zip(mixtures(free), mixtures(bound), strict=True):
            limited.load_state_dict(layer.state_dict())
            tokens = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(2))
            for name, router in limited.routers.items():
                expert_capacity = math.ceil(24 * router.routing.plan.top_k / len(router.routing.plan.numbers))
                for sent, kept in zip(layer.routers[name](tokens), router(tokens), strict=True):
                    largest = sent.sort(0, descending=True).values[:expert_capacity]
                    assert torch.equal(kept.sort(0, descending=True).values[:expert_capacity], largest)
                    assert (kept > 0).sum(0).tolist() == (largest > 0).sum(0).tolist()


def mixtures(net: MultiTaskNet) -> list[Experts]:
    return [module for module in net.modules() if isinstance(module, Experts)]


def test_static_forms_have_no_shape_that_data_decides(designs: Designs) -> None:
    model = emit_graph(trace(designs[0][1]), DispatchPolicy("buckets", 1.5))
    assert not {node.op_type for node in model.graph.node} & {"NonZero", "ScatterND", "ScatterElements", "Loop"}
    for info in model.graph.value_info:
        assert all(size.HasField("dim_value") for size in info.type.tensor_type.shape.dim), info.name


def test_weights_that_tasks_share_are_stored_once(designs: Designs) -> None:
    design, net = designs[0]
    stored = sum(
        int(np.prod(tensor.dims)) for tensor in emit_graph(trace(net)).graph.initializer if tensor.data_type == 1
    )
    assert stored == pytest.approx(design.cost().params, rel=0.01)


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_flops_of_experts_are_counted_for_all_tokens(designs: Designs, tmp_path: Path, precision: str) -> None:
    """As the plan has them, though the file does not say how many tokens each expert gets."""
    for number, (design, net) in enumerate(designs):
        folder = tmp_path / str(number)
        folder.mkdir()
        kinds = dict.fromkeys(net.blocks, precision)
        ranges = calibrate(net, [torch.randn(4, 3, 64, 96)]) if precision == "int8" else None
        find_target("onnxruntime").build(net, kinds, ranges, folder)
        cost = count_graph(folder / "model.onnx")
        assert cost.total.flops == design.cost().flops
        assert {task: path.flops for task, path in cost.paths.items()} == {
            task.name: design.cost([task.name]).flops for task in TASKS
        }
