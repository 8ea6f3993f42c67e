"""From a net to its scores: recalibrated, quantized, scored and timed; a design is cut out of its supernet first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemtl.data import Batch, Sample, Source, collate
from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet, Supernet, TaskNet, recalibrate
from edgemtl.models.quantization import (
    Ranges,
    calibrate,
    correct_biases,
    recalibrate_rounded,
    round_weights,
)
from edgemtl.nas.evaluation.by_image import by_image
from edgemtl.nas.evaluation.problem import Evaluation, LatencyEstimator, LatencyPrediction, Metrics
from edgemtl.nas.evaluation.stopping import Audit, ByImage, Stopped, Watch, image_order, watch_floors, watchable
from edgemtl.nas.evaluation.turns import Turns
from edgemtl.profiling import Measurer, TimedCall, no_collection
from edgemtl.results import Latency
from edgemtl.runtime import Outputs, Session
from edgemtl.spaces import Design
from edgemtl.targets import ExportTarget, emulated, needs_of
from edgemtl.tasks import Floor, map_outputs
from edgemtl.train import Scorer, batches_of, evaluate, raw_outputs, subsample

__all__ = [
    "TEST_IMAGES",
    "VALIDATION_IMAGES",
    "Candidate",
    "Evaluator",
    "NetEvaluator",
    "Prepared",
    "PreparedNet",
    "recalibration_images",
]

RECALIBRATION_IMAGES = 64
CALIBRATION_IMAGES = 32
VALIDATION_IMAGES = (64, 1024)
TEST_IMAGES = (192, 4096)
BATCH = 16
WATCHED_BATCH = 8
"""Images between two looks at whether a candidate can keep its floors."""
LATENCY_RUNS = 20
LATENCY_WARMUP = 6
LATENCY_ENGINES = 3


@dataclass(frozen=True)
class Candidate:
    """A design's static net with its own statistics, and the activation ranges of its INT8 blocks (None: no such)."""

    design: Design
    net: MultiTaskNet
    ranges: Ranges | None

    @property
    def precision(self) -> Mapping[str, str]:
        """The design's."""
        return self.design.precision


@dataclass(frozen=True)
class PreparedNet:
    """Any net in a precision, without a design: what `NetEvaluator` scores and times as it does a `Candidate`.

    One without a precision cannot be exported: it is scored as it is, and has no latency.
    """

    net: TaskNet
    precision: Mapping[str, str] | None
    ranges: Ranges | None = None


Prepared = Candidate | PreparedNet


