"""Shading of ray hits: points, normals, patterns, light and shadow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from edgemtl.data.scenes.raster import Buffers, draw_primitives, empty_buffers
from edgemtl.data.scenes.textures import NOISE, look_up
from edgemtl.data.scenes.types import BOX, ELLIPSOID, FIRST_PRIMITIVE, FRUSTUM, Array, Light, Scene, Surfaces, View

_INWARD = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)


@dataclass(frozen=True)
class Hits:
    """One column per pixel: surface id, depth, point and normal in the world (3, N), pattern
    coordinates in metres, and ``side``, which tells a primitive's faces apart."""

    surface: Array
    depth: Array
    point: Array
    normal: Array
    u: Array
    v: Array
    side: Array


def find_hits(scene: Scene, buffers: Buffers, view: View) -> Hits:
    """Turn the buffers of a view into points, normals and pattern coordinates."""
    surface = buffers.surface.ravel()
    depth = (1.0 / buffers.inverse).ravel()
    rows = view.axes[1][:, None] * buffers.ys + view.axes[2][:, None]
    columns = view.axes[0][:, None] * buffers.xs
    direction = (rows.astype(np.float32)[:, :, None] + columns.astype(np.float32)[:, None, :]).reshape(3, -1)
    point = direction * depth + view.position.astype(np.float32)[:, None]
    normal = np.empty_like(point)
    u, v = np.empty_like(depth), np.empty_like(depth)
    side = surface * 8
    kind = scene.surfaces.kind.astype(np.int8).take(surface)
    room = np.flatnonzero(surface < FIRST_PRIMITIVE - 1)
    _room_hits(surface, point, normal, u, v, room)
    outside = np.flatnonzero(surface == FIRST_PRIMITIVE - 1)
    normal[:, outside] = -view.axes[2][:, None]
    toward = direction[:, outside]
    u[outside], v[outside] = np.arctan2(toward[1], toward[0]), toward[2] / np.hypot(toward[0], toward[1])
    for which, shape in ((BOX, partial(_box_hits, view)), (ELLIPSOID, _ellipsoid_hits), (FRUSTUM, _frustum_hits)):
        at = np.flatnonzero(kind == which)
        if len(at):
            local, table = _to_local(scene.surfaces, surface[at], point[:, at])
            local_normal, u[at], v[at], face = shape(scene.surfaces, surface[at], local)
            side[at] += face
            for axis in range(3):
                normal[axis, at] = sum(table[row * 3 + axis] * local_normal[row] for row in range(3))
    return Hits(surface, depth, point, normal, u, v, side)


def _room_hits(surface: Array, point: Array, normal: Array, u: Array, v: Array, at: Array) -> None:
    face = surface[at]
    normal[:, at] = _INWARD.T[:, face]
    x, y, z = point[:, at]
    u[at] = np.where(face < 2, y, x)
    v[at] = np.where(face < 4, z, y)


def _to_local(surfaces: Surfaces, ids: Array, point: Array) -> tuple[list[Array], Array]:
    """Points in their primitive's own frame (metres), and the rotations by entry (9, N)."""
    flat = surfaces.rotation.reshape(-1, 9)
    shift = -np.einsum("pij,pj->pi", surfaces.rotation, surfaces.centre)
    table = np.ascontiguousarray(np.concatenate([flat, shift], 1).T, np.float32).take(ids, axis=1)
    x, y, z = point
    return [table[3 * i] * x + table[3 * i + 1] * y + table[3 * i + 2] * z + table[9 + i] for i in range(3)], table


def _half_size(surfaces: Surfaces, ids: Array) -> Array:
    return np.ascontiguousarray(surfaces.half.T, np.float32).take(ids, axis=1)


def _box_hits(
    view: View, surfaces: Surfaces, ids: Array, local: list[Array]
) -> tuple[list[Array], Array, Array, Array]:
    """Only faces that the view is outside of can be seen: on an edge, rounding must not take the hidden one."""
    half = _half_size(surfaces, ids)
    position = np.einsum("pij,pj->pi", surfaces.rotation, view.position - surfaces.centre)
    facing = (np.sign(position) * (np.abs(position) > surfaces.half)).astype(np.float32).T
    toward = np.ascontiguousarray(facing).take(ids, axis=1)
    a, b, c = (p * sign / h for p, sign, h in zip(local, toward, half, strict=True))
    is_x = (a >= b) & (a >= c)
    is_z = (c > b) & ~is_x
    is_y = ~(is_x | is_z)
    normal = [np.where(flag, sign, np.float32(0)) for flag, sign in zip((is_x, is_y, is_z), toward, strict=True)]
    face = is_y * 1 + is_z * 2 + 3 * (normal[0] + normal[1] + normal[2] > 0)
    return normal, np.where(is_x, local[1], local[0]), np.where(is_z, local[1], local[2]), face


