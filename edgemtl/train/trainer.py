"""Training of a supernet: the sandwich rule, in-place and feature distillation, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgemtl.data import Source
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.files.claim import claim
from edgemtl.files.disk import write_atomic, write_json
from edgemtl.files.json import parse_json
from edgemtl.files.paths import check_folder
from edgemtl.models import SharedWeights, Supernet, recalibrate, save_supernet
from edgemtl.progress import Progress, Report, silent
from edgemtl.spaces import DesignSource, NearDesigns, Values
from edgemtl.train.checkpoint import CHECKPOINT_FILE
from edgemtl.train.feed import batches_of, training_batches
from edgemtl.train.interim import InterimScores
from edgemtl.train.loop import TrainingLoop
from edgemtl.train.memory import memory_kept
from edgemtl.train.metrics import evaluate
from edgemtl.train.processes import join_group, leave_group
from edgemtl.train.recipe import Recipe
from edgemtl.train.sandwich import SupernetTraining

__all__ = ["DivergedError", "InitialWeights", "TrainingProgress", "fresh_supernet", "train_supernet"]

LOG_FILE = "train.jsonl"
SUPERNET_FILE = "supernet.safetensors"
REPORT_STEPS = 20
SCORED_IMAGES = 96


@dataclass(frozen=True)
class TrainingProgress(Progress):
    """Progress in optimizer steps: losses are means since the last report.

    `validation` holds every task's metrics of the largest design on a few images; most reports have none.
    """

    losses: dict[str, float] = field(default_factory=dict)
    images_per_second: float = 0.0
    learning_rate: float = 0.0
    validation: dict[str, dict[str, float]] = field(default_factory=dict)

    def log_line(self) -> dict[str, Any]:
        """The report as the log holds it."""
        fields = ("losses", "images_per_second", "learning_rate", "seconds_left", "validation")
        return {"step": self.done, "steps": self.total, **{name: getattr(self, name) for name in fields}}


@dataclass(frozen=True)
class InitialWeights:
    """The weights that training begins with, and the hash of the file that they are from, if any."""

    supernet: SharedWeights
    sha256: str | None = None


class DivergedError(UserError):
    """A training whose weights are not finite any more: no further step can mend them."""


def train_supernet(
    space: DesignSource,
    source: Source,
    recipe: Recipe,
    out: Path,
    *,
    initial: InitialWeights | None = None,
    teacher: nn.Module | None = None,
    command: str = "",
    report: Report = silent,
) -> Path:
    """Train a supernet for `space` on `source` and write `out/supernet.safetensors`; its path.

    `initial` brings weights, public ones or those of an earlier training; otherwise training starts from scratch. A
    `teacher`, a net that gives each task's raw outputs, distils into the largest design too, and into narrow ones where
    the largest is not trained; it is normalised as its pupils are. `out` gets `checkpoint.safetensors`
    (calling again with the same recipe goes on from it), `train.jsonl` (one line per report) and `training.json`
    (recipe, environment, metrics of the largest and smallest design on the validation split). Runs on the device and
    processes that accelerate finds, in BF16 where the recipe says so. Raises `UserError` where another process trains
    there, and `DivergedError` soon after weights are not finite.
    """
    check_folder(out, "training run")
    accelerator = join_group()
    initial = initial or InitialWeights(fresh_supernet(space, recipe.seed))
    is_main = accelerator.is_main_process
    with claim(out, "train") if is_main else nullcontext(), memory_kept():
        training = SupernetTraining(space, recipe, initial.supernet, teacher, accelerator)
        fingerprint = _fingerprint(space, source, recipe)
        loop = TrainingLoop(training, recipe, out / CHECKPOINT_FILE, fingerprint, writes=is_main)
        if loop.resumed and is_main:
            _forget_after(out / LOG_FILE, loop.step)
        rank, pinned = accelerator.process_index, accelerator.device.type == "cuda"
        feed = training_batches(source.split("train"), space.tasks, recipe, loop.step, rank, pinned=pinned)
        loop.run(feed, _Reporter(training, loop, source, out / LOG_FILE, report))
        origin = {
            "processes": accelerator.num_processes,
            "computed_in": "BF16" if training.bf16 else "FP32",
            "begun_with_sha256": initial.sha256,
            "command": command,
        }
        leave_group()  # the others end here, and wait for no scores
        if is_main:
            _take_average(training)
            _write(out, training, source, origin)
        return out / SUPERNET_FILE


def fresh_supernet(space: DesignSource, seed: int) -> Supernet:
    """A supernet with random weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return Supernet.of(space)


