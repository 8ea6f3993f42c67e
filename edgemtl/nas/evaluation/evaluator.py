"""From a design to its scores: cut out of the supernet, recalibrated, quantized, scored and timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.data import Batch, Sample, Source
from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet, Supernet, recalibrate
from edgemtl.models.quantization import Ranges, calibrate, simulate
from edgemtl.nas.evaluation.problem import Evaluation
from edgemtl.profiling import measure
from edgemtl.runtime import Session, open_engine
from edgemtl.spaces import Design
from edgemtl.targets import ExportTarget
from edgemtl.train import Scorer, batches_of, evaluate, subsample

__all__ = ["LATENCY_ENGINES", "TEST_IMAGES", "VALIDATION_IMAGES", "Candidate", "Evaluator", "median_ms"]

RECALIBRATION_IMAGES = 64
CALIBRATION_IMAGES = 32
VALIDATION_IMAGES = (64, 1024)
TEST_IMAGES = (192, 4096)
BATCH = 16
LATENCY_RUNS = 20
LATENCY_WARMUP = 6
LATENCY_ENGINES = 3


@dataclass(frozen=True)
class Candidate:
    """A design's static net with its own statistics, and the activation ranges of its INT8 blocks (None: no such)."""

    design: Design
    net: MultiTaskNet
    ranges: Ranges | None


@dataclass
class Evaluator:
    """Everything that scoring a design needs; made once for a search.

    Statistics come from the training split, ranges from the calibration split, decisions from the validation split, and
    the reported scores from the test split: no image serves two of these. Engines are built, timed and scored where
    they are `timed_here`, as this machine is what they are made for; else nets are simulated and have no latency.
    """

    supernet: Supernet
    source: Source
    target: ExportTarget
    scopes: Sequence[str]
    timed_here: bool
    threads: int = 0

    def candidate(self, design: Design) -> Candidate:
        """The design's net, extracted and recalibrated, with ranges where a block is INT8."""
        net = self.supernet.extract(design)
        recalibrate(net, self._train_images)
        eight_bit = "int8" in design.precision.values()
        return Candidate(design, net, self.ranges(net) if eight_bit else None)

    def ranges(self, net: MultiTaskNet) -> Ranges:
        """Activation ranges of a recalibrated net."""
        return calibrate(net, self._calibration_images)

    def evaluate(self, design: Design) -> Evaluation:
        """Metrics of the quantized net, simulated as the target's engine computes, and the latency if timed here."""
        candidate = self.candidate(design)
        return Evaluation(design, self.simulated(candidate), self.time(candidate) if self.timed_here else {})

    def simulated(self, candidate: Candidate) -> dict[str, dict[str, float]]:
        """Metrics on the validation images, simulated as the target's engine computes."""
        module = simulate(candidate.net, candidate.design.precision, candidate.ranges, self.target.scheme)
        return evaluate(module, self.source.tasks, self._validation)

    @property
    def sample_image(self) -> NDArray[np.float32]:
        """One normalised image (1, 3, H, W), to time with."""
        return self._validation[0].image[:1]

    @property
    def _modes(self) -> list[list[str]]:
        """The sets of tasks that are timed: an engine that is opened for these alone opens sooner."""
        return [self.tasks_of(scope) for scope in self.scopes]

    def tasks_of(self, scope: str) -> list[str]:
        """The tasks that a scope of latency runs: one, or all for ""."""
        return [scope] if scope else [task.name for task in self.source.tasks]

    def time(self, candidate: Candidate) -> dict[str, float]:
        """Median latency in ms of the exported engine: all tasks under "", single ones that a budget names.

        Of several engines the fastest counts: two of one file differ by a tenth for as long as they live, and whatever
        else runs on the machine makes one slower, never faster.
        """
        drawn = [self._medians(candidate) for _ in range(LATENCY_ENGINES)]
        return {scope: min(medians[scope] for medians in drawn) for scope in self.scopes}

    def _medians(self, candidate: Candidate) -> dict[str, float]:
        with self.engine(candidate) as session:
            return {scope: median_ms(session, self.sample_image, self.tasks_of(scope)) for scope in self.scopes}

    @contextmanager
    def engine(self, candidate: Candidate) -> Iterator[Session]:
        """The candidate built for the target in a temporary folder, opened, and closed at the end."""
        with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
            self.target.build(candidate.net, candidate.design.precision, candidate.ranges, Path(folder))
            with closing(open_engine(Path(folder), self.threads, modes=self._modes)) as session:
                yield session

    def score(self, candidate: Candidate, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Metrics on `samples` of the real engine's outputs; simulated where engines are not timed here."""
        if not self.timed_here:
            module = simulate(candidate.net, candidate.design.precision, candidate.ranges, self.target.scheme)
            return evaluate(module, self.source.tasks, batches_of(samples, BATCH))
        scorer = Scorer(self.source.tasks)
        names = [task.name for task in self.source.tasks]
        with self.engine(candidate) as session:
            for batch in batches_of(samples, BATCH):
                outputs: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
                for image in batch.image:
                    for name, value in session.run(image[None], names).items():
                        outputs[name].append(value.copy())  # a session may reuse its buffers
                scorer.update({name: np.concatenate(values) for name, values in outputs.items()}, batch)
        return scorer.compute()

    def check_labels(self) -> None:
        """`UserError` where no scored image has a valid label of some task, which could then have no score."""
        scored = {
            "validation": [batch.masks for batch in self._validation],
            "test": [sample.masks for sample in self.test_samples],
        }
        for split, masks in scored.items():
            for task in self.source.tasks:
                if not any(mask[task.name].any() for mask in masks):
                    raise UserError(
                        f"data set {self.source.name}: no {split} image that is scored has a valid label of task "
                        f"{task.name!r}: add labels, or remove the task"
                    )

    @cached_property
    def _train_images(self) -> list[Tensor]:
        batches = batches_of(self.source.split("train"), BATCH, RECALIBRATION_IMAGES)
        return [torch.from_numpy(b.image).to(memory_format=torch.channels_last) for b in batches]  # a third faster

    @cached_property
    def _calibration_images(self) -> list[Tensor]:
        batches = batches_of(self.source.split("calibration"), BATCH, CALIBRATION_IMAGES)
        return [torch.from_numpy(batch.image) for batch in batches]

    @cached_property
    def _validation(self) -> list[Batch]:
        return list(batches_of(self.source.split("validation"), BATCH, self._limit(VALIDATION_IMAGES)))

    @property
    def validation_images(self) -> int:
        """How many images decide."""
        return sum(len(batch.image) for batch in self._validation)

    @cached_property
    def test_samples(self) -> list[Sample]:
        """The images of the reported scores, which no decision has seen."""
        return subsample(self.source.split("test"), self._limit(TEST_IMAGES))

    def _limit(self, counts: tuple[int, int]) -> int:
        """How many images are scored: fewer where every pixel has a label than where an image has one."""
        return counts[0] if any(task.dense for task in self.source.tasks) else counts[1]


def median_ms(session: Session, image: NDArray[np.float32], tasks: Sequence[str]) -> float:
    """Median latency of an open engine's calls for `tasks`."""
    return measure(partial(session.run, image, tasks), runs=LATENCY_RUNS, warmup=LATENCY_WARMUP).median_ms
