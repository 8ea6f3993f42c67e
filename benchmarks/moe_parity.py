"""Engines of the mixture-of-experts ViT-S against PyTorch in FP32: no token is dropped, whichever expert it goes to."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

import numpy as np
import torch
from _common import Outcome, Row, main
from _runs import opened
from _vit_small import SIZE, vit_small

from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor

IMAGES, QUICK_IMAGES = 16, 4
TASKS = 2


def run(options: argparse.Namespace) -> Outcome:
    """The largest difference of any output on either runtime."""
    net = vit_small(TASKS)
    names = [task.name for task in net.tasks]
    rng = np.random.default_rng(0)
    count = QUICK_IMAGES if options.quick else IMAGES
    images = [rng.standard_normal((1, 3, *SIZE), np.float32) for _ in range(count)]
    with torch.no_grad():
        expected = [
            {name: y.numpy() for name, y in by_tensor(net(torch.from_numpy(image))).items()} for image in images
        ]
    rows, raw = [], {"images": count}
    for runtime in ("onnxruntime", "openvino"):
        with ExitStack() as stack:
            session = opened(stack, net, find_target(runtime), "fp32", [names])
            found = [{n: y.copy() for n, y in by_tensor(session.run(image, names)).items()} for image in images]
        pairs = [(a[n], b[n]) for a, b in zip(found, expected, strict=True) for n in names]
        rows.append(Row(runtime, max(float(np.abs(a - b).max()) for a, b in pairs), "", 1e-4))
        raw[f"{runtime}_largest_output"] = max(float(np.abs(b).max()) for _, b in pairs)
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
