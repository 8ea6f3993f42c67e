"""Furniture and loose things, drawn at random, in a frame of their own: z up, the front towards -y."""

from __future__ import annotations

import numpy as np

from edgemtl.data.scenes.materials import ANY, CLOTH, PAINT, WOODY, draw_material
from edgemtl.data.scenes.parts import Item, Part, ball, blob, box, class_id, frustum, legs


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
            class_id("table"), half_x, half_x, height, parts, materials, [(0, 0, height, half_x * 0.6, half_x * 0.6)]
        )
    parts = [box((0, 0, height - top), (half_x, half_y, top))]
    if r[5] < 0.5:
        parts += [box((s * (half_x - 0.03), 0, under / 2), (0.02, half_y * 0.92, under / 2), 1) for s in (-1, 1)]
        parts += [box((half_x * 0.45, 0, under - 0.09), (half_x * 0.45, half_y * 0.85, 0.09), 1)]
    else:
        parts += legs(half_x, half_y, under, 0.018 + 0.025 * r[6], 1, r[7] < 0.5)
        if r[6] < 0.4:
            parts += [box((0, 0, 0.15), (half_x * 0.9, half_y * 0.85, 0.012), 1)]
    return Item(
        class_id("table"), half_x, half_y, height, parts, materials, [(0, 0, height, half_x * 0.85, half_y * 0.8)]
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
            *legs(half * 0.8, half * 0.8, seat - 0.05, 0.018, 1, True),
        ]
        return Item(class_id("chair"), half, half, seat, parts, materials)
    back = 0.2 + 0.13 * r[4]
    lean = 0.05 + 0.18 * r[5]
    parts = [box((0, 0, seat - 0.025), (half, half, 0.025))]
    if r[3] < 0.35:
        parts += [
            frustum(0, 0, seat / 2, 0.035, 0.03, seat / 2 - 0.05, 1),
            box((0, 0, 0.04), (half * 1.1, 0.03, 0.025), 1, 0.6),
            box((0, 0, 0.04), (half * 1.1, 0.03, 0.025), 1, 2.17),
        ]
    else:
        parts += legs(half, half, seat - 0.05, 0.014 + 0.012 * r[6], 1, r[7] < 0.5)
    y_back = half + lean * back - 0.02
    if r[7] < 0.5:
        parts += [box((0, y_back, seat + back), (half * 0.95, 0.018, back), 0, 0.0, -lean)]
    else:
        parts += [box((s * half * 0.85, y_back, seat + back), (0.02, 0.018, back), 1, 0.0, -lean) for s in (-1, 1)]
        parts += [
            box((0, half + lean * h - 0.02, seat + h), (half * 0.85, 0.012, 0.035), 0, 0.0, -lean)
            for h in (back * 0.8, back * 1.75)
        ]
    return Item(
        class_id("chair"),
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
    seats = 1 + int(r[0] * 3)
    half_x, half_y = 0.24 + 0.28 * seats, 0.38 + 0.1 * r[1]
    seat, back, arm = 0.38 + 0.08 * r[2], 0.7 + 0.2 * r[3], 0.07 + 0.06 * r[4]
    materials = [draw_material(rng, CLOTH), draw_material(rng, CLOTH, 0.3), draw_material(rng, WOODY)]
    cushion_slot = 0 if r[5] < 0.7 else 1
    inner = half_x - 2 * arm
    parts = [
        box((0, 0, 0.06 + (seat - 0.18) / 2), (half_x, half_y, (seat - 0.18) / 2)),
        box((0, half_y - 0.1, back / 2 + 0.03), (half_x, 0.1, back / 2 - 0.03)),
        *legs(half_x, half_y, 0.06, 0.03, 2, False),
    ]
    arm_top = seat + 0.14 + 0.08 * r[6]
    for side in (-1, 1):
        parts += [box((side * (half_x - arm), 0, arm_top / 2 + 0.03), (arm, half_y, arm_top / 2 - 0.03))]
    step = 2 * inner / seats
    for i in range(seats):
        x = -inner + (i + 0.5) * step
        parts += [box((x, -0.09, seat - 0.06), (step / 2 - 0.008, half_y - 0.1, 0.07), cushion_slot)]
        if r[7] < 0.5:
            parts += [box((x, half_y - 0.27, seat + 0.2), (step / 2 - 0.012, 0.06, 0.18), cushion_slot, 0.0, -0.2)]
    for i in range(int(r[8] * 3)):
        x = (r[9] * 2 - 1) * inner * 0.7 * (-1) ** i
        parts += [blob((x, half_y - 0.36, seat + 0.17), (0.19, 0.07, 0.17), 1, 0.4 * (r[6] - 0.5), -0.35)]
    return Item(
        class_id("sofa"), half_x, half_y, back, parts, materials, [(0, -0.08, seat + 0.01, inner * 0.7, half_y * 0.4)]
    )


def bed(rng: np.random.Generator) -> Item:
    """A bed: frame, mattress, blanket, pillows, headboard."""
    r = rng.random(8).tolist()
    half_x, half_y, low = 0.45 + 0.4 * r[0], 0.95 + 0.1 * r[1], 0.2 + 0.15 * r[2]
    materials = [draw_material(rng, WOODY), draw_material(rng, CLOTH, 0.5, light=0.5), draw_material(rng, CLOTH, 0.6)]
    top = low + 0.2
    parts = [
        box((0, 0, low - 0.06), (half_x, half_y, 0.06)),
        *legs(half_x, half_y, low - 0.1, 0.04, 0, False),
        box((0, 0, low + 0.1), (half_x - 0.03, half_y - 0.03, 0.1), 1),
        box((0, -0.25, top - 0.045), (half_x - 0.005, half_y - 0.27, 0.07), 2),
    ]
    if r[3] < 0.75:
        parts += [box((0, half_y + 0.03, 0.3 + 0.25 * r[4]), (half_x + 0.02, 0.03, 0.3 + 0.25 * r[4]))]
    pillows = 1 if half_x < 0.6 else 2
    for i in range(pillows):
        x = 0.0 if pillows == 1 else (i - 0.5) * half_x
        parts += [blob((x, half_y - 0.28, top + 0.05), (min(0.33, half_x * 0.6), 0.2, 0.09), 1, 0.3 * (r[5] - 0.5))]
    return Item(
        class_id("bed"),
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
            box((x + half, -depth * (0.05 + 0.15 * r[3]), z + tall), (half, depth * 0.7, tall), 2 + int(r[4] * slots))
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
        parts = [box((0, 0, height / 2), (half_x, half_y, height / 2))]
        for row in range(rows):
            z, tall = (row + 0.5) * height / rows, height / rows / 2 - 0.012
            for side in (-1, 1) if r[5] < 0.5 else (0,):
                wide = half_x / 2 - 0.012 if side else half_x - 0.02
                parts += [box((side * half_x / 2, -half_y, z), (wide, 0.01, tall), 1)]
                parts += [blob((side * half_x * 0.12, -half_y - 0.02, z), (0.015, 0.015, 0.015), 0)]
        supports = [(0.0, 0.0, height, half_x * 0.8, half_y * 0.7)] if height < 1.5 else []
        return Item(class_id("shelf"), half_x, half_y + 0.04, height, parts, materials, supports)
    height = 0.7 + 1.3 * r[4]
    boards = 2 + int(height / 0.42)
    room = (height - 0.03) / (boards - 1)
    parts = [box((s * (half_x - 0.012), 0, height / 2), (0.012, half_y, height / 2)) for s in (-1, 1)]
    if r[5] < 0.75:
        parts += [box((0, half_y - 0.006, height / 2), (half_x - 0.024, 0.006, height / 2), 1)]
    materials += [draw_material(rng, ANY, 0.2) for _ in range(4)]
    for i in range(boards):
        z = 0.015 + i * room
        parts += [box((0, 0, z), (half_x - 0.024, half_y - 0.013, 0.012))]
        if i < boards - 1 and rng.random() < 0.75:
            start = (-half_x + 0.03) if rng.random() < 0.6 else -half_x * 0.3
            parts += _books(rng, start, half_x - 0.03, z + 0.012, room * 0.95, half_y, 4)
    supports = [(0.0, 0.0, height, half_x * 0.8, half_y * 0.6)] if height < 1.6 else []
    return Item(class_id("shelf"), half_x, half_y, height, parts, materials, supports)


def carton(rng: np.random.Generator) -> Item:
    """A box, perhaps with a lid or another box on top."""
    r = rng.random(8).tolist()
    half_x, half_y, half_z = 0.08 + 0.22 * r[0], 0.08 + 0.2 * r[1], 0.05 + 0.2 * r[2]
    materials = [draw_material(rng, ANY, 0.5), draw_material(rng, ANY, 0.4)]
    parts = [box((0, 0, half_z), (half_x, half_y, half_z))]
    top = 2 * half_z
    if r[3] < 0.3:
        parts += [box((0, 0, top), (half_x * 1.04, half_y * 1.04, half_z * 0.2), 1)]
        top += half_z * 0.2
    elif r[3] < 0.55:
        parts += [box((0, 0, top + half_z * 0.5), (half_x * 0.7, half_y * 0.7, half_z * 0.5), 1, r[4] - 0.5)]
        top += half_z
    return Item(class_id("box"), half_x * 1.04, half_y * 1.04, top, parts, materials)


def clutter(rng: np.random.Generator) -> Item:
    """A small thing: a ball, a cup, a bottle, a bowl, a stack of books or a vase."""
    r = rng.random(5).tolist()
    materials = [draw_material(rng, ANY, 0.15), draw_material(rng, ANY, 0.15), draw_material(rng, PAINT)]
    size = 0.6 + 0.8 * r[1]
    shape = int(r[0] * 6)
    if shape == 0:
        radius = 0.11 * size
        parts, wide, top = [blob((0, 0, radius), (radius, radius, radius))], radius, 2 * radius
    elif shape == 1:
        parts = [
            frustum(0, 0, 0.05 * size, 0.035 * size, 0.045 * size, 0.05 * size),
            box((0.055 * size, 0, 0.05 * size), (0.02 * size, 0.006, 0.02 * size)),
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
        parts += [blob((0.04 * size * i, 0.03 * size * (i % 2), 0.09 * size), ball(0.04 * size), 1) for i in (-1, 0, 1)]
    elif shape == 4:
        parts = [
            box((0, 0, 0.02 + 0.04 * i), (0.11 - 0.012 * i, 0.08 - 0.008 * i, 0.02), i, 0.5 * (r[2 + i] - 0.5))
            for i in range(3)
        ]
        wide, top = 0.12, 0.12
    else:
        parts = [
            blob((0, 0, 0.1 * size), (0.08 * size, 0.08 * size, 0.1 * size)),
            frustum(0, 0, 0.22 * size, 0.03 * size, 0.05 * size, 0.05 * size),
        ]
        wide, top = 0.08 * size, 0.27 * size
    return Item(class_id("clutter"), wide, wide, top, parts, materials)
