"""Visibility: exact intersections of a pinhole's rays with convex primitives, in inverse depth.

Along the ray ``d = (X, Y, 1)`` a point lies at depth z, and ``w = 1/z`` of a plane is affine in (X, Y).
So a box costs six sums and no division: it is hit where the smallest w of the planes that the view is
outside of exceeds the largest w of the others. Ellipsoids and frusta are quadratics in w.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgemtl.data.scenes.types import BOX, ELLIPSOID, FAR_M, FIRST_PRIMITIVE, Array, Opening, Surfaces, View

_CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
_NEAR = 0.02


@dataclass(frozen=True)
class Buffers:
    """Rays and what they hit first: ``xs`` (W), ``ys`` (H), inverse depth (H, W), surface id (H, W)."""

    xs: Array
    ys: Array
    inverse: Array
    surface: Array


def empty_buffers(xs: Array, ys: Array) -> Buffers:
    """Buffers in which no ray has hit anything: inverse depth 0, surface id -1."""
    shape = (len(ys), len(xs))
    return Buffers(xs, ys, np.zeros(shape, np.float32), np.full(shape, -1, np.int32))


def draw_room(buffers: Buffers, view: View, size: Array, openings: tuple[Opening, ...]) -> None:
    """Fill the buffers with the room's faces (seen from inside: the nearest plane wins) and windows."""
    outward = np.repeat(np.eye(3), 2, axis=0) * np.tile([-1.0, 1.0], 3)[:, None]
    offset = np.ravel(np.stack([np.zeros(3), size], 1))
    plane = (outward @ view.axes.T) / (offset - outward @ view.position)[:, None]
    planes = _affine(plane, buffers.xs, buffers.ys)
    w = planes[0][:, :, None] + planes[1][:, None, :]
    np.copyto(buffers.surface, w.argmax(axis=0), casting="same_kind")
    np.copyto(buffers.inverse, w.max(axis=0))
    for opening in openings:
        along_axis = 1 - opening.face // 2
        inside = buffers.surface == opening.face
        for axis, (low, high) in ((along_axis, opening.along), (2, opening.height)):
            rows, columns = _affine(view.axes.T[axis][None], buffers.xs, buffers.ys)
            direction = rows[0][:, None] + columns[0][None, :]
            start = np.float32(view.position[axis])
            inside &= (direction > (np.float32(low) - start) * buffers.inverse) & (
                direction < (np.float32(high) - start) * buffers.inverse
            )
        buffers.inverse[inside] = 1.0 / FAR_M
        buffers.surface[inside] = FIRST_PRIMITIVE - 1


def draw_primitives(buffers: Buffers, view: View, surfaces: Surfaces, skip_instance: int = -1) -> None:
    """Draw every primitive but the skipped instance's into the buffers; the nearest wins."""
    bounds = _rectangles(buffers, view, surfaces)
    wanted = (bounds[:, 0] < bounds[:, 1]) & (bounds[:, 2] < bounds[:, 3]) & (surfaces.instance != skip_instance)
    wanted[:FIRST_PRIMITIVE] = False
    ids = np.flatnonzero(wanted)
    rotation, half = surfaces.rotation[ids], surfaces.half[ids]
    origin = np.einsum("pij,pj->pi", rotation, view.position - surfaces.centre[ids]) / half
    local = (rotation @ view.axes.T) / half[:, :, None]
    planes, fronts = _box_planes(origin, local)
    rows, columns = _affine(planes, buffers.xs, buffers.ys)
    xs, ys = buffers.xs.astype(np.float64), buffers.ys.astype(np.float64)[:, None]
    kinds = surfaces.kind[ids].tolist()
    for position, (index, (x0, x1, y0, y1)) in enumerate(zip(ids.tolist(), bounds[ids].tolist(), strict=True)):
        inverse, surface = buffers.inverse[y0:y1, x0:x1], buffers.surface[y0:y1, x0:x1]
        if kinds[position] == BOX:
            front = fronts[position]
            if front == 0:
                continue
            w = rows[position, :, y0:y1, None] + columns[position, :, None, x0:x1]
            near = w[0] if front == 1 else w[:front].min(axis=0)
            hit = near > np.maximum(w[front:].max(axis=0), inverse)
        else:
            curved = _ellipsoid if kinds[position] == ELLIPSOID else _frustum
            near = curved(origin[position], local[position], surfaces.taper[index], xs[x0:x1], ys[y0:y1])
            hit = near > inverse
        np.copyto(inverse, near, where=hit, casting="same_kind")
        np.copyto(surface, index, where=hit)


