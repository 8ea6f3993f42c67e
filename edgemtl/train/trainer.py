"""Training of a supernet: the sandwich rule, in-place and feature distillation, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgemtl.data import Batch, Source
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.files.claim import claim
from edgemtl.files.disk import check_folder, write_atomic, write_json
from edgemtl.files.json import parse_json
from edgemtl.models import ROUTING, Supernet, recalibrate, save_supernet
from edgemtl.signals import deferred
from edgemtl.spaces import DesignSource, Values
from edgemtl.train.checkpoint import (
    CHECKPOINT_FILE,
    load_checkpoint,
    optimizer_state,
    restore_optimizer,
    save_checkpoint,
)
from edgemtl.train.distill import feature_distance, stage_ends
from edgemtl.train.feed import batches_of, training_batches
from edgemtl.train.interim import InterimScores
from edgemtl.train.losses import distillation_loss, task_loss
from edgemtl.train.metrics import evaluate
from edgemtl.train.recipe import Recipe
from edgemtl.train.weighting import Weighting, make_weighting

__all__ = ["Progress", "fresh_supernet", "train_supernet"]

LOG_FILE = "train.jsonl"
CHECKPOINT_SECONDS = 60.0
CLIP_NORM = 5.0
SCORED_IMAGES = 96
ROUTING_WEIGHT = 0.01
"""Of the losses that keep experts in use and apart by task (M3ViT, Mod-Squad); nets without experts have none."""


@dataclass(frozen=True)
class Progress:
    """One report of a training run: losses are means since the last one.

    `seconds_left` is an estimate, from what the steps before took and what those to come compute. `validation` holds
    every task's metrics of the largest design on a few images; most reports have none.
    """

    step: int
    steps: int
    losses: dict[str, float]
    images_per_second: float
    learning_rate: float
    seconds_left: float = 0.0
    validation: dict[str, dict[str, float]] = field(default_factory=dict)


def train_supernet(
    space: DesignSource,
    source: Source,
    recipe: Recipe,
    out: Path,
    *,
    supernet: Supernet | None = None,
    teacher: nn.Module | None = None,
    weights_sha256: str | None = None,
    command: str = "",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train a supernet for `space` on `source` and write `out/supernet.safetensors`; its path.

    A `supernet` may bring weights (public ones, from the file with that hash); otherwise training starts from scratch.
    A `teacher`, a net in evaluation mode that gives every task's raw output, distils into the largest design too. `out`
    gets `checkpoint.safetensors` (before the first step, at least every minute, after the last step, and on Ctrl-C once
    the step is done: calling again with the same recipe goes on from it), `train.jsonl` (one line per report) and
    `training.json` (recipe, environment, metrics of the largest and smallest design on the validation split). Runs on
    the device and processes that accelerate finds, in BF16 where the recipe says so. Raises `UserError` where another
    process trains there, and at the end where weights are not finite.
    """
    check_folder(out, "training run")
    accelerator, begin = Accelerator(), supernet or fresh_supernet(space, recipe.seed)
    with claim(out, "train") if accelerator.is_main_process else nullcontext():
        run = _Run(space, source, recipe, out, begin, teacher, report, accelerator)
        try:
            with deferred() as now:
                run.train(now)
        except KeyboardInterrupt:
            if not run.in_step:
                run.checkpoint()
            raise
        return run.finish(weights_sha256, command)


