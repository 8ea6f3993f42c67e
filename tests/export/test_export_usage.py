"""What a bundle tells of its experts: measured, true of the graphs that are written, and droppable by nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from experts import decisive, experts_yaml
from onnx import TensorProto, helper
from small import small_space

from edgemtl.bundle import read_manifest, share_dropped_by_model, share_dropped_by_target
from edgemtl.data import Sample, collate
from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, export_bundle
from edgemtl.export.usage import dropping_nothing
from edgemtl.models import MultiTaskNet, expert_usage
from edgemtl.models.graph.graph import trace
from edgemtl.targets import ExportTarget, TensorRtRtxTarget, find_target
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.tasks import make_task

ONNXRUNTIME = find_target("onnxruntime")
TENSORRT_RTX = find_target("tensorrt-rtx")

TASKS = (make_task("depth", "depth"), make_task("kind", "classification", 4))
YAML = experts_yaml("kept: [4], top_k: [1]", depth="[2]", hidden="[32]")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    return net_of(YAML, tmp_path_factory.mktemp("space"))


def net_of(text: str, folder: Path) -> MultiTaskNet:
    space = small_space(folder, TASKS, text)
    return decisive(space).extract(space.largest()).eval()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            rng.integers(0, 256, (64, 96, 3), dtype=np.uint8),
            {"depth": rng.uniform(1, 5, (64, 96)).astype(np.float32), "kind": np.int64(number % 4)},
            {"depth": np.ones((64, 96), bool), "kind": np.ones((), bool)},
        )
        for number in range(3)
    ]


def fits(model: onnx.ModelProto) -> list[str]:
    """The tensors that say which of a token's choices have a place."""
    return [name for node in model.graph.node for name in node.output if name.endswith(".kept") and ".routers." in name]


@pytest.mark.parametrize("capacity", [0.5, 1.0, 1.5])
def test_what_is_counted_is_what_buckets_drop(net: MultiTaskNet, samples: list[Sample], capacity: float) -> None:
    """Against the graph itself: the choices of every token whose place lies beyond the bucket."""
    import onnxruntime

    dispatch = DispatchPolicy("buckets", capacity)
    model = emit_graph(trace(net), dispatch)
    names = fits(model)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kept = [session.run(names, {"image": collate([sample]).image}) for sample in samples]
    usage = expert_usage(net, [torch.from_numpy(collate(samples).image)])
    assert len(names) == len(usage) == 2
    dropped_by_target = [1 - np.mean([image[index] for image in kept]) for index in range(2)]
    counted = [use.dropped_by_target(dispatch.limit(use.tokens, len(use.experts), use.top_k)) for use in usage]
    assert counted == pytest.approx(dropped_by_target)
    assert capacity > 1 or min(counted) > 0


def test_no_form_but_small_buckets_limits() -> None:
    assert DispatchPolicy("buckets", 1.5).limit(tokens=100, experts=10, top_k=2) == 30
    for dispatch in (
        DispatchPolicy("buckets"),
        DispatchPolicy("segments"),
        DispatchPolicy("masked"),
        DispatchPolicy("buckets", 5.0),
    ):
        assert dispatch.limit(100, 10, 2) == 100
    assert DispatchPolicy("buckets", 0.5).limit(100, 2, 2) == 100, "no token is routed where all go everywhere"


def export(net: MultiTaskNet, samples: list[Sample], folder: Path, targets: list[str], **more: Any) -> Any:
    export_bundle(net, "fp32", ExportRequest(targets, **more), folder, Evidence(samples, samples))
    return read_manifest(folder)


