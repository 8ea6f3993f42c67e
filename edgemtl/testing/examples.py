"""Small nets of the forms that real ones have, with images for them: what suites build, cut and run."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from edgemtl.data import Sample, collate
from edgemtl.models import MultiTaskNet
from edgemtl.spaces import KEEP, find_family
from edgemtl.tasks import Task, by_tensor, make_task

__all__ = ["SIZE", "TASKS", "experts_net", "grid_net", "images", "samples_for", "settle", "small_net"]

SIZE = (32, 64)
TASKS = (
    make_task("semseg", "segmentation", classes=("wall", "floor", "table", "chair", "lamp")),
    make_task("depth", "depth"),
    make_task("normals", "normals"),
)


def small_net(
    block: str = "depthwise",
    activation: str = "relu",
    tasks: tuple[Task, ...] = TASKS,
    size: tuple[int, int] = SIZE,
    widths: tuple[int, ...] = (16, 24, 32, 40),
    seed: int = 0,
) -> MultiTaskNet:
    """A net of the cnn family with random weights and batch statistics as training leaves them, in evaluation mode."""
    family = find_family("cnn")
    stages = [
        {"name": f"s{number}", "stride": 2, "width": [width], "depth": [2], "block": [block], "expand": [2]}
        for number, width in enumerate(widths, 1)
    ]
    features = [f"s{number}" for number in range(1, len(widths) + 1)]
    spec = family.spec.model_validate(
        {
            "activation": activation,
            "stem": {"width": [16]},
            "stages": stages,
            "features": features,
            "decoder": {"width": [16], "depth": [2]},
        }
    )
    torch.manual_seed(seed)
    net = MultiTaskNet(family.plan(spec, tasks, {}, size), tasks)
    settle(net)
    return net


def grid_net() -> MultiTaskNet:
    """A net whose tasks keep different blocks: some are computed for all, some for two tasks, some for one."""
    family = find_family("grid")
    paths = [{"width": 16}, {"width": 24, "block": "depthwise"}, {"width": 32}]
    content = {"stem": 8, "paths": paths, "stages": 2, "blocks": 1, "expand": 2, "decoder": {"width": [16]}}
    spec = family.spec.model_validate(content)
    kept = {
        "semseg": ("s1p0_1", "s1p1_1", "f2p1to0", "read2"),
        "depth": ("s1p0_1", "s1p1_1", "s2p0_1", "f2p0to2", "read2"),
        "normals": ("s1p0_1", "s2p0_1", "f2p2to1", "s2p1_1", "read1"),
    }
    values = {f"{task}.{position}": KEEP for task, positions in kept.items() for position in positions}
    torch.manual_seed(0)
    net = MultiTaskNet(family.plan(spec, TASKS, values, SIZE), TASKS)
    settle(net)
    return net


def experts_net(capacity: float | None, size: tuple[int, int] = (64, 96)) -> MultiTaskNet:
    """A net whose tasks route tokens among six experts, two windows of four that overlap and one of all.

    `capacity` bounds what an expert takes, so that some tokens are dropped.
    """
    family = find_family("vit")
    experts = {"every": 2, "count": 6, "hidden": 16, "kept": [4, 6], "top_k": [2], "capacity": capacity}
    content = {"stem": [8, 8, 16], "width": 32, "head_width": 16, "heads": [2], "depth": [4], "hidden": [32]}
    spec = family.spec.model_validate({**content, "experts": experts, "decoder": {"width": [8], "depth": [1]}})
    torch.manual_seed(0)
    values = {"semseg.experts": 4, "depth.experts": 4, "normals.experts": 6}
    net = MultiTaskNet(family.plan(spec, TASKS, values, size), TASKS)
    settle(net)
    return net


def settle(net: MultiTaskNet) -> None:
    """Give every batch normalisation statistics that match its inputs, so that activations keep a natural size."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = None
    net.train()
    with torch.no_grad():
        net(images(4, net.input_size))
    net.eval()


def images(count: int, size: tuple[int, int] = SIZE, seed: int = 1) -> torch.Tensor:
    """Smooth random images (count, 3, H, W), about as large as normalised photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size[0] // 8, size[1] // 8, generator=generator)
    return nn.functional.interpolate(coarse, scale_factor=8.0, mode="bilinear", align_corners=False).contiguous()


def samples_for(net: MultiTaskNet, count: int = 4) -> list[Sample]:
    """Random pictures whose truth is about what the net itself predicts: its metrics are those of a good net."""
    rng = np.random.default_rng(0)
    samples, size = [], net.input_size
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 8, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC))
        with torch.no_grad():
            outputs = by_tensor(net(torch.from_numpy(collate([Sample(image, {}, {})]).image)))
        out = {task: value[0] for task, value in outputs.items()}
        for task in ("depth", "normals"):
            out[task] = out[task] + 0.2 * torch.from_numpy(rng.standard_normal(out[task].shape, np.float32))
        normals = torch.nn.functional.normalize(out["normals"], dim=0).permute(1, 2, 0)
        targets = {"semseg": out["semseg"].argmax(0), "depth": out["depth"][0].exp().clamp(0.1, 20), "normals": normals}
        masks = {task: np.ones(size, bool) for task in targets}
        samples.append(Sample(image, {task: value.numpy() for task, value in targets.items()}, masks))
    return samples
