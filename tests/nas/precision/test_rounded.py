"""A net of one's own that is trained through eight bits: when it is, what comes back, and that the answer says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from net_finalists import FLOORS, finalist
from own_nets import SIZE, lost_in_rounding, saved

from edgemtl.bundle import read_manifest
from edgemtl.cli import main
from edgemtl.files.disk import read_json
from edgemtl.nas.evaluation import Limit
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.nas.precision.finalists import Finalist
from edgemtl.nas.precision.forms import NarrowForms, training_of
from edgemtl.nas.precision.joint import whole_cost
from edgemtl.nas.precision.rounded import NOT_WORTH, is_worth_training
from edgemtl.nas.prune import FineTuning, apply_pruning
from edgemtl.own import INT8, Declaration, DeclaredTask, OwnPrecision, open_net, torch_graph
from edgemtl.progress import Progress
from edgemtl.units import parse_budget


def eight_bit(ms: float, lost: float, allowed_ms: float = 100.0) -> Finalist:
    given = finalist(INT8, ms, lost, True)
    candidate = replace(given.candidate, precision=OwnPrecision({"engine": "fp32", "stem": INT8}))
    return replace(given, candidate=candidate, checks=(Limit(parse_budget("9ms"), allowed_ms).check(ms), *given.checks))


@pytest.mark.parametrize(
    ("finalists", "worth"),
    [
        ([finalist("fp32", 10.0, 0.0, True), eight_bit(4.0, 0.05)], True),
        ([finalist("fp32", 10.0, 0.0, True), eight_bit(4.0, 0.005)], False),  # it is chosen as it is
        ([finalist("fp32", 10.0, 0.0, True), eight_bit(12.0, 0.05)], False),  # it is no faster
        ([finalist("fp32", 10.0, 0.0, True), eight_bit(9.7, 0.05)], False),  # a net that was trained is none that is
        ([finalist("fp32", 10.0, 0.0, True), finalist("mixed", 3.0, 0.0, False), eight_bit(4.0, 0.05)], False),
        ([finalist("fp32", 10.0, 0.5, True), eight_bit(12.0, 0.05)], True),  # nothing keeps the floors
        ([finalist("fp32", 10.0, 0.5, True), eight_bit(12.0, 0.05, 9.0)], False),  # and this no budget
        ([finalist("fp32", 10.0, 0.0, True)], False),
    ],
)
def test_a_net_is_trained_where_int8_as_a_whole_would_be_the_faster_but_for_a_floor(
    finalists: Sequence[Finalist], worth: bool
) -> None:
    assert is_worth_training(finalists) is worth


def test_a_net_is_trained_where_a_preference_alone_speaks_against_int8() -> None:
    floors = replace(FLOORS, preference={"pose": 3.0, "face": 1.0})
    plain, eight = (finalist(name, 10.0, 0.0, True, floors=floors) for name in ("fp32", INT8))
    precision = OwnPrecision({"engine": "fp32", "stem": INT8})
    eight = replace(eight, candidate=replace(eight.candidate, precision=precision), latency_ms={"": 4.0})
    assert is_worth_training([plain, replace(eight, delta_m=-0.006)])
    assert not is_worth_training([plain, replace(eight, delta_m=-0.004)]), "it is chosen as it is"


def test_a_result_says_how_the_chosen_net_was_trained() -> None:
    assert [training_of(name) for name in ("", "pruned-3", "pruned-3-tuned", "trained")] == [
        "",
        "",
        "in float, once channels were removed",
        "through the rounding of eight bits",
    ]


def test_a_trained_net_keeps_its_channels_and_comes_back_as_a_module(
    forms_of: Callable[..., NarrowForms], tmp_path: Path
) -> None:
    net = open_net(str(saved(lost_in_rounding(), tmp_path)))
    forms = forms_of(net, Declaration(tasks={"map": DeclaredTask(outputs=("map",))}))
    trained = forms.rounded(FineTuning(20, batch=4, learning_rate=1e-2), tmp_path / "training")
    (candidate,) = [each for each in trained.uniform() if each.name == "trained-int8"]
    whole = forms.whole.setup
    assert not candidate.uniform and candidate.setup.blocks == whole.blocks and not candidate.setup.channels
    assert candidate.setup.bench.cost(candidate.precision).flops == whole_cost(whole).flops
    forms.write(tmp_path, candidate)
    record: Any = read_json(tmp_path / "pruning.json", "record")
    assert record["finetuned"]["steps"] == 20 and record["finetuned"]["rounded"] is True
    assert all(group["before"] == group["after"] for group in record["groups"])
    image = np.random.default_rng(3).random((1, 3, *SIZE), np.float32)
    module = apply_pruning(torch_graph(net), tmp_path)
    with torch.no_grad():
        given = module(torch.from_numpy(image))
    left, before = open_net(str(tmp_path / "net.onnx")), net.reference(image)
    for name, value in left.reference(image).items():
        np.testing.assert_allclose(given[name].numpy(), value, rtol=1e-4, atol=1e-5)
        assert not np.array_equal(value, before[name])


def test_a_search_trains_the_net_where_only_int8_keeps_a_budget_and_breaks_a_floor(
    request_of: Callable[..., PrecisionRequest],
) -> None:
    """Half the bytes are INT8's alone; no INT8 keeps a thousandth, so a trained one is timed beside the others."""
    events: list[Progress] = []
    tight = request_of(budgets=("50%MB",), floors=("map=0.1%", "pose=0.1%"), tuning=FineTuning(2, batch=2))
    result = search_precision(tight, events.append)
    steps = [event for event in events if event.stage == "finetune"]
    assert steps and steps[-1].total == 2
    assert "trained-int8" in {entry.name for entry in result.front} or "weights" in result.known_from
    loose = replace(tight, out=tight.out.with_name("loose"), floors=("map=90%", "pose=90%"))
    notes: list[Progress] = []
    result = search_precision(loose, notes.append)
    assert result.strategy == "precision" and result.feasible
    assert NOT_WORTH in {event.text for event in notes}
    assert "finetune" not in {event.stage for event in notes}


def test_a_trained_net_is_chosen_where_it_alone_keeps_a_floor_and_is_what_an_export_takes(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget asks for INT8 where the weights are, which loses the map but where the net was trained for it."""
    tuning = FineTuning(60, batch=4, learning_rate=1e-2)
    result = search_precision(
        request_of(lost_in_rounding(), budgets=("50%MB",), floors=("map=40%",), threads=1, tuning=tuning)
    )
    assert result.feasible and result.best is not None
    assert result.known_from["weights"] == "60 steps of training through the rounding of eight bits"
    others = [entry for entry in result.front[1:] if not str(entry.name).startswith("trained-")]
    assert {"int8", "baseline"} <= {entry.name for entry in others} and not any(entry.feasible for entry in others)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.yaml").write_text((tmp_path / "run/tasks.yaml").read_text())
    export = ["export", "theirs.onnx", "--tasks", "tasks.yaml", "--precision", "run", "--data", "photos"]
    assert main([*export, "--target", "onnxruntime", "--out", "mine"]) == 0
    manifest = read_manifest(tmp_path / "mine")
    agreement = manifest.targets["onnxruntime"].parity["map"].agreement
    assert agreement == pytest.approx(result.best.metrics["map"]["agreement"], abs=1e-6) and agreement > 0.6
    assert {manifest.precision[block] for block in result.best.design if block != "engine"} >= {INT8}