@dataclass
class NetEvaluator:
    """Score and time nets for a target on a source's images; made once per run.

    Statistics come from the training split, ranges from the calibration split, decisions from the validation split, and
    the reported scores from the test split: no image serves two of these. Engines are built, timed and scored where
    `measurer` times them; else nets are simulated, and the latencies of designs are those of an `estimate`, if any.
    `turns` are those with other processes on this machine.
    """

    source: Source
    target: ExportTarget
    measurer: Measurer
    scopes: Sequence[str]
    threads: int = 0
    estimate: LatencyEstimator | None = None
    turns: Turns = field(kw_only=True, default_factory=Turns)

    @property
    def is_timed(self) -> bool:
        """Whether nets have latencies, of their engines or estimated."""
        return self.estimate is not None or self.measurer.untimed is None

    @property
    def is_measured(self) -> bool:
        """Whether latencies are those of engines."""
        return self.estimate is None and self.measurer.untimed is None

    def prepare(self, net: TaskNet, precision: Mapping[str, str] | None) -> PreparedNet:
        """The net, its statistics measured anew in place, with the ranges that INT8, FP16 and whole targets need."""
        recalibrate(net, self.turns.in_parts(self._train_images))
        return PreparedNet(net, precision, self._ranges_in(net, precision))

    def candidate_of(self, design: Design, net: MultiTaskNet, learnt: Mapping[str, tuple[float, float]]) -> Candidate:
        """A design's net, its statistics measured anew in place, with ranges as `as_trained` has them."""
        recalibrate(net, self.turns.in_parts(self._train_images))
        return self.as_trained(design, net, learnt)

    def as_trained(self, design: Design, net: MultiTaskNet, learnt: Mapping[str, tuple[float, float]]) -> Candidate:
        """A design's net with the statistics that it has, and with ranges where its precision needs them.

        They are those of a calibration, but for the tensors whose limits are `learnt`.
        """
        ranges = self._ranges_in(net, design.precision)
        return Candidate(design, net, ranges and Ranges({**ranges.limits, **learnt}))

    def _ranges_in(self, net: TaskNet, precision: Mapping[str, str] | None) -> Ranges | None:
        """The ranges that INT8, FP16 and whole targets need."""
        reduced = precision is not None and not {"int8", "fp16"}.isdisjoint(precision.values())
        bounded = reduced or (precision is not None and self.target.traits.needs_ranges)
        return self.ranges(net) if bounded else None

    def measured_rounded(
        self, design: Design, net: MultiTaskNet, learnt: Mapping[str, tuple[float, float]]
    ) -> Candidate:
        """As `candidate_of` has it, its statistics measured once more while its INT8 blocks, if any, are rounded."""
        candidate = self.candidate_of(design, net, learnt)
        if candidate.ranges is None or "int8" not in candidate.precision.values():
            return candidate
        return replace(candidate, net=self._rounded_statistics(candidate, candidate.net, candidate.ranges))

    def corrections(self, candidate: Candidate) -> list[Candidate]:
        """The candidate with what rounding changes in its INT8 layers made less, without labels; none without such.

        In the first two statistics are measured through rounding, in the others biases take out what it adds to means;
        in the second of either weights are rounded adaptively as well.
        """
        if candidate.ranges is None or "int8" not in candidate.precision.values():
            return []
        net, of_target = candidate.net, (candidate.precision, candidate.ranges, self.target.scheme)
        both = net, round_weights(net, *of_target, self._calibration_images)
        measured = [self._rounded_statistics(candidate, each, candidate.ranges) for each in both]
        corrected = [correct_biases(each, *of_target, self._calibration_images, net) for each in both]
        return [replace(candidate, net=each) for each in (*measured, *corrected)]

    def _rounded_statistics(self, candidate: Candidate, net: MultiTaskNet, ranges: Ranges) -> MultiTaskNet:
        """A copy of a net of the candidate's precision."""
        return recalibrate_rounded(net, candidate.precision, ranges, self.target.scheme, self._train_images)

    def ranges(self, net: TaskNet) -> Ranges:
        """Activation ranges of a recalibrated net."""
        return calibrate(net, self._calibration_images)

    def simulated(self, prepared: Prepared) -> dict[str, dict[str, float]]:
        """Metrics on the validation images, simulated as the target's engine computes."""
        return evaluate(self._simulation(prepared), self.source.tasks, self.turns.in_parts(self._validation))

    def watch(self, prepared: Prepared, metrics: Metrics, floors: Sequence[Floor]) -> Watch | None:
        """The watch over floors of candidates; None where there is nothing to watch.

        The net is what relative floors refer to, and has these `metrics`. Only the tasks of floors on means over labels
        and on ratios of counts are scored, image by image.
        """
        watched = [floor for floor in floors if watchable(floor)]
        if not watched:
            return None
        simulation, labels = self._simulation(prepared), {floor.task.name: list[int]() for floor in watched}
        parts = []
        for batch in self._validation:
            parts.append(by_image(raw_outputs(simulation, batch), batch, watched))
            for name, counts in labels.items():
                counts += [int(mask.sum()) for mask in batch.masks[name]]
        return watch_floors(watched, metrics, ByImage.joined(parts), labels)

    def simulated_until(self, prepared: Prepared, watch: Watch, key: str) -> tuple[Metrics, Stopped | None]:
        """As `simulated`, in an order that follows from `key`, until a floor of the watch cannot be kept any more.

        Then metrics are those of a part of the images, and in place of watched ones what is expected of all.
        """
        order, audit = image_order(key, watch.images), Audit(watch)
        simulation, scorer = self._simulation(prepared), Scorer(self.source.tasks)
        floors = [each.floor for each in watch.floors]
        for start in self.turns.in_parts(range(0, len(order), WATCHED_BATCH)):
            images = order[start : start + WATCHED_BATCH]
            batch = collate([self._validation_samples[number] for number in images], self.source.tasks)
            outputs = raw_outputs(simulation, batch)
            scorer.update(outputs, batch)
            audit.add(images, by_image(outputs, batch, floors))
            seen = start + len(images)
            if audit.broken and scorer.complete and seen < len(order):
                return audit.completed(scorer.compute()), Stopped(audit.broken.text, seen, len(order))
        return scorer.compute(), None

    def _simulation(self, prepared: Prepared) -> nn.Module:
        if prepared.precision is None:
            return prepared.net
        return emulated(self.target, prepared.net, prepared.precision, prepared.ranges)

    @property
    def sample_image(self) -> NDArray[np.float32]:
        """One normalised image (1, 3, H, W), to time with."""
        return self._validation[0].image[:1]

    @property
    def _modes(self) -> list[tuple[str, ...]]:
        """The sets of tasks that are timed: an engine that is opened for these alone opens sooner."""
        return [self.tasks_of(scope) for scope in self.scopes]

    def tasks_of(self, scope: str) -> tuple[str, ...]:
        """The tasks that a scope of latency runs: one, or all for ""."""
        return (scope,) if scope else tuple(task.name for task in self.source.tasks)

    def calls(self, session: Session) -> dict[str, TimedCall]:
        """A call of an open engine for each scope."""
        return {scope: TimedCall(session, self.sample_image, self.tasks_of(scope)) for scope in self.scopes}

    def time(self, prepared: Prepared) -> dict[str, float]:
        """Median latency in ms of the exported engine: all tasks under "", single ones that a budget names.

        Estimated where the evaluator has an estimate; empty where nothing times engines, or the net has none.
        Of several engines the fastest counts: two of one file differ by a tenth for as long as they live, and whatever
        else runs on the machine makes one slower, never faster.
        """
        with self.timer(prepared) as time:
            return time()

    @contextmanager
    def timer(self, prepared: Prepared) -> Iterator[Callable[[], dict[str, float]]]:
        """The call that is `time`, with engine built and garbage collected: what is left is to open and to run it."""
        if not self.is_timed or prepared.precision is None:
            yield dict
        elif self.estimate is not None:
            yield partial(self._estimated, prepared, self.estimate)
        else:
            with self.built(prepared) as folder, no_collection():
                yield partial(self._fastest, folder)

    def _fastest(self, folder: Path) -> dict[str, float]:
        """Latencies of the fastest of several engines of one file."""
        drawn = [self._medians(folder) for _ in range(LATENCY_ENGINES)]
        return {scope: min(medians[scope] for medians in drawn) for scope in self.scopes}

    def _estimated(self, prepared: Prepared, estimate: LatencyEstimator) -> dict[str, float]:
        """Estimated latencies in ms of a design; empty for a net that is none."""
        if not isinstance(prepared, Candidate):
            return {}
        return {scope: float(estimate.predict([prepared.design], scope)[0]) for scope in self.scopes}

    def _medians(self, folder: Path) -> dict[str, float]:
        with self.opened(folder) as session:
            return self.medians(session)

    def medians(self, session: Session) -> dict[str, float]:
        """Median latency in ms of one open engine, in each scope."""
        return {scope: self._median_ms({scope: call}) for scope, call in self.calls(session).items()}

    def _median_ms(self, call: Mapping[str, TimedCall]) -> float:
        """Median latency of one call, drawn without a pause."""
        (samples,) = self.measurer.compare(call, 1, burst=LATENCY_RUNS // 2, settle=0, warmup=LATENCY_WARMUP).values()
        return samples.median_ms

    def latency(self, ms: float | None, error: float | None = None) -> Latency | None:
        """A latency as a result holds it: where it comes from, of which device and runtime.

        It was predicted where there is an `error` of it.
        """
        if ms is None:
            return None
        device, runtime = self.target.device.name, self.target.traits.runtime
        if self.estimate is not None:
            fit_error, fitted_on = self.estimate.errors.get(""), self.estimate.fitted_on
            return Latency(
                value=ms, kind="estimated", device=device, runtime=runtime, error=fit_error, fitted_on=fitted_on
            )
        if error is None:
            return Latency(value=ms, kind=self.measurer.kind, device=device, runtime=runtime)
        return Latency(value=ms, kind="predicted", device=device, runtime=runtime, error=error)

    @contextmanager
    def built(self, prepared: Prepared) -> Iterator[Path]:
        """The net's engine, written for the target into a temporary folder that goes at the end."""
        with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
            self.target.build(prepared.net, prepared.precision or {}, prepared.ranges, Path(folder))
            yield Path(folder)

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Session]:
        """An engine that was built, opened, and closed at the end."""
        with closing(self.measurer.open(folder, self.threads, self._modes)) as session:
            yield session

    @contextmanager
    def engine(self, prepared: Prepared) -> Iterator[Session]:
        """The net's engine, built and opened."""
        with self.built(prepared) as folder, self.opened(folder) as session:
            yield session

    def score(self, prepared: Prepared, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
        """Metrics on `samples` of the real engine's outputs; simulated where engines are not timed or give none."""
        precision = prepared.precision
        timed = self.measurer.untimed is None
        if precision is None or not (timed and self.measurer.runs(precision, needs_of(self.target, precision))):
            return evaluate(
                self._simulation(prepared), self.source.tasks, batches_of(samples, BATCH, tasks=self.source.tasks)
            )
        scorer = Scorer(self.source.tasks)
        names = [task.name for task in self.source.tasks]
        with self.engine(prepared) as session:
            for batch in batches_of(samples, BATCH, tasks=self.source.tasks):
                runs = [map_outputs(np.copy, session.run(image[None], names)) for image in batch.image]
                scorer.update(_joined(runs), batch)
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
        return recalibration_images(self.source, RECALIBRATION_IMAGES)

    @cached_property
    def _calibration_images(self) -> list[Tensor]:
        batches = batches_of(self.source.split("calibration"), BATCH, CALIBRATION_IMAGES)
        return [torch.from_numpy(batch.image) for batch in batches]

    @cached_property
    def _validation_samples(self) -> list[Sample]:
        return subsample(self.source.split("validation"), self._limit(VALIDATION_IMAGES))

    @cached_property
    def _validation(self) -> list[Batch]:
        return list(batches_of(self._validation_samples, BATCH, tasks=self.source.tasks))

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


@dataclass
class Evaluator(NetEvaluator):
    """Score and time the designs of a supernet."""

    supernet: Supernet = field(kw_only=True)

    def candidate(self, design: Design) -> Candidate:
        """The design's net, extracted and recalibrated, with ranges where a block is INT8."""
        return self.candidate_of(design, self.supernet.extract(design), {})

    def evaluate(
        self, design: Design, watch: Watch | None = None, predicted: LatencyPrediction | None = None
    ) -> Evaluation:
        """Metrics of the quantized net, simulated as the target's engine computes, and the latency if there is one.

        Scoring is stopped early where the design cannot keep a floor of the `watch`. Where the latency is `predicted`
        no engine is built. What is measured alone is an engine that is built already, and who waits to measure does so
        between two batches of another's images.
        """
        with ExitStack() as stack:
            with self.turns.among_others():
                candidate = self.candidate(design)
                metrics, stopped = self._simulated(candidate, watch)
                if predicted is not None:
                    return Evaluation(design, metrics, predicted.latency_ms, stopped, predicted.error)
                time = stack.enter_context(self.timer(candidate))
            with self.turns.alone() if self.is_measured else nullcontext():
                return Evaluation(design, metrics, time(), stopped)

    def _simulated(self, candidate: Candidate, watch: Watch | None) -> tuple[Metrics, Stopped | None]:
        if watch is None:
            return self.simulated(candidate), None
        return self.simulated_until(candidate, watch, candidate.design.key)


def recalibration_images(source: Source, count: int) -> list[Tensor]:
    """At most `count` training images, in batches, that statistics of batch normalisation are measured on anew.

    A last batch of one image is left out, as it has no spread where maps are pooled to one place.
    """
    batches = batches_of(source.split("train"), BATCH, count)
    images = [torch.from_numpy(b.image).to(memory_format=torch.channels_last) for b in batches]  # a third faster
    return [batch for batch in images if len(batch) > 1] or images


def _joined(runs: Sequence[Outputs]) -> Outputs:
    """Outputs of several runs, joined as those of one run on all their images."""
    return {
        task: {name: np.concatenate([run[task][name] for run in runs]) for name in own} for task, own in runs[0].items()
    }
