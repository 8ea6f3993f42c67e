from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from two_heads import bundle_in, engine_in, two_headed

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.profiling import Profile, profile, read_profile, write_profile
from edgemtl.profiling.opening import measure_opening
from edgemtl.profiling.subjects import open_subject


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    path = two_headed(tmp_path_factory.mktemp("models") / "two.onnx")
    heard: list[tuple[int, int]] = []
    found = profile(path, runs=60, threads=1, report=lambda news: heard.append((news.done, news.total)))
    assert heard[-1] == (180, 180)
    return found


def test_every_mode_is_measured_with_its_samples(measured: Profile) -> None:
    assert measured.tasks == ("depth", "edges")
    assert [mode.name for mode in measured.modes] == ["all tasks", "only depth", "only edges"]
    for mode in measured.modes:
        block = mode.latency
        assert block.n == len(block.samples_ms) == 60
        assert block.p50_ms is not None and block.p90_ms is not None and block.p99_ms is None
        assert (block.device, block.runtime, block.kind, block.threads) == ("host", "onnxruntime", "measured", 1)


def test_what_is_derived_follows_from_what_was_measured(measured: Profile) -> None:
    medians = {mode.tasks: mode.latency.p50_ms for mode in measured.modes}
    together, depth, edges = (medians[key] for key in (("depth", "edges"), ("depth",), ("edges",)))
    assert together is not None and depth is not None and edges is not None
    assert measured.trunk_ms is not None and measured.trunk_ms.kind == "derived"
    assert measured.trunk_ms.value == pytest.approx(depth + edges - together)
    assert measured.separate_ms is not None and measured.separate_ms.value == pytest.approx(depth + edges)
    marginal = measured.task_costs["edges"].marginal_ms
    assert marginal is not None and marginal.value == pytest.approx(together - depth)


def test_operators_carry_their_blocks(measured: Profile) -> None:
    assert measured.operators is not None
    blocks = {row.name: row for row in measured.operators.by_block}
    assert {"trunk", "depth", "edges"} <= set(blocks)
    assert (blocks["edges"].owner, blocks["trunk"].owner) == ("edges", "")
    assert sum(row.share for row in measured.operators.by_block) == pytest.approx(1)
    assert sum(row.share for row in measured.operators.by_type) == pytest.approx(1)


def test_opening_is_measured_in_a_process_of_its_own(measured: Profile) -> None:
    opening = measured.opening
    assert opening is not None and opening.open_ms > 0
    if opening.baseline_bytes is not None:
        assert opening.open_peak_bytes is not None and opening.run_peak_bytes is not None
        assert opening.baseline_bytes < opening.open_peak_bytes <= opening.run_peak_bytes < 2**30


def test_memory_of_opening_is_not_that_of_the_parent(tmp_path: Path) -> None:
    ballast = np.ones(400 * 2**20, np.uint8)
    found = measure_opening(two_headed(tmp_path / "m.onnx"))
    assert found.run_peak_bytes is None or found.run_peak_bytes < ballast.nbytes


def test_round_trip(measured: Profile, tmp_path: Path) -> None:
    file = write_profile(measured, tmp_path)
    assert file == tmp_path / "profile.json"
    assert read_profile(tmp_path) == measured
    content = json.loads(file.read_text())
    assert content["schema"] == "edgemtl.profile/1"
    assert content["environment"]["packages"]["onnxruntime"]
    assert write_profile(measured, file) == file, "a profile takes the place of an older one"
    for text in ('{"schema": "mine"}', "", "mine"):
        (tmp_path / "mine").write_text(text)
        with pytest.raises(UserError, match="mine exists and is no profile: choose another --out"):
            write_profile(measured, tmp_path / "mine")
        assert (tmp_path / "mine").read_text() == text


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not valid JSON"), ("[1]", "schema 'list'"), ('{"schema": "edgemtl.profile/1"}', "name: Field required")],
)
def test_damaged_profiles_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_profile(tmp_path)


def test_a_mode_of_some_tasks_only(tmp_path: Path) -> None:
    found = profile(two_headed(tmp_path / "m.onnx", heads=("a", "b", "c")), runs=10, tasks=["c", "a"])
    assert found.tasks == ("a", "c")
    assert [mode.tasks for mode in found.modes] == [("a", "c"), ("a",), ("c",)]


