"""How counting is learnt: centres as bells in the heat map, numbers by their distance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.tasks import Task
from edgemtl.tasks.learning import Learning, MeanScore, Tensors, masked_mean

__all__ = ["LEARNING", "bells"]

_NEAR = 0.1


def bells(boxes: Tensor, like: Tensor) -> Tensor:
    """A bell around the centre of each of an image's boxes (M, 5), in the map (C, H, W) of its class."""
    count, height, width = like.shape
    target = like.new_zeros(like.shape)
    for number in range(count):
        own = boxes[boxes[:, 0] == number]
        x = torch.arange(width, device=like.device) - (own[:, 1, None] + own[:, 3, None]) / 2
        y = torch.arange(height, device=like.device) - (own[:, 2, None] + own[:, 4, None]) / 2
        if len(own):
            target[number] = torch.exp(-(y.square()[..., None] + x.square()[:, None]) / 2).amax(0)
    return target


def _counts(labels: Sequence[Tensor], like: Tensor) -> Tensor:
    """How many boxes each image has of each class, (N, C)."""
    numbers = [torch.bincount(boxes[:, 0].long(), minlength=like.shape[1]) for boxes in labels]
    return torch.stack(numbers).to(like)


def _loss(task: Task, outputs: Tensors, labels: Sequence[Tensor], mask: Tensor) -> Tensor:
    heat, count = outputs["heat"], outputs["count"]
    target = torch.stack([bells(boxes, own) for boxes, own in zip(labels, heat, strict=True)])
    centres = F.binary_cross_entropy_with_logits(heat, target, weight=1 + 9 * target, reduction="none")
    distance = (count - _counts(labels, count)).abs()
    return masked_mean(centres.mean((1, 2, 3)) + distance.mean(1), mask)


def _distill(task: Task, outputs: Tensors, teacher: Tensors) -> Tensor:
    centres = F.binary_cross_entropy_with_logits(outputs["heat"], teacher["heat"].sigmoid())
    return centres + (outputs["count"] - teacher["count"]).square().mean()


def _values(task: Task, outputs: Tensors, labels: Sequence[Tensor], mask: Tensor) -> dict[str, Tensor]:
    given = zip(outputs["heat"], labels, mask, strict=True)
    found = [_is_found(heat, boxes) for heat, boxes, valid in given if valid and len(boxes)]
    apart = (outputs["count"] - _counts(labels, outputs["count"])).abs()[mask]
    return {"count_error": apart, "found": torch.cat(found) if found else apart.new_zeros(0)}


def _is_found(heat: Tensor, boxes: Tensor) -> Tensor:
    """For each box, whether the map of its class has a value above a half near its centre."""
    reach = max(1, round(_NEAR * heat.shape[1]))
    near = F.max_pool2d(heat[None], 2 * reach + 1, 1, reach)[0]
    x, y = (boxes[:, 1::2].mean(1).round().long(), boxes[:, 2::2].mean(1).round().long())
    index = boxes[:, 0].long(), y.clamp(0, heat.shape[1] - 1), x.clamp(0, heat.shape[2] - 1)
    return (near[index] > 0).float()


LEARNING = Learning(_loss, _distill, partial(MeanScore, values=_values))
