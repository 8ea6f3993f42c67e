"""Lamps, plants and what hangs or lies flat: rugs, pictures, windows, doors; same frame as the furniture."""

from __future__ import annotations

import numpy as np

from edgemtl.data.scenes.materials import ANY, CLOTH, PAINT, WOODY, draw_material
from edgemtl.data.scenes.parts import Item, ball, blob, box, class_id, frustum
from edgemtl.data.scenes.textures import DOTS, NOISE, SPOTS


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
    return Item(class_id("lamp"), wide, wide, height + 0.15, parts, materials, lamp_z=height if r[2] < 0.6 else 0.0)


def table_lamp(rng: np.random.Generator) -> Item:
    """A small lamp: a foot, a stem, a shade."""
    r = rng.random(5).tolist()
    height, wide = 0.25 + 0.2 * r[0], 0.09 + 0.06 * r[1]
    materials = [
        draw_material(rng, PAINT),
        draw_material(rng, CLOTH, 0.3, emission=1.2 if r[2] < 0.5 else 0.0, light=0.6),
    ]
    stem = (
        blob((0, 0, height * 0.4), (0.05, 0.05, height * 0.4))
        if r[3] < 0.5
        else frustum(0, 0, height / 2, 0.05, 0.012, height / 2)
    )
    parts = [
        frustum(0, 0, 0.01, 0.07, 0.06, 0.01),
        stem,
        frustum(0, 0, height, wide, wide * (0.5 + 0.4 * r[4]), 0.07, 1),
    ]
    return Item(class_id("lamp"), wide, wide, height + 0.1, parts, materials, lamp_z=height if r[2] < 0.5 else 0.0)


def pendant(rng: np.random.Generator) -> Item:
    """A lamp hanging from the ceiling; z = 0 is the ceiling."""
    r = rng.random(4).tolist()
    drop, wide = 0.2 + 0.5 * r[0], 0.12 + 0.12 * r[1]
    materials = [draw_material(rng, PAINT), draw_material(rng, PAINT, emission=1.5, light=0.7)]
    shade = (
        blob((0, 0, -drop), (wide, wide, wide * (0.5 + 0.5 * r[3])), 1)
        if r[2] < 0.5
        else frustum(0, 0, -drop, wide, wide * 0.4, 0.09, 1)
    )
    return Item(
        class_id("lamp"),
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
    leaf = [float(NOISE), *green, *(0.4 * g for g in green), 6.0, 6.0, 1.0, 0.0, r[0], r[1], 0.2, 0.1, 0.0]
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
                    (-np.sin(turn) * reach * 0.7, np.cos(turn) * reach * 0.7, z),
                    (0.035 + 0.05 * a[3], reach * 0.8, 0.02),
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
            parts += [blob((a[0] * 0.3, a[1] * 0.3, tall + stem + a[2] * 0.25), ball(0.12 + 0.12 * abs(a[3])), 2)]
        top = tall + stem + 0.2
    else:
        parts += [frustum(0, 0, tall + 0.15 + 0.2 * i, 0.26 - 0.055 * i, 0.02, 0.17, 2) for i in range(4)]
        top = tall + 0.9
    return Item(class_id("plant"), pot * 1.5, pot * 1.5, top, parts, materials)


def rug(rng: np.random.Generator) -> Item:
    """A flat rug, with a border or round."""
    r = rng.random(4).tolist()
    half_x, half_y = 0.5 + 0.9 * r[0], 0.4 + 0.5 * r[1]
    materials = [draw_material(rng, (*CLOTH, DOTS, SPOTS), 0.8), draw_material(rng, CLOTH, 0.5)]
    if r[2] < 0.25:
        parts, half_y = [frustum(0, 0, 0.006, half_x, half_x, 0.006)], half_x
    else:
        parts = [
            box((0, 0, 0.005), (half_x, half_y, 0.005), 1),
            box((0, 0, 0.006), (half_x * 0.88, half_y * 0.84, 0.006)),
        ]
    return Item(class_id("rug"), half_x, half_y, 0.012, parts, materials)


def picture(rng: np.random.Generator) -> Item:
    """A framed picture, a poster or a clock; hangs at y = 0 with its middle at z = 0."""
    r = rng.random(4).tolist()
    half_x, half_z, thick = 0.12 + 0.4 * r[0], 0.12 + 0.3 * r[1], 0.008 + 0.015 * r[2]
    materials = [draw_material(rng, PAINT, light=0.3 * r[3]), draw_material(rng, ANY, 0.5)]
    parts = [
        box((0, -thick, 0), (half_x, thick, half_z)),
        box((0, -thick - 0.004, 0), (half_x * 0.86, thick, half_z * 0.84), 1),
    ]
    return Item(class_id("picture"), half_x, thick + 0.004, half_z, parts, materials)


def window_frame(rng: np.random.Generator, half_x: float, half_z: float) -> Item:
    """Bars around and across a window of the given half extents; its middle at z = 0 on the wall y = 0."""
    r = rng.random(4).tolist()
    materials = [draw_material(rng, PAINT, light=0.8)]
    bar, deep = 0.025 + 0.02 * r[0], 0.03
    parts = [box((0, -deep + 0.01, s * half_z), (half_x + bar, deep, bar)) for s in (-1, 1)]
    parts += [box((s * half_x, -deep + 0.01, 0), (bar, deep, half_z)) for s in (-1, 1)]
    parts += [box((0, -0.01, 0), (0.018, 0.012, half_z))] if r[1] < 0.7 else []
    parts += [box((0, -0.01, half_z * 0.3 * r[3]), (half_x, 0.012, 0.016))] if r[2] < 0.6 else []
    if r[3] < 0.5:
        parts += [box((0, -0.09, -half_z - bar), (half_x + 0.08, 0.09, 0.015))]
    return Item(class_id("window"), half_x, 0.1, half_z, parts, materials)


def door(rng: np.random.Generator) -> Item:
    """A closed door with a frame, raised panels and a knob; stands at the wall y = 0."""
    r = rng.random(5).tolist()
    half_x, height = 0.38 + 0.1 * r[0], 1.95 + 0.15 * r[1]
    materials = [draw_material(rng, WOODY, 1.0), draw_material(rng, PAINT, light=0.4), draw_material(rng, PAINT)]
    parts = [box((0, -0.012, height / 2), (half_x, 0.012, height / 2))]
    parts += [box((s * (half_x + 0.035), -0.02, height / 2), (0.035, 0.02, height / 2 + 0.035), 1) for s in (-1, 1)]
    parts += [box((0, -0.02, height + 0.035), (half_x, 0.02, 0.035), 1)]
    if r[2] < 0.7:
        parts += [
            box((0, -0.02, height * z), (half_x * 0.7, 0.014, height * h)) for z, h in ((0.27, 0.18), (0.72, 0.2))
        ]
    side = 1 if r[3] < 0.5 else -1
    parts += [blob((side * half_x * 0.85, -0.06, height * 0.48), (0.03, 0.03, 0.03), 2)]
    return Item(class_id("door"), half_x + 0.07, 0.05, height, parts, materials)
