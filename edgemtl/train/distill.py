"""Configuration-invariant distillation of encoder features (after ECMT, Aich et al. 2023).

The paper says that features of the largest encoder teach the slimmed ones within the same run; its exact distance is
not public, so this form is ours. Compared are the features that decoders read, stage by stage: a convolutional net's
stages, the resolutions of a grid, the tokens after a transformer's last block (its blocks before are one stream of
residuals, of which a shallower net has fewer, and nothing but the next block reads them). At each a narrow design's
channels are compared with the first channels of the largest one's, both of unit length at each position, and so are
their maps of energy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.spaces import DesignSource, Plan

__all__ = ["StageEnd", "differing_stages", "feature_distance", "stage_ends"]

StageEnd = tuple[str, str | None]
"""A stage, and the task that runs a copy of its own of it (None: it is the trunk's)."""


def stage_ends(plan: Plan, stages: Mapping[str, str]) -> dict[StageEnd, str]:
    """Names of the blocks of the trunk, and of tasks' copies of them, that decoders read.

    `stages` gives the stage of every block of the trunk by its origin (`DesignSource.stages`).
    """
    blocks = {block.name: block for block in plan.blocks}
    sources = [name for block in plan.blocks if block.origin not in stages for name in block.inputs]
    read = [blocks[name] for name in dict.fromkeys(sources) if name in blocks and blocks[name].origin in stages]
    return {(stages[block.origin], block.task): block.name for block in read}


def differing_stages(space: DesignSource) -> frozenset[str]:
    """Stages whose features the smallest design computes in another way than the largest; of others none can learn."""
    largest, smallest = space.plan(space.largest()), space.plan(space.smallest())
    pairs = zip(largest.blocks, smallest.blocks, strict=False)
    alike = {one.name for one, other in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)}
    return frozenset(stage for (stage, _), name in stage_ends(largest, space.stages).items() if name not in alike)


def feature_distance(student: Mapping[StageEnd, Tensor], teacher: Mapping[StageEnd, Tensor]) -> Tensor:
    """Mean over stages of how far a narrow design's features are from the largest one's (which get no gradient).

    Where only the narrow design has copies for its tasks, each learns from what all tasks share in the largest one.
    """
    pairs = [(value, teacher.get(end, teacher.get((end[0], None)))) for end, value in student.items()]
    distances = [
        _distance(_channels_second(own).float(), _channels_second(other).detach().float())
        for own, other in pairs
        if other is not None
    ]
    return torch.stack(distances).mean() if distances else torch.zeros(())


def _channels_second(features: Tensor) -> Tensor:
    """Maps (N, C, H, W) as they are, tokens (N, T, C) as (N, C, T), values of a whole image (N, C) as (N, C, 1)."""
    if features.ndim == 3:
        return features.transpose(1, 2)
    return features[..., None] if features.ndim == 2 else features


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    sliced = teacher[:, : student.shape[1]]
    slices = (1 - F.cosine_similarity(student, sliced, dim=1, eps=1e-4)).mean()
    energy = (
        (
            F.normalize(student.square().mean(1).flatten(1), dim=1)
            - F.normalize(teacher.square().mean(1).flatten(1), dim=1)
        )
        .square()
        .sum(1)
        .mean()
    )
    return slices + energy
