"""Precision of a net of one's own, searched end to end on a net that INT8 hurts in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from own_nets import model_of, saved, weight, write_photos
from refusals import refused

from edgemtl.bundle import read_manifest
from edgemtl.cli import main
from edgemtl.export import ExportRequest, Rounding, export_own_net
from edgemtl.nas.evaluation import RATIO_ALLOWED
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.nas.precision.bench import Bench
from edgemtl.own import open_net, propose_tasks
from edgemtl.progress import Progress
from edgemtl.results import Entry

SIZE = (48, 64)


def uniform(entry: Entry) -> bool:
    """Whether all blocks have one precision: a mixture is chosen only where it is clearly faster than these."""
    return len({option for name, option in entry.design.items() if name != "engine"}) == 1


def one_fragile_block() -> onnx.ModelProto:
    """A trunk, a head that INT8 does not hurt, and one whose values lie in channels a thousand times apart."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="unit", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"], name="act2"),
        helper.make_node("Conv", ["d", "w3"], ["robust"], name="robust"),
        helper.make_node("Conv", ["d", "spread"], ["e"], name="spread"),
        helper.make_node("Conv", ["e", "gather"], ["fragile"], name="gather"),
    ]
    scale = np.logspace(-1.5, 1.5, 16).astype(np.float32).reshape(16, 1, 1, 1)
    small, large = np.random.default_rng(1).normal(0, 0.4, (2, 16, 16, 1, 1)).astype(np.float32)
    constants = [
        weight("w1", 16, 3, 3, 3),
        weight("w2", 16, 16, 3, 3),
        weight("w3", 4, 16, 1, 1),
        numpy_helper.from_array(small * scale, "spread"),
        numpy_helper.from_array((large / scale.reshape(1, 16, 1, 1))[:4].copy(), "gather"),
    ]
    return model_of(nodes, dict.fromkeys(("robust", "fragile"), TensorProto.FLOAT), constants, (1, 3, *SIZE))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), SIZE)


@pytest.fixture
def request_of(photos: Path, tmp_path: Path) -> Callable[..., PrecisionRequest]:
    net = open_net(str(saved(one_fragile_block(), tmp_path)))

    def make(**options: Any) -> PrecisionRequest:
        given = {"data": photos, "out": tmp_path / "run", "floors": ("robust=10%", "fragile=5%"), **options}
        return PrecisionRequest(net, propose_tasks(net), **given)

    return make


def test_floors_decide_uniform_precisions_are_measured_and_the_choice_is_exported(
    request_of: Callable[..., PrecisionRequest], photos: Path
) -> None:
    request = request_of(target="onnxruntime")
    result = search_precision(request)
    by_name = {entry.name: entry for entry in result.front}
    assert {"best", "baseline"} <= set(by_name) and result.best == result.front[0]
    assert by_name["baseline"].latency_ms is not None and set(by_name["baseline"].design.values()) == {"fp32", "float"}
    eight = next(entry for entry in result.front if set(entry.design.values()) == {"fp32", "int8"})
    assert [check.name for check in eight.broken] == ["floor fragile=5%"]
    assert result.feasible and all(check.kept for check in result.best.limits)
    feasible = [entry for entry in result.front if entry.feasible]
    assert all(result.best.latency_ms.value <= entry.latency_ms.value for entry in feasible if uniform(entry))
    assert all(RATIO_ALLOWED * result.best.latency_ms.value <= entry.latency_ms.value for entry in feasible)
    assert {*result.block_losses} == {*eight.design} - {"engine"}
    fragile = max(result.block_losses.values(), key=lambda lost: lost["fragile"])
    assert fragile["fragile"] > 0.05 and fragile["robust"] == 0.0, "a block of the fragile task's own"
    manifest = export_own_net(
        request.net,
        request.declaration,
        ExportRequest("onnxruntime"),
        request.out / "bundle",
        rounding=Rounding(str(request.out), photos),
    )
    agreement = manifest.targets["onnxruntime"].parity["fragile"].agreement
    assert agreement == pytest.approx(result.best.metrics["fragile"]["agreement"], abs=1e-9)
    other = ExportRequest("openvino")
    words = refused(
        lambda: export_own_net(
            request.net, request.declaration, other, request.out / "b2", rounding=Rounding(str(request.out), photos)
        )
    )
    assert "was searched for onnxruntime, not for openvino: give --target onnxruntime" in words


