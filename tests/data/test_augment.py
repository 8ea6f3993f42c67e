from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgemtl.data import Sample, augment
from edgemtl.data.augmentation import flip, jitter, zoom
from edgemtl.errors import UserError
from edgemtl.tasks import make_task

TASKS = (
    make_task("semseg", "segmentation", 9),
    make_task("depth", "depth"),
    make_task("normals", "normals"),
    make_task("edges", "edges"),
    make_task("label", "classification", 3),
)
HEIGHT, WIDTH, FOCAL = 40, 56, 50.0
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Plane:
    """n.P = -d in the camera frame, n towards the camera."""

    normal: NDArray[np.float64]
    distance: float


def rays(height: int, width: int, focal: float, centre: tuple[float, float]) -> NDArray[np.float64]:
    """Directions (X/Z, Y/Z, 1) through the middles of the pixels; centre is (row, column)."""
    v, u = np.mgrid[:height, :width] + 0.5
    return np.stack([(u - centre[1]) / focal, (v - centre[0]) / focal, np.ones((height, width))], -1)


def plane_sample(rng: np.random.Generator) -> tuple[Sample, Plane]:
    """A sample that sees one plane, with random labels, masks and edges on it."""
    tilt = rng.uniform(-0.6, 0.6, 2)
    normal = np.array([tilt[0], tilt[1], -1.0])
    normal /= np.linalg.norm(normal)
    plane = Plane(normal, rng.uniform(1, 5))
    depth = -plane.distance / (rays(HEIGHT, WIDTH, FOCAL, (HEIGHT / 2, WIDTH / 2)) @ normal)
    assert (depth > 0).all()
    targets: dict[str, NDArray[Any]] = {
        "semseg": rng.choice([0, 3, 8], (HEIGHT, WIDTH)),
        "depth": depth.astype(np.float32),
        "normals": np.broadcast_to(normal, (HEIGHT, WIDTH, 3)).astype(np.float32),
        "edges": (rng.random((HEIGHT, WIDTH)) < 0.2).astype(np.float32),
        "label": np.asarray(1, np.int64),
    }
    masks = {name: rng.random((HEIGHT, WIDTH)) < 0.8 for name in targets}
    masks["label"] = np.asarray(True)
    return Sample(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), targets, masks), plane


def same(one: Sample, other: Sample) -> bool:
    return bool(
        np.array_equal(one.image, other.image)
        and all(np.array_equal(one.targets[name], other.targets[name]) for name in one.targets)
        and all(np.array_equal(one.masks[name], other.masks[name]) for name in one.masks)
    )


@given(seeds)
@settings(deadline=None, max_examples=25)
def test_flip_mirrors_and_twice_is_identity(seed: int) -> None:
    sample, _ = plane_sample(np.random.default_rng(seed))
    mirrored = flip(sample, TASKS)
    assert np.array_equal(mirrored.image, sample.image[:, ::-1])
    assert np.array_equal(mirrored.targets["semseg"], sample.targets["semseg"][:, ::-1])
    assert np.array_equal(mirrored.masks["depth"], sample.masks["depth"][:, ::-1])
    assert np.array_equal(mirrored.targets["normals"][..., 0], -sample.targets["normals"][:, ::-1, 0])
    assert np.array_equal(mirrored.targets["normals"][..., 1:], sample.targets["normals"][:, ::-1, 1:])
    assert same(flip(mirrored, TASKS), sample)


