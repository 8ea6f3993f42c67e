"""The reference executor honours the contract of targets, and holds two experts' weights however many there are."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemtl.errors import EngineWarning, UnsupportedError, UserError
from edgemtl.models import MultiTaskNet
from edgemtl.models.graph.graph import Graph, Node, trace
from edgemtl.models.nets.experts import Experts
from edgemtl.models.nets.tokens import ToTokens
from edgemtl.runtime import open_engine
from edgemtl.runtime.streaming.session import StreamingSession
from edgemtl.spaces.families.vit import VitSpec, vit_plan
from edgemtl.spaces.plan import ConvPlan, ExpertsPlan
from edgemtl.targets import find_target
from edgemtl.targets.streaming import stream_graph
from edgemtl.tasks import by_tensor, make_task
from edgemtl.testing import TASKS, TargetConformance, images, settle, small_net

STREAMING = find_target("streaming")

SIZE = (64, 96)
VIT_TASKS = (*TASKS[:2], make_task("kind", "classification", 4))
NAMES = [task.name for task in VIT_TASKS]
EXPERT_HIDDEN, WIDTH = 64, 32
Array = NDArray[np.float32]


class TestStreaming(TargetConformance):
    """The contract."""

    target = STREAMING


def vit(count: int = 6, top_k: int = 2, kept: int | None = None, stem: tuple[int, ...] = (8, 8, 16)) -> MultiTaskNet:
    """A small mixture-of-experts ViT whose routers choose clearly."""
    experts = {"every": 2, "count": count, "hidden": EXPERT_HIDDEN, "kept": [kept or count], "top_k": [top_k]}
    spec = VitSpec.model_validate(
        {"stem": stem, "width": WIDTH, "head_width": 16, "heads": [2], "depth": [4], "hidden": [64],
         "experts": experts, "decoder": {"width": [8], "depth": [1]}}
    )  # fmt: skip
    torch.manual_seed(0)
    net = MultiTaskNet(vit_plan(spec, VIT_TASKS, {}, SIZE), VIT_TASKS)
    settle(net)
    for name, parameter in net.named_parameters():
        if ".routers." in name:
            parameter.data.mul_(8)
    return net


def opened(net: nn.Module, folder: Path) -> StreamingSession:
    STREAMING.build(net, {"engine": "fp32"}, None, folder)  # type: ignore[arg-type]
    session = open_engine(folder, threads=1)
    assert isinstance(session, StreamingSession)
    return session


def graph_of(folder: Path) -> Any:
    return json.loads((folder / "graph.json").read_text())


def mixtures(folder: Path) -> list[Any]:
    return [operator for operator in graph_of(folder)["operators"] if operator["op"] == "Mixture"]


def span(operators: list[Any]) -> tuple[int, int]:
    """Offset and bytes of what some operators read."""
    weights = [weight for operator in operators for weight in operator.get("weights", {}).values()]
    start = min(weight["offset"] for weight in weights)
    end = max(weight["offset"] + 4 * math.prod(weight["shape"]) for weight in weights)
    return start, -(-(end - start) // 64) * 64


@pytest.mark.parametrize("form", [{}, {"kept": 4, "top_k": 1}, {"count": 4, "top_k": 4}, {"stem": ()}], ids=str)
def test_experts_are_those_of_the_net_for_any_tasks(form: dict[str, Any], tmp_path: Path) -> None:
    net, image = vit(**form), images(1, SIZE)
    with torch.no_grad():
        expected = by_tensor(net(image))
    with closing(opened(net, tmp_path)) as session:
        for names in (["depth"], ["kind", "semseg"], NAMES):
            found = by_tensor(session.run(image.numpy(), names))
            assert set(found) == set(names)
            for task, value in found.items():
                assert np.abs(value - expected[task].numpy()).max() < 1e-4


class OneMixture(nn.Module):
    """Three values a token straight into a mixture, in the form that is traced."""

    input_size = (3, 4)

    def __init__(self, numbers: tuple[int, ...], top_k: int, renormalise: bool) -> None:
        super().__init__()
        linear = ConvPlan("first", 3, 5, 1, 1, 1, 3, 4)
        second = ConvPlan("second", 5, 3, 1, 1, 1, 3, 4)
        router = ConvPlan("depth", 3, len(numbers), 1, 1, 1, 3, 4)
        self.mixture = Experts([ExpertsPlan(router, numbers, top_k, linear, second, renormalise)])
        self.blocks = nn.ModuleDict({"b": nn.ModuleDict({"tokens": ToTokens(12), "mixture": self.mixture})})
        self.block_tasks: dict[str, str | None] = {"b": None}

    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        block = self.blocks["b"]
        return {"depth": {"tokens": block["mixture"](block["tokens"](image), "depth")}}


def token_by_token(layer: Experts, image: Array, top_k: int, renormalise: bool) -> Array:
    """The published sum, y = sum over the top k of p_k f_k(x), with no queue anywhere."""
    values = {name: parameter.detach().numpy().astype(np.float64) for name, parameter in layer.named_parameters()}
    weight, bias = (tensor.detach().numpy().astype(np.float64) for tensor in layer.routers["depth"].linear())
    out = np.zeros((12, 3))
    for token, x in enumerate(image.reshape(3, 12).T.astype(np.float64)):
        logits = weight @ x + bias
        p = np.exp(logits - logits.max())
        p /= p.sum()
        best = np.argsort(-p)[:top_k]
        for position in best:
            name = f"experts.{layer.numbers['depth'][position]}"
            hidden = values[f"{name}.first.weight"] @ x + values[f"{name}.first.bias"]
            hidden = np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in hidden])
            result = values[f"{name}.second.weight"] @ hidden + values[f"{name}.second.bias"]
            out[token] += p[position] / (p[best].sum() if renormalise else 1) * result
    return out[None].astype(np.float32)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(("numbers", "top_k"), [((0, 1, 2, 3), 2), ((2, 3, 0), 1), ((5, 1), 2)])
def test_a_mixture_is_the_published_sum(
    numbers: tuple[int, ...], top_k: int, renormalise: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    net = OneMixture(numbers, top_k, renormalise).eval()
    image = torch.randn(1, 3, 3, 4).numpy()
    with closing(opened(net, tmp_path)) as session:
        found = by_tensor(session.run(image, ["depth"]))["depth"]
    np.testing.assert_allclose(found, token_by_token(net.mixture, image, top_k, renormalise), atol=1e-5)


def test_weights_held_are_two_experts_however_many_there_are(tmp_path: Path) -> None:
    image, sessions = images(1, SIZE).numpy(), {}
    for count in (4, 8, 32):
        with closing(opened(vit(count), tmp_path / str(count))) as session:
            session.run(image, NAMES)
            sessions[count] = session
    expert = span(mixtures(tmp_path / "4")[0]["experts"][0]["operators"])[1]
    assert expert == 4 * (2 * WIDTH * EXPERT_HIDDEN + WIDTH + EXPERT_HIDDEN)
    assert {session.peak_weight_bytes for session in sessions.values()} == {2 * expert}
    assert sessions[32].weight_bytes > 3 * sessions[4].weight_bytes


def test_the_buffer_is_the_two_largest_neighbours(tmp_path: Path) -> None:
    """Of a net without experts: whichever tasks run, the sum of two pieces that follow each other."""
    with closing(opened(small_net("fused"), tmp_path)) as session:
        for size in (3, 2, 1):
            for names in itertools.combinations(session.tasks, size):
                session.run(images(1).numpy(), names)
        pieces = [span([each])[1] for each in graph_of(tmp_path)["operators"] if each.get("weights")]
        assert session.peak_weight_bytes <= session._stream.buffer_bytes <= sum(sorted(pieces)[-2:])
        assert session.peak_weight_bytes >= max(map(sum, itertools.pairwise(pieces)))
        assert session.weight_bytes == sum(pieces)


def test_an_expert_without_tokens_is_never_read(tmp_path: Path) -> None:
    """What was read is the rest to the byte, and what lies in its place in the file does not matter."""
    net, image = vit().subset(["depth"]), images(1, SIZE).numpy()
    for layer in (module for module in net.modules() if isinstance(module, Experts)):
        router = layer.routers["depth"]
        router.bias.data = torch.arange(len(router.bias), dtype=torch.float32)
        rows = router.linear()[1].long()  # where the weights of each expert, in the order of their numbers, are stored
        router.bias.data = torch.zeros(len(router.bias))
        router.bias.data[rows[[1, 3, 4]]] = -1000.0
    with closing(opened(net, tmp_path)) as session:
        expected = by_tensor(session.run(image, ["depth"]))["depth"]
        read = session.read_bytes
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    unread = 0
    for mixture in mixtures(tmp_path):
        for position in (1, 3, 4):
            start, size = span(mixture["experts"][position]["operators"])
            content[start : start + size] = b"\xff" * size
            unread += size
    (tmp_path / "weights.bin").write_bytes(content)
    with closing(open_engine(tmp_path)) as session:
        np.testing.assert_array_equal(by_tensor(session.run(image, ["depth"]))["depth"], expected)
    assert read == len(content) - unread


def test_no_token_for_any_expert_is_nothing_added(tmp_path: Path) -> None:
    """As in PyTorch, where a gate that is no number is not larger than 0 either."""
    net = OneMixture((0, 1, 2), 1, False).eval()
    with closing(opened(net, tmp_path)) as session, np.errstate(invalid="ignore"):
        found = by_tensor(session.run(np.full((1, 3, 3, 4), np.nan, np.float32), ["depth"]))["depth"]
    np.testing.assert_array_equal(found, np.zeros((1, 12, 3), np.float32))


def test_a_subset_reads_its_own_weights_only(tmp_path: Path) -> None:
    net, image = small_net(), images(1).numpy()
    with closing(opened(net, tmp_path)) as session:
        session.run(image, session.tasks)
        assert session.read_bytes == session.weight_bytes
        session.run(image, ["depth"])
        alone = session.read_bytes
    folder = tmp_path / "alone"
    with closing(opened(net.subset(["depth"]), folder)) as session:
        assert alone == session.weight_bytes < graph_of(tmp_path)["weight_bytes"]


def test_weights_that_tasks_share_lie_in_the_file_once(tmp_path: Path) -> None:
    net = vit()
    with closing(opened(net, tmp_path)) as session:
        floats = sum(parameter.numel() for parameter in net.parameters())
        assert session.weight_bytes == pytest.approx(4 * floats, rel=0.1)
    assert len(mixtures(tmp_path)) == 2 * len(NAMES)


def test_a_tensor_is_freed_after_its_last_reader() -> None:
    for net in (small_net(), vit()):
        graph, _ = stream_graph(trace(net))
        for names in (["depth"], [task.name for task in net.tasks]):
            stretch, alive = graph.stretch(names), {"image"}
            for operator, dropped in zip(stretch.operators, stretch.dropped, strict=True):
                assert set(operator.inputs) <= alive
                alive |= {operator.output}
                alive -= set(dropped)
            assert alive == set(names)


def test_waiting_for_weights_is_told_beside_the_operators(tmp_path: Path) -> None:
    with closing(opened(vit(), tmp_path)) as session:
        times = session.operator_times(images(1, SIZE).numpy(), ["semseg"], 2)
    names = {entry.name: entry for entry in times}
    assert names["blocks.b2.mixture.experts.0.first"].block == "b2"
    assert names["blocks.b2.mixture.experts.0.first.weights"].op == "Load"
    assert {"Mixture", "Router", "Attention", "Conv"} <= {entry.op for entry in times}
    assert len(names) == len(times)


def test_an_operator_without_a_counterpart_is_refused_by_name() -> None:
    node = Node("blocks.b.act", "Selu", ("image",), "depth", "b", None)
    graph = Graph((node,), "image", (4, 4), {"depth": "depth"}, {"b": None})
    with pytest.raises(UnsupportedError, match=r"target streaming: operator Selu at blocks\.b\.act"):
        stream_graph(graph)


def test_threads_that_cannot_be_set_are_said(tmp_path: Path) -> None:
    STREAMING.build(small_net(), {}, None, tmp_path)
    with pytest.warns(EngineWarning, match="OMP_NUM_THREADS=7"):
        open_engine(tmp_path, threads=7).close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine whose first operator has weights, and which has mixtures."""
    folder = tmp_path_factory.mktemp("engine")
    opened(vit(stem=()).subset(["kind"]), folder).close()
    return folder


