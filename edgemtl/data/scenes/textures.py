"""Tileable patterns with mip levels: one look-up gives every pixel its pattern value."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edgemtl.data.scenes.types import Array

_SIZE = 256
_LEVELS = 9

(
    PLAIN,
    CHECKER,
    STRIPES,
    PINSTRIPE,
    BRICK,
    WOOD,
    NOISE,
    MARBLE,
    SPECKLE,
    DOTS,
    PLANKS,
    TILES,
    PLAID,
    WEAVE,
    SPOTS,
    WAVES,
) = range(16)


def _value_noise(rng: np.random.Generator, cells_v: int, cells_u: int) -> Array:
    """Smooth periodic noise in [0, 1]: random grid values joined by smoothstep interpolation."""
    grid = rng.random((cells_v, cells_u), dtype=np.float32)
    for axis, cells in ((0, cells_v), (1, cells_u)):
        position = np.arange(_SIZE, dtype=np.float32) * (cells / _SIZE)
        low = position.astype(np.intp)
        part = position - low
        part = part * part * (3.0 - 2.0 * part)
        part = part[:, None] if axis == 0 else part[None, :]
        grid = grid.take(low, axis) * (1.0 - part) + grid.take((low + 1) % cells, axis) * part
    return grid


def _fractal(rng: np.random.Generator, cells_v: int, cells_u: int, octaves: int) -> Array:
    """Noise summed over octaves of halving amplitude, stretched to [0, 1]."""
    total = sum(_value_noise(rng, cells_v << k, cells_u << k) * 0.5**k for k in range(octaves))
    total = np.asarray(total)
    return np.asarray((total - total.min()) / np.ptp(total))


def _rows_of_blocks(rng: np.random.Generator, rows: int, columns: int, gap_texels: int) -> Array:
    """Blocks in rows, each row shifted by half a block, every block with its own tone; gaps are 0."""
    v, u = np.mgrid[0:_SIZE, 0:_SIZE]
    row = v * rows // _SIZE
    shifted = (u + (row % 2) * (_SIZE // columns // 2)) % _SIZE
    column = shifted * columns // _SIZE
    tone = (0.55 + 0.45 * rng.random((rows, columns), dtype=np.float32))[row, column]
    gap = (v % (_SIZE // rows) < gap_texels) | (shifted % (_SIZE // columns) < gap_texels)
    return np.where(gap, 0.0, tone)


def _patterns() -> list[Array]:
    """The patterns at full size, values in [0, 1], in the order of the constants above."""
    rng = np.random.default_rng(20_240_229)
    v, u = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32) / _SIZE
    turn = 2.0 * np.pi
    cloud = _fractal(rng, 4, 4, 5)
    grain = _fractal(rng, 2, 32, 3)
    fine = rng.random((_SIZE, _SIZE), dtype=np.float32)
    bands_u, bands_v = np.sin(turn * 4 * u), np.sin(turn * 4 * v)
    return [
        0.15 * _fractal(rng, 2, 2, 2),
        ((np.floor(u * 4) + np.floor(v * 4)) % 2).astype(np.float32),
        (np.sin(turn * 6 * u) > 0).astype(np.float32),
        (np.sin(turn * 12 * u) > 0.8).astype(np.float32),
        _rows_of_blocks(rng, 8, 4, 3) * (0.85 + 0.15 * fine),
        0.5 + 0.5 * np.sin(turn * (2.0 * grain + 6 * u + 0.6 * cloud)),
        cloud,
        np.abs(np.sin(turn * (u + v + 1.5 * cloud))) ** 0.5,
        np.clip((fine - 0.7) * 4.0, 0.0, 1.0),
        ((((u * 6) % 1 - 0.5) ** 2 + ((v * 6) % 1 - 0.5) ** 2) < 0.08).astype(np.float32),
        _rows_of_blocks(rng, 8, 2, 2) * (0.7 + 0.3 * _fractal(rng, 32, 2, 3)),
        np.where(((u * 4) % 1 < 0.05) | ((v * 4) % 1 < 0.05), 0.0, 0.8 + 0.2 * cloud),
        0.5 * (bands_u > 0.2) + 0.5 * (bands_v > 0.2),
        0.5 + 0.25 * (np.sin(turn * 32 * u) * np.sign(np.sin(turn * 16 * v)) + np.sin(turn * 32 * v)),
        np.clip((_fractal(rng, 6, 6, 2) - 0.5) * 12.0, 0.0, 1.0),
        0.5 + 0.5 * np.sin(turn * (5 * v + 0.35 * np.sin(turn * 2 * u))),
    ]


def _halved(image: Array) -> Array:
    """The image at half its size, each value the mean of four; a single value stays."""
    return image if image.size == 1 else (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


@lru_cache(maxsize=1)
def _atlas() -> tuple[Array, Array]:
    """All patterns and mip levels in one flat array, and where each (level, pattern) starts."""
    pieces: list[Array] = []
    starts = np.zeros((_LEVELS, 16), np.int32)
    at = 0
    level_images = [np.asarray(image, np.float32) for image in _patterns()]
    for level in range(_LEVELS):
        for index, image in enumerate(level_images):
            starts[level, index] = at
            pieces.append(image.ravel())
            at += image.size
        level_images = [_halved(image) for image in level_images]
    return np.concatenate(pieces), starts.ravel()


def look_up(pattern: Array, u: Array, v: Array, footprint: Array) -> Array:
    """Pattern values in [0, 1] at (u, v), counted in repeats of the tile, averaged over the footprint.

    ``footprint`` is the width of a pixel in repeats; it picks the mip level, so that a pattern far
    away fades to its mean instead of flickering.
    """
    values, starts = _atlas()
    level = np.clip(np.frexp(footprint * _SIZE)[1] - 1, 0, _LEVELS - 1)
    side = np.right_shift(_SIZE, level)
    column = np.floor(u * side).astype(np.int32) & (side - 1)
    row = np.floor(v * side).astype(np.int32) & (side - 1)
    return np.asarray(values.take(starts.take(level * 16 + pattern) + row * side + column))
