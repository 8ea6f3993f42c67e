"""Channels and precision of a net of one's own in one search: budgets that precision alone does not keep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from own_nets import SIZE, model_of, weight
from refusals import refused

from edgemtl.bundle import read_manifest
from edgemtl.cli import main
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.nas.prune import FineTuning, apply_pruning
from edgemtl.own import open_net, torch_graph
from edgemtl.progress import Progress


def image() -> np.ndarray:
    return np.random.default_rng(3).random((1, 3, *SIZE), np.float32)


def test_half_the_flops_go_together_with_precision_and_the_net_comes_back(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "pruning" and progress.done == 1:
            raise KeyboardInterrupt

    request = request_of(budgets=("50%FLOPs",))
    with pytest.raises(KeyboardInterrupt):
        search_precision(request, stop)
    result = search_precision(request_of(budgets=("50%FLOPs",), resume=True))
    best, base = result.best, result.baseline
    assert best is not None and base is not None and result.feasible
    assert 0.3 * base.flops < best.flops <= 0.5 * base.flops
    assert {name for name in best.design if name.endswith(".channels")} == {
        "body.stem.channels",
        "body.narrow.channels",
    }
    whole = [entry for entry in result.front if entry.flops == base.flops]
    assert {entry.name for entry in whole} == {"baseline", "int8"} and not any(entry.feasible for entry in whole)
    left = open_net(str(tmp_path / "run/net.onnx"))
    narrow = apply_pruning(torch_graph(request.net), tmp_path / "run")
    with torch.no_grad():
        given = narrow(torch.from_numpy(image()))
    for name, value in left.reference(image()).items():
        np.testing.assert_allclose(given[name].numpy(), value, rtol=1e-4, atol=1e-5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.yaml").write_text((tmp_path / "run/tasks.yaml").read_text())
    export = ["export", "theirs.onnx", "--tasks", "tasks.yaml", "--precision", "run", "--data", "photos"]
    assert main([*export, "--target", "onnxruntime", "--out", "mine"]) == 0
    manifest = read_manifest(tmp_path / "mine")
    assert manifest.cost.flops == best.flops and manifest.targets["onnxruntime"].modes_checked == 2
    for task, parity in manifest.targets["onnxruntime"].parity.items():
        assert parity.agreement == pytest.approx(best.metrics[task]["agreement"], abs=1e-6)


def test_the_more_blocks_are_in_int8_the_fewer_channels_go(request_of: Callable[..., PrecisionRequest]) -> None:
    request = request_of(budgets=("24%MB",), tuning=FineTuning(2, batch=2))
    result = search_precision(request)
    names = json.loads((request.out / "agreements.json").read_text())["agreements"]
    tried = [name.split() for name in names if re.match(r"pruned-\d+ ", name)]
    removed = {len(blocks): int(level.removeprefix("pruned-")) for level, engine, *blocks in tried}
    assert removed[0] > removed[max(removed)]
    assert result.strategy == "pruning and precision" and any("-tuned" in str(entry.name) for entry in result.front)
    assert result.best is not None and result.best.flops < result.front[-1].flops
    record = json.loads((request.out / "pruning.json").read_text())
    assert {row["group"] for row in record["groups"]} == {"body.stem", "body.narrow"}


def test_budgets_that_no_width_keeps_and_nets_without_channels_are_refused_in_a_line(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path
) -> None:
    words = refused(lambda: search_precision(request_of(budgets=("1%FLOPs",))))
    assert "budget '1%FLOPs' allows" in words and "pruning reaches" in words
    nodes = [helper.make_node("Conv", ["x", "w"], ["map"], name="only", pads=[1, 1, 1, 1])]
    thin = model_of(nodes, {"map": TensorProto.FLOAT}, [weight("w", 2, 3, 3, 3)])
    words = refused(lambda: search_precision(request_of(thin, budgets=("50%FLOPs",), floors=())))
    assert "no channels of the module can be pruned" in words
    assert "--finetune -1" in refused(lambda: FineTuning(-1))
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("*.json"))
