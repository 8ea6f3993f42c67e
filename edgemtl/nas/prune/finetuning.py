"""Training a net of one's own further, from what it was and from labels, or by a user's own train step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgemtl.data import Batch, Source, augment, collate
from edgemtl.errors import UserError, one_line
from edgemtl.models import ModuleNet, TaskNet
from edgemtl.models.quantization import QuantScheme, rounding_layers
from edgemtl.nas.prune.fitting import LEAST_SIDE
from edgemtl.own import DeclaredNet, SelfLabelled, blend
from edgemtl.plugins import load_user_function
from edgemtl.progress import Progress, Report
from edgemtl.train import (
    CHECKPOINT_FILE,
    Optimized,
    Recipe,
    TrainingLoop,
    batches_of,
    distillation_loss,
    label_loss,
    label_tensors,
    prepared,
)

__all__ = ["NO_TUNING", "FineTuning", "TrainStep", "check_train_step", "deciding_batches", "deciding_loss", "fine_tune"]

TrainStep = Callable[[nn.Module, Tensor, int], Tensor]
"""A user's own train step, `train_step(module, images, step) -> loss`.

`module` is the pruned module in training mode, as `apply_pruning` gives it, or, in a search, the whole one whose layers
compute on eight bits (its batch normalisation keeps its statistics then); `images` are (N, 3, H, W) in FP32, the
values that it reads; `step` counts from 0. The loss is a scalar tensor; the optimizer's step is edgemtl's.
"""


PIXELS = 2**16
BATCHES = 8, 32
"""A batch has so many pixels, and is so large at the least and at most."""
DECIDING_IMAGES, JUDGED = 64, 10
"""How many validation images say which weights are the best, and how often."""


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
    source has some that are not the net's own; each task counts the same. It ends with the weights that did best on
    validation images, those that it began with among them. With a `scheme` it computes on eight bits meanwhile, in
    every layer. Interrupted, it goes on from the checkpoint
    in `folder`, which must be of the same net. Raises `UserError` for a train step that fails, or whose loss is no
    scalar, has no slope, or is not finite.
    """
    tuning, recipe = tuning.for_size(source.size), tuning.recipe(source.size)
    deciding = [] if tuning.train_step else deciding_batches(source)
    training = _Training(net, teacher.eval(), tuning, recipe, deciding, rounded=scheme is not None)
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
        if not loop.resumed:
            training.judge()
        loop.run(_batches(source, recipe, loop.step, blended=not tuning.train_step), tell)
    training.end()


def check_train_step(net: TaskNet, source: Source, tuning: FineTuning) -> None:
    """Call the user's own train step once, if any, on a copy of a net: one that fails is to fail before measuring.

    Raises `UserError` as `fine_tune` does. Numbers that are drawn at random meanwhile are drawn again.
    """
    if not tuning.train_step:
        return
    assert isinstance(net, ModuleNet)
    tuning, recipe = tuning.for_size(source.size), tuning.recipe(source.size)
    with torch.random.fork_rng(devices=[]):
        copy = net.copy()
        training = _Training(copy, copy, tuning, recipe, [], rounded=False)
        images = next(_batches(source, recipe, 0, blended=False)).image
        with torch.enable_grad():
            training.own_loss(torch.from_numpy(images), 0)


def _batches(source: Source, recipe: Recipe, first: int, *, blended: bool) -> Iterator[Batch]:
    """The batch of each step from `first` on, which follows from the step: pictures alone, or whole images with labels.

    Labels that are the net's own predictions say nothing that it does not. Pictures may be `blended`: the net that
    teaches has an answer to these, too.
    """
    samples = source.split("train")
    for step in range(first, recipe.steps):
        rng = np.random.default_rng([recipe.seed, step])
        if isinstance(source, SelfLabelled):
            images = source.windows(recipe.batch, rng, LEAST_SIDE)
            yield Batch(blend(images, rng) if blended else images, {}, {})
        else:
            picks = rng.integers(len(samples), size=recipe.batch)
            yield collate([augment(samples[int(pick)], source.tasks, rng, source.size) for pick in picks], source.tasks)


def deciding_batches(source: Source) -> list[Batch]:
    """Validation images in batches, as trainings have them: pictures alone, or with their labels."""
    batches = batches_of(source.split("validation"), BATCHES[0], DECIDING_IMAGES, tasks=source.tasks)
    return [Batch(batch.image, {}, {}) if isinstance(source, SelfLabelled) else batch for batch in batches]


def deciding_loss(net: ModuleNet, teacher: ModuleNet, deciding: Sequence[Batch]) -> Tensor:
    """The mean over batches of what a net, in evaluation mode from here on, has to learn of its teacher and labels."""
    net.eval()
    with torch.no_grad():
        return torch.stack([_loss(net, teacher, batch, Recipe.label_share) for batch in deciding]).mean()


