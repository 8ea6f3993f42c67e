from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemtl.data.scenes import CLASSES, Frame, render
from edgemtl.data.scenes.layout import build_scene
from edgemtl.data.scenes.raster import draw_primitives, draw_room, empty_buffers
from edgemtl.data.scenes.shade import _lit, find_hits
from edgemtl.data.scenes.textures import look_up
from edgemtl.data.scenes.types import BOX, ELLIPSOID, FAR_M, FIRST_PRIMITIVE, FRUSTUM, Scene
from edgemtl.errors import UserError

Array = NDArray[Any]
SOLID = ("table", "chair", "sofa", "bed", "shelf", "plant", "box", "clutter")


@cache
def frames(count: int = 40, height: int = 60, width: int = 80) -> tuple[Frame, ...]:
    return tuple(render(seed, height, width) for seed in range(count))


def points_of(frame: Frame) -> Array:
    """Every pixel's point in the camera frame, from depth and focal length alone."""
    height, width = frame.depth.shape
    v, u = np.mgrid[0:height, 0:width] + 0.5
    rays = np.stack([(u - width / 2) / frame.focal_px, (v - height / 2) / frame.focal_px, np.ones_like(u)], -1)
    return np.asarray(rays * frame.depth[..., None])


def angles_to_finite_differences(frame: Frame) -> Array:
    """Degrees between the labelled normal and that of the back-projected surface, on smooth interior pixels."""
    points = points_of(frame)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(down, across)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    height, width = frame.depth.shape
    smooth = np.ones((height - 2, width - 2), bool)
    label = frame.normals[1:-1, 1:-1]
    for dy in range(3):
        for dx in range(3):
            window = (slice(dy, height - 2 + dy), slice(dx, width - 2 + dx))
            smooth &= (frame.edges[window] == 0) & ((frame.normals[window] * label).sum(-1) > 0.99)
    return np.asarray(np.degrees(np.arccos(np.clip((normal * label).sum(-1), -1, 1)))[smooth])


def inside(scene: Scene, points: Array, skip: int = -1, shrink_m: float = 0.0) -> Array:
    """Whether any primitive contains each point (N, 3): the solids' own inequalities, nothing of the renderer's."""
    s = scene.surfaces
    found = np.zeros(len(points), bool)
    for i in range(FIRST_PRIMITIVE, len(s.kind)):
        if s.instance[i] == skip:
            continue
        local = (points - s.centre[i]) @ s.rotation[i].T
        half = s.half[i] - shrink_m
        if half.min() <= 0:
            continue
        x, y, z = (local / half).T
        if s.kind[i] == BOX:
            found |= (abs(x) < 1) & (abs(y) < 1) & (abs(z) < 1)
        elif s.kind[i] == ELLIPSOID:
            found |= x**2 + y**2 + z**2 < 1
        else:
            assert s.kind[i] == FRUSTUM
            mean, slope = s.taper[i]
            found |= (abs(z) < 1) & (np.hypot(x, y) < mean + slope * z)
    return found


@given(seed=st.integers(0, 4_000_000), height=st.integers(8, 40), width=st.integers(8, 40))
@settings(max_examples=40, deadline=None)
def test_every_frame_keeps_the_contract(seed: int, height: int, width: int) -> None:
    frame = render(seed, height, width)
    assert frame.rgb.shape == (height, width, 3) and frame.rgb.dtype == np.uint8
    assert frame.semseg.shape == frame.edges.shape == frame.depth.shape == (height, width)
    assert frame.semseg.dtype == frame.edges.dtype == np.uint8
    assert frame.depth.dtype == frame.normals.dtype == np.float32
    assert frame.normals.shape == (height, width, 3)
    assert frame.semseg.max() < len(CLASSES) and set(np.unique(frame.edges)) <= {0, 1}
    assert frame.depth.min() > 0.02 and frame.depth.max() <= FAR_M
    np.testing.assert_allclose(np.linalg.norm(frame.normals, axis=-1), 1.0, atol=1e-5)
    facing = (frame.normals * points_of(frame)).sum(-1) / np.linalg.norm(points_of(frame), axis=-1)
    assert facing.max() < 0.02, "a visible surface faces the camera"
    assert 50.0 <= math.degrees(2 * math.atan(width / 2 / frame.focal_px)) <= 75.0


def test_a_pixel_on_the_edge_of_a_box_faces_the_camera() -> None:
    """Hypothesis found this frame: rounding took the hidden one of two faces."""
    frame = render(169_342, 9, 39)
    facing = (frame.normals * points_of(frame)).sum(-1) / np.linalg.norm(points_of(frame), axis=-1)
    assert facing.max() < 0.02