def _box_planes(origin: Array, local: Array) -> tuple[Array, list[int]]:
    """Each box's six planes as affine forms of w (P, 6, 3), and how many of them, put first, face the view."""
    sign = np.array([1.0, -1.0])[None, :, None]
    gap = 1.0 - sign * origin[:, None, :]
    gap = np.where(np.abs(gap) < 1e-6, 1e-6, gap).reshape(-1, 6)
    planes = (sign[..., None] * local[:, None]).reshape(-1, 6, 3) / gap[:, :, None]
    order = np.argsort(gap > 0, axis=1, kind="stable")
    return np.take_along_axis(planes, order[:, :, None], 1), (gap < 0).sum(1).tolist()


def _affine(plane: Array, xs: Array, ys: Array) -> tuple[Array, Array]:
    """Split ``a*X + b*Y + c`` into its part by row (…, H) and its part by column (…, W), float32."""
    rows = plane[..., 1:2] * ys + plane[..., 2:3]
    return rows.astype(np.float32), (plane[..., 0:1] * xs).astype(np.float32)


def _rectangles(buffers: Buffers, view: View, surfaces: Surfaces) -> Array:
    """For every surface the pixels [x0, x1) x [y0, y1) that its bounding box can cover, (P, 4)."""
    centre = (surfaces.centre - view.position) @ view.axes.T
    spans = (surfaces.rotation @ view.axes.T) * surfaces.half[:, :, None]
    corners = centre[:, None, :] + _CORNERS @ spans
    depth = corners[:, :, 2]
    behind = depth < _NEAR
    safe = np.where(behind, 1.0, depth)
    bounds = []
    for axis, coordinates in ((0, buffers.xs), (1, buffers.ys)):
        last = len(coordinates)
        pixel = (corners[:, :, axis] / safe - float(coordinates[0])) * (
            (last - 1) / float(coordinates[-1] - coordinates[0])
        )
        low, high = np.ceil(pixel.min(1)), np.floor(pixel.max(1)) + 1
        partly = behind.any(1)
        bounds += [np.where(partly, 0, np.clip(low, 0, last)), np.where(partly, last, np.clip(high, 0, last))]
    x0, x1, y0, y1 = bounds
    x1 = np.where(behind.all(1), x0, x1)
    return np.stack([x0, x1, y0, y1], 1).astype(int)


def _quadratic(form: Array, xs: Array, ys: Array) -> Array:
    """A symmetric form at (X, Y, 1): xs (W) and ys (H, 1) give (H, W)."""
    row = (form[0, 0] * xs + 2.0 * form[0, 2]) * xs
    column = (form[1, 1] * ys + 2.0 * form[1, 2]) * ys + form[2, 2]
    return np.asarray((2.0 * form[0, 1]) * ys * xs + row + column)


def _ellipsoid(origin: Array, local: Array, _taper: Array, xs: Array, ys: Array) -> Array:
    """Inverse depth of the near side, 0 where the ray misses or the view is inside."""
    c = float(origin @ origin) - 1.0
    if c <= 0.0:
        return np.zeros((len(ys), len(xs)))
    b = origin @ local
    disc = _quadratic(np.outer(b, b) - c * (local.T @ local), xs, ys)
    w = (np.sqrt(np.maximum(disc, 0.0)) - (b[0] * xs + (b[1] * ys + b[2]))) / c
    return np.where(disc > 0.0, w, 0.0)


def _frustum(origin: Array, local: Array, taper: Array, xs: Array, ys: Array) -> Array:
    """Inverse depth of the nearest of the side's two roots and the cap that faces the view; 0 for a miss."""
    mean, slope = float(taper[0]), float(taper[1])
    ox, oy, oz = origin.tolist()
    radius = mean + slope * oz
    c = ox * ox + oy * oy - radius * radius
    c = c if abs(c) > 1e-9 else 1e-9
    b = np.array([ox, oy, -radius * slope]) @ local
    a = local.T @ (np.array([1.0, 1.0, -slope * slope])[:, None] * local)
    disc = _quadratic(np.outer(b, b) - c * a, xs, ys)
    root = np.sqrt(np.maximum(disc, 0.0))
    middle = b[0] * xs + (b[1] * ys + b[2])
    dz = local[2, 0] * xs + (local[2, 1] * ys + local[2, 2])
    best = np.zeros_like(disc)
    for sign in (1.0, -1.0) if c < 0 or slope else (1.0,):
        w = (sign * root - middle) / c
        valid = (disc > 0.0) & (np.abs(oz * w + dz) <= w)
        np.maximum(best, w, out=best, where=valid)
    if abs(oz) > 1.0:
        side = 1.0 if oz > 0 else -1.0
        w = dz * (side / (1.0 - side * oz))
        dx = local[0, 0] * xs + (local[0, 1] * ys + local[0, 2]) + ox * w
        dy = local[1, 0] * xs + (local[1, 1] * ys + local[1, 2]) + oy * w
        valid = (w > 0.0) & (dx * dx + dy * dy <= ((mean + side * slope) * w) ** 2)
        np.maximum(best, w, out=best, where=valid)
    return best
