"""The loop of every training, on one parameter that follows what its batches say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgemtl.errors import UserError
from edgemtl.train import Optimized, Recipe, TrainingLoop, loop

RECIPE = Recipe(steps=8, batch=2, sizes=(1.0,), largest_steps=1.0, bf16=False)


class Walk:
    """Adds the batch and noise to one parameter's gradient; remembers the sum of what it saw."""

    def __init__(self) -> None:
        self.parameter = nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.Adam([self.parameter], RECIPE.learning_rate)
        self.optimized: Sequence[Optimized] = (Optimized({self.parameter: "where"}, optimizer),)
        self.seen = torch.zeros(1)

    def one_step(self, step: int, batch: Any) -> None:
        self.seen += batch.value
        self.parameter.grad = self.seen * torch.ones(3) + torch.randn(3)
        self.optimized[0].update(RECIPE.rate_at(step))

    def state(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.seen = state["seen"]


def run(folder: Path, report: Callable[[int], None] = lambda step: None, name: str = "walk") -> Tensor:
    """The parameter after all steps that a checkpoint in the folder leaves."""
    walk = Walk()
    training = TrainingLoop(walk, RECIPE, folder / "checkpoint.safetensors", name)
    batches: Iterator[Any] = (SimpleNamespace(value=float(step)) for step in range(training.step, RECIPE.steps))
    training.run(batches, report)
    return walk.parameter.detach()


def ending(step: int, error: type[BaseException]) -> Callable[[int], None]:
    def report(done: int) -> None:
        if done == step:
            raise error

    return report


class Killed(BaseException):
    """What ends a process without a chance to write anything."""


def test_what_was_interrupted_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", ending(5, KeyboardInterrupt))
    steps = list[int]()
    assert torch.equal(run(tmp_path / "part", steps.append), whole)
    assert steps == [6, 7, 8]


def test_what_was_killed_goes_on_from_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "early", ending(5, Killed))
    steps = list[int]()
    assert torch.equal(run(tmp_path / "early", steps.append), whole)
    assert steps == list(range(1, 9))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(Killed):
        run(tmp_path / "late", ending(5, Killed))
    steps.clear()
    assert torch.equal(run(tmp_path / "late", steps.append), whole)
    assert steps == [6, 7, 8]


def test_another_training_of_that_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(UserError, match="belongs to a run with another space or other data: choose"):
        run(tmp_path, name="another")


def test_gradients_are_clipped_by_their_norm_and_cleared() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    optimized = Optimized({parameter: "one"}, torch.optim.SGD([parameter], 1.0))
    parameter.grad = torch.full((4,), 100.0)
    optimized.update(0.5)
    assert float(parameter.detach().norm()) == pytest.approx(0.5 * loop.CLIP_NORM)
    assert parameter.grad is None


def test_the_time_left_is_known_from_the_first_step_on(tmp_path: Path) -> None:
    walk = Walk()
    training = TrainingLoop(walk, replace(RECIPE, steps=3), tmp_path / "c", "walk", writes=False)
    assert training.seconds_left is None
    left = list[float | None]()
    training.run([SimpleNamespace(value=1.0)] * 3, lambda step: left.append(training.seconds_left))  # type: ignore[list-item]
    assert left[-1] == 0
    assert all(seconds is not None for seconds in left)
    assert not (tmp_path / "c").exists()
