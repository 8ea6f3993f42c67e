"""The two real frames with measured depth that need no download of their own, at a net's input size."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _rawlog import read_rawlog
from _real_geometry import Pinhole, normals_of_depth, sampling
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

MOTORCYCLE_FOCAL_PX, MOTORCYCLE_BASELINE_M, MOTORCYCLE_OFFSET_PX = 994.978, 0.193001, 31.086
MOTORCYCLE_CENTRE_PX = (311.193, 254.877)
KINECT_SHIFT_PX = 7
"""The recorded depth picture lies so far left of the colour picture: there the edges of both correlate best."""

WINDOW_RADIUS = {"motorcycle": 4, "kinect": 10}
"""Of the plane fits, in pixels of the frame: the Kinect's depth comes in steps of some 12 mm and needs more of them."""
WINDOW_GATE = 0.03


@dataclass(frozen=True)
class RealFrame:
    """A real picture at the net's size with what was measured: depth in metres where `measured`, unit normals where
    `trusted`; `focal_px` is in pixels of this size."""

    name: str
    title: str
    image: NDArray[np.uint8]
    depth: Array
    measured: NDArray[np.bool_]
    normals: Array
    trusted: NDArray[np.bool_]
    focal_px: float


def real_frame(name: str, title: str, rgb: Array, depth: Array, camera: Pinhole, size: tuple[int, int]) -> RealFrame:
    """Cut and shrink a picture with its depth map (metres, 0 for no value) to `size`, normals from the full map."""
    at = sampling(depth.shape, size)
    image = Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BOX, box=at.window)
    small = depth[at.rows[:, None], at.columns[None]].astype(np.float64)
    normals, trusted = normals_of_depth(depth, camera, at, WINDOW_RADIUS[name], WINDOW_GATE)
    return RealFrame(name, title, np.array(image), small, small > 0, normals, trusted, camera.fx * at.scale)


def motorcycle(size: tuple[int, int]) -> RealFrame:
    """Middlebury 2014's motorcycle: depth = focal * baseline / (disparity + offset), as its calibration says."""
    try:
        from skimage.data import stereo_motorcycle
    except ImportError:
        sys.exit("the motorcycle comes with scikit-image, which is not installed: pip install 'edgemtl[test]'")
    rgb, _, disparity = stereo_motorcycle()
    matched = np.isfinite(disparity)
    apart = np.where(matched, disparity, 0) + MOTORCYCLE_OFFSET_PX
    depth = np.where(matched, MOTORCYCLE_FOCAL_PX * MOTORCYCLE_BASELINE_M / apart, 0)
    camera = Pinhole(MOTORCYCLE_FOCAL_PX, MOTORCYCLE_FOCAL_PX, *MOTORCYCLE_CENTRE_PX)
    return real_frame("motorcycle", "Middlebury, stereo", rgb, depth, camera, size)


def kinect(path: Path, size: tuple[int, int]) -> RealFrame:
    """The Kinect frame of a rawlog, its depth moved onto the colours."""
    found = read_rawlog(path)
    depth = np.zeros_like(found.depth)
    depth[:, KINECT_SHIFT_PX:] = found.depth[:, :-KINECT_SHIFT_PX]
    camera = Pinhole(*found.focal, found.centre[0] + KINECT_SHIFT_PX, found.centre[1])
    return real_frame("kinect", "Kinect, structured light", found.rgb, depth, camera, size)