def test_a_search_goes_on_where_it_was_stopped(
    request_of: Callable[..., PrecisionRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    score = Bench.agreement

    def counted(bench: Bench, precision: Any) -> dict[str, float]:
        scored.append(repr(sorted(precision.values.items())))
        return score(bench, precision)

    monkeypatch.setattr(Bench, "agreement", counted)

    def stop(progress: Progress) -> None:
        if progress.stage == "precision" and progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_precision(request_of(), stop)
    before = len(scored)
    assert before >= 4
    assert "was started with another floors" in refused(lambda: search_precision(request_of(floors=(), resume=True)))
    assert "go on with --resume" in refused(lambda: search_precision(request_of()))
    result = search_precision(request_of(resume=True))
    assert len(scored) == len(set(scored)) == result.evaluations > before
    assert search_precision(request_of(resume=True)) == result


def test_budgets_in_bytes_choose_too(request_of: Callable[..., PrecisionRequest]) -> None:
    result = search_precision(request_of(budgets=("1B",), floors=("robust=100%", "fragile=100%")))
    assert not result.feasible and result.best is not None
    assert {check.text for check in result.best.broken} == {"1B"}
    assert result.best.bytes == min(entry.bytes for entry in result.front)


def test_limits_that_nothing_can_answer_are_refused_in_one_line(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path
) -> None:
    def words(**options: Any) -> str:
        return refused(lambda: search_precision(request_of(**options)))

    labels = words(floors=("fragile.agreement>0.9",))
    assert "floor 'fragile.agreement>0.9': photos have no labels" in labels and "fragile=1%" in labels
    assert "channels and precision change latency" in words(budgets=("900DSP",))
    assert "a search has no limits in energy" in words(budgets=("2mJ",))
    assert "did you mean jetson-orin-nano" in words(budgets=("8ms@jetson-orin-nan",))
    reached = "device raspberry-pi-5 (arm-dot) is not this machine"
    assert reached in words(budgets=("8ms@raspberry-pi-5",)), "the budget names the board"
    assert "task in budget 'depth:8ms'" in words(budgets=("depth:8ms",))
    assert "writes no engine of a net of one's own" in words(target="streaming")
    assert "is no folder" in words(data=tmp_path / "none")
    assert not (tmp_path / "run").exists()


def test_the_command_line_searches_exports_and_reports(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(one_fragile_block(), tmp_path)
    search = ["search", "theirs.onnx", "--data", str(photos), "--out", "run"]
    assert main([*search, "--floor", "fragile=5%", "--budget", "500%ms", "--format", "json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["strategy"] == "precision" and "blocks tried in INT8" in shown.err
    export = ["export", "theirs.onnx", "--precision", "run", "--target", "onnxruntime", "--data", str(photos)]
    assert main([*export, "--out", "mine"]) == 0
    assert set(read_manifest(tmp_path / "mine").precision) >= {"engine"}
    assert main(["report", "run", "--out", "page.html"]) == 0
    assert "agreement" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main([*search, "--resume", "--floor", "fragile=5%", "--budget", "500%ms"]) == 0
    assert "blocks in INT8, the rest in fp32" in capsys.readouterr().out
    assert main([*search[:-1], "other", "--floor", "fragile=5%", "--budget", "1000ms@host/openvino"]) == 0
    assert "--precision other --target openvino --out other/bundle" in capsys.readouterr().out
    for words, message in (
        ([*search, "--space", "cnn"], "--space belongs to the search of a space"),
        (search[:2], "give a folder of photos with --data"),
        (["search", "runs", "--data", str(photos)], "runs is no net of one's own"),
        (["search", "--tasks", "tasks.yaml"], "--tasks belongs to a net of one's own"),
    ):
        assert main(words) == 1
        assert message in capsys.readouterr().err


def test_a_preference_decides_among_what_keeps_the_floors_and_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """INT8 keeps all limits, and loses most of one task: whatever is faster, it is not chosen where that one counts."""
    monkeypatch.chdir(tmp_path)
    saved(one_fragile_block(), tmp_path)
    loose = ["--floor", "robust=90%", "--floor", "fragile=90%"]
    search = ["search", "theirs.onnx", "--data", str(photos), "--out", "run", *loose, "--threads", "1"]
    assert main([*search, "--prefer", "fragile=9", "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    eight = next(entry for entry in result["front"] if set(entry["design"].values()) == {"fp32", "int8"})
    assert eight["feasible"] and eight["weighted_delta_m"] < eight["delta_m"] < -0.1
    assert result["best"]["weighted_delta_m"] > -0.05 and result["preference"] == {"robust": 1, "fragile": 9}
    assert json.loads((tmp_path / "run/config.json").read_text())["preference"] == "fragile=9"
    assert main(["report", "run", "--out", "page.html"]) == 0
    assert "robust=1,fragile=9" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main([*search, "--prefer", "fragile=9", "--resume"]) == 0
    assert "weighted by robust=1,fragile=9" in capsys.readouterr().out
    for words, message in (
        (["--prefer", "robust=9", "--resume"], "run was started with another preference: resume it with the same"),
        (["--resume"], "run was started with another preference: resume it with the same"),
        (["--prefer", "robst=9", "--out", "other"], "unknown task in preference 'robst': did you mean robust?"),
        (["--prefer", "robust", "--out", "other"], "write TASK=WEIGHT"),
    ):
        assert main([*search, *words]) == 1
        assert sum(message in line for line in capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "other").exists()
