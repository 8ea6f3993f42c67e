"""A frame from a seed: visibility, shading, edges, and the camera's imperfections."""

from __future__ import annotations

import math

import numpy as np

from edgemtl.data.scenes.layout import build_scene
from edgemtl.data.scenes.raster import draw_primitives, draw_room, empty_buffers
from edgemtl.data.scenes.shade import Hits, find_hits, shade
from edgemtl.data.scenes.types import Array, Frame, Look
from edgemtl.errors import UserError

_CREASE_COSINE = 0.87
_STEP_M = 0.006


def render(seed: int, height: int, width: int) -> Frame:
    """Render the scene of a seed with exact labels.

    Args:
        seed: any whole number from 0; the same seed gives the same scene at every size.
        height: rows, at least 8.
        width: columns, at least 8.

    Returns:
        A ``Frame``; the horizontal field of view is the scene's own, whatever the shape.

    Raises:
        UserError: a negative seed, or a side below 8 pixels.

    >>> frame = render(seed=0, height=48, width=64)
    >>> frame.rgb.shape, frame.depth.shape
    ((48, 64, 3), (48, 64))
    """
    if seed < 0 or height < 8 or width < 8:
        raise UserError(
            f"scenes: seed {seed}, size {height}x{width}: the seed must be >= 0 and both sides >= 8; change them"
        )
    scene = build_scene(seed)
    view = scene.camera.view
    focal_px = width / 2 / math.tan(scene.camera.fov_x / 2)
    xs = ((np.arange(width) + 0.5 - width / 2) / focal_px).astype(np.float32)
    ys = ((np.arange(height) + 0.5 - height / 2) / focal_px).astype(np.float32)
    buffers = empty_buffers(xs, ys)
    draw_room(buffers, view, scene.size, scene.openings)
    draw_primitives(buffers, view, scene.surfaces)
    hits = find_hits(scene, buffers, view)
    radiance = shade(scene, hits, view, focal_px).reshape(3, height, width)
    normals = (view.axes.astype(np.float32) @ hits.normal).reshape(3, height, width)
    noise = np.random.default_rng([seed, height, width])
    return Frame(
        rgb=_develop(radiance, scene.look, noise),
        semseg=scene.surfaces.class_id.astype(np.uint8).take(buffers.surface),
        depth=hits.depth.reshape(height, width),
        normals=np.ascontiguousarray(normals.transpose(1, 2, 0)),
        edges=_edges(hits, buffers.inverse, scene.surfaces.instance),
        focal_px=focal_px,
    )


def _edges(hits: Hits, inverse: Array, instance: Array) -> Array:
    """1 on the nearer pixel of each neighbouring pair that lies on two objects, or on two sides of
    one object with a crease or a step of some millimetres between them."""
    shape = inverse.shape
    point, world = hits.point.reshape(3, *shape), hits.normal.reshape(3, *shape)
    side = hits.side.reshape(shape)
    owner = instance.take(hits.surface).reshape(shape)
    edges = np.zeros(shape, np.uint8)
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differs = side[first] != side[second]
        row, column = np.nonzero(differs)
        down = 1 if shape[0] != differs.shape[0] else 0
        other = (row + down, column + 1 - down)
        near, far = inverse[row, column], inverse[other]
        cosine = (world[:, row, column] * world[(slice(None), *other)]).sum(0)
        apart = point[:, row, column] - point[(slice(None), *other)]
        step = [np.abs((apart * world[(slice(None), *at)]).sum(0)) for at in ((row, column), other)]
        is_edge = (owner[row, column] != owner[other]) | (cosine < _CREASE_COSINE) | (np.minimum(*step) > _STEP_M)
        on_first = is_edge & (near >= far)
        on_second = is_edge & ~on_first
        edges[row[on_first], column[on_first]] = 1
        edges[other[0][on_second], other[1][on_second]] = 1
    return edges


def _develop(radiance: Array, look: Look, rng: np.random.Generator) -> Array:
    """From linear light (3, H, W) to uint8 (H, W, 3): lens, exposure, sensor, tone."""
    _, height, width = radiance.shape
    luminance = radiance[1]
    scale = look.exposure / (float(np.minimum(luminance, 4 * float(np.median(luminance)) + 1e-3).mean()) + 1e-4)
    picture = _blurred(radiance, look.blur * math.sqrt(max(height, width) / 160))
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    falloff = 1.0 - np.float32(look.vignette / 2) * (y[:, None] ** 2 + x[None, :] ** 2)
    picture = picture * (np.float32(scale) * look.white[:, None, None]) * falloff
    sigma = np.sqrt(np.float32(look.shot) * picture + np.float32(look.read**2))
    picture = picture + sigma * rng.standard_normal(picture.shape, dtype=np.float32)
    picture = np.maximum(picture, 0.0)
    picture = picture * (1.0 + picture * np.float32(0.1)) / (1.0 + np.float32(0.35) * picture)
    coded = np.minimum(picture, 1.0) ** np.float32(look.gamma)
    coded += np.float32(look.contrast) * coded * (1.0 - coded) * (2.0 * coded - 1.0)
    return np.ascontiguousarray((coded * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _blurred(picture: Array, sigma_px: float) -> Array:
    """A small separable Gaussian blur over the last two axes, edges repeated."""
    radius = max(1, math.ceil(2 * sigma_px))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma_px, 1e-3)) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (radius, radius)
        padded = np.pad(picture, pad, mode="edge")
        length = picture.shape[axis]
        total = np.zeros_like(picture)
        for k, weight in enumerate(weights):
            total += weight * (padded[:, k : k + length] if axis == 1 else padded[:, :, k : k + length])
        picture = total
    return picture
