from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edgemtl.cli.train import train
from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, Tolerance, export_run
from edgemtl.nas.runs import FINETUNING, TUNING, RunFolder, fine_tune, recipe_for
from edgemtl.nas.search import SearchRequest, search
from edgemtl.progress import Progress
from edgemtl.results import read_result

RECIPE = replace(TUNING, steps=40, batch=4, sizes=(1.0,), learning_rate=5e-3, average=0.9, bf16=False)


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search under a limit in ms and one in FLOPs."""
    out = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        few = {"space": "tiny", "data": "photos", "evaluations": 2, "batch": 2, "threads": 1, "finetune": 0}
        search(SearchRequest(out, ("500%ms", "80%FLOPs"), supernet=home / "supernet.safetensors", **few))  # type: ignore[arg-type]
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(RunFolder(run).load().net.state_dict())


@pytest.mark.usefixtures("ask")
def test_a_tuned_design_is_the_same_design_in_a_run_of_its_own_and_better(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it has INT8 blocks follows from latencies; a class of three images is no measure of their rounding."""
    out = tmp_path / "tuned"
    result, before = fine_tune(run, out, RECIPE, command="edgemtl train --run first"), read_result(run)
    assert read_result(out) == result
    assert result.best is not None
    assert before.best is not None
    assert result.best.design == before.best.design
    assert (result.best.flops, result.budgets) == (before.best.flops, before.budgets)
    assert result.best.metrics["depth"]["rmse"] < 0.8 * before.best.metrics["depth"]["rmse"]
    assert result.front[-1].metrics == before.front[-1].metrics, "the baseline is the run's, scored on the same images"
    assert (RunFolder(out).config().tuned or {})["design"] == "best"
    loose = Tolerance(reduced_metric=2.0)
    monkeypatch.setattr("edgemtl.export.run.Evidence", partial(Evidence, tolerance=loose))
    exported = export_run(out, ExportRequest(RunFolder(out).config().target), tmp_path / "bundle")
    assert exported.cost.flops == before.best.flops


@pytest.mark.usefixtures("ask")
def test_a_searched_design_is_trained_as_at_the_end_of_a_search(run: Path, tmp_path: Path) -> None:
    """By labels alone, as every picture has them, and with the statistics that it has."""
    recipe = recipe_for(run)
    assert recipe == replace(FINETUNING, label_share=1.0)
    fine_tune(run, tmp_path / "tuned", replace(recipe, steps=2, batch=2, bf16=False))
    before, after = weights(run), weights(tmp_path / "tuned")
    statistics = {name for name in before if "running" in name}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert statistics and changed and not statistics & changed


@pytest.mark.usefixtures("ask")
def test_a_tuning_that_was_interrupted_goes_on_to_the_same_weights(run: Path, tmp_path: Path) -> None:
    few = replace(RECIPE, steps=24)

    def stop(news: Progress) -> None:
        if news.done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(run, tmp_path / "cut", few, report=stop)
    with pytest.raises(UserError, match="go on with --resume"):
        fine_tune(run, tmp_path / "cut", few)
    fine_tune(run, tmp_path / "cut", few, resume=True)
    fine_tune(run, tmp_path / "whole", few)
    found, expected = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("ask")
def test_what_cannot_be_tuned_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown design in run .* 'bset': did you mean best"):
        fine_tune(run, tmp_path / "out", RECIPE, name="bset")
    with pytest.raises(UserError, match="is no run"):
        fine_tune(tmp_path, tmp_path / "out", RECIPE)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("ask")
def test_a_limit_in_ms_of_another_machine_is_refused_before_anything_is_trained(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines of its class cannot be timed here, and so the limit could not be judged after the training."""
    own = RunFolder(run).device()
    elsewhere = "avx2" if own.arithmetic != "avx2" else "amx"
    monkeypatch.setattr(RunFolder, "device", lambda self: own.model_copy(update={"arithmetic": elsewhere}))
    says = rf"budget '500%ms': the run was made on another machine \({elsewhere}\); train run .* on that machine"
    with pytest.raises(UserError, match=says):
        fine_tune(run, tmp_path / "out", RECIPE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--space", "cnn"], "--space cnn does not go with --run"),
        (["--data", "scenes"], "--data scenes does not go with --run"),
        (["--weights", "imagenet"], "--weights imagenet does not go with --run"),
    ],
)
def test_a_run_brings_its_own_data_and_space(run: Path, tmp_path: Path, words: list[str], says: str) -> None:
    done = CliRunner().invoke(train, ["--run", str(run), "--out", str(tmp_path / "out"), *words])
    assert says in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_design_needs_its_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(train, ["--design", "best", "--out", str(tmp_path / "out")])
    assert "names a design of a run" in str(done.exception)