def test_a_bundle_tells_who_uses_which_expert(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    manifest = export(net, samples, tmp_path / "bundle", ["onnxruntime"])
    assert [(use.layer, use.task, use.experts) for use in manifest.experts] == [
        ("b2", "depth", (0, 1, 2, 3)),
        ("b2", "kind", (3, 4, 5, 0)),
    ]
    for use in manifest.experts:
        assert sum(use.shares) == pytest.approx(1)
        assert (use.top_k, use.tokens, use.images, use.dropped_by_target) == (1, 24, 3, {})
        assert use.expert_bytes == 4 * (32 * 16 + 16 + 16 * 32 + 32)
    assert manifest.cost.flops == net.plan.cost().flops
    assert manifest.cost.params == pytest.approx(net.plan.cost().params, abs=8), "the graph has a few constants more"
    dispatch = manifest.targets["onnxruntime"].dispatch
    assert (dispatch.form, dispatch.capacity) == ("segments", None)
    assert share_dropped_by_target(manifest.experts, "onnxruntime") == 0


def test_a_bundle_tells_what_the_net_itself_drops(net: MultiTaskNet, samples: list[Sample], tmp_path: Path) -> None:
    """As many as the same net without a bound would send beyond the places; engines are checked against the net."""
    bounded = net_of(YAML.replace("top_k: [1]}", "top_k: [1], capacity: 1.25}"), tmp_path)
    bounded.load_state_dict(net.state_dict())
    manifest = export(bounded, samples, tmp_path / "bundle", ["onnxruntime", "openvino"], exact=True)
    sent = expert_usage(net, [torch.from_numpy(collate(samples).image)])
    expected = [use.dropped_by_target(DispatchPolicy("buckets", 1.25).expert_capacity(24, 4, 1)) for use in sent]
    assert [use.dropped_by_model for use in manifest.experts] == pytest.approx(expected)
    assert share_dropped_by_model(manifest.experts) == pytest.approx(np.mean(expected)) and min(expected) > 0
    assert all(use.dropped_by_target == {} and use.most_tokens <= 8 for use in manifest.experts)
    forms = {name: target.dispatch.form for name, target in manifest.targets.items() if target.dispatch}
    assert forms == {"onnxruntime": "segments", "openvino": "buckets"}


def test_tensorrt_tells_what_it_drops_and_exactly_drops_none(
    net: MultiTaskNet, samples: list[Sample], tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    manifest = export(net, samples, tmp_path / "bundle", ["onnxruntime", "tensorrt-rtx"])
    assert manifest.targets["tensorrt-rtx"].dispatch.capacity == 1.5
    expert_capacity = DispatchPolicy("buckets", 1.5).expert_capacity(24, 4, 1)
    usage = expert_usage(net, [torch.from_numpy(collate(samples).image)])
    assert [use.dropped_by_target for use in manifest.experts] == [
        {"tensorrt-rtx": use.dropped_by_target(expert_capacity)} for use in usage
    ]
    assert share_dropped_by_target(manifest.experts, "tensorrt-rtx") > 0
    exact = export(net, samples, tmp_path / "exact", ["onnxruntime", "tensorrt-rtx"], exact=True)
    dispatch = exact.targets["tensorrt-rtx"].dispatch
    assert (dispatch.form, dispatch.capacity) == ("buckets", None)
    assert all(use.dropped_by_target == {} for use in exact.experts)


def test_exact_keeps_everything_else_of_a_target(net: MultiTaskNet) -> None:
    assert dropping_nothing(ONNXRUNTIME, net) is ONNXRUNTIME
    wide = TensorRtRtxTarget(TENSORRT_RTX.device, "blackwell", DispatchPolicy("buckets", 4.0))
    assert dropping_nothing(wide, net) is wide, "four even shares of four experts are all tokens"
    blackwell = TensorRtRtxTarget(TENSORRT_RTX.device, "blackwell")
    assert dropping_nothing(blackwell, net) == replace(blackwell, dispatch=DispatchPolicy("buckets"))
    assert TENSORRT_RTX.dispatch.capacity == 1.5


def test_a_capacity_that_would_drop_tokens_is_refused_where_exactness_was_asked(net: MultiTaskNet) -> None:
    class Fixed:
        traits = TENSORRT_RTX.traits
        scheme = TENSORRT_RTX.scheme
        dispatch = DispatchPolicy("buckets", 1.25)
        build = TENSORRT_RTX.build

    target: ExportTarget = Fixed()
    with pytest.raises(UserError, match=r"capacity of 1\.25 times an even share .* b2_depth may drop some") as caught:
        dropping_nothing(target, net)
    assert "\n" not in str(caught.value)
