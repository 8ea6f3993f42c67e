"""Training a net of one's own further, from what it was and from labels, or by a user's own train step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgemtl.data import Batch, Source, augment, collate
from edgemtl.errors import UserError, one_line
from edgemtl.models import ModuleNet
from edgemtl.models.quantization import QuantScheme, rounding_layers
from edgemtl.own import DeclaredNet, SelfLabelled
from edgemtl.plugins import load_user_function
from edgemtl.progress import Progress, Report
from edgemtl.tasks import Task
from edgemtl.train import (
    CHECKPOINT_FILE,
    Optimized,
    Recipe,
    TrainingLoop,
    distillation_loss,
    label_loss,
    label_tensors,
    prepared,
)

__all__ = ["NO_TUNING", "FineTuning", "TrainStep", "fine_tune"]

TrainStep = Callable[[nn.Module, Tensor, int], Tensor]
"""A user's own train step, `train_step(module, images, step) -> loss`.

`module` is the pruned module in training mode, as `apply_pruning` gives it, or, in a search, the whole one whose layers
compute on eight bits (its batch normalisation keeps its statistics then); `images` are (N, 3, H, W) in FP32, the
values that it reads; `step` counts from 0. The loss is a scalar tensor; the optimizer's step is edgemtl's.
"""


PIXELS = 2**16
BATCHES = 8, 32
"""A batch has so many pixels, and is so large at the least and at most."""


@dataclass(frozen=True)
class FineTuning:
    """The steps of a fine-tuning, and `package.module:train_step` of the user's own code; empty: by the net itself.

    The rate suits a net whose layers are fitted to the whole one's (`reconstruct`): at ten times as much it unlearns in
    hundreds of steps what that gave it.
    Without a `batch` it is as large as the size of the images allows (`for_size`).
    """

    steps: int = 0
    train_step: str = ""
    batch: int | None = None
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse a train step that nothing would call."""
        if self.steps < 0:
            raise UserError(f"--finetune {self.steps}: a number of steps is wanted, for example --finetune 1000")
        if self.train_step and not self.steps:
            raise UserError(f"--train-step {self.train_step} is called by no step: say how many with --finetune STEPS")

    def for_size(self, size: tuple[int, int]) -> FineTuning:
        """The same with a batch in numbers, for images of `size` (H, W): small ones are cheap, and more say more."""
        least, most = BATCHES
        batch = self.batch or max(least, min(most, PIXELS // (size[0] * size[1])))
        return replace(self, batch=batch)

    def recipe(self, size: tuple[int, int]) -> Recipe:
        """The same numbers as a training on images of `size` (H, W) has them."""
        batch = self.for_size(size).batch
        assert batch is not None
        return Recipe(steps=self.steps, batch=batch, sizes=(1.0,), learning_rate=self.learning_rate, largest_steps=1.0)

    def check(self, noun: str) -> None:
        """`UserError` where a `noun` is not trained this way, and where there is no such train step."""
        if self.steps and noun == "design":
            raise UserError("--finetune trains modules and ONNX files: train a pruned run with edgemtl train --run")
        if self.train_step:
            load_user_function(self.train_step)

    @property
    def step_function(self) -> TrainStep | None:
        """The user's own; None without one. Raises `UserError` where there is no such function."""
        return load_user_function(self.train_step) if self.train_step else None  # type: ignore[return-value]


NO_TUNING = FineTuning()
"""No step."""


def fine_tune(
    net: ModuleNet,
    teacher: ModuleNet,
    source: Source,
    tuning: FineTuning,
    folder: Path,
    report: Report,
    scheme: QuantScheme | None = None,
) -> None:
    """Train a net, in place, on the source's training images; in evaluation mode at the end.

    Without a train step of the user's it learns to give what `teacher` gives, and in equal parts from labels where the
    source has some that are not the net's own; each task counts the same. With a `scheme` it computes on eight bits
    meanwhile, in every layer. Interrupted, it goes on from the checkpoint
    in `folder`, which must be of the same net. Raises `UserError` for a train step that fails, or whose loss is no
    scalar, has no slope, or is not finite.
    """
    tuning, recipe = tuning.for_size(source.size), tuning.recipe(source.size)
    training = _Training(net, teacher.eval(), tuning, recipe, rounded=scheme is not None)
    digest = hashlib.sha256(repr((asdict(tuning), scheme)).encode())
    digest.update(repr({name: tuple(parameter.shape) for name, parameter in net.named_parameters()}).encode())
    for parameter in teacher.parameters():  # not the net's own: fitted again, they differ in their last bits
        digest.update(parameter.detach().numpy().tobytes())
    folder.mkdir(parents=True, exist_ok=True)
    loop = TrainingLoop(training, recipe, folder / CHECKPOINT_FILE, digest.hexdigest())

    def tell(step: int) -> None:
        left = loop.seconds_left
        report(Progress("finetune", step, tuning.steps, f"loss {training.loss:.4g}", left))

    with rounding_layers(net, scheme) if scheme else nullcontext():
        loop.run(_batches(source, recipe, loop.step), tell)
    net.eval()


def _batches(source: Source, recipe: Recipe, first: int) -> Iterator[Batch]:
    """The batch of each step from `first` on, which follows from the step: pictures alone, or whole images with labels.

    Labels that are the net's own predictions say nothing that it does not.
    """
    samples = source.split("train")
    for step in range(first, recipe.steps):
        rng = np.random.default_rng([recipe.seed, step])
        if isinstance(source, SelfLabelled):
            yield Batch(source.windows(recipe.batch, rng), {}, {})
        else:
            picks = rng.integers(len(samples), size=recipe.batch)
            yield collate([augment(samples[int(pick)], source.tasks, rng, source.size) for pick in picks], source.tasks)


class _Training:
    """One net's fine-tuning, as `TrainingLoop` runs it."""

    def __init__(self, net: ModuleNet, teacher: ModuleNet, tuning: FineTuning, recipe: Recipe, rounded: bool) -> None:
        self._net, self._teacher, self._recipe, self._rounded = net, teacher, recipe, rounded
        self._spec, self._step = tuning.train_step, tuning.step_function
        norms = nn.modules.batchnorm._BatchNorm
        self._norms = {name: each for name, each in net.named_modules() if isinstance(each, norms)}
        self.loss = math.nan
        parameters: dict[Tensor, str] = {p: name for name, p in net.named_parameters() if p.requires_grad}
        self._optimized = Optimized(parameters, torch.optim.Adam(list(parameters)))

    @property
    def optimized(self) -> list[Optimized]:
        """See `edgemtl.train.loop.Training`."""
        return [self._optimized]

    def one_step(self, step: int, batch: Batch) -> None:
        """See `edgemtl.train.loop.Training`."""
        images = torch.from_numpy(batch.image)
        with torch.enable_grad():
            loss = self._own(images, step) if self._step else self._loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
        self.loss = float(loss.detach())
        self._optimized.update(self._recipe.rate_at(step))

    def _train_norms(self) -> None:
        """Let batch normalisation take a batch's statistics, but of a net that is rounded: what it has stays right."""
        for norm in self._norms.values():
            norm.train(not self._rounded)

    def _loss(self, batch: Batch) -> Tensor:
        """The sum of what all tasks have to learn."""
        self._net.eval()
        self._train_norms()
        images = torch.from_numpy(batch.image)
        with torch.no_grad():
            wanted = self._teacher(images)
        given = self._net(images)
        loss = torch.stack(
            [self._task_loss(task, given[task.name], wanted[task.name], batch) for task in self._net.tasks]
        ).sum()
        if not loss.isfinite():
            remedy = "leave out --finetune" if self._rounded else "prune less of it"
            raise UserError(f"the net's outputs became NaN or infinite while it was fine-tuned: {remedy}")
        return loss

    def _task_loss(self, task: Task, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """A task's distance from the teacher and, where the batch has labels, in equal parts its loss by these."""
        own, share = prepared(task, given), self._recipe.label_share
        distance = distillation_loss(task, own, prepared(task, wanted))
        if not batch.targets:
            return distance
        labels = (label_tensors(part[task.name]) for part in (batch.targets, batch.masks))
        return share * label_loss(task, own, *labels) + (1 - share) * distance

    def _own(self, images: Tensor, step: int) -> Tensor:
        spec, values = self._spec, images
        if isinstance(self._net, DeclaredNet):
            values = self._net.values(images)
        assert self._step is not None
        self._net.module.train()
        self._train_norms()
        try:
            loss: Any = self._step(self._net.module, values, step)
        except Exception as error:  # her code may raise anything
            raise UserError(
                f"{spec} fails at step {step} ({one_line(error)}): it is called with the module, images and the step"
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            given = f"{tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(
                f"{spec} returns {given} at step {step}: the loss is wanted, a tensor of one value that depends on the "
                "module's outputs"
            )
        if not loss.isfinite():
            raise UserError(
                f"{spec} returns {float(loss.detach())} at step {step}: a finite loss is wanted, look at its labels "
                "and at divisions in it"
            )
        return loss.reshape(())

    def state(self) -> dict[str, Tensor]:
        """See `edgemtl.train.loop.Training`: statistics of batch normalisation."""
        return {f"{name}.{key}": value for name, norm in self._norms.items() for key, value in norm.named_buffers()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `edgemtl.train.loop.Training`."""
        for name, value in self.state().items():
            value.copy_(state[name])
