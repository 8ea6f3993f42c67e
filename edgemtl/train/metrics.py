"""Scores of raw outputs, in every task's own metrics, with torchmetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MeanSquaredError, Metric
from torchmetrics.classification import BinaryPrecisionRecallCurve, MulticlassAccuracy, MulticlassJaccardIndex

from edgemtl.data import Batch, Sample, collate
from edgemtl.errors import UserError
from edgemtl.tasks import Task
from edgemtl.train.losses import similarity

__all__ = ["Scorer", "evaluate"]

IGNORED = -1
DEPTH_RANGE_M = (0.1, 20.0)
"""Predicted depth is scored within this range, or within that of a batch's labels where they lie beyond it."""
THRESHOLDS = 39
GOOD_ANGLE_DEG = 11.25
GOOD_RATIO = 1.25


class _Score:
    """The metrics of one task, updated batch by batch."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.metrics: dict[str, Metric] = _METRICS[task.kind](task)
        self.empty = True

    def update(self, output: Tensor, target: Tensor, mask: Tensor) -> None:
        if bool(mask.any()):
            self.empty = False
            _UPDATES[self.task.kind](self.metrics, output, target, mask)

    def compute(self) -> dict[str, float]:
        if self.empty:
            raise UserError(f"task {self.task.name} cannot be scored: none of the samples has a valid label for it")
        values = {name: metric.compute() for name, metric in self.metrics.items()}
        return {name: _best_f(value) if isinstance(value, tuple) else float(value) for name, value in values.items()}


def _best_f(curve: tuple[Tensor, Tensor, Tensor]) -> float:
    """F at the best single threshold for the whole data set (ODS), with no tolerance of place."""
    precision, recall = (values.nan_to_num() for values in curve[:2])  # 0/0 where nothing is predicted, or is there
    return float((2 * precision * recall / (precision + recall).clamp(min=1e-9)).max())


def _update_segmentation(metrics: Mapping[str, Metric], output: Tensor, target: Tensor, mask: Tensor) -> None:
    metrics["miou"].update(output.argmax(1), torch.where(mask, target, IGNORED))


def _update_depth(metrics: Mapping[str, Metric], output: Tensor, target: Tensor, mask: Tensor) -> None:
    truth = target[mask]
    low, high = min(DEPTH_RANGE_M[0], float(truth.min())), max(DEPTH_RANGE_M[1], float(truth.max()))
    predicted = output[:, 0].exp().clamp(low, high)[mask]
    ratio = torch.maximum(predicted / truth, truth / predicted)
    metrics["rmse"].update(predicted, truth)
    metrics["abs_rel"].update((predicted - truth).abs() / truth)
    metrics["delta1"].update((ratio < GOOD_RATIO).float())


def _update_normals(metrics: Mapping[str, Metric], output: Tensor, target: Tensor, mask: Tensor) -> None:
    cosine = similarity(output, target)[mask]
    angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    metrics["mean_angle"].update(angle)
    metrics["within_11"].update((angle < GOOD_ANGLE_DEG).float())


def _update_binary(metrics: Mapping[str, Metric], output: Tensor, target: Tensor, mask: Tensor) -> None:
    (metric,) = metrics.values()
    metric.update(output[:, 0].sigmoid()[mask], target[mask].long())


def _update_classes(metrics: Mapping[str, Metric], output: Tensor, target: Tensor, mask: Tensor) -> None:
    metrics["accuracy"].update(output.argmax(1)[mask], target[mask])


def _update_values(metrics: Mapping[str, Metric], output: Tensor, target: Tensor, mask: Tensor) -> None:
    metrics["mae"].update((output - target).abs()[mask])


def _update_keypoints(metrics: Mapping[str, Metric], output: Tensor, target: Tensor, mask: Tensor) -> None:
    """PCK: a point is found where its peak lies within a tenth of the image's height of the target's."""
    width = output.shape[-1]
    peaks, truth = (x.flatten(2).argmax(2) for x in (output, target))
    apart = torch.hypot((peaks % width - truth % width).float(), (peaks // width - truth // width).float())
    metrics["pck"].update((apart <= output.shape[-2] / 10).float()[mask.flatten(1).any(1)])


_METRICS: dict[str, Callable[[Task], dict[str, Metric]]] = {
    "segmentation": lambda task: {
        "miou": MulticlassJaccardIndex(task.channels, ignore_index=IGNORED, validate_args=False)
    },
    "depth": lambda task: {"rmse": MeanSquaredError(squared=False), "abs_rel": MeanMetric(), "delta1": MeanMetric()},
    "normals": lambda task: {"mean_angle": MeanMetric(), "within_11": MeanMetric()},
    "edges": lambda task: {"ods_f": BinaryPrecisionRecallCurve(thresholds=THRESHOLDS, validate_args=False)},
    "saliency": lambda task: {"max_f": BinaryPrecisionRecallCurve(thresholds=THRESHOLDS, validate_args=False)},
    "keypoints": lambda task: {"pck": MeanMetric()},
    "classification": lambda task: {
        "accuracy": MulticlassAccuracy(task.channels, average="micro", validate_args=False)
    },
    "regression": lambda task: {"mae": MeanMetric()},
}
_UPDATES: dict[str, Callable[[Mapping[str, Any], Tensor, Tensor, Tensor], None]] = {
    "segmentation": _update_segmentation,
    "depth": _update_depth,
    "normals": _update_normals,
    "edges": _update_binary,
    "saliency": _update_binary,
    "keypoints": _update_keypoints,
    "classification": _update_classes,
    "regression": _update_values,
}


class Scorer:
    """Accumulates every task's metrics over samples; `compute` gives {task: {metric: value}}."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._scores = {task.name: _Score(task) for task in tasks}

    def update(self, outputs: Mapping[str, Any], samples: Batch | Sequence[Sample]) -> None:
        """Add a batch of raw outputs (tensors or arrays, (N, …)) and the samples they belong to, in the same order."""
        batch = samples if isinstance(samples, Batch) else collate(samples)
        for name, score in self._scores.items():
            output = torch.as_tensor(outputs[name]).detach().float().cpu().contiguous()
            score.update(output, torch.as_tensor(batch.targets[name]), torch.as_tensor(batch.masks[name]))

    def compute(self) -> dict[str, dict[str, float]]:
        """Metrics of every task over all that was added; raises `UserError` for a task that had no valid label."""
        return {name: score.compute() for name, score in self._scores.items()}


def evaluate(
    net: nn.Module, tasks: Sequence[Task], batches: Iterable[Batch], bf16: bool = False
) -> dict[str, dict[str, float]]:
    """Metrics of a net (a module giving a dict of raw outputs) over batches, with BF16 arithmetic where asked."""
    scorer = Scorer(tasks)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for batch in batches:
            image = torch.from_numpy(batch.image).to(memory_format=torch.channels_last)  # a third faster on processors
            scorer.update(net(image), batch)
    return scorer.compute()
