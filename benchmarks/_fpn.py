"""A net as a user brings it: a small ResNet-FPN of three tasks in plain torch, trained here on rendered rooms.

`_fpn:trained` is what `edgemtl search` is given, in the folder that holds the weights.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from _common import say
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgemtl.data import Batch, Sample, Source
from edgemtl.data.scenes import ScenesSource
from edgemtl.files.disk import write_atomic
from edgemtl.tasks import Task
from edgemtl.train import (
    CHECKPOINT_FILE,
    Optimized,
    Recipe,
    TrainingLoop,
    batches_of,
    label_tensors,
    planes,
    task_loss,
    training_batches,
)

__all__ = [
    "SIZE",
    "WEIGHTS",
    "ResNetFpn",
    "fine_tuned",
    "learn",
    "loss_gradients",
    "tasks_of",
    "trained",
    "unseen_rooms",
]

WEIGHTS = "net.safetensors"
SIZE = (96, 128)
TRAIN_IMAGES, QUICK_IMAGES, SLOPE_IMAGES = 4096, 64, 32
PHOTOS, QUICK_PHOTOS = 1536, 12
RECIPE = Recipe(steps=4000, batch=16, sizes=(0.67, 1.0), largest_steps=1.0)
QUICK_RECIPE = Recipe(steps=60, batch=4, sizes=(0.67,), largest_steps=1.0)
TUNING = Recipe(steps=600, batch=16, sizes=(1.0,), learning_rate=1e-3, largest_steps=1.0)
QUICK_TUNING = Recipe(steps=2, batch=4, sizes=(0.67,), learning_rate=1e-3, largest_steps=1.0)
TASKS: Mapping[str, int] = {"semseg": 16, "depth": 1, "normals": 3}
"""Channels of each task, of those that rooms have."""
WIDTHS = (16, 32, 64, 128)
PYRAMID = 48
_REPORTED = 16


class Residual(nn.Module):
    """The basic block of He et al. 2015 (https://arxiv.org/abs/1512.03385)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, width, H / stride, W / stride)."""
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def _head(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(PYRAMID, PYRAMID, 3, padding=1, bias=False), nn.BatchNorm2d(PYRAMID), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(PYRAMID, channels, 1))


class ResNetFpn(nn.Module):
    """Stages of residual blocks, a pyramid of their features (Lin et al. 2017, https://arxiv.org/abs/1612.03144), and a
    head of two convolutions for each task on its finest level, a quarter of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(), Residual(16, 16, 1)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(before, width, 2), Residual(width, width, 1)) for before, width in pairwise(WIDTHS)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in WIDTHS[1:])
        self.smooth = nn.Conv2d(PYRAMID, PYRAMID, 3, padding=1)
        self.heads = nn.ModuleDict({task: _head(channels) for task, channels in TASKS.items()})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), normalised, to (N, channels, H, W) of each task: logits, log-metres, vectors."""
        x = self.stem(image)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        level = self.laterals[-1](features[-1])
        for lateral, feature in zip(reversed(self.laterals[:-1]), reversed(features[:-1]), strict=True):
            level = lateral(feature) + F.interpolate(level, scale_factor=2.0, mode="nearest")
        level = F.relu(self.smooth(level))
        return {
            task: F.interpolate(head(level), scale_factor=4.0, mode="bilinear", align_corners=False)
            for task, head in self.heads.items()
        }


def trained() -> nn.Module:
    """The net with the weights of the working directory."""
    return read_weights(Path.cwd())


def read_weights(folder: Path) -> ResNetFpn:
    """The trained net of a folder, in evaluation mode."""
    net = ResNetFpn()
    net.load_state_dict(load_file(folder / WEIGHTS))
    return net.eval()


def tasks_of(source: Source) -> tuple[Task, ...]:
    """The net's tasks, as a source declares them."""
    return tuple(task for task in source.tasks if task.name in TASKS)


def training_loss(net: nn.Module, batch: Batch, source: Source, bf16: bool) -> Tensor:
    """The sum of the three tasks' losses of a batch with labels."""
    images = torch.from_numpy(batch.image).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = net(images)
    losses = []
    for task in tasks_of(source):
        labels, mask = label_tensors(batch.targets[task.name]), label_tensors(batch.masks[task.name])
        losses.append(task_loss(task, {task.outputs[0].name: planes(outputs[task.name])}, labels, mask))
    return torch.stack(losses).sum()


class _Training:
    """The net's training, as `TrainingLoop` runs it."""

    def __init__(self, net: nn.Module, source: Source, recipe: Recipe) -> None:
        self.net, self.loss, self._source, self._recipe = net, 0.0, source, recipe
        self._bf16 = recipe.computes_bf16()
        names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
        self._optimized = Optimized(names, torch.optim.AdamW(list(names), weight_decay=recipe.weight_decay))

    @property
    def optimized(self) -> list[Optimized]:
        """The parameters that are trained."""
        return [self._optimized]

    def one_step(self, step: int, batch: Batch) -> None:
        """One batch with labels."""
        loss = training_loss(self.net, batch, self._source, self._bf16)
        loss.backward()  # type: ignore[no-untyped-call]
        self.loss = float(loss.detach())
        self._optimized.update(self._recipe.rate_at(step))

    def state(self) -> dict[str, Tensor]:
        """Statistics of batch normalisation."""
        return {f"buffer.{name}": value for name, value in self.net.named_buffers()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for name, value in self.net.named_buffers():
            value.copy_(state[f"buffer.{name}"])


def learn(folder: Path, quick: bool) -> ResNetFpn:
    """The trained net, whose training in `folder` goes on where it was stopped; quick: one that has hardly begun.

    Rooms are rendered first, where their cache has not all of them.
    """
    if not (folder / WEIGHTS).is_file():
        recipe, source = (QUICK_RECIPE if quick else RECIPE), _rooms(quick)
        _prepare(source)
        torch.manual_seed(recipe.seed)
        net = ResNetFpn()
        _fit(net, source, recipe, folder)
        write_atomic(folder / WEIGHTS, save({name: value.contiguous() for name, value in net.state_dict().items()}))
    return read_weights(folder)


def fine_tuned(net: nn.Module, quick: bool) -> nn.Module:
    """A copy of a pruned net, trained further on labels."""
    tuned = copy.deepcopy(net)
    with TemporaryDirectory() as folder:
        _fit(tuned, _rooms(quick), QUICK_TUNING if quick else TUNING, Path(folder))
    return tuned


def loss_gradients(net: nn.Module) -> None:
    """Gradients of the losses over images that calibrate, as the Taylor criterion reads them."""
    net.zero_grad()
    source = _rooms(quick=False)
    for batch in batches_of(source.split("calibration"), 8, SLOPE_IMAGES, tasks=tasks_of(source)):
        training_loss(net, batch, source, bf16=False).backward()  # type: ignore[no-untyped-call]


def unseen_rooms(quick: bool) -> Iterator[Sample]:
    """Rooms of the training split that the net has not been trained on, as many as a search gets photos."""
    source = ScenesSource(SIZE, train=TRAIN_IMAGES + (QUICK_PHOTOS if quick else PHOTOS))
    if not quick:
        _prepare(source)
    samples = source.split("train")
    yield from (samples[number] for number in range(TRAIN_IMAGES, len(samples)))


def _prepare(source: ScenesSource) -> None:
    source.prepare("train", os.cpu_count() or 1, lambda news: _tell(news.stage, news.done, news.total, ""))


def _rooms(quick: bool) -> ScenesSource:
    return ScenesSource(SIZE, train=QUICK_IMAGES if quick else TRAIN_IMAGES)


def _fit(net: nn.Module, source: Source, recipe: Recipe, folder: Path) -> None:
    """Train a net on labels; in evaluation mode at the end."""
    training = _Training(net.train().to(memory_format=torch.channels_last), source, recipe)
    key = hashlib.sha256(repr((source.fingerprint, recipe.as_json(), str(net))).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    loop = TrainingLoop(training, recipe, folder / CHECKPOINT_FILE, key)

    def tell(step: int) -> None:
        _tell("step", step, recipe.steps, f"loss {training.loss:.3f}, {loop.seconds_left or 0:.0f} s left")

    with torch.enable_grad():
        loop.run(training_batches(source.split("train"), tasks_of(source), recipe, loop.step, 0), tell)
    net.eval()


def _tell(stage: str, done: int, total: int, text: str) -> None:
    if total and done % max(1, total // _REPORTED) == 0:
        say(f"{stage} {done}/{total} {text}")
