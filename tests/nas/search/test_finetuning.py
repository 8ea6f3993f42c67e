"""A search ends with trained nets: better ones or none, kept and resumable, and refused where nothing can be learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_world import Ask

from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search import Preflight, search
from edgemtl.progress import Progress
from edgemtl.results import Result, read_result

STEPS = 12
UNTIMED = "tensorrt-rtx"
"""Nothing is timed for it here, so that two searches give the same answer."""


@pytest.fixture(autouse=True)
def quick_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe under which a dozen steps show in the weights that are kept."""
    from edgemtl.nas.search import finetuning

    change = {"learning_rate": 5e-3, "average": 0.5, "bf16": False, "batch": 4}
    monkeypatch.setattr(finetuning, "TUNING", finetuning.replace(finetuning.TUNING, **change))


def answer(out: Path) -> tuple[Result, dict[str, torch.Tensor]]:
    return read_result(out), dict(RunFolder(out).load().net.state_dict())


def test_the_answer_is_trained_further_and_says_so(ask: Ask, tmp_path: Path) -> None:
    events: list[Progress] = []
    request = ask(tmp_path / "run", finetune=STEPS, finalists=2)
    result = search(request, events.append)
    best = result.best
    assert best is not None
    record = best.fine_tuning
    assert record is not None
    assert record.steps == STEPS
    assert record.delta_m_after > record.delta_m_before
    assert result.front[-1].fine_tuning is None, "the baseline is the supernet's"
    config = RunFolder(request.out).config().finetune or {}
    assert (config["steps"], config["processes"]) == (STEPS, 1)
    (preflight,) = [event for event in events if isinstance(event, Preflight)]
    assert preflight.finetune is not None
    assert (preflight.finetune.steps, preflight.finetune.designs) == (STEPS, 2)
    assert preflight.finetune.seconds > 0
    steps = [event for event in events if event.stage == "finetune"]
    assert steps[-1].done == steps[-1].total
    assert any("validation delta_m" in event.text for event in events)
    stored = json.loads((request.out / "result.json").read_text())
    assert stored["best"]["fine_tuning"]["steps"] == STEPS


def test_without_it_nothing_is_trained(ask: Ask, tmp_path: Path) -> None:
    events: list[Progress] = []
    request = ask(tmp_path / "run", finetune=0)
    result = search(request, events.append)
    assert all(entry.fine_tuning is None for entry in result.front)
    assert RunFolder(request.out).config().finetune is None
    assert "finetune" not in {event.stage for event in events}
    assert not (request.out / "finetune").exists()
