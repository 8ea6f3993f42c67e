"""Materials: a pattern between two colours, drawn so that colour alone does not reveal the class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from edgemtl.data.scenes import textures as tx

Material = tuple[float, ...]
"""pattern, colour a (3), colour b (3), repeats per metre u and v, cos and sin of the turn, offset u and v,
strength of the grime on top, specular strength, emission."""

WIDTH = 16

WOODY = (tx.WOOD, tx.WOOD, tx.PLANKS, tx.PLAIN, tx.MARBLE)
CLOTH = (tx.PLAIN, tx.STRIPES, tx.PLAID, tx.WEAVE, tx.DOTS, tx.NOISE, tx.CHECKER, tx.WAVES, tx.PINSTRIPE, tx.SPOTS)
WALLS = (tx.PLAIN, tx.PLAIN, tx.PLAIN, tx.PINSTRIPE, tx.STRIPES, tx.BRICK, tx.NOISE, tx.WAVES, tx.DOTS, tx.PLANKS)
FLOORS = (tx.PLANKS, tx.PLANKS, tx.WOOD, tx.TILES, tx.CHECKER, tx.SPECKLE, tx.MARBLE, tx.BRICK, tx.NOISE)
PAINT = (tx.PLAIN, tx.PLAIN, tx.SPECKLE, tx.NOISE, tx.MARBLE)
ANY = tuple(range(16))


def draw_material(
    rng: np.random.Generator, patterns: Sequence[int], repeat_m: float = 0.6, emission: float = 0.0, light: float = 0.0
) -> Material:
    """Draw a material: ``repeat_m`` is the tile's typical width, ``light`` in [0, 1] pulls towards pale colours."""
    r = rng.random(18).tolist()
    pattern = patterns[int(r[0] * len(patterns))]
    saturation = r[2] ** 3 * (0.95 - 0.6 * light)
    hue = r[1] if r[11] < 0.4 else (0.04 + 0.1 * r[1] if r[11] < 0.75 else 0.52 + 0.14 * r[1])
    value = 0.06 + 0.84 * (r[3] * (1.0 - light) + light * (0.6 + 0.4 * r[3]))
    if pattern in (tx.WOOD, tx.PLANKS) and r[17] < 0.8:
        colour = colorsys.hsv_to_rgb(0.05 + 0.06 * r[1], 0.25 + 0.45 * r[2], value * 0.8)
    else:
        colour = colorsys.hsv_to_rgb(hue, saturation, value)
    contrast = 0.25 + 0.75 * r[4]
    if r[5] < 0.35 * (1.0 - light):
        other = colorsys.hsv_to_rgb(r[6], r[7] * r[7] * 0.9, 0.05 + 0.85 * r[8])
    else:
        shade = 0.25 + 0.5 * r[8] if value > 0.35 else 1.6 + 1.5 * r[8]
        other = (min(0.92, colour[0] * shade), min(0.92, colour[1] * shade), min(0.92, colour[2] * shade))
    mixed = [a + (b - a) * contrast for a, b in zip(colour, other, strict=True)]
    repeats = (0.6 + 0.9 * r[9]) / repeat_m
    turn = (0.0, 0.0, 1.5707963, 0.7853982)[int(r[10] * 4)] if r[11] < 0.9 else r[10] * 3.14
    if pattern in (tx.BRICK, tx.WOOD, tx.PLANKS):
        turn = 0.0 if r[10] < 0.7 or pattern == tx.BRICK else 1.5707963
    specular = 0.35 * r[13] if r[12] < 0.4 else 0.0
    return (
        float(pattern),
        *colour,
        *mixed,
        repeats,
        repeats * (0.8 + 0.4 * r[14]),
        float(np.cos(turn)),
        float(np.sin(turn)),
        r[15],
        r[16],
        0.35 * r[17] * r[17],
        specular,
        emission,
    )
