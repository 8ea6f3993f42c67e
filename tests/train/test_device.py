"""Training on another device than the processor."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from small import small_space
from toys import TRAINED, Toys, toy_space

from edgemtl.data import open_source
from edgemtl.models import read_state
from edgemtl.progress import Progress
from edgemtl.train import Recipe, SupernetTraining, fresh_supernet, train_supernet, training_batches

RECIPE = Recipe(steps=6, batch=2, sizes=(1.0,), largest_steps=0.0, seed=3, bf16=False)


@pytest.mark.parametrize("weighting", ["equal", "uncertainty"])
def test_a_step_mixes_no_devices_and_reads_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weighting: str
) -> None:
    """Tensors of the device `meta` have no values: to read one, or to add one of another device, is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *given, **named: nullcontext())  # which knows no such device
    meta = torch.device("meta")
    accelerator = SimpleNamespace(
        device=meta, num_processes=1, prepare=lambda optimizer: optimizer, backward=lambda loss: loss.backward()
    )
    source = open_source("scenes", (64, 64))
    space = small_space(tmp_path, source.tasks)
    recipe = replace(RECIPE, weighting=weighting)
    training = SupernetTraining(space, recipe, fresh_supernet(space, 0), None, cast("Any", accelerator))
    feed = training_batches(source.split("validation"), space.tasks, recipe, 0, 0)
    for step in range(2):
        training.one_step(step, next(feed))
    state = training.weights.state() | training.state() | training.loss_sums
    by_host = {name for name, value in state.items() if value.device != meta}
    by_host -= {"computed_in_bf16"}  # read where it is restored, never in a step
    assert all(name.startswith("optimizer.step.") for name in by_host), "AdamW counts its steps on the processor"


@pytest.mark.device
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_trains_what_a_processor_does_and_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(news: Progress) -> None:
        if news.done == 20:
            raise KeyboardInterrupt

    space, recipe = toy_space(tmp_path, TRAINED), replace(RECIPE, steps=40)
    on_gpu = train_supernet(space, Toys(), recipe, tmp_path / "gpu")
    with pytest.raises(KeyboardInterrupt):
        train_supernet(space, Toys(), recipe, tmp_path / "stopped", report=stop)
    resumed = train_supernet(space, Toys(), recipe, tmp_path / "stopped")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    on_processor = train_supernet(space, Toys(), recipe, tmp_path / "processor")
    whole, rest, other = (read_state(path, "supernet")[0] for path in (on_gpu, resumed, on_processor))
    for name, value in whole.items():
        assert torch.allclose(value.float(), rest[name].float(), atol=0.02), name
        assert torch.allclose(value.float(), other[name].float(), atol=0.05), name