def _ellipsoid_hits(surfaces: Surfaces, ids: Array, local: list[Array]) -> tuple[list[Array], Array, Array, Array]:
    half = _half_size(surfaces, ids)
    normal = [p / (h * h) for p, h in zip(local, half, strict=True)]
    scale = 1.0 / np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    u = np.arctan2(local[1], local[0]) * half[0]
    return [n * scale for n in normal], u, local[2] * np.float32(1.3), np.zeros_like(ids)


def _frustum_hits(surfaces: Surfaces, ids: Array, local: list[Array]) -> tuple[list[Array], Array, Array, Array]:
    half = _half_size(surfaces, ids)
    mean, slope = np.ascontiguousarray(surfaces.taper.T, np.float32).take(ids, axis=1)
    radial = np.hypot(local[0], local[1])
    height = local[2] / half[2]
    width = (mean + slope * height) * half[0]
    cap = (np.abs(height) - 1.0) * half[2] > -np.abs(radial - width)
    rise = -slope * half[0] / half[2]
    scale = 1.0 / (np.maximum(radial, 1e-9) * np.sqrt(1.0 + rise * rise))
    normal = [
        np.where(cap, 0.0, local[0] * scale),
        np.where(cap, 0.0, local[1] * scale),
        np.where(cap, np.sign(height), rise / np.sqrt(1.0 + rise * rise)),
    ]
    u = np.where(cap, local[0], np.arctan2(local[1], local[0]) * half[0])
    return normal, u, np.where(cap, local[1], local[2]), cap * (1 + (height > 0))


def shade(scene: Scene, hits: Hits, view: View, focal_px: float) -> Array:
    """Light that reaches the camera, linear RGB (3, N), in the scene's own units."""
    material = np.ascontiguousarray(scene.materials.T).take(scene.surfaces.material.take(hits.surface), axis=1)
    albedo = _albedo(hits, material, focal_px)
    outside = np.flatnonzero(hits.surface == FIRST_PRIMITIVE - 1)
    openness = _openness(scene, hits)
    floor = scene.materials[4, 1:7].reshape(2, 3).mean(0)[:, None]
    upward = 0.5 + 0.5 * hits.normal[2]
    light = scene.ambient[:, None] * openness * (upward + (1.0 - upward) * (0.25 + floor))
    shine = np.zeros_like(light)
    back = view.position.astype(np.float32)[:, None] - hits.point
    back /= np.sqrt((back * back).sum(0))
    size = int(np.clip(len(hits.depth) ** 0.5 * 1.25, 160, 512))
    for lamp in scene.lights:
        _add_light(scene, lamp, hits, back, material[14], light, shine, size)
    radiance = albedo * (light + 1.6 * material[15]) + shine
    if len(outside):
        radiance[:, outside] = _outdoors(scene, hits.u[outside], hits.v[outside])
    return np.asarray(radiance)


def _albedo(hits: Hits, material: Array, focal_px: float) -> Array:
    """Two colours mixed by the pattern, under grime that runs over every part of a surface."""
    u = hits.u * material[9] - hits.v * material[10]
    v = hits.u * material[10] + hits.v * material[9]
    footprint = hits.depth * (material[7] / np.float32(focal_px))
    pattern = material[0].astype(np.int32)
    mix = look_up(pattern, u * material[7] + material[11], v * material[8] + material[12], footprint)
    grime = look_up(
        np.full_like(pattern, NOISE),
        u * 0.7 + material[12],
        v * 0.7 + material[11],
        hits.depth * np.float32(0.7 / focal_px),
    )
    colour = material[1:4] + (material[4:7] - material[1:4]) * mix
    return np.asarray(colour * (1.0 - material[13] * grime))


def _openness(scene: Scene, hits: Hits) -> Array:
    """How much of the ambient light arrives: less in the room's corners and under or beside things."""
    open_part = np.ones_like(hits.depth)
    for face in range(6):
        axis, high = divmod(face, 2)
        distance = np.float32(scene.size[axis]) - hits.point[axis] if high else hits.point[axis]
        facing = 1.0 - hits.normal[axis] * _INWARD[face, axis]
        open_part *= 1.0 - 0.3 * np.minimum(facing, 1.0) / (1.0 + (distance * 4.0) ** 2)
    reach, away, cells = 0.5 * float(max(scene.size[:2])), 100.0, 64
    middle = np.array([scene.size[0] / 2, scene.size[1] / 2, away])
    view = View(middle, np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]))
    grid = (((np.arange(cells) + 0.5) / cells * 2 - 1) * reach / away).astype(np.float32)
    buffers = empty_buffers(grid, grid)
    draw_primitives(buffers, view, scene.surfaces)
    top = np.where(
        buffers.surface >= 0, np.float32(away) - 1.0 / np.maximum(buffers.inverse, 1e-6), np.float32(-1.0)
    ).ravel()
    covered = np.zeros_like(hits.depth)
    subsample = np.float32(0.16 * cells / (2 * reach))
    column = (hits.point[0] + 0.1 * hits.normal[0] - np.float32(middle[0])) * np.float32(
        cells / (2 * reach)
    ) + np.float32(cells / 2)
    row = (np.float32(middle[1]) - hits.point[1] - 0.1 * hits.normal[1]) * np.float32(cells / (2 * reach)) + np.float32(
        cells / 2
    )
    floor_level = hits.point[2] + np.float32(0.06)
    for dx, dy, weight in ((0, 0, 0.3), (1, 0.4, 0.175), (-0.4, 1, 0.175), (-1, -0.4, 0.175), (0.4, -1, 0.175)):
        i = np.clip((column + dx * subsample).astype(np.int32), 0, cells - 1)
        j = np.clip((row + dy * subsample).astype(np.int32), 0, cells - 1)
        covered += np.float32(weight) * (top.take(j * cells + i) > floor_level)
    return np.asarray(open_part * (1.0 - 0.65 * covered))