def test_a_seed_is_one_frame_and_another_seed_another() -> None:
    one, again, other = render(7, 40, 56), render(7, 40, 56), render(8, 40, 56)
    for name in ("rgb", "semseg", "depth", "normals", "edges"):
        assert np.array_equal(getattr(one, name), getattr(again, name)), name
        assert not np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_shows_the_same_scene_at_every_size(seed: int) -> None:
    small, big = render(seed, 50, 70), render(seed, 150, 210)
    middles = (slice(1, None, 3), slice(1, None, 3))
    assert big.focal_px == pytest.approx(3 * small.focal_px)
    assert (small.semseg == big.semseg[middles]).mean() > 0.998
    assert (abs(small.depth - big.depth[middles]) < 1e-3).mean() > 0.998
    colour = np.abs(small.rgb.astype(float) - big.rgb.reshape(50, 3, 70, 3, 3).mean((1, 3)))
    assert colour.mean() < 12, "the light and the patterns are the same too"


@pytest.mark.parametrize("mirrored", [False, True])
def test_normals_are_those_of_the_depth(mirrored: bool) -> None:
    for seed in range(8):
        frame = render(seed, 150, 200)
        if mirrored:
            flipped = frame.normals[:, ::-1] * np.array([-1, 1, 1], np.float32)
            arrays = (frame.rgb[:, ::-1], frame.semseg[:, ::-1], frame.depth[:, ::-1], flipped, frame.edges[:, ::-1])
            frame = Frame(*arrays, frame.focal_px)
        angles = angles_to_finite_differences(frame)
        assert len(angles) > 0.5 * frame.depth.size
        assert np.median(angles) < 0.2
        assert np.quantile(angles, 0.98) < 4.0


def test_floor_ceiling_and_walls_agree_on_where_down_is() -> None:
    floors = ceilings = 0
    for frame in frames():
        floor, ceiling, wall = (frame.semseg == CLASSES.index(name) for name in ("floor", "ceiling", "wall"))
        if floor.sum() < 50:
            continue
        floors += 1
        up = frame.normals[floor].mean(0)
        assert np.ptp(frame.normals[floor], axis=0).max() < 1e-5
        assert up[1] < -0.6, "the floor's normal points up in the picture, whose y points down"
        points = points_of(frame)[floor]
        assert np.ptp(points @ up) < 2e-3, "the floor is one plane"
        height = -float((points @ up).mean())
        assert 0.6 < height < 2.1, "the camera is above the floor"
        assert abs(frame.normals[wall] @ up).max() < 1e-4
        if ceiling.any():
            ceilings += 1
            np.testing.assert_allclose(frame.normals[ceiling], np.broadcast_to(-up, (ceiling.sum(), 3)), atol=1e-4)
    assert floors > 25 and ceilings > 3


