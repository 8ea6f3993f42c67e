"""A small space that has every kind of choice, for tests that need many designs in little time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.spaces import Design, Space, load_space
from edgemtl.tasks import Task, make_task

SMALL = """\
schema: edgemtl.space/1
family: cnn
input: [32, 64]
cnn:
  activation: relu6
  stem: {width: [8, 16]}
  stages:
    - {name: a, stride: 2, width: [8, 16], depth: [1, 2], block: [fused], expand: [1, 2]}
    - name: b
      stride: 2
      width: [8, 16, 24]
      depth: [1, 2, 3]
      block: [depthwise, fused]
      expand: [2, 3]
      kernel: [3, 5, 7]
    - {name: c, stride: 1, width: [16, 24], depth: [1, 2], block: [fused, depthwise], expand: [1], kernel: [3, 5]}
    - {name: d, stride: 2, width: [16, 32], depth: [1, 2], block: [depthwise], expand: [1, 2]}
  last: 40
  features: [a, c, d]
  decoder: {width: [8, 16], depth: [1, 2]}
"""

TASKS: tuple[Task, ...] = (
    make_task("semseg", "segmentation", classes=("wall", "floor", "chair")),
    make_task("depth", "depth"),
    make_task("kind", "classification", 4),
)


def small_space(folder: Path, tasks: tuple[Task, ...] = TASKS, text: str = SMALL) -> Space:
    """The space of a YAML text."""
    path = folder / "small.yaml"
    path.write_text(text)
    return load_space(str(path), tasks)


def scrambled(supernet: Supernet, seed: int) -> Supernet:
    """Every parameter drawn anew, scales and shifts of normalisation included, so that no two channels are alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in supernet.shared.items():
            if parameter.ndim > 1:
                parameter.mul_(0.2 + 1.6 * torch.rand(parameter.shape, generator=generator))
            else:
                shift = 0.1 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(shift + (1 if name.endswith("norm.weight") else 0))
    return supernet


def designs(space: Space, count: int, seed: int = 0) -> Iterator[Design]:
    """The smallest, the largest, then random ones."""
    rng = random.Random(seed)
    yield from (space.smallest(), space.largest())
    yield from (space.random(rng) for _ in range(count))


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Random images (count, 3, H, W)."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def with_batch_statistics(net: MultiTaskNet) -> MultiTaskNet:
    """The net set to normalise with the batch's own statistics, as a supernet does."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    return net


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference over all tasks, which must be the same ones, in parts of a task's largest value."""
    assert found.keys() == expected.keys()
    return max(float(((found[n] - expected[n]).abs().max() / expected[n].abs().max()).detach()) for n in expected)