def _add_light(
    scene: Scene, lamp: Light, hits: Hits, back: Array, specular: Array, light: Array, shine: Array, size: int
) -> None:
    """Add one lamp's diffuse light and highlights where it is not in shadow."""
    toward = lamp.view.position.astype(np.float32)[:, None] - hits.point
    square = (toward * toward).sum(0)
    toward /= np.sqrt(square)
    slope = np.maximum((toward * hits.normal).sum(0), 0.0)
    strength = slope / (square + np.float32(0.15))
    strength *= _lit(scene, lamp, hits, size)
    colour = lamp.colour.astype(np.float32)[:, None]
    light += colour * strength
    halfway = toward + back
    cosine = np.maximum((halfway * hits.normal).sum(0), 0.0) / np.sqrt((halfway * halfway).sum(0) + np.float32(1e-9))
    power = cosine**2
    for _ in range(4):
        power = power * power
    shine += colour * (strength * specular * power * np.float32(2.0))


def _lit(scene: Scene, lamp: Light, hits: Hits, size: int) -> Array:
    """The share of a lamp that each point sees, from a shadow map with soft edges."""
    grid = np.linspace(-lamp.reach, lamp.reach, size, dtype=np.float32)
    buffers = empty_buffers(grid, grid)
    draw_primitives(buffers, lamp.view, scene.surfaces, lamp.owner)
    axes = lamp.view.axes.astype(np.float32)
    x, y, z = axes @ (hits.point - lamp.view.position.astype(np.float32)[:, None])
    safe = np.maximum(z, np.float32(1e-3))
    scale = np.float32((size - 1) / (2 * lamp.reach))
    column, row = (x / safe + np.float32(lamp.reach)) * scale, (y / safe + np.float32(lamp.reach)) * scale
    inverse, surface = buffers.inverse.ravel(), buffers.surface.ravel()
    nearer = 1.0 / np.maximum(safe - np.float32(0.03), np.float32(1e-3))
    seen = np.ones_like(z)
    inside = (z > 1e-3) & (column >= 0) & (column <= size - 1) & (row >= 0) & (row <= size - 1)
    softness = np.float32(lamp.softness * size / 256)
    for dx, dy in ((-0.75, -0.25), (0.25, -0.75), (0.75, 0.25), (-0.25, 0.75)):
        i = np.clip(column + dx * softness + 0.5, 0, size - 1).astype(np.int32)
        j = np.clip(row + dy * softness + 0.5, 0, size - 1).astype(np.int32)
        texel = j * size + i
        seen -= 0.25 * (inside & (inverse.take(texel) > nearer) & (surface.take(texel) != hits.surface))
    if lamp.window is not None:
        axis, high = divmod(lamp.window.face, 2)
        wall = np.float32(high * scene.size[axis])
        source = lamp.view.position.astype(np.float32)
        part = (wall - hits.point[axis]) / (source[axis] - hits.point[axis])
        across = hits.point[1 - axis] + part * (source[1 - axis] - hits.point[1 - axis])
        height = hits.point[2] + part * (source[2] - hits.point[2])
        seen *= (across > lamp.window.along[0]) & (across < lamp.window.along[1])
        seen *= (height > lamp.window.height[0]) & (height < lamp.window.height[1])
    return np.asarray(np.maximum(seen, 0.0))


def _outdoors(scene: Scene, azimuth: Array, elevation: Array) -> Array:
    """Sky above a ragged skyline."""
    level = np.zeros_like(azimuth)
    noise = np.full(azimuth.shape, NOISE, np.int32)
    offset = np.float32(scene.sky[0])
    ragged = look_up(noise, azimuth * np.float32(0.5) + offset, level, level)
    leaves = look_up(noise, azimuth * np.float32(3.0), elevation * np.float32(3.0), level)
    ground = elevation < 0.35 * ragged - 0.16
    blue = np.array([[0.75], [0.5], [0.1]], np.float32) * np.clip(elevation * 1.2 + 0.1, 0.0, 0.8)
    sky = scene.sky[:, None] * (1.15 - blue)
    green = np.array([[0.2], [0.23], [0.13]], np.float32) * scene.sky[:, None] * (0.5 + leaves)
    return np.where(ground, green, sky)
