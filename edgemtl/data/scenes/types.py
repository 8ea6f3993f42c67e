"""Types of a scene: classes, primitives, lights, the camera, and the rendered frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CLASSES: tuple[str, ...] = (
    "wall",
    "floor",
    "ceiling",
    "window",
    "door",
    "table",
    "chair",
    "sofa",
    "bed",
    "shelf",
    "lamp",
    "plant",
    "box",
    "clutter",
    "picture",
    "rug",
)
"""Names of the semantic classes; a pixel's class id is the index. Every pixel has a class."""

FAR_M = 10.0
"""Depth of what is seen through a window: a plane parallel to the sensor, farther than any wall."""

BOX, ELLIPSOID, FRUSTUM, ROOM, OUTSIDE = range(5)
"""Kinds of surface. A frustum is an upright cylinder or cone; room faces and the outside are planes."""

FIRST_PRIMITIVE = 7
"""Surface ids 0..5 are the room's faces (x low, x high, y low, y high, floor, ceiling), 6 is the outside."""


@dataclass(frozen=True)
class Frame:
    """One rendered picture with its exact labels.

    Attributes:
        rgb: uint8 (H, W, 3).
        semseg: uint8 (H, W), an index into ``CLASSES``.
        depth: float32 (H, W), metres along the optical axis, in (0, 10].
        normals: float32 (H, W, 3), unit vectors in the camera frame (x right, y down, z forward).
        edges: uint8 (H, W), 1 on the near side of object boundaries, depth jumps and creases.
        focal_px: focal length in pixels; the principal point is the middle of the picture and a
            pixel's centre lies at its index plus one half.
    """

    rgb: NDArray[np.uint8]
    semseg: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    edges: NDArray[np.uint8]
    focal_px: float


@dataclass(frozen=True)
class Surfaces:
    """Every surface of a scene, one row each: room faces, the outside, then the primitives.

    ``rotation`` holds the local axes as rows, in world coordinates; ``half`` the half extents in
    metres; ``taper`` (m, k) a frustum's radius m + k*z over its largest, for z in [-1, 1].
    """

    kind: Array
    centre: Array
    half: Array
    rotation: Array
    taper: Array
    class_id: Array
    instance: Array
    material: Array


@dataclass(frozen=True)
class View:
    """A pinhole: where it stands and its axes (right, down, forward) as rows, in world coordinates."""

    position: Array
    axes: Array


@dataclass(frozen=True)
class Camera:
    """The view of the picture and its horizontal field of view in radians."""

    view: View
    fov_x: float


@dataclass(frozen=True)
class Opening:
    """A window's rectangle on a room face: along the wall (low, high) and in height (low, high), metres."""

    face: int
    along: tuple[float, float]
    height: tuple[float, float]


@dataclass(frozen=True)
class Light:
    """A point light, or the sun when ``window`` is given (then only what the window lets through is lit).

    ``reach`` is the tangent of half the angle that its shadow map covers; ``owner`` is the instance
    that casts no shadow in it (the lamp that carries it); ``softness`` the shadow's blur in texels.
    """

    view: View
    colour: Array
    reach: float
    owner: int
    softness: float
    window: Opening | None = None


@dataclass(frozen=True)
class Look:
    """How the camera turns light into numbers: exposure, white balance, tone, lens and sensor."""

    contrast: float
    exposure: float
    white: Array
    gamma: float
    vignette: float
    blur: float
    shot: float
    read: float


@dataclass(frozen=True)
class Scene:
    """A room with everything in it; sizes in metres, z up, one corner of the floor at the origin."""

    size: Array
    surfaces: Surfaces
    materials: Array
    openings: tuple[Opening, ...]
    lights: tuple[Light, ...]
    ambient: Array
    sky: Array
    camera: Camera
    look: Look