def test_a_subset_keeps_what_a_condition_reads_from_around_it(tmp_path: Path) -> None:
    path = two_headed(tmp_path / "m.onnx")
    model = onnx.load(path)
    (edges,) = (node for node in model.graph.node if node.output[0] == "edges")
    branches = {}
    for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg")):
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        inner = [helper.make_node(operator, ["inner_edges"], [name])]
        branches[name] = helper.make_graph(inner, name, [], [output])
    edges.output[0] = "inner_edges"
    model.graph.node.append(helper.make_node("If", ["flag"], ["edges"], name="/edges/If", **branches))
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    onnx.save(model, path)
    found = profile(path, runs=10)
    assert [mode.tasks for mode in found.modes] == [("depth", "edges"), ("depth",), ("edges",)]


def test_subsets_of_outputs_compute_the_same(tmp_path: Path) -> None:
    subject = open_subject(two_headed(tmp_path / "m.onnx"))
    together: Any = subject.call(("depth", "edges"))()
    alone: Any = subject.call(("edges",))()
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-5)


def test_user_mistakes(tmp_path: Path) -> None:
    path = two_headed(tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="is not this machine"):
        profile(path, device="zcu102")
    with pytest.raises(UserError, match="did you mean depth"):
        profile(path, tasks=["dept"], runs=1)
    with pytest.raises(UserError, match="does not exist"):
        profile(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="cannot be profiled: give a bundle"):
        profile(tmp_path)
    with pytest.raises(UserError, match=r"unknown target that runs the ONNX file .*openvin.*did you mean openvino\?"):
        profile(path, target="openvin")
    with pytest.raises(UserError, match="at least 1 run"):
        profile(path, runs=0)
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(UserError, match="is no ONNX model"):
        profile(tmp_path / "bad.onnx")
    with pytest.raises(UserError, match="does not fit"):
        profile(path, shapes={"image": (1, 3, 48, 32)})
    with pytest.raises(UserError, match=r"unknown input of m\.onnx"):
        profile(path, shapes={"picture": (1, 3, 32, 32)})


def test_counts_are_split_into_trunk_and_tasks(measured: Profile) -> None:
    counts = measured.counts
    assert counts is not None
    positions = 32 * 32
    assert counts.trunk.flops == 2 * positions * 16 * 3 * 9
    assert {task: count.flops for task, count in counts.tasks.items()} == {
        "depth": 2 * positions * 4 * 16 * 9,
        "edges": 2 * positions * 32 * 16 * 9,
    }
    assert counts.total.flops == counts.trunk.flops + sum(count.flops for count in counts.tasks.values())
    assert counts.total.macs * 2 == counts.total.flops
    assert counts.total.weight_bytes == 4 * counts.total.params


def test_an_engine_folder_is_profiled_through_its_runtime(tmp_path: Path) -> None:
    folder = engine_in(tmp_path / "engine")
    found = profile(folder, runs=20, threads=1)
    assert (found.name, found.source, found.target, found.runtime) == ("engine", "engine", "onnxruntime", "onnxruntime")
    assert [mode.tasks for mode in found.modes] == [("depth", "edges"), ("depth",), ("edges",)]
    assert found.counts is not None and set(found.counts.tasks) == {"depth", "edges"}
    assert found.opening is not None and found.opening.first_run_ms > 0
    with pytest.raises(UserError, match="unknown target of engine"):
        profile(folder, target="openvino")


def test_a_bundle_is_verified_then_profiled(tmp_path: Path) -> None:
    folder, manifest = bundle_in(tmp_path / "bundle")
    engine = folder / "engines" / "onnxruntime"
    found = profile(folder, runs=20, threads=1)
    assert (found.name, found.source, found.target) == ("bundle", "bundle", "onnxruntime")
    assert found.engine_sha256 == manifest.engine_sha256("onnxruntime")
    with pytest.raises(UserError, match="did you mean onnxruntime"):
        profile(folder, target="onnxruntme", runs=20)
    (engine / "model.onnx").write_bytes(b"something else")
    with pytest.raises(UserError, match="was changed"):
        profile(folder, runs=20)