def change(**values: Any) -> Callable[[Any], Any]:
    return lambda graph: {**graph, **values}


def first(**values: Any) -> Callable[[Any], Any]:
    return lambda graph: {**graph, "operators": [{**graph["operators"][0], **values}, *graph["operators"][1:]]}


def mixture(**values: Any) -> Callable[[Any], Any]:
    def changed(graph: Any) -> Any:
        operators = [{**each, **values} if each["op"] == "Mixture" else each for each in graph["operators"]]
        return {**graph, "operators": operators}

    return changed


EXPERT = {"name": "e", "op": "Gelu", "inputs": ["t"], "output": "e"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (change(schema="edgemtl.streaming/9"), "this version reads 'edgemtl.streaming/1'"),
        (lambda graph: [graph], "schema 'list'"),
        (change(more=1), "more"),
        (change(operators=[]), "operators"),
        (change(weight_bytes=64), "beyond the end"),
        (change(weight_bytes=1 << 30), "bytes where graph.json speaks of"),
        (first(op="Loop"), "none that this version computes"),
        (first(op="Add"), "takes 2 inputs, not 1"),
        (first(inputs=["nothing"]), "reads 'nothing', which nothing wrote"),
        (first(output="image"), "writes twice"),
        (first(attributes={"group": 1}), "has the attributes"),
        (first(weights={}), "has the weights"),
        (first(weights={"weight": {"offset": 1, "shape": [1]}}), "multiple of 64"),
        (first(weights={"weight": {"offset": 0, "shape": [0]}}), "greater than or equal to 1"),
        (first(experts=[{"input": "t", "output": "e", "operators": [EXPERT]}]), "none that this version computes"),
        (mixture(inputs=["image"]), "takes tokens"),
        (mixture(experts=[{"input": "t", "output": "e", "operators": [{**EXPERT, "inputs": ["image"]}]}]), "'image'"),
        (mixture(experts=[{"input": "t", "output": "f", "operators": [EXPERT]}]), "does not write its output 'f'"),
        (mixture(output="image"), "writes twice"),
    ],
)
def test_a_graph_that_cannot_be_run_is_refused_in_one_line(
    engine: Path, tmp_path: Path, changed: Callable[[Any], Any], reason: str
) -> None:
    folder = shutil.copytree(engine, tmp_path / "engine")
    (folder / "graph.json").write_text(json.dumps(changed(graph_of(engine))))
    with pytest.raises(UserError) as caught:
        open_engine(folder)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_were_cut_or_mixed_up_are_refused(tmp_path: Path) -> None:
    for name, reason in (("graph.json", "not valid JSON"), ("weights.bin", "cut short")):
        opened(small_net(), tmp_path).close()
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=reason) as caught:
            open_engine(tmp_path)
        assert "\n" not in str(caught.value)
    opened(small_net(), tmp_path).close()
    spec = json.loads((tmp_path / "engine.json").read_text())
    spec["options"]["outputs"]["depth"] = {"log_metres": "another"}
    (tmp_path / "engine.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="no tensor 'another'"):
        open_engine(tmp_path)


def test_weights_that_do_not_fit_their_operator_are_an_error_of_one_line(tmp_path: Path) -> None:
    opened(small_net(), tmp_path).close()
    graph = graph_of(tmp_path)
    graph["operators"][0]["weights"]["weight"]["shape"] = [2, 2, 2, 2]
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    with closing(open_engine(tmp_path)) as session, pytest.raises(UserError, match="operator Conv of") as caught:
        session.run(images(1).numpy(), ["depth"])
    assert "\n" not in str(caught.value)
