"""Weights of four bits in the search of a net of one's own, by the greedy search and by a strategy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_nets import write_photos
from token_net import SIZE

from edgemtl.bundle import read_manifest
from edgemtl.cli import main
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.net_space import net_space
from edgemtl.nas.prune import Fit
from edgemtl.own import open_net, propose_tasks


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), SIZE)


def request_of(photos: Path, run: Path, **options: Any) -> PrecisionRequest:
    net = open_net("token_net:build", SIZE)
    return PrecisionRequest(net, propose_tasks(net), photos, run, threads=1, **options)


def kinds(design: dict[str, Any]) -> set[str]:
    return {value for name, value in design.items() if name != "engine"}


def test_a_budget_in_bytes_is_answered_by_weights_of_four_bits(photos: Path, tmp_path: Path) -> None:
    result = search_precision(request_of(photos, tmp_path / "run", budgets=("45%MB",), floors=("label=30%", "map=30%")))
    assert result.feasible and result.best is not None and result.baseline is not None
    assert "int4" in kinds(result.best.design) and result.best.bytes <= 0.45 * result.baseline.bytes
    four = next(entry for entry in result.front if entry.name == "int4" or kinds(entry.design) == {"int4", "float"})
    assert four.flops == result.baseline.flops and four.params == result.baseline.params
    tight = search_precision(request_of(photos, tmp_path / "tight", floors=("label=3%", "map=3%")))
    for entry in tight.front:
        if "int4" in kinds(entry.design) and entry.feasible:
            assert all(entry.metrics[task]["agreement"] > 0.9 for task in ("label", "map"))


def test_a_strategy_chooses_among_three_precisions_whose_bytes_are_counted_ahead(
    photos: Path, tmp_path: Path, forms_of: Callable[..., NarrowForms]
) -> None:
    net = open_net("token_net:build", SIZE)
    forms = forms_of(net, propose_tasks(net))
    space = net_space(forms)
    options = {choice.options for choice in space.choices if choice.name.endswith(".precision")}
    assert any("int4" in each for each in options) and ("float", "int8") in options
    largest, four = space.largest(), space.largest("int4")
    exported = forms.proposal("exported", Fit(dict(forms.narrowing.opened.costs.sizes), {}))
    setup = exported.setup
    graphs = [setup.bench.cost(exported.precision("fp32", (), blocks)) for blocks in ((), setup.four)]
    less = largest.cost().weight_bytes - four.cost().weight_bytes
    assert less == graphs[0].weight_bytes - graphs[1].weight_bytes > 0
    assert four.cost().flops == largest.cost().flops and four.cost().params == largest.cost().params


def test_the_command_line_searches_by_a_strategy_exports_runs_and_reports(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    about = ["token_net:build", "--size", "16x24"]
    limits = ["--budget", "45%MB", "--floor", "label=40%", "--floor", "map=40%", "--threads", "1"]
    search = ["search", *about, "--data", str(photos), *limits, "--out", "run"]
    assert main([*search, "--strategy", "random", "--evaluations", "2", "--format", "json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["feasible"] and "blocks tried with weights in INT4" in shown.err
    assert any("int4" in kinds(entry["design"]) for entry in result["front"])
    assert main(["export", *about, "--precision", "run", "--target", "onnxruntime", "--out", "mine"]) == 0
    assert set(read_manifest(tmp_path / "mine").precision) >= {"engine"}
    assert main(["run", "mine", str(photos / "0.png")]) == 0
    assert main(["report", "run", "--out", "page.html"]) == 0
    assert "int4" in (tmp_path / "page.html").read_text()