@given(seeds, st.floats(0.5, 2.5), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_plane_stays_a_plane_with_its_normal(seed: int, s: float, mirror: bool) -> None:
    """Back-projected with focal * s, every valid point lies on the plane that the normals tell, s times nearer."""
    rng = np.random.default_rng(seed)
    sample, plane = plane_sample(rng)
    crop = (int(rng.integers(16, 48)), int(rng.integers(16, 64)))
    corner = rng.uniform(0, 1) * (HEIGHT - crop[0] / s), rng.uniform(0, 1) * (WIDTH - crop[1] / s)
    result = zoom(sample, TASKS, s, corner, crop, mirror)
    centre_row, centre_column = (HEIGHT / 2 - corner[0]) * s, (WIDTH / 2 - corner[1]) * s
    if mirror:
        centre_column = crop[1] - centre_column
    normal = plane.normal * ([-1, 1, 1] if mirror else [1, 1, 1])
    points = rays(*crop, FOCAL * s, (centre_row, centre_column)) * result.targets["depth"][..., None]
    valid = result.masks["depth"]
    off = np.abs(points @ normal + plane.distance / s)[valid]
    # A picked pixel's middle lies up to half a source pixel from the place it stands for, in each direction.
    half_pixel = 0.5 / FOCAL * np.abs(normal[:2]).sum() * result.targets["depth"][valid]
    assert (off <= half_pixel + 1e-5).all()
    assert np.allclose(result.targets["normals"][result.masks["normals"]], normal, atol=1e-6)


@given(seeds, st.floats(0.4, 2.5))
@settings(deadline=None, max_examples=60)
def test_masks_labels_and_edges_are_picked_from_their_own_pixel(seed: int, s: float) -> None:
    rng = np.random.default_rng(seed)
    sample, _ = plane_sample(rng)
    position = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    marked = Sample(sample.image, {**sample.targets, "semseg": position}, {**sample.masks, "semseg": position >= 0})
    state = rng.bit_generator.state
    which = augment(marked, TASKS, rng, (32, 48), (s, s), color=False)
    rng.bit_generator.state = state
    result = augment(sample, TASKS, rng, (32, 48), (s, s), color=False)
    inside, source = which.masks["semseg"], which.targets["semseg"]
    for name in ("semseg", "edges"):
        assert np.array_equal(result.targets[name][inside], sample.targets[name].ravel()[source[inside]])
    for name in ("semseg", "edges", "depth", "normals"):
        assert np.array_equal(result.masks[name][inside], sample.masks[name].ravel()[source[inside]])
        assert not result.masks[name][~inside].any()
        assert result.targets[name].dtype == sample.targets[name].dtype
    assert np.all(result.targets["depth"][~inside] == 1)
    assert result.targets["label"] == 1
    if s * HEIGHT >= 32 and s * WIDTH >= 48:
        assert inside.all()
    assert abs(inside.any(1).sum() - min(32, s * HEIGHT)) < 1
    assert abs(inside.any(0).sum() - min(48, s * WIDTH)) < 1


@given(seeds)
@settings(deadline=None, max_examples=20)
def test_without_zoom_a_crop_is_a_slice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample, _ = plane_sample(rng)
    result = augment(sample, TASKS, rng, (20, 30), flip=False, color=False)
    found = [
        (top, left)
        for top in range(HEIGHT - 19)
        for left in range(WIDTH - 29)
        if np.array_equal(sample.image[top : top + 20, left : left + 30], result.image)
    ]
    assert len(found) == 1
    top, left = found[0]
    for name in ("semseg", "depth", "normals", "edges"):
        assert np.array_equal(result.targets[name], sample.targets[name][top : top + 20, left : left + 30])


@given(seeds, st.floats(0.5, 3))
@settings(deadline=None, max_examples=40)
def test_the_window_is_resized_as_pillow_resizes_it_from_the_whole_image(seed: int, s: float) -> None:
    rng = np.random.default_rng(seed)
    sample, _ = plane_sample(rng)
    crop = (18, 22)
    top, left = rng.uniform(0, 1) * (HEIGHT - crop[0] / s), rng.uniform(0, 1) * (WIDTH - crop[1] / s)
    if top < 0 or left < 0:
        return
    box = (left, top, min(left + crop[1] / s, WIDTH), min(top + crop[0] / s, HEIGHT))
    whole = Image.fromarray(sample.image).resize(crop[::-1], Image.Resampling.BILINEAR, box)
    result = zoom(sample, TASKS, s, (top, left), crop)
    assert np.abs(result.image.astype(int) - np.asarray(whole, int)).max() <= 1


def test_image_and_labels_move_together() -> None:
    """A bright square's image stays on its label, zoomed, cropped and mirrored."""
    label = np.zeros((96, 128), np.int64)
    label[30:60, 50:90] = 1
    image = np.repeat((label * 255).astype(np.uint8)[..., None], 3, 2)
    sample = Sample(image, {"semseg": label}, {"semseg": np.ones_like(label, bool)})
    rng = np.random.default_rng(0)
    for _ in range(50):
        result = augment(sample, TASKS[:1], rng, (64, 64), (0.6, 2.0), color=False)
        wrong = (result.image[..., 0] > 127) != (result.targets["semseg"] == 1)
        assert (wrong & result.masks["semseg"]).sum() <= 6


def test_a_real_photo_keeps_its_depth_and_disparity_geometry() -> None:
    """Depth from a real stereo pair: the zoomed photo's points are the photo's points, s times nearer."""
    data = pytest.importorskip("skimage.data")
    try:
        left, _, disparity = data.stereo_motorcycle()
    except Exception as error:  # the photo is fetched where the package lacks it
        pytest.skip(f"the photo is not here: {error}")
    focal = 994.978
    valid = np.isfinite(disparity) & (disparity > 0)
    depth = np.where(valid, focal * 0.193001 / np.where(valid, disparity + 31.086, 1), 1).astype(np.float32)
    sample = Sample(left, {"depth": depth}, {"depth": valid})
    s, corner, crop = 1.7, (100.0, 200.0), (200, 240)
    result = zoom(sample, TASKS[1:2], s, corner, crop, mirror=True)
    v, u = np.mgrid[: crop[0], : crop[1]]
    rows = np.floor(corner[0] + (v + 0.5) / s).astype(int)
    columns = np.floor(corner[1] + (crop[1] - u - 0.5) / s).astype(int)
    assert np.array_equal(result.masks["depth"], valid[rows, columns])
    assert np.allclose(result.targets["depth"] * s, depth[rows, columns], rtol=1e-6)
    assert result.masks["depth"].mean() > 0.5


def test_jitter_changes_colours_a_little_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(20, 235, 64).astype(np.uint8)[:, None, None], (64, 64, 3)).copy()
    results = [jitter(ramp, rng) for _ in range(40)]
    assert all(result.dtype == np.uint8 and result.shape == ramp.shape for result in results)
    changes = np.array([np.abs(result.astype(int) - ramp).mean() for result in results])
    assert changes.min() > 0.3
    assert changes.mean() < 45
    for result in results:  # brighter stays brighter: means over rows rise
        assert (np.diff(result.mean((1, 2))) > -3).all()