def fresh_supernet(space: DesignSource, seed: int) -> Supernet:
    """A supernet with random weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return Supernet.of(space)


class _Run:
    """State of one training run."""

    def __init__(
        self,
        space: DesignSource,
        source: Source,
        recipe: Recipe,
        out: Path,
        supernet: Supernet,
        teacher: nn.Module | None,
        report: Callable[[Progress], None],
        accelerator: Accelerator,
    ) -> None:
        self.space, self.source, self.recipe, self.out, self.report = space, source, recipe, out, report
        self.accelerator = accelerator
        self.device = self.accelerator.device
        self.bf16 = recipe.computes_bf16()
        self.supernet = supernet.to(self.device)
        self.teacher = None if teacher is None else teacher.to(self.device).eval()
        self.weighting: Weighting = make_weighting(recipe.weighting, [task.name for task in space.tasks])
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in supernet.shared.items()}
        self.names |= {parameter: f"weighting{number}" for number, parameter in enumerate(self.weighting.parameters())}
        self.optimizer = self.accelerator.prepare(
            torch.optim.AdamW(_groups(self.names, recipe), lr=recipe.learning_rate)
        )
        self.average = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
        self.fingerprint = _fingerprint(space, source, recipe)
        self.saved: int | None = None
        self.step = self._restore()
        self.in_step = False
        self.interim = InterimScores(supernet, self.average, source, space.largest)
        self.work = [0.0, *accumulate(map(recipe.work_at, range(recipe.steps)))]
        self.begun = time.monotonic(), self.work[self.step]
        self.sums: dict[str, float] = {}

    def _restore(self) -> int:
        found = load_checkpoint(self.out / CHECKPOINT_FILE, self.fingerprint)
        if found is None:
            return 0
        step, state = found
        self.saved = step
        with torch.no_grad():
            for parameter, name in self.names.items():
                parameter.copy_(state[f"parameter.{name}"])
            for name, value in self.average.items():
                value.copy_(state[f"average.{name}"])
        restore_optimizer(self.optimizer, self.names, state)
        if self.accelerator.is_main_process:
            _forget_after(self.out / LOG_FILE, step)
        return step

    def checkpoint(self) -> None:
        """Write the whole state, where that was not done since the last step."""
        if self.accelerator.is_main_process and self.step != self.saved:
            state = {f"parameter.{name}": parameter for parameter, name in self.names.items()}
            state |= {f"average.{name}": value for name, value in self.average.items()}
            state |= optimizer_state(self.optimizer, self.names)
            save_checkpoint(self.out / CHECKPOINT_FILE, self.step, self.fingerprint, state)
            self.saved = self.step

    def train(self, now: Callable[[], None]) -> None:
        """All remaining steps; `now` is called between two of them, and may end it."""
        self.checkpoint()
        samples = self.source.split("train")
        feed = training_batches(samples, self.space.tasks, self.recipe, self.step, self.accelerator.process_index)
        saved = reported = time.monotonic()
        since = self.step
        for batch in feed:
            self.in_step = True
            self._one_step(batch)
            self.step += 1
            self.in_step = False
            clock = time.monotonic()
            if clock - saved > CHECKPOINT_SECONDS:
                self.checkpoint()
                saved = clock
            if self.step % 20 == 0 or self.step == self.recipe.steps:
                self._report((self.step - since), clock - reported)
                reported, since = clock, self.step
            now()
        self.checkpoint()

    def _one_step(self, batch: Batch) -> None:
        torch.manual_seed(self.recipe.seed + self.step)  # some weightings draw: a resumed run draws the same
        rate = self.recipe.rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        image = torch.from_numpy(batch.image).to(self.device, memory_format=torch.channels_last)
        labels = {name: (self._tensor(batch.targets[name]), self._tensor(batch.masks[name])) for name in batch.targets}
        largest = self._design_step("largest", image, labels, self.space.largest(), self._teacher_outputs(image))
        for values in self._narrow_designs():
            self._design_step("narrow", image, labels, values, largest)
        self._reduce()
        torch.nn.utils.clip_grad_norm_(self.names, CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._update_average()

    def _teacher_outputs(self, image: Tensor) -> dict[str, Tensor] | None:
        if self.teacher is None:
            return None
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            outputs: dict[str, Tensor] = self.teacher(image)
        return outputs

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _narrow_designs(self) -> list[Values]:
        if self.step < self.recipe.largest_steps * self.recipe.steps:
            return []
        rng = random.Random(f"{self.recipe.seed}/{self.step}")  # the same designs in every process
        return [self.space.smallest(), *(self.space.random(rng) for _ in range(self.recipe.random_designs))]

    def _design_step(
        self,
        role: str,
        image: Tensor,
        labels: Mapping[str, tuple[Tensor, Tensor]],
        values: Values,
        teacher: dict[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        """Forward and backward of one design; what it gave, without gradients, to teach narrower ones."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = self.supernet(image, values, features=True)
        losses = {task.name: task_loss(task, outputs[task.name], *labels[task.name]) for task in self.space.tasks}
        extra: Tensor | None = None
        if teacher is not None:
            share = self.recipe.label_share
            soft = {
                task.name: distillation_loss(task, outputs[task.name], teacher[task.name]) for task in self.space.tasks
            }
            losses = {name: share * loss + (1 - share) * soft[name] for name, loss in losses.items()}
            if ends := stage_ends(teacher):
                extra = self._feature_weight() * feature_distance(stage_ends(outputs), ends)
        if ROUTING in outputs:
            routing = ROUTING_WEIGHT * outputs[ROUTING]
            extra = routing if extra is None else extra + routing
        for name, loss in losses.items():
            key = f"{role}.{name}"
            self.sums[key] = self.sums.get(key, 0.0) + float(loss.detach())
        shared = [value for name, value in outputs.items() if name.startswith("trunk.")]
        self.weighting.backward(losses, extra, shared, self.accelerator.backward)
        return {name: value.detach() for name, value in outputs.items()}

    def _feature_weight(self) -> float:
        begun = self.recipe.largest_steps * self.recipe.steps
        return self.recipe.feature_weight * min(1.0, (self.step - begun) / (0.1 * (self.recipe.steps - begun) + 1))

    def _reduce(self) -> None:
        """Average gradients over processes; parameters that no design of this step used have none."""
        if self.accelerator.num_processes == 1:
            return
        parameters = list(self.names)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        parts = torch.split(self.accelerator.reduce(flat, "mean"), [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _update_average(self) -> None:
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.supernet.shared.items():
                self.average[name].lerp_(parameter, 1 - decay)

    def _report(self, steps: int, seconds: float) -> None:
        narrow = 1 + self.recipe.random_designs
        losses = {key: value / steps / (narrow if key.startswith("narrow") else 1) for key, value in self.sums.items()}
        self.sums = {}
        speed = steps * self.recipe.batch * self.accelerator.num_processes / max(seconds, 1e-9)
        if self.accelerator.is_main_process:
            rate, left = self.recipe.rate_at(self.step), self._seconds_left()
            validation = self.interim.score() if self.interim.due() and self.step < self.recipe.steps else {}
            progress = Progress(self.step, self.recipe.steps, losses, speed, rate, left, validation)
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / LOG_FILE).open("a") as log:
                log.write(json.dumps(_finite({**progress.__dict__, "time": time.time()}), allow_nan=False) + "\n")
            self.report(progress)

    def _seconds_left(self) -> float:
        begun, before = self.begun
        done = max(self.work[self.step] - before, 1e-9)
        return (time.monotonic() - begun) * (self.work[-1] - self.work[self.step]) / done

    def finish(self, weights_sha256: str | None, command: str) -> Path:
        """Average the weights, round them as they are stored, score two designs and write the files."""
        with torch.no_grad():
            for name, parameter in self.supernet.shared.items():
                parameter.copy_(self.average[name].half())
                if not parameter.isfinite().all():
                    raise UserError(
                        f"training diverged, its weights are not finite after {self.step} steps: begin again in "
                        "another --out, with a lower --learning-rate"
                    )
        path = self.out / "supernet.safetensors"
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # the scores below are one process's, with none to wait for
        if self.accelerator.is_main_process:
            header = {
                "space": self.space.name,
                "fingerprint": self.space.fingerprint,
                "tasks": [task.name for task in self.space.tasks],
                "data": {"name": self.source.name, "fingerprint": self.source.fingerprint},
                "recipe": self.recipe.as_json(),
                "weights_sha256": weights_sha256,
                "processes": self.accelerator.num_processes,
                "command": command,
            }
            save_supernet(self.supernet, path, header)
            largest, smallest = self.space.largest(), self.space.smallest()
            ends = {"largest": largest} | ({"smallest": smallest} if smallest != largest else {})
            scores = {name: self._score(values) for name, values in ends.items()}
            write_json(self.out / "training.json", {**header, "validation": scores, "environment": environment()})
        return path

    def _score(self, values: Values) -> dict[str, dict[str, float]]:
        net = self.supernet.extract(values)
        train = batches_of(self.source.split("train"), 16, SCORED_IMAGES)
        recalibrate(net, (torch.from_numpy(batch.image) for batch in train))
        return evaluate(net, self.space.tasks, batches_of(self.source.split("validation"), 16, SCORED_IMAGES))


def _finite(value: Any) -> Any:
    """A value as JSON can hold it: a loss that is not finite any more is null."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _forget_after(log: Path, step: int) -> None:
    """Drop what a log says of steps after a checkpoint's: they are done again, and a kill may have cut a line short."""
    if log.is_file():
        content = log.read_bytes()
        kept = [line for line in content.splitlines(keepends=True) if _step_of(line) <= step]
        if len(kept) < content.count(b"\n") or not content.endswith(b"\n"):
            write_atomic(log, b"".join(kept))


def _step_of(line: bytes) -> float:
    try:
        return int(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _groups(names: Mapping[Tensor, str], recipe: Recipe) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only; not on biases, batch norm or depthwise filters."""
    decayed = [p for p in names if p.ndim > 1 and p.shape[1] > 1]
    plain = [p for p in names if not (p.ndim > 1 and p.shape[1] > 1)]
    return [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _fingerprint(space: DesignSource, source: Source, recipe: Recipe) -> str:
    content = json.dumps([space.fingerprint, source.fingerprint, recipe.as_json()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
