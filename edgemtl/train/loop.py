"""The loop of every training; interrupted or killed at any moment, it resumes as if it had not been."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from edgemtl.data import Batch
from edgemtl.signals import deferred
from edgemtl.train.checkpoint import load_checkpoint, save_checkpoint
from edgemtl.train.recipe import Recipe

__all__ = ["Optimized", "Training", "TrainingLoop"]

CHECKPOINT_SECONDS = 60.0
CLIP_NORM = 5.0


@dataclass(frozen=True)
class Optimized:
    """Parameters by name, and the optimizer that updates them."""

    names: Mapping[Tensor, str]
    optimizer: torch.optim.Optimizer

    def update(self, learning_rate: float) -> None:
        """Clip the gradients by their norm, take one step, and clear them."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        nn.utils.clip_grad_norm_(list(self.names), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Parameters and the optimizer's tensors, as a checkpoint names them."""
        moments = {
            f"optimizer.{key}.{self.names[parameter]}": value
            for parameter, values in self.optimizer.state.items()
            for key, value in values.items()
            if isinstance(value, Tensor)
        }
        return {f"parameter.{name}": parameter for parameter, name in self.names.items()} | moments

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        moments: dict[str, dict[str, Tensor]] = {}
        for full_name, value in state.items():
            if full_name.startswith("optimizer."):
                _, key, name = full_name.split(".", 2)
                moments.setdefault(name, {})[key] = value
        with torch.no_grad():
            for parameter, name in self.names.items():
                parameter.copy_(state[f"parameter.{name}"])
                if name in moments:
                    self.optimizer.state[parameter] = {
                        key: value if key == "step" else value.to(parameter.device)  # steps are counted by the host
                        for key, value in moments[name].items()
                    }


class Training(Protocol):
    """The part specific to one training: its step, and its state between steps."""

    @property
    def optimized(self) -> Sequence[Optimized]:
        """The parameters that are trained."""
        ...

    def one_step(self, step: int, batch: Batch) -> None:
        """Update the parameters by one batch. What is drawn at random follows from the recipe's seed and the step."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors that later steps depend on, besides parameters and optimizers."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        ...


class TrainingLoop:
    """The steps of a training from its last checkpoint on, where `file` holds one.

    `fingerprint` says which training a checkpoint belongs to. With `writes` false, as in helper processes, none is
    written. Raises `UserError` for a damaged checkpoint and for another training's.
    """

    def __init__(
        self, training: Training, recipe: Recipe, file: Path, fingerprint: str, *, writes: bool = True
    ) -> None:
        self._training, self._recipe = training, recipe
        self._file, self._fingerprint, self._writes = file, fingerprint, writes
        self._saved_step: int | None = None
        self.step = self._restore()
        self._in_step = False
        self._work = [0.0, *accumulate(map(recipe.work_at, range(recipe.steps)))]
        self._began = time.monotonic(), self._work[self.step]

    @property
    def resumed(self) -> bool:
        """Whether there was a checkpoint, or one was written since."""
        return self._saved_step is not None

    @property
    def seconds_left(self) -> float | None:
        """An estimate, from what the steps so far took and what those to come compute; None before the first one."""
        began, work_before = self._began
        done = self._work[self.step] - work_before
        return (time.monotonic() - began) * (self._work[-1] - self._work[self.step]) / done if done else None

    def run(self, batches: Iterable[Batch], report: Callable[[int], None]) -> None:
        """Take a step with each batch; `report` is called after every one with the number of steps that are done.

        A checkpoint is written before the first step, at least every minute, after the last step, and on Ctrl-C or
        SIGTERM, which wait for the end of a step; a second one does not.
        """
        try:
            with deferred() as raise_if_interrupted:
                self._checkpoint()
                saved_at = time.monotonic()
                for batch in batches:
                    self._one_step(batch)
                    if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                        self._checkpoint()
                        saved_at = time.monotonic()
                    report(self.step)
                    raise_if_interrupted()
                self._checkpoint()
        except KeyboardInterrupt:
            if not self._in_step:
                self._checkpoint()
            raise

    def _one_step(self, batch: Batch) -> None:
        self._in_step = True
        torch.manual_seed(self._recipe.seed + self.step)  # whatever draws: a resumed run draws the same
        self._training.one_step(self.step, batch)
        self.step += 1
        self._in_step = False

    def _checkpoint(self) -> None:
        """Write the whole state, where that was not done since the last step."""
        if self._writes and self.step != self._saved_step:
            state = self._training.state()
            for optimized in self._training.optimized:
                state |= optimized.state()
            save_checkpoint(self._file, self.step, self._fingerprint, state, self._recipe.as_json())
            self._saved_step = self.step

    def _restore(self) -> int:
        checkpoint = load_checkpoint(self._file, self._fingerprint, self._recipe.as_json())
        if checkpoint is None:
            return 0
        self._saved_step, state = checkpoint
        for optimized in self._training.optimized:
            optimized.restore(state)
        self._training.restore(state)
        return self._saved_step