def _loss(net: ModuleNet, teacher: ModuleNet, batch: Batch, share: float) -> Tensor:
    """The sum over tasks of the distance from the teacher; labels, where there are any, have a `share` in it."""
    images = torch.from_numpy(batch.image)
    with torch.no_grad():
        wanted = teacher(images)
    given, losses = net(images), list[Tensor]()
    for task in net.tasks:
        own = prepared(task, given[task.name])
        losses.append(distillation_loss(task, own, prepared(task, wanted[task.name])))
        if batch.targets:
            labels = (label_tensors(part[task.name]) for part in (batch.targets, batch.masks))
            losses[-1] = share * label_loss(task, own, *labels) + (1 - share) * losses[-1]
    return torch.stack(losses).sum()


class _Training:
    """One net's fine-tuning, as `TrainingLoop` runs it; `deciding` images say which weights are the best so far."""

    def __init__(
        self,
        net: ModuleNet,
        teacher: ModuleNet,
        tuning: FineTuning,
        recipe: Recipe,
        deciding: Sequence[Batch],
        rounded: bool,
    ) -> None:
        self._net, self._teacher, self._recipe = net, teacher, recipe
        self._deciding, self._rounded = deciding, rounded
        self._spec, self._step = tuning.train_step, tuning.step_function
        norms = nn.modules.batchnorm._BatchNorm
        self._norms = {name: each for name, each in net.named_modules() if isinstance(each, norms)}
        self.loss = math.nan
        parameters: dict[Tensor, str] = {p: name for name, p in net.named_parameters() if p.requires_grad}
        self._optimized = Optimized(parameters, torch.optim.Adam(list(parameters)))
        self._least, self._best = torch.tensor(math.inf), dict[str, Tensor]()

    @property
    def optimized(self) -> list[Optimized]:
        """See `edgemtl.train.loop.Training`."""
        return [self._optimized]

    def one_step(self, step: int, batch: Batch) -> None:
        """See `edgemtl.train.loop.Training`."""
        images = torch.from_numpy(batch.image)
        with torch.enable_grad():
            loss = self.own_loss(images, step) if self._step else self._loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
        self.loss = float(loss.detach())
        self._optimized.update(self._recipe.rate_at(step))
        if (step + 1) % max(1, self._recipe.steps // JUDGED) == 0 or step + 1 == self._recipe.steps:
            self.judge()

    def judge(self) -> None:
        """Remember the weights as they are, if none before did better on the images that decide."""
        if self._deciding:
            lost = deciding_loss(self._net, self._teacher, self._deciding)
            if lost < self._least:
                self._least, self._best = lost, {name: value.clone() for name, value in self._weights().items()}

    def end(self) -> None:
        """Leave the net in evaluation mode, with the best of its weights."""
        with torch.no_grad():
            for name, value in self._weights().items():
                value.copy_(self._best.get(name, value))
        self._net.eval()

    def _weights(self) -> dict[str, Tensor]:
        """Whatever a training changes: parameters, and statistics of batch normalisation."""
        return {name: parameter.detach() for parameter, name in self._optimized.names.items()} | self._statistics()

    def _train_norms(self) -> None:
        """Let batch normalisation take a batch's statistics, but of a net that is rounded: what it has stays right."""
        for norm in self._norms.values():
            norm.train(not self._rounded)

    def _loss(self, batch: Batch) -> Tensor:
        """The sum of what all tasks have to learn."""
        self._net.eval()
        self._train_norms()
        loss = _loss(self._net, self._teacher, batch, self._recipe.label_share)
        if not loss.isfinite():
            remedy = "leave out --finetune" if self._rounded else "prune less of it"
            raise UserError(f"the net's outputs became NaN or infinite while it was fine-tuned: {remedy}")
        return loss

    def own_loss(self, images: Tensor, step: int) -> Tensor:
        """The loss of the user's own train step; `UserError` where it gives none, or fails."""
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
        """See `edgemtl.train.loop.Training`: statistics of batch normalisation, and the best weights so far."""
        best = {f"best.{name}": value for name, value in self._best.items()}
        return {**self._statistics(), **best, "least": self._least}

    def _statistics(self) -> dict[str, Tensor]:
        return {f"{name}.{key}": value for name, norm in self._norms.items() for key, value in norm.named_buffers()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `edgemtl.train.loop.Training`."""
        for name, value in self._statistics().items():
            value.copy_(state[name])
        self._least = state["least"]
        self._best = {name: state[f"best.{name}"] for name in self._weights() if f"best.{name}" in state}
