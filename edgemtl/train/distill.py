"""Configuration-invariant distillation of encoder features (after ECMT, Aich et al. 2023).

The paper says that features of the largest encoder teach the slimmed ones within the same run; its exact distance is
not public, so this form is ours: at the end of every stage a narrow design's channels are compared with the first
channels of the largest one's, both of unit length at each position, and so are their maps of energy.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["feature_distance", "stage_ends"]


def stage_ends(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Output of the last block of each stage, by the stage's name, among blocks called `STAGE_NUMBER`."""
    ends = {name.rpartition("_")[0]: value for name, value in trunk.items()}
    ends.pop("", None)
    return ends


def feature_distance(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean over stages of how far a narrow design's features are from the largest one's (which get no gradient).

    Nothing where they have no stage in common, as where a grid's smallest design skips every block.
    """
    distances = [
        _distance(student[name].float(), teacher[name].detach().float()) for name in student if name in teacher
    ]
    return torch.stack(distances).mean() if distances else torch.zeros(())


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