class _Reporter:
    """Writes a line of the log and reports, every `REPORT_STEPS` steps and at the end."""

    def __init__(
        self, training: SupernetTraining, loop: TrainingLoop, source: Source, log: Path, report: Report
    ) -> None:
        self._training, self._loop, self._log, self._report = training, loop, log, report
        self._interim = InterimScores(training.supernet, training.average, source, training.space.largest)
        self._last = loop.step, time.monotonic()

    def __call__(self, step: int) -> None:
        recipe, accelerator, (last_step, last_time) = self._training.recipe, self._training.accelerator, self._last
        if step % REPORT_STEPS and step != recipe.steps:
            return
        steps = step - last_step
        losses = self._training.mean_losses()
        now = time.monotonic()  # a GPU is done with the steps only once their losses are read
        self._last = step, now
        if not accelerator.is_main_process:
            return
        speed = steps * recipe.batch * accelerator.num_processes / max(now - last_time, 1e-9)
        seconds_left = self._loop.seconds_left
        validation = self._interim.score() if self._interim.due() and step < recipe.steps else {}
        text = ", ".join([f"{speed:.0f} images/s", *(f"{name} {value:.3f}" for name, value in losses.items())])
        progress = TrainingProgress(
            "steps", step, recipe.steps, text, seconds_left, losses, speed, recipe.rate_at(step), validation
        )
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as log:
            log.write(json.dumps(_finite({**progress.log_line(), "time": time.time()}), allow_nan=False) + "\n")
        self._report(progress)
        if not all(map(math.isfinite, losses.values())):
            _check_finite(self._training.supernet.shared, step)
        if validation:
            self._report(Progress("steps", 0, 0, f"validation after {step} steps, {_deciding(validation)}"))


def _deciding(validation: Mapping[str, Mapping[str, float]]) -> str:
    """Each task's first metric, the one that decides."""
    scores = ((task, *next(iter(metrics.items()))) for task, metrics in validation.items())
    return f"a few images: {', '.join(f'{task} {metric} {value:.3g}' for task, metric, value in scores)}"


def _take_average(training: SupernetTraining) -> None:
    """Give the supernet the averaged weights, rounded as they are stored; `DivergedError` where one is not finite."""
    with torch.no_grad():
        for name, parameter in training.supernet.shared.items():
            parameter.copy_(training.average[name].half())
    _check_finite(training.supernet.shared, training.recipe.steps)


def _check_finite(weights: Mapping[str, Tensor], steps: int) -> None:
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise DivergedError(
            f"training diverged, its weights are not finite after {steps} steps: begin again in another --out, with a "
            "lower --learning-rate"
        )


def _write(out: Path, training: SupernetTraining, source: Source, origin: Mapping[str, int | str | None]) -> None:
    """The supernet's file, then what it scores in its largest and smallest design."""
    space = training.space
    header = {
        "space": space.name,
        "fingerprint": space.fingerprint,
        "tasks": [task.name for task in space.tasks],
        "data": {"name": source.name, "fingerprint": source.fingerprint},
        "recipe": training.recipe.as_json(),
        **({"near": space.as_json()} if isinstance(space, NearDesigns) else {}),
        **origin,
    }
    save_supernet(training.supernet, out / SUPERNET_FILE, header)
    largest, smallest = space.largest(), space.smallest()
    ends = {"largest": largest} | ({"smallest": smallest} if smallest != largest else {})
    scores = {name: _score(training, values, source) for name, values in ends.items()}
    write_json(out / "training.json", {**header, "validation": scores, "environment": environment()})


def _score(training: SupernetTraining, values: Values, source: Source) -> dict[str, dict[str, float]]:
    net = training.supernet.extract(values)
    if not training.supernet.has_statistics:
        train = batches_of(source.split("train"), 16, SCORED_IMAGES)
        recalibrate(net, (torch.from_numpy(batch.image) for batch in train))
    tasks = training.space.tasks
    return evaluate(net, tasks, batches_of(source.split("validation"), 16, SCORED_IMAGES, tasks=tasks))


def _finite(value: Any) -> Any:
    """A value as JSON can hold it: a loss that is not finite any more is null."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _forget_after(log: Path, step: int) -> None:
    """Drop a log's lines after a checkpoint's step: those steps are repeated, and a kill may have cut a line short."""
    if log.is_file():
        content = log.read_bytes()
        lines = [line for line in content.splitlines(keepends=True) if _step_of(line) <= step]
        if len(lines) < content.count(b"\n") or not content.endswith(b"\n"):
            write_atomic(log, b"".join(lines))


def _step_of(line: bytes) -> float:
    try:
        return int(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _fingerprint(space: DesignSource, source: Source, recipe: Recipe) -> str:
    content = json.dumps([space.fingerprint, source.fingerprint, recipe.as_json()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
