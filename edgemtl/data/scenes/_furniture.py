"""Composite objects from boxes, ellipsoids and frusta, in a frame of their own: z up, the front towards -y."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgemtl.data.scenes._materials import ANY, CLOTH, PAINT, WOODY, Material, draw_material
from edgemtl.data.scenes._types import BOX, CLASSES, ELLIPSOID, FRUSTUM

Part = tuple[int, float, float, float, float, float, float, float, float, float, float, int]
"""kind, centre (3), half extents (3), yaw, tilt about the local x axis, taper m and k, material slot."""

Support = tuple[float, float, float, float, float]
"""A free surface on which something can stand: centre x, y, height z, half extents x, y."""


@dataclass(frozen=True)
class Item:
    """An object: its class, half footprint in x and y, height, parts, materials, and what it carries."""

    class_id: int
    half_x: float
    half_y: float
    height: float
    parts: list[Part]
    materials: list[Material]
    supports: list[Support] = field(default_factory=list)
    lamp_z: float = 0.0


def box(
    x: float, y: float, z: float, hx: float, hy: float, hz: float, slot: int = 0, yaw: float = 0.0, tilt: float = 0.0
) -> Part:
    """A box by centre and half extents."""
    return (BOX, x, y, z, hx, hy, hz, yaw, tilt, 1.0, 0.0, slot)


def blob(
    x: float, y: float, z: float, hx: float, hy: float, hz: float, slot: int = 0, yaw: float = 0.0, tilt: float = 0.0
) -> Part:
    """An ellipsoid by centre and half axes."""
    return (ELLIPSOID, x, y, z, hx, hy, hz, yaw, tilt, 1.0, 0.0, slot)


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


def _class(name: str) -> int:
    return CLASSES.index(name)


def _legs(half_x: float, half_y: float, height: float, thick: float, slot: int, is_round: bool) -> list[Part]:
    """Four legs under a top of the given half extents."""
    corners = [(sx * (half_x - thick), sy * (half_y - thick)) for sx in (-1, 1) for sy in (-1, 1)]
    if is_round:
        return [frustum(x, y, height / 2, thick * 0.7, thick, height / 2, slot) for x, y in corners]
    return [box(x, y, height / 2, thick, thick, height / 2, slot) for x, y in corners]


def table(rng: np.random.Generator) -> Item:
    """A four-legged table, a round one on a pedestal, or a desk between side panels."""
    r = rng.random(8).tolist()
    half_x, half_y, height = 0.35 + 0.55 * r[0], 0.3 + 0.25 * r[1], 0.4 + 0.38 * r[2]
    top = 0.012 + 0.025 * r[3]
    materials = [draw_material(rng, WOODY), draw_material(rng, WOODY if r[4] < 0.6 else PAINT)]
    under = height - 2 * top
    if r[5] < 0.25:
        half_x = half_y = 0.35 + 0.3 * r[0]
        parts = [
            frustum(0, 0, height - top, half_x, half_x, top),
            frustum(0, 0, under / 2, 0.05, 0.035, under / 2, 1),
            frustum(0, 0, 0.02, 0.6 * half_x, 0.5 * half_x, 0.02, 1),
        ]
        return Item(
            _class("table"), half_x, half_x, height, parts, materials, [(0, 0, height, half_x * 0.6, half_x * 0.6)]
        )
    parts = [box(0, 0, height - top, half_x, half_y, top)]
    if r[5] < 0.5:
        parts += [box(s * (half_x - 0.03), 0, under / 2, 0.02, half_y * 0.92, under / 2, 1) for s in (-1, 1)]
        parts += [box(half_x * 0.45, 0, under - 0.09, half_x * 0.45, half_y * 0.85, 0.09, 1)]
    else:
        parts += _legs(half_x, half_y, under, 0.018 + 0.025 * r[6], 1, r[7] < 0.5)
        if r[6] < 0.4:
            parts += [box(0, 0, 0.15, half_x * 0.9, half_y * 0.85, 0.012, 1)]
    return Item(
        _class("table"), half_x, half_y, height, parts, materials, [(0, 0, height, half_x * 0.85, half_y * 0.8)]
    )


def chair(rng: np.random.Generator) -> Item:
    """A chair with a panel or slatted back, an office chair on one column, or a stool."""
    r = rng.random(8).tolist()
    half, seat = 0.19 + 0.06 * r[0], 0.4 + 0.1 * r[1]
    materials = [
        draw_material(rng, CLOTH if r[2] < 0.5 else WOODY, 0.4),
        draw_material(rng, WOODY if r[2] < 0.7 else PAINT),
    ]
    if r[3] < 0.15:
        seat += 0.2 * r[4]
        parts = [
            frustum(0, 0, seat - 0.025, half * 0.8, half * 0.85, 0.025),
            *_legs(half * 0.8, half * 0.8, seat - 0.05, 0.018, 1, True),
        ]
        return Item(_class("chair"), half, half, seat, parts, materials)
    back = 0.2 + 0.13 * r[4]
    lean = 0.05 + 0.18 * r[5]
    parts = [box(0, 0, seat - 0.025, half, half, 0.025)]
    if r[3] < 0.35:
        parts += [
            frustum(0, 0, seat / 2, 0.035, 0.03, seat / 2 - 0.05, 1),
            box(0, 0, 0.04, half * 1.1, 0.03, 0.025, 1, 0.6),
            box(0, 0, 0.04, half * 1.1, 0.03, 0.025, 1, 2.17),
        ]
    else:
        parts += _legs(half, half, seat - 0.05, 0.014 + 0.012 * r[6], 1, r[7] < 0.5)
    y_back = half + lean * back - 0.02
    if r[7] < 0.5:
        parts += [box(0, y_back, seat + back, half * 0.95, 0.018, back, 0, 0.0, -lean)]
    else:
        parts += [box(s * half * 0.85, y_back, seat + back, 0.02, 0.018, back, 1, 0.0, -lean) for s in (-1, 1)]
        parts += [
            box(0, half + lean * h - 0.02, seat + h, half * 0.85, 0.012, 0.035, 0, 0.0, -lean)
            for h in (back * 0.8, back * 1.75)
        ]
    return Item(
        _class("chair"),
        half + 0.03,
        half + 0.07,
        seat + 2 * back,
        parts,
        materials,
        [(0, 0, seat, half * 0.6, half * 0.6)],
    )


def sofa(rng: np.random.Generator) -> Item:
    """A sofa or armchair: base, back, arms, seat and back cushions, pillows."""
    r = rng.random(10).tolist()
    places = 1 + int(r[0] * 3)
    half_x, half_y = 0.24 + 0.28 * places, 0.38 + 0.1 * r[1]
    seat, back, arm = 0.38 + 0.08 * r[2], 0.7 + 0.2 * r[3], 0.07 + 0.06 * r[4]
    materials = [draw_material(rng, CLOTH), draw_material(rng, CLOTH, 0.3), draw_material(rng, WOODY)]
    cushion_slot = 0 if r[5] < 0.7 else 1
    inner = half_x - 2 * arm
    parts = [
        box(0, 0, 0.06 + (seat - 0.18) / 2, half_x, half_y, (seat - 0.18) / 2),
        box(0, half_y - 0.1, back / 2 + 0.03, half_x, 0.1, back / 2 - 0.03),
        *_legs(half_x, half_y, 0.06, 0.03, 2, False),
    ]
    arm_top = seat + 0.14 + 0.08 * r[6]
    for side in (-1, 1):
        parts += [box(side * (half_x - arm), 0, arm_top / 2 + 0.03, arm, half_y, arm_top / 2 - 0.03)]
    step = 2 * inner / places
    for i in range(places):
        x = -inner + (i + 0.5) * step
        parts += [box(x, -0.09, seat - 0.06, step / 2 - 0.008, half_y - 0.1, 0.07, cushion_slot)]
        if r[7] < 0.5:
            parts += [box(x, half_y - 0.27, seat + 0.2, step / 2 - 0.012, 0.06, 0.18, cushion_slot, 0.0, -0.2)]
    for i in range(int(r[8] * 3)):
        x = (r[9] * 2 - 1) * inner * 0.7 * (-1) ** i
        parts += [blob(x, half_y - 0.36, seat + 0.17, 0.19, 0.07, 0.17, 1, 0.4 * (r[6] - 0.5), -0.35)]
    return Item(
        _class("sofa"), half_x, half_y, back, parts, materials, [(0, -0.08, seat + 0.01, inner * 0.7, half_y * 0.4)]
    )


def bed(rng: np.random.Generator) -> Item:
    """A bed: frame, mattress, blanket, pillows, headboard."""
    r = rng.random(8).tolist()
    half_x, half_y, low = 0.45 + 0.4 * r[0], 0.95 + 0.1 * r[1], 0.2 + 0.15 * r[2]
    materials = [draw_material(rng, WOODY), draw_material(rng, CLOTH, 0.5, light=0.5), draw_material(rng, CLOTH, 0.6)]
    top = low + 0.2
    parts = [
        box(0, 0, low - 0.06, half_x, half_y, 0.06),
        *_legs(half_x, half_y, low - 0.1, 0.04, 0, False),
        box(0, 0, low + 0.1, half_x - 0.03, half_y - 0.03, 0.1, 1),
        box(0, -0.25, top - 0.045, half_x - 0.005, half_y - 0.27, 0.07, 2),
    ]
    if r[3] < 0.75:
        parts += [box(0, half_y + 0.03, 0.3 + 0.25 * r[4], half_x + 0.02, 0.03, 0.3 + 0.25 * r[4])]
    pillows = 1 if half_x < 0.6 else 2
    for i in range(pillows):
        x = 0.0 if pillows == 1 else (i - 0.5) * half_x
        parts += [blob(x, half_y - 0.28, top + 0.05, min(0.33, half_x * 0.6), 0.2, 0.09, 1, 0.3 * (r[5] - 0.5))]
    return Item(
        _class("bed"),
        half_x + 0.02,
        half_y + 0.06,
        top + 0.2,
        parts,
        materials,
        [(0, -0.3, top + 0.03, half_x * 0.6, 0.4)],
    )


def _books(
    rng: np.random.Generator, x0: float, x1: float, z: float, room: float, depth: float, slots: int
) -> list[Part]:
    """A row of books standing on a board at height z, with a gap now and then."""
    parts: list[Part] = []
    x = x0
    while x < x1 - 0.05 and len(parts) < 9:
        r = rng.random(5).tolist()
        if r[0] < 0.18:
            x += 0.05 + 0.15 * r[1]
            continue
        half = 0.012 + 0.03 * r[1] * r[1]
        tall = room * (0.28 + 0.2 * r[2])
        if x + 2 * half > x1:
            break
        parts += [
            box(x + half, -depth * (0.05 + 0.15 * r[3]), z + tall, half, depth * 0.7, tall, 2 + int(r[4] * slots))
        ]
        x += 2 * half + 0.002
    return parts


def shelf(rng: np.random.Generator) -> Item:
    """Open shelves with books and things, or a closed cabinet with doors or drawers and knobs."""
    r = rng.random(8).tolist()
    half_x, half_y = 0.25 + 0.4 * r[0], 0.13 + 0.08 * r[1]
    materials = [draw_material(rng, WOODY, 0.9), draw_material(rng, WOODY if r[2] < 0.5 else PAINT, 0.9)]
    if r[3] < 0.4:
        height, half_y = 0.5 + 1.4 * r[4] * r[4], half_y + 0.08
        rows = 1 + int(height / 0.5)
        parts = [box(0, 0, height / 2, half_x, half_y, height / 2)]
        for row in range(rows):
            z, tall = (row + 0.5) * height / rows, height / rows / 2 - 0.012
            for side in (-1, 1) if r[5] < 0.5 else (0,):
                wide = half_x / 2 - 0.012 if side else half_x - 0.02
                parts += [box(side * half_x / 2, -half_y, z, wide, 0.01, tall, 1)]
                parts += [blob(side * half_x * 0.12, -half_y - 0.02, z, 0.015, 0.015, 0.015, 0)]
        supports = [(0.0, 0.0, height, half_x * 0.8, half_y * 0.7)] if height < 1.5 else []
        return Item(_class("shelf"), half_x, half_y + 0.04, height, parts, materials, supports)
    height = 0.7 + 1.3 * r[4]
    boards = 2 + int(height / 0.42)
    room = (height - 0.03) / (boards - 1)
    parts = [box(s * (half_x - 0.012), 0, height / 2, 0.012, half_y, height / 2) for s in (-1, 1)]
    if r[5] < 0.75:
        parts += [box(0, half_y - 0.006, height / 2, half_x - 0.024, 0.006, height / 2, 1)]
    materials += [draw_material(rng, ANY, 0.2) for _ in range(4)]
    for i in range(boards):
        z = 0.015 + i * room
        parts += [box(0, 0, z, half_x - 0.024, half_y - 0.013, 0.012)]
        if i < boards - 1 and rng.random() < 0.75:
            start = (-half_x + 0.03) if rng.random() < 0.6 else -half_x * 0.3
            parts += _books(rng, start, half_x - 0.03, z + 0.012, room * 0.95, half_y, 4)
    supports = [(0.0, 0.0, height, half_x * 0.8, half_y * 0.6)] if height < 1.6 else []
    return Item(_class("shelf"), half_x, half_y, height, parts, materials, supports)


def floor_lamp(rng: np.random.Generator) -> Item:
    """A lamp on a pole."""
    r = rng.random(5).tolist()
    height, wide = 1.3 + 0.4 * r[0], 0.14 + 0.1 * r[1]
    materials = [
        draw_material(rng, PAINT),
        draw_material(rng, CLOTH, 0.3, emission=1.2 if r[2] < 0.6 else 0.0, light=0.6),
    ]
    parts = [
        frustum(0, 0, 0.015, 0.14, 0.12, 0.015),
        frustum(0, 0, height / 2, 0.013, 0.013, height / 2),
        frustum(0, 0, height, wide, wide * (0.45 + 0.5 * r[3]), 0.1 + 0.06 * r[4], 1),
    ]
    return Item(_class("lamp"), wide, wide, height + 0.15, parts, materials, lamp_z=height if r[2] < 0.6 else 0.0)


def table_lamp(rng: np.random.Generator) -> Item:
    """A small lamp: a foot, a stem, a shade."""
    r = rng.random(5).tolist()
    height, wide = 0.25 + 0.2 * r[0], 0.09 + 0.06 * r[1]
    materials = [
        draw_material(rng, PAINT),
        draw_material(rng, CLOTH, 0.3, emission=1.2 if r[2] < 0.5 else 0.0, light=0.6),
    ]
    stem = (
        blob(0, 0, height * 0.4, 0.05, 0.05, height * 0.4)
        if r[3] < 0.5
        else frustum(0, 0, height / 2, 0.05, 0.012, height / 2)
    )
    parts = [
        frustum(0, 0, 0.01, 0.07, 0.06, 0.01),
        stem,
        frustum(0, 0, height, wide, wide * (0.5 + 0.4 * r[4]), 0.07, 1),
    ]
    return Item(_class("lamp"), wide, wide, height + 0.1, parts, materials, lamp_z=height if r[2] < 0.5 else 0.0)


def pendant(rng: np.random.Generator) -> Item:
    """A lamp hanging from the ceiling; z = 0 is the ceiling."""
    r = rng.random(4).tolist()
    drop, wide = 0.2 + 0.5 * r[0], 0.12 + 0.12 * r[1]
    materials = [draw_material(rng, PAINT), draw_material(rng, PAINT, emission=1.5, light=0.7)]
    shade = (
        blob(0, 0, -drop, wide, wide, wide * (0.5 + 0.5 * r[3]), 1)
        if r[2] < 0.5
        else frustum(0, 0, -drop, wide, wide * 0.4, 0.09, 1)
    )
    return Item(
        _class("lamp"),
        wide,
        wide,
        drop,
        [frustum(0, 0, -drop / 2, 0.008, 0.008, drop / 2), shade],
        materials,
        lamp_z=-drop,
    )


def plant(rng: np.random.Generator) -> Item:
    """A pot with a bush of leaves, a ball tree, or a fir."""
    r = rng.random(6).tolist()
    pot, tall = 0.09 + 0.09 * r[0], 0.14 + 0.16 * r[1]
    materials = [draw_material(rng, ANY, 0.3), draw_material(rng, PAINT)]
    parts = [frustum(0, 0, tall / 2, pot * (0.65 + 0.2 * r[2]), pot, tall / 2)]
    green = (0.05 + 0.2 * r[3], 0.12 + 0.3 * r[4], 0.03 + 0.1 * r[5])
    leaf = [6.0, *green, *(0.4 * g for g in green), 6.0, 6.0, 1.0, 0.0, r[0], r[1], 0.2, 0.1, 0.0]
    materials += [tuple(leaf)]
    top = tall
    if r[2] < 0.5:
        size = 0.5 + 0.7 * r[3]
        for _ in range(9):
            a = rng.random(4).tolist()
            turn, lift = 6.283 * a[0], 0.25 + 0.75 * a[1]
            reach = pot * (0.6 + 1.8 * a[2]) * size
            z = tall + lift * size * 0.55
            parts += [
                blob(
                    -np.sin(turn) * reach * 0.7,
                    np.cos(turn) * reach * 0.7,
                    z,
                    0.035 + 0.05 * a[3],
                    reach * 0.8,
                    0.02,
                    2,
                    turn,
                    1.3 * lift,
                )
            ]
            top = max(top, z)
    elif r[2] < 0.8:
        stem = 0.15 + 0.6 * r[4]
        parts += [frustum(0, 0, tall + stem / 2, 0.02, 0.015, stem / 2, 1)]
        for _ in range(6):
            a = (rng.random(4) - 0.5).tolist()
            parts += [blob(a[0] * 0.3, a[1] * 0.3, tall + stem + a[2] * 0.25, *([0.12 + 0.12 * abs(a[3])] * 3), 2)]
        top = tall + stem + 0.2
    else:
        parts += [frustum(0, 0, tall + 0.15 + 0.2 * i, 0.26 - 0.055 * i, 0.02, 0.17, 2) for i in range(4)]
        top = tall + 0.9
    return Item(_class("plant"), pot * 1.5, pot * 1.5, top, parts, materials)


def carton(rng: np.random.Generator) -> Item:
    """A box, perhaps with a lid or another box on top."""
    r = rng.random(8).tolist()
    half_x, half_y, half_z = 0.08 + 0.22 * r[0], 0.08 + 0.2 * r[1], 0.05 + 0.2 * r[2]
    materials = [draw_material(rng, ANY, 0.5), draw_material(rng, ANY, 0.4)]
    parts = [box(0, 0, half_z, half_x, half_y, half_z)]
    top = 2 * half_z
    if r[3] < 0.3:
        parts += [box(0, 0, top, half_x * 1.04, half_y * 1.04, half_z * 0.2, 1)]
        top += half_z * 0.2
    elif r[3] < 0.55:
        parts += [box(0, 0, top + half_z * 0.5, half_x * 0.7, half_y * 0.7, half_z * 0.5, 1, r[4] - 0.5)]
        top += half_z
    return Item(_class("box"), half_x * 1.04, half_y * 1.04, top, parts, materials)


def clutter(rng: np.random.Generator) -> Item:
    """A small thing: a ball, a cup, a bottle, a bowl, a stack of books or a vase."""
    r = rng.random(5).tolist()
    materials = [draw_material(rng, ANY, 0.15), draw_material(rng, ANY, 0.15), draw_material(rng, PAINT)]
    size = 0.6 + 0.8 * r[1]
    shape = int(r[0] * 6)
    if shape == 0:
        radius = 0.11 * size
        parts, wide, top = [blob(0, 0, radius, radius, radius, radius)], radius, 2 * radius
    elif shape == 1:
        parts = [
            frustum(0, 0, 0.05 * size, 0.035 * size, 0.045 * size, 0.05 * size),
            box(0.055 * size, 0, 0.05 * size, 0.02 * size, 0.006, 0.02 * size),
        ]
        wide, top = 0.06 * size, 0.1 * size
    elif shape == 2:
        parts = [
            frustum(0, 0, 0.09 * size, 0.04 * size, 0.04 * size, 0.09 * size),
            frustum(0, 0, 0.22 * size, 0.035 * size, 0.012 * size, 0.05 * size, 1),
            frustum(0, 0, 0.28 * size, 0.014 * size, 0.014 * size, 0.015 * size, 2),
        ]
        wide, top = 0.04 * size, 0.3 * size
    elif shape == 3:
        parts, wide, top = [frustum(0, 0, 0.04 * size, 0.05 * size, 0.13 * size, 0.04 * size)], 0.13 * size, 0.08 * size
        parts += [
            blob(0.04 * size * i, 0.03 * size * (i % 2), 0.09 * size, *([0.04 * size] * 3), 1) for i in (-1, 0, 1)
        ]
    elif shape == 4:
        parts = [
            box(0, 0, 0.02 + 0.04 * i, 0.11 - 0.012 * i, 0.08 - 0.008 * i, 0.02, i, 0.5 * (r[2 + i] - 0.5))
            for i in range(3)
        ]
        wide, top = 0.12, 0.12
    else:
        parts = [
            blob(0, 0, 0.1 * size, 0.08 * size, 0.08 * size, 0.1 * size),
            frustum(0, 0, 0.22 * size, 0.03 * size, 0.05 * size, 0.05 * size),
        ]
        wide, top = 0.08 * size, 0.27 * size
    return Item(_class("clutter"), wide, wide, top, parts, materials)


def rug(rng: np.random.Generator) -> Item:
    """A flat rug, with a border or round."""
    r = rng.random(4).tolist()
    half_x, half_y = 0.5 + 0.9 * r[0], 0.4 + 0.5 * r[1]
    materials = [draw_material(rng, CLOTH + (9, 14), 0.8), draw_material(rng, CLOTH, 0.5)]
    if r[2] < 0.25:
        parts, half_y = [frustum(0, 0, 0.006, half_x, half_x, 0.006)], half_x
    else:
        parts = [box(0, 0, 0.005, half_x, half_y, 0.005, 1), box(0, 0, 0.006, half_x * 0.88, half_y * 0.84, 0.006)]
    return Item(_class("rug"), half_x, half_y, 0.012, parts, materials)


def picture(rng: np.random.Generator) -> Item:
    """A framed picture, a poster or a clock; hangs at y = 0 with its middle at z = 0."""
    r = rng.random(4).tolist()
    half_x, half_z, thick = 0.12 + 0.4 * r[0], 0.12 + 0.3 * r[1], 0.008 + 0.015 * r[2]
    materials = [draw_material(rng, PAINT, light=0.3 * r[3]), draw_material(rng, ANY, 0.5)]
    parts = [
        box(0, -thick, 0, half_x, thick, half_z),
        box(0, -thick - 0.004, 0, half_x * 0.86, thick, half_z * 0.84, 1),
    ]
    return Item(_class("picture"), half_x, thick + 0.004, half_z, parts, materials)


def window_frame(rng: np.random.Generator, half_x: float, half_z: float) -> Item:
    """Bars around and across a window of the given half extents; its middle at z = 0 on the wall y = 0."""
    r = rng.random(4).tolist()
    materials = [draw_material(rng, PAINT, light=0.8)]
    bar, deep = 0.025 + 0.02 * r[0], 0.03
    parts = [box(0, -deep + 0.01, s * half_z, half_x + bar, deep, bar) for s in (-1, 1)]
    parts += [box(s * half_x, -deep + 0.01, 0, bar, deep, half_z) for s in (-1, 1)]
    parts += [box(0, -0.01, 0, 0.018, 0.012, half_z)] if r[1] < 0.7 else []
    parts += [box(0, -0.01, half_z * 0.3 * r[3], half_x, 0.012, 0.016)] if r[2] < 0.6 else []
    if r[3] < 0.5:
        parts += [box(0, -0.09, -half_z - bar, half_x + 0.08, 0.09, 0.015)]
    return Item(_class("window"), half_x, 0.1, half_z, parts, materials)


def door(rng: np.random.Generator) -> Item:
    """A closed door with a frame, raised panels and a knob; stands at the wall y = 0."""
    r = rng.random(5).tolist()
    half_x, height = 0.38 + 0.1 * r[0], 1.95 + 0.15 * r[1]
    materials = [draw_material(rng, WOODY, 1.0), draw_material(rng, PAINT, light=0.4), draw_material(rng, PAINT)]
    parts = [box(0, -0.012, height / 2, half_x, 0.012, height / 2)]
    parts += [box(s * (half_x + 0.035), -0.02, height / 2, 0.035, 0.02, height / 2 + 0.035, 1) for s in (-1, 1)]
    parts += [box(0, -0.02, height + 0.035, half_x, 0.02, 0.035, 1)]
    if r[2] < 0.7:
        parts += [box(0, -0.02, height * z, half_x * 0.7, 0.014, height * h) for z, h in ((0.27, 0.18), (0.72, 0.2))]
    side = 1 if r[3] < 0.5 else -1
    parts += [blob(side * half_x * 0.85, -0.06, height * 0.48, 0.03, 0.03, 0.03, 2)]
    return Item(_class("door"), half_x + 0.07, 0.05, height, parts, materials)


AGAINST_WALL: tuple[Callable[[np.random.Generator], Item], ...] = (
    sofa,
    bed,
    shelf,
    shelf,
    table,
    carton,
    plant,
    floor_lamp,
)
FREE_STANDING: tuple[Callable[[np.random.Generator], Item], ...] = (
    table,
    table,
    chair,
    sofa,
    plant,
    carton,
    clutter,
    floor_lamp,
)
ON_TOP: tuple[Callable[[np.random.Generator], Item], ...] = (clutter, clutter, clutter, carton, plant, table_lamp)