def test_rays_stop_at_the_first_solid_that_they_meet() -> None:
    """Against the solids' own inequalities: just behind a labelled depth lies a solid, before it none."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        scene, frame = build_scene(seed), render(seed, 60, 80)
        view = scene.camera.view
        points = points_of(frame)
        solid = np.isin(frame.semseg, [CLASSES.index(name) for name in SOLID])
        rows, columns = rng.permutation(np.argwhere(solid & (frame.edges == 0)))[:80].T
        ray = points[rows, columns]
        behind = ray * (1 + 0.003 / np.linalg.norm(ray, axis=1, keepdims=True))
        assert len(rows) == 80 and inside(scene, behind @ view.axes + view.position).mean() > 0.97
        rows, columns = rng.permutation(np.argwhere(np.ones_like(solid)))[:120].T
        steps = np.linspace(0.02, 0.995, 150)
        before = (points[rows, columns][:, None] * steps[:, None]).reshape(-1, 3)
        assert not inside(scene, before @ view.axes + view.position, shrink_m=0.002).any()


def test_shadows_are_where_something_stands_between_the_lamp_and_the_point() -> None:
    checked = 0
    for seed in range(12):
        scene = build_scene(seed)
        lamps = [lamp for lamp in scene.lights if lamp.window is None and lamp.view.axes[2, 2] < -0.9]
        if not lamps:
            continue
        grid = np.linspace(-0.5, 0.5, 60, dtype=np.float32)
        buffers = empty_buffers(grid, grid)
        draw_room(buffers, scene.camera.view, scene.size, ())
        draw_primitives(buffers, scene.camera.view, scene.surfaces)
        hits = find_hits(scene, buffers, scene.camera.view)
        lit = _lit(scene, lamps[0], hits, 400)
        toward = lamps[0].view.position[:, None] - hits.point
        reached = (np.hypot(toward[0], toward[1]) < 2 * toward[2]) & ((toward * hits.normal).sum(0) > 0.05)
        at = np.flatnonzero(((lit == 0) | (lit == 1)) & reached & (hits.surface < FIRST_PRIMITIVE - 1))[::5]
        start, way = hits.point[:, at].T, toward[:, at].T
        steps = np.linspace(0.03, 0.98, 120)
        between = (start[:, None] + way[:, None] * steps[:, None]).reshape(-1, 3)
        blocked = inside(scene, between, lamps[0].owner).reshape(len(at), -1).any(1)
        if len(at) > 50:
            checked += 1
            assert (blocked == (lit[at] == 0)).mean() > 0.95
    assert checked >= 4


def test_edges_cover_every_border_between_classes_and_stay_thin() -> None:
    for frame in frames():
        assert 0.01 < frame.edges.mean() < 0.35
        for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            border = frame.semseg[first] != frame.semseg[second]
            assert (frame.edges[first] | frame.edges[second])[border].all()
    assert np.mean([frame.edges.mean() for frame in frames()]) < 0.22


def test_the_floor_has_no_edges_within() -> None:
    """Whatever its pattern and shadows: no pixel of the floor that has floor all around it is marked."""
    for frame in frames(10, 150, 200):
        floor = frame.semseg == CLASSES.index("floor")
        core = floor.copy()
        for shift in (1, -1):
            for axis in (0, 1):
                core &= np.roll(floor, shift, axis)
        core[[0, -1]] = core[:, [0, -1]] = False
        assert core.any() or not floor.any()
        assert frame.edges[core].sum() == 0


def test_every_class_appears_and_none_swamps_the_rest() -> None:
    share = sum(np.bincount(frame.semseg.ravel(), minlength=len(CLASSES)) / frame.semseg.size for frame in frames())
    share = np.asarray(share) / len(frames())
    assert 12 <= len(CLASSES) <= 16 == len(set(CLASSES))
    assert (share > 0.002).all(), dict(zip(CLASSES, share, strict=True))
    assert share.max() < 0.5
    assert np.median([len(np.unique(frame.semseg)) for frame in frames()]) >= 8


def test_colour_alone_does_not_tell_the_class() -> None:
    """The best class per colour bin, learnt on 30 pictures, beats always answering `wall` by little on 10 others."""

    def colours(some: tuple[Frame, ...]) -> tuple[Array, Array]:
        coarse = np.concatenate([frame.rgb.reshape(-1, 3) // 32 for frame in some]).astype(int)
        return coarse @ np.array([64, 8, 1]), np.concatenate([frame.semseg.ravel() for frame in some])

    seen_colour, seen_class = colours(frames()[:30])
    votes = np.zeros((512, len(CLASSES)))
    np.add.at(votes, (seen_colour, seen_class), 1)
    new_colour, new_class = colours(frames()[30:])
    guess = votes.argmax(1)[new_colour]
    assert (guess == new_class).mean() < (new_class == 0).mean() + 0.12


def test_pictures_use_the_range_and_differ_in_light() -> None:
    means = [frame.rgb.mean() for frame in frames()]
    assert 90 < np.mean(means) < 150 and np.std(means) > 8
    assert np.mean([frame.rgb.std() for frame in frames()]) > 35
    assert all(frame.rgb.std() > 8 for frame in frames()), "no picture is blank"


def test_a_pattern_seen_from_afar_is_its_mean() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.random((2, 20_000))
    for pattern in range(16):
        kind = np.full(20_000, pattern)
        near, far = look_up(kind, u, v, np.full(20_000, 1e-3)), look_up(kind, u, v, np.full(20_000, 4.0))
        assert near.min() >= 0 and near.max() <= 1 and np.ptp(far) == 0
        assert far[0] == pytest.approx(near.mean(), abs=0.02)


@pytest.mark.parametrize(("seed", "height", "width"), [(-1, 64, 64), (0, 7, 64), (0, 64, 0)])
def test_what_cannot_be_rendered_is_refused_in_one_line(seed: int, height: int, width: int) -> None:
    with pytest.raises(UserError, match=rf"{seed}.*{height}x{width}") as caught:
        render(seed, height, width)
    assert "\n" not in str(caught.value)