def test_augment_is_decided_by_its_generator_and_leaves_its_input() -> None:
    sample, _ = plane_sample(np.random.default_rng(1))
    before = sample.image.copy(), sample.targets["depth"].copy()
    one, other, third = (augment(sample, TASKS, np.random.default_rng(s), (32, 32), (0.5, 2.0)) for s in (7, 7, 8))
    assert same(one, other)
    assert not same(one, third)
    assert np.array_equal(sample.image, before[0])
    assert np.array_equal(sample.targets["depth"], before[1])


def test_what_cannot_be_augmented_is_refused() -> None:
    sample, _ = plane_sample(np.random.default_rng(1))
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="scale range 2 to 1"):
        augment(sample, TASKS, rng, (8, 8), (2, 1))
    with pytest.raises(UserError, match="crop of 0 x 8"):
        augment(sample, TASKS, rng, (0, 8))


def test_points_move_with_the_image_and_left_and_right_change_places() -> None:
    task = make_task("face", "keypoints", classes=("left_eye", "right_eye", "nose"))
    points = np.array([[10, 5], [30, 6], [20, 39]], np.float32)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[5, 10] = image[6, 30] = 255
    sample = Sample(image, {"face": points}, {"face": np.ones(3, bool)})
    mirrored = flip(sample, [task])
    assert mirrored.targets["face"].tolist() == [[WIDTH - 31, 6], [WIDTH - 11, 5], [WIDTH - 21, 39]]
    for x, y in mirrored.targets["face"][:2].astype(int):
        assert mirrored.image[y, x].tolist() == [255, 255, 255]
    assert same(flip(mirrored, [task]), sample)
    window = zoom(sample, [task], 2.0, (0, 4), (20, 40))
    assert window.masks["face"].tolist() == [True, False, False]
    assert window.targets["face"][0].tolist() == [12.5, 10.5]
