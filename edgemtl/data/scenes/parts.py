"""Parts, and the items that they form, in a frame of their own: z up, front towards -y."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgemtl.data.scenes.materials import Material
from edgemtl.data.scenes.types import BOX, CLASSES, ELLIPSOID, FRUSTUM

Vector = tuple[float, float, float]

Part = tuple[int, float, float, float, float, float, float, float, float, float, float, int]
"""kind, centre (3), half extents (3), yaw, tilt about the local x axis, taper m and k, material slot."""

Support = tuple[float, float, float, float, float]
"""A free surface on which something can stand: centre x, y, height z, half extents x, y."""


@dataclass(frozen=True)
class Item:
    """An object: its class, half footprint in x and y, height, parts, materials, and the surfaces that it offers."""

    class_id: int
    half_x: float
    half_y: float
    height: float
    parts: list[Part]
    materials: list[Material]
    supports: list[Support] = field(default_factory=list)
    lamp_z: float = 0.0


def box(centre: Vector, half: Vector, slot: int = 0, yaw: float = 0.0, tilt: float = 0.0) -> Part:
    """A box by centre and half extents."""
    return (BOX, *centre, *half, yaw, tilt, 1.0, 0.0, slot)


def blob(centre: Vector, half: Vector, slot: int = 0, yaw: float = 0.0, tilt: float = 0.0) -> Part:
    """An ellipsoid by centre and half axes."""
    return (ELLIPSOID, *centre, *half, yaw, tilt, 1.0, 0.0, slot)


def frustum(x: float, y: float, z: float, low: float, high: float, hz: float, slot: int = 0) -> Part:
    """An upright frustum by centre, lower and upper radius and half height."""
    widest = max(low, high)
    return (
        FRUSTUM,
        x,
        y,
        z,
        widest,
        widest,
        hz,
        0.0,
        0.0,
        (low + high) / (2 * widest),
        (high - low) / (2 * widest),
        slot,
    )


def ball(radius: float) -> Vector:
    """Three equal half axes."""
    return radius, radius, radius


def class_id(name: str) -> int:
    """A class's index."""
    return CLASSES.index(name)


def legs(half_x: float, half_y: float, height: float, thick: float, slot: int, is_round: bool) -> list[Part]:
    """Four legs under a top of the given half extents."""
    corners = [(sx * (half_x - thick), sy * (half_y - thick)) for sx in (-1, 1) for sy in (-1, 1)]
    if is_round:
        return [frustum(x, y, height / 2, thick * 0.7, thick, height / 2, slot) for x, y in corners]
    return [box((x, y, height / 2), (thick, thick, height / 2), slot) for x, y in corners]
