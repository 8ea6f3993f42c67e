"""A transformer with experts as tests of routing want it: variants of its space, and nets of them."""

from __future__ import annotations

from pathlib import Path

import torch
from small import small_space

from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.spaces import Space
from edgemtl.tasks import Task, make_task

TASKS = (make_task("semseg", "segmentation", 3), make_task("depth", "depth"), make_task("kind", "classification", 4))


def experts_yaml(
    experts: str,
    heads: str = "[2]",
    depth: str = "[4]",
    hidden: str = "[64]",
    decoder: str = "{width: [8], depth: [1]}",
) -> str:
    """The space with six experts in every second block; `experts` is the rest of their entry."""
    return f"""\
schema: edgemtl.space/1
family: vit
input: [64, 96]
vit:
  stem: [8, 8, 16]
  width: 32
  head_width: 16
  heads: {heads}
  depth: {depth}
  hidden: {hidden}
  experts: {{every: 2, count: 6, hidden: 16, {experts}}}
  decoder: {decoder}
"""


def decisive(space: Space) -> Supernet:
    """A supernet, the same in every test, whose routers choose clearly."""
    torch.manual_seed(0)
    supernet = Supernet.of(space)
    with torch.no_grad():
        for name, parameter in supernet.shared.items():
            if ".routers." in name:
                parameter.mul_(8)
    return supernet


def largest_net(folder: Path, text: str, tasks: tuple[Task, ...] = TASKS) -> MultiTaskNet:
    """The largest net of a space's text, the same in every test."""
    space = small_space(folder, tasks, text)
    torch.manual_seed(0)
    return Supernet.of(space).extract(space.largest()).eval()
