"""A net of one's own as the reference of its engines: the image that it reads, and what it gives itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle import BundleInput
from edgemtl.errors import UserError
from edgemtl.own.declaration import Resolved
from edgemtl.own.net import OwnNet
from edgemtl.runtime import Outputs

__all__ = ["expected_outputs", "image_input"]


def image_input(net: OwnNet, resolved: Resolved) -> BundleInput:
    """The image that a net reads, as manifests describe it."""
    (height, width), pixels = net.size, resolved.pixels
    return BundleInput(
        height=height, width=width, colour=pixels.colour, scale=pixels.scale, mean=pixels.mean, std=pixels.std
    )


def expected_outputs(net: OwnNet, resolved: Resolved, image: NDArray[np.float32]) -> Outputs:
    """The net's own outputs for an image (1, 3, H, W), as an engine's outputs are: float32, with a batch of one.

    Raises `UserError` where one is not finite.
    """
    own = net.reference(image)
    outputs: Outputs = {}
    for task in resolved.tasks:
        outputs[task.name] = {}
        for name, tensor in resolved.tensors[task.name].items():
            value = np.asarray(own[tensor], np.float32)
            if not np.isfinite(value).all():
                raise UserError(
                    f"output {tensor} of {net.name} is not finite on an image of the check, so nothing can be compared "
                    "with it: look at input in the tasks file, or leave that output out by unused"
                )
            outputs[task.name][name] = value if value.shape[:1] == (1,) else value[None]
    return outputs
