"""Ground truth and errors for real frames: normals out of a depth map, scale alignment, scores, trivial guesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GOOD_RATIO = 1.25
GOOD_ANGLES_DEG = (11.25, 30.0)
LEAST_SHARE = 0.4
FLATNESS = 0.01


@dataclass(frozen=True)
class Pinhole:
    """Focal lengths and principal point in pixels; a pixel's centre lies at its index."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class Sampling:
    """The middle 4:3 window of a frame (left, top, right, bottom; may be fractional) and the pixels that a smaller grid
    reads there: `rows` (H) and `columns` (W)."""

    window: tuple[float, float, float, float]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    @property
    def scale(self) -> float:
        """Grid pixels a pixel of the frame."""
        return len(self.columns) / (self.window[2] - self.window[0])


def sampling(frame: tuple[int, int], grid: tuple[int, int]) -> Sampling:
    """How a frame (height, width) is cut in the middle to the grid's shape and sampled by it, nearest pixel."""
    aspect = grid[1] / grid[0]
    height, width = min(frame[0], frame[1] / aspect), min(frame[1], frame[0] * aspect)
    left, top = (frame[1] - width) / 2, (frame[0] - height) / 2
    rows = np.floor(top + (np.arange(grid[0]) + 0.5) * height / grid[0]).astype(np.intp)
    columns = np.floor(left + (np.arange(grid[1]) + 0.5) * width / grid[1]).astype(np.intp)
    return Sampling((left, top, left + width, top + height), rows, columns)


def normals_of_depth(
    depth: Array, camera: Pinhole, at: Sampling, radius: int, gate: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Surface normals at the sampled pixels of a depth map (metres, anything not above zero or not finite is no value).

    Seen by a pinhole, a plane's inverse depth is affine in the pixel: 1/z = (n/d) . (X, Y, 1). So a plane is fitted by
    least squares to the inverse depths of a window of `radius` pixels, those within the fraction `gate` of the middle
    one's only, and its coefficients are the normal; the errors of stereo and of structured light are even in 1/z.
    Returns unit vectors (x right, y down, z forward, turned to the camera) and where they can be trusted: the middle is
    measured, `LEAST_SHARE` of the window takes part, and the fit's residual is below `FLATNESS` of the inverse depth.
    """
    measured = np.isfinite(depth) & (depth > 0)
    inverse = np.where(measured, 1.0 / np.where(measured, depth, 1.0), 0.0)
    inverse = np.pad(inverse, radius)
    rows, columns = at.rows[:, None] + radius, at.columns[None] + radius
    middle = inverse[rows, columns]
    moments = np.zeros((6, *middle.shape))
    products = np.zeros((4, *middle.shape))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            value = inverse[rows + dy, columns + dx]
            weight = ((value > 0) & (np.abs(value - middle) < gate * middle)).astype(np.float64)
            x, y = dx / camera.fx, dy / camera.fy
            moments += weight * np.array([x * x, x * y, y * y, x, y, 1.0])[:, None, None]
            products += weight * np.stack([x * value, y * value, value, value * value])
    xx, xy, yy, sx, sy, count = moments
    left = np.moveaxis(np.array([[xx, xy, sx], [xy, yy, sy], [sx, sy, count]]), (0, 1), (2, 3))
    right = np.moveaxis(products[:3], 0, 2)
    enough = (middle > 0) & (count >= LEAST_SHARE * (2 * radius + 1) ** 2)
    left[~enough] = np.eye(3)
    slope_x, slope_y, here = np.moveaxis(np.linalg.solve(left, right[..., None])[..., 0], 2, 0)
    fitted = slope_x * products[0] + slope_y * products[1] + here * products[2]
    residual = np.sqrt(np.maximum(products[3] - fitted, 0) / np.maximum(count, 1))
    ray_x, ray_y = (at.columns[None] - camera.cx) / camera.fx, (at.rows[:, None] - camera.cy) / camera.fy
    normal = -np.stack([slope_x, slope_y, here - slope_x * ray_x - slope_y * ray_y], 2)
    length = np.linalg.norm(normal, axis=2)
    trusted = enough & (residual < FLATNESS * middle) & (length > 0)
    unit = normal / np.where(length > 0, length, 1)[..., None]
    return unit.astype(np.float32), trusted


def aligned(predicted: Array, truth: Array, valid: Array) -> Array:
    """The predicted depths times the one factor that makes the median ratio to the truth 1."""
    return predicted * np.median(truth[valid] / predicted[valid])


def depth_errors(predicted: Array, truth: Array, valid: Array) -> dict[str, float]:
    """abs_rel, rmse in metres, delta1 (share within a factor of 1.25) and the correlation of log-depths."""
    guess, real = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    logs = np.log(guess), np.log(real)
    subsample = min(float(each.std()) for each in logs)
    return {
        "abs_rel": float(np.mean(np.abs(guess - real) / real)),
        "rmse": float(np.sqrt(np.mean((guess - real) ** 2))),
        "delta1": float(np.mean(np.maximum(guess / real, real / guess) < GOOD_RATIO)),
        "log_correlation": float(np.corrcoef(*logs)[0, 1]) if subsample > 1e-9 else 0.0,
    }


def angles_deg(predicted: Array, truth: Array) -> Array:
    """Angles between vectors (..., 3) in degrees; their lengths do not matter."""
    lengths = np.linalg.norm(predicted, axis=-1) * np.linalg.norm(truth, axis=-1)
    cosine = (predicted * truth).sum(-1) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def normal_errors(predicted: Array, truth: Array, valid: Array) -> dict[str, float]:
    """Mean and median angle in degrees, and the shares within 11.25 and 30 degrees."""
    angle = angles_deg(predicted, truth)[valid]
    within = {f"within_{limit:.0f}": float(np.mean(angle < limit)) for limit in GOOD_ANGLES_DEG}
    return {"mean_angle": float(angle.mean()), "median_angle": float(np.median(angle)), **within}
