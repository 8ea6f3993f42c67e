"""Label files of normals: vectors as colours, or as floats."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.tasks.labels import Array, FileSpec, Header, Target, refuse_header

__all__ = ["FILL", "NormalsSpec"]

FILL = (0.0, 0.0, -1.0)
"""Fill value where there is none: harmless to a cosine."""


class NormalsSpec(FileSpec):
    """Normals in the camera frame (x right, y down, z forward): 8-bit PNG with n = 2p/255-1, or .npy vectors."""

    encoding: Annotated[str, Field(pattern=r"^2p/255-1$")] = "2p/255-1"

    def check_header(self, header: Header, npy: bool) -> None:
        """See `FileSpec.check_header`."""
        if header.channels != 3 or not (header.dtype[0] == "f" if npy else header.dtype == "u1"):
            raise refuse_header(header, "three channels (x, y, z): 8-bit RGB in a PNG, floats in a .npy file")

    def decode(self, array: Array) -> Target:
        """See `FileSpec.decode`."""
        coded = array.dtype == np.uint8
        vectors = array.astype(np.float32)
        if coded:
            vectors = vectors * np.float32(2 / 255) - 1
        length = np.sqrt(np.einsum("hwc,hwc->hw", vectors, vectors))
        mask = np.isfinite(length) & (length > (0.1 if coded else 1e-6))
        if coded:
            mask &= (array[..., 0] | array[..., 1] | array[..., 2]) > 0
        rough = mask & (np.abs(length - 1) > 0.25)
        if rough.mean() > 0.05:
            raise UserError(
                f"has vectors of length {np.median(length[rough]):.2f} (in {rough.mean():.0%} of the pixels): "
                "normals have length 1, in a PNG as n = 2p/255-1, and are zero where there is none"
            )
        vectors *= (1 / np.where(mask, length, np.float32(1)))[..., None]
        vectors[~mask] = FILL
        return vectors, mask

    def doubts(self, array: Array, target: Target) -> str:
        """Normals of which most point away from the camera, which no visible surface's does."""
        vectors, mask = target
        away = float((vectors[mask][:, 2] > 0).mean()) if mask.any() else 0.0
        if away < 0.9:
            return ""
        return (
            f"has normals that point away from the camera in {away:.0%} of the pixels: x is right, y down and z "
            "forward, so that what is seen has z below zero; turn the axes"
        )
