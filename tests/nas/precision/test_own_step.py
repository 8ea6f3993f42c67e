"""A search of a net of one's own that trains by a function of its user's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from edgemtl.cli import main
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.nas.prune import FineTuning
from edgemtl.progress import Progress

MINE = """
calls = []


def train_step(module, images, step):
    calls.append((step, module.training, images.shape[0]))
    return sum(output.square().mean() for output in module(images).values())


def nan_step(module, images, step):
    return module(images)["map"].mean() * float("nan")
"""
ROUNDED = {"budgets": ("50%MB",), "floors": ("map=0.1%", "pose=0.1%")}
NARROWER = {"budgets": ("50%FLOPs",)}


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(MINE)


@pytest.mark.parametrize(("limits", "trainings"), [(ROUNDED, 2), (NARROWER, 1)])
def test_a_train_step_trains_what_is_left_and_one_without_a_finite_loss_is_one_line(
    request_of: Callable[..., PrecisionRequest], limits: dict[str, tuple[str, ...]], trainings: int, tmp_path: Path
) -> None:
    """No training of two steps makes INT8 keep a thousandth: a narrower net is trained then, too."""
    search_precision(request_of(**limits, threads=1, tuning=FineTuning(2, "mine:train_step", batch=2)))
    import mine

    tried = [(0, True, 2)] if limits is NARROWER else []
    assert mine.calls == tried + trainings * [(0, True, 2), (1, True, 2)]
    failing = FineTuning(2, "mine:nan_step", batch=2)
    line = refused(lambda: search_precision(request_of(**limits, threads=1, tuning=failing, out=tmp_path / "failing")))
    assert line.startswith("mine:nan_step returns nan at step 0: a finite loss is wanted")


@pytest.mark.parametrize("more", [NARROWER, {"strategy": "random", "evaluations": 4}])
def test_a_train_step_that_fails_does_so_before_anything_is_measured(
    request_of: Callable[..., PrecisionRequest], more: dict[str, Any]
) -> None:
    shown = list[Progress]()
    request = request_of(**more, threads=1, tuning=FineTuning(2, "mine:nan_step", batch=2))
    assert refused(lambda: search_precision(request, shown.append)).startswith("mine:nan_step returns nan at step 0")
    assert not {each.stage for each in shown} & {"map", "finetune", "deciding", "evaluations"}


def test_a_train_step_that_nothing_calls_is_refused(
    request_of: Callable[..., PrecisionRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing" in refused(lambda: search_precision(request_of(tuning=FineTuning(2, "mine:nothing"))))
    for words, message in (
        (["theirs.onnx", "--data", "photos", "--train-step", "mine:train_step"], "is called by no step: say how many"),
        (["--train-step", "mine:train_step"], "--train-step belongs to a net of one's own"),
    ):
        assert main(["search", *words, "--out", "run"]) == 1
        assert message in capsys.readouterr().err
