from __future__ import annotations

import gzip
import struct
from pathlib import Path

import _rawlog
import numpy as np
import pytest
from _rawlog import read_rawlog
from _real_data import motorcycle
from _real_geometry import (
    Pinhole,
    Sampling,
    aligned,
    angles_deg,
    depth_errors,
    normal_errors,
    normals_of_depth,
    sampling,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import pearsonr

from edgemtl.errors import UserError

HEIGHT, WIDTH = 9, 12


def named(name: str, version: int, content: bytes) -> bytes:
    return bytes([0x80 | len(name)]) + name.encode() + bytes([version]) + content + b"\x88"


def observation(rgb: NDArray[np.uint8], millimetres: NDArray[np.uint16], points: int = 2) -> bytes:
    """What MRPT's serializer writes for one frame, built here without the reader."""
    pose = named("mrpt::poses::CPose3D", 3, struct.pack("<12d", *range(12)))
    cloud = b"\x01" + struct.pack("<I", points) + b"\x07" * (16 * points) if points else b"\x00"
    height, width = millimetres.shape
    depth = b"\x01" + struct.pack("<fII", 0.001, height, width) + millimetres.astype("<u2").tobytes()
    pixels = rgb[..., ::-1].tobytes()
    picture = named("mrpt::img::CImage", 9, b"\x00\x01" + struct.pack("<ii", -rgb.shape[1], -rgb.shape[0]) + pixels)
    camera = named("mrpt::img::TCamera", 4, struct.pack("<13d2I", *[0] * 9, 572.5, 542.5, 314.5, 240.5, 480, 640))
    body = struct.pack("<f", 5.0) + pose + cloud + depth + b"\x01" + picture + b"\x00" + 2 * camera + pose
    return named("mrpt::obs::CObservation3DRangeScan", 9, body)


def some_frame() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return rgb, rng.integers(0, 4000, (HEIGHT, WIDTH)).astype(np.uint16)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "frame.rawlog"
    path.write_bytes(gzip.compress(content, mtime=0))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_rawlog(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("points", [0, 5])
def test_what_was_written_is_read(tmp_path: Path, points: int) -> None:
    rgb, millimetres = some_frame()
    frame = read_rawlog(written(tmp_path, observation(rgb, millimetres, points)))
    np.testing.assert_array_equal(frame.rgb, rgb)
    np.testing.assert_allclose(frame.depth, millimetres / 1000, rtol=1e-6)
    assert frame.focal == (572.5, 542.5)
    assert frame.centre == (314.5, 240.5)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_frame_is_one_clear_line(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    content = observation(*some_frame())
    # The reader stops behind the first camera: what follows it may be missing.
    needed = content.index(b"mrpt::img::TCamera") + len(b"mrpt::img::TCamera") + 1 + 13 * 8 + 2 * 4 + 1
    cut = int(share * needed)
    text = refusal(written(tmp_path_factory.mktemp("cut"), content[:cut]))
    assert "left" in text


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_damaged_byte_raises_nothing_but_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    content = bytearray(observation(*some_frame()))
    content[position % len(content)] = value
    path = written(tmp_path_factory.mktemp("damage"), bytes(content))
    try:
        frame = read_rawlog(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert frame.rgb.shape == (HEIGHT, WIDTH, 3)


def test_truncated_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, observation(*some_frame()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refusal(path)
    path.write_bytes(b"no gzip file at all")
    assert "no gzip file" in refusal(path)
    assert "missing" in refusal(tmp_path / "absent.rawlog")
    assert "CObservation3DRangeScan" in refusal(written(tmp_path, named("mrpt::obs::CObservationImage", 9, b"\0" * 99)))


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rawlog, "CONTENT_LIMIT_BYTES", 1000)
    assert "more than 1000 bytes" in refusal(written(tmp_path, b"\0" * 1_000_000))


def test_a_picture_of_another_size_than_the_depth_is_refused(tmp_path: Path) -> None:
    rgb, millimetres = some_frame()
    assert "depth" in refusal(written(tmp_path, observation(rgb[:, :-1], millimetres)))


def plane_depth(normal: NDArray[np.float64], distance: float, camera: Pinhole, shape: tuple[int, int]) -> NDArray:
    """Ray by ray: the depth z at which z * normal . (X, Y, 1) is the plane's distance."""
    depth = np.empty(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            ray = np.array([(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy, 1.0])
            depth[row, column] = distance / (normal @ ray)
    return depth


CAMERA = Pinhole(70.0, 64.0, 31.0, 22.5)
SHAPE = (48, 64)
EVERY_OTHER = Sampling((0, 0, 64, 48), np.arange(0, 48, 2), np.arange(0, 64, 2))


@pytest.mark.parametrize("towards", [(0, 0, 1), (0.3, 0.2, 1), (-0.8, 0.1, 1), (0.1, 0.9, 1), (0.0, -0.7, 1)])
def test_normals_of_an_analytic_plane(towards: tuple[float, float, float]) -> None:
    away = np.array(towards, np.float64) / np.linalg.norm(towards)
    depth = plane_depth(away, 2.0, CAMERA, SHAPE)
    normals, trusted = normals_of_depth(depth, CAMERA, EVERY_OTHER, 2, 0.5)
    assert trusted[1:-1, 1:-1].all()
    assert angles_deg(normals, -away)[trusted].max() < 0.01  # seen from the camera, the plane's other side
    np.testing.assert_allclose(np.linalg.norm(normals[trusted], axis=-1), 1, atol=1e-6)


def test_windows_do_not_mix_two_planes_at_a_step() -> None:
    near, far = np.array([0.0, 0.0, 1.0]), np.array([0.6, 0.0, 0.8])
    depth = plane_depth(far, 4.0, CAMERA, SHAPE)
    depth[:, :32] = plane_depth(near, 1.0, CAMERA, SHAPE)[:, :32]
    normals, trusted = normals_of_depth(depth, CAMERA, EVERY_OTHER, 3, 0.1)
    assert trusted[4:-4, 14:18].all()  # on both sides of the step half a window is enough
    assert angles_deg(normals[:, :16], -near)[trusted[:, :16]].max() < 0.01
    assert angles_deg(normals[:, 16:], -far)[trusted[:, 16:]].max() < 0.01


def test_what_was_not_measured_or_is_rough_is_not_trusted() -> None:
    depth = plane_depth(np.array([0.0, 0.0, 1.0]), 2.0, CAMERA, SHAPE)
    depth[10:20, 10:20] = 0
    depth[30:40, 30:40] = np.inf
    depth[10:20, 40:60] *= np.random.default_rng(0).uniform(0.9, 1.1, (10, 20))
    _, trusted = normals_of_depth(depth, CAMERA, EVERY_OTHER, 2, 0.5)
    assert not trusted[5:10, 5:10].any()
    assert not trusted[15:20, 15:20].any()
    assert not trusted[6:9, 21:29].any()
    assert trusted[12:14, 2:28].all()


@settings(max_examples=50, deadline=None)
@given(height=st.integers(20, 400), width=st.integers(20, 400))
def test_a_frame_is_cut_in_the_middle_to_the_grids_shape(height: int, width: int) -> None:
    at = sampling((height, width), (12, 16))
    left, top, right, bottom = at.window
    assert (right - left) / (bottom - top) == pytest.approx(4 / 3)
    assert left == pytest.approx(width - right)
    assert top == pytest.approx(height - bottom)
    assert min(left, top) == pytest.approx(0)  # the largest such window
    assert 0 <= at.rows.min() <= at.rows.max() < height
    assert 0 <= at.columns.min() <= at.columns.max() < width
    assert at.scale == pytest.approx(16 / (right - left))


@settings(max_examples=50, deadline=None)
@given(factor=st.floats(0.05, 20), seed=st.integers(0, 100))
def test_alignment_takes_out_a_scale_and_nothing_else(factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, valid = rng.uniform(1, 5, (6, 7)), rng.random((6, 7)) < 0.8
    guess = truth * rng.uniform(0.7, 1.3, truth.shape)
    guess[~valid] = 1e6  # must not count
    one, other = aligned(guess, truth, valid), aligned(factor * guess, truth, valid)
    np.testing.assert_allclose(one, other)
    assert np.median(truth[valid] / one[valid]) == pytest.approx(1)
    exact = depth_errors(aligned(factor * truth, truth, valid), truth, valid)
    assert exact["abs_rel"] == pytest.approx(0, abs=1e-9)
    assert exact["delta1"] == 1


def test_depth_errors_by_hand() -> None:
    truth, guess = np.array([1.0, 2.0, 4.0, 9.0]), np.array([1.0, 3.0, 3.4, 1.0])
    valid = np.array([True, True, True, False])
    found = depth_errors(guess, truth, valid)
    assert found["abs_rel"] == pytest.approx((0 + 0.5 + 0.15) / 3)
    assert found["rmse"] == pytest.approx(np.sqrt((0 + 1 + 0.36) / 3))
    assert found["delta1"] == pytest.approx(2 / 3)
    assert found["log_correlation"] == pytest.approx(pearsonr(np.log(guess[:3]), np.log(truth[:3])).statistic)
    assert depth_errors(np.ones(4), truth, valid)["log_correlation"] == 0


def test_angles_of_vectors_of_any_length() -> None:
    truth = np.tile([0.0, 0.0, -1.0], (4, 1))
    guess = np.array([[0, 0, -5.0], [2.0, 0, 0], [0, 3.0, -3.0], [0, 0, 0.1]])
    np.testing.assert_allclose(angles_deg(guess, truth), [0, 90, 45, 180], atol=1e-6)
    found = normal_errors(guess, truth, np.array([True, True, True, False]))
    assert found == pytest.approx({"mean_angle": 45, "median_angle": 45, "within_11": 1 / 3, "within_30": 1 / 3})


def test_the_motorcycle_stands_on_a_level_floor() -> None:
    pytest.importorskip("skimage")
    frame = motorcycle((192, 256))
    assert frame.image.shape == (192, 256, 3)
    assert frame.focal_px == pytest.approx(994.978 * 192 / 500)
    depth = frame.depth[frame.measured]
    assert 2.1 < depth.min() < depth.max() < 5.1
    floor = frame.normals[175:, 20:100][frame.trusted[175:, 20:100]]
    assert len(floor) > 1000
    assert angles_deg(floor, floor.mean(0)).mean() < 2  # one plane
    assert floor.mean(0)[1] < -0.9  # that looks up
