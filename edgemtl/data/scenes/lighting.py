"""Lights and the camera's response, drawn at random."""

from __future__ import annotations

import math

import numpy as np

from edgemtl.data.scenes.types import Array, Light, Look, Opening, View

Bulbs = list[tuple[float, float, float, int]]
"""Positions (x, y, z) of lit lamps, with their instances."""


def look_along(forward: Array, roll: float = 0.0) -> Array:
    """Right, down and forward as rows for a view along ``forward`` in a world whose z is up."""
    forward = forward / np.linalg.norm(forward)
    up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward])


def _tint(rng: np.random.Generator, warm: float) -> Array:
    """A light's colour around white: positive ``warm`` is reddish, negative bluish."""
    t = warm + rng.normal(0.0, 0.1)
    return np.array([1.0 + 0.35 * t, 1.0 + 0.05 * t, 1.0 - 0.4 * t])


def draw_lights(
    rng: np.random.Generator, size: Array, bulbs: Bulbs, windows: list[tuple[Opening, int]]
) -> tuple[tuple[Light, ...], Array, Array]:
    """One to three lights (lamps, a window, the sun), the ambient term and the brightness outside.

    ``size`` is the room's; ``windows`` come with the instances of their frames.
    """
    lights: list[Light] = []
    down = look_along(np.array([0.0, 0.0, -1.0]))
    daylight = rng.random() < 0.7
    sky = rng.uniform(1.5, 5.0) * _tint(rng, -0.3) if daylight else rng.uniform(0.01, 0.08) * _tint(rng, -0.8)
    for x, y, z, owner in bulbs[: 1 if windows and daylight else 2]:
        lights += [Light(View(np.array([x, y, z]), down), rng.uniform(0.8, 3.0) * _tint(rng, 0.5), 2.4, owner, 1.2)]
    if windows and daylight:
        opening, frame = windows[0]
        middle, inward = _opening_frame(opening, size)
        area = (opening.along[1] - opening.along[0]) * (opening.height[1] - opening.height[0])
        view = View(middle - 0.15 * inward, look_along(inward))
        lights += [Light(view, area * rng.uniform(1.0, 3.0) * _tint(rng, -0.2), 2.2, frame, 2.5)]
        if rng.random() < 0.6 and len(lights) < 3:
            lights += [_sun(rng, opening, middle, inward)]
    if not lights or (len(lights) < 3 and rng.random() < 0.4):
        position = np.append(size[:2] * rng.uniform(0.2, 0.8, 2), size[2] - rng.uniform(0.03, 0.3))
        lights += [Light(View(position, down), rng.uniform(1.5, 4.0) * _tint(rng, 0.3), 2.8, -1, rng.uniform(0.7, 2.0))]
    ambient = rng.uniform(0.12, 0.5) * _tint(rng, 0.0)
    return tuple(lights[:3]), ambient.astype(np.float32), np.maximum(sky, 0.0).astype(np.float32)


def _opening_frame(opening: Opening, size: Array) -> tuple[Array, Array]:
    """The middle of a window and the direction into the room."""
    axis, high = divmod(opening.face, 2)
    middle, inward = np.zeros(3), np.zeros(3)
    middle[axis], middle[1 - axis], middle[2] = high * size[axis], sum(opening.along) / 2, sum(opening.height) / 2
    inward[axis] = -1.0 if high else 1.0
    return middle, inward


def _sun(rng: np.random.Generator, opening: Opening, middle: Array, inward: Array) -> Light:
    """The sun through a window: a point so far away that its rays are almost parallel."""
    away = 60.0
    direction = (
        inward
        + rng.uniform(-0.8, 0.8) * np.array([-inward[1], inward[0], 0.0])
        - np.array([0.0, 0.0, rng.uniform(0.4, 1.3)])
    )
    direction /= np.linalg.norm(direction)
    reach = 0.6 * math.hypot(opening.along[1] - opening.along[0], opening.height[1] - opening.height[0]) / away
    strength = away * away * rng.uniform(1.0, 3.0)
    view = View(middle - away * direction, look_along(direction))
    return Light(view, strength * _tint(rng, 0.3), reach, -1, 0.8, opening)


def draw_look(rng: np.random.Generator) -> Look:
    """Exposure, white balance, tone, lens and sensor noise."""
    return Look(
        contrast=float(rng.uniform(0.0, 0.7)),
        exposure=float(0.22 * 2.0 ** rng.normal(0.0, 0.5)),
        white=(1.0 + rng.normal(0.0, 0.07, 3)).astype(np.float32),
        gamma=float(rng.uniform(0.85, 1.15) / 2.2),
        vignette=float(rng.uniform(0.0, 0.45)),
        blur=float(rng.uniform(0.2, 0.75)),
        shot=float(rng.uniform(0.0, 0.03) ** 2 + 1e-5),
        read=float(rng.uniform(0.001, 0.012)),
    )
