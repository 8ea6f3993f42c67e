from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgemtl.canvas import class_colors, ember, heat, rainbow, robust_range
from edgemtl.canvas.layout import _fitted, _length, font
from edgemtl.errors import UserError
from edgemtl.report import Example, animation, contact_sheet, draw_prediction, overlay
from edgemtl.tasks import KINDS, Task, find_kind, make_task

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8)
SEMSEG = make_task("semseg", "segmentation", classes=("floor", "wall", "sofa"))
DEPTH, NORMALS, EDGES = make_task("depth", "depth"), make_task("normals", "normals"), make_task("edges", "edges")
KIND = make_task("kind", "classification", classes=("cat", "dog"))


def prediction(kind: str, height: int = 24, width: int = 32) -> np.ndarray:
    unit = RNG.standard_normal((3, height, width))
    drawn: dict[str, np.ndarray] = {
        "segmentation": RNG.integers(0, 3, (height, width)),
        "depth": RNG.uniform(1, 5, (height, width)),
        "normals": unit / np.linalg.norm(unit, axis=0),
        "edges": RNG.uniform(0, 1, (height, width)),
        "saliency": RNG.uniform(0, 1, (height, width)),
        "keypoints": np.array([[3.0, 4.0, 0.9], [70.0, 9.0, 0.2], [np.nan, 1.0, 0.1]]),
        "classification": np.array([0.1, 0.7, 0.2]),
        "regression": np.array([0.5, -1.0, 2.0]),
        "raw": np.array([0.5, -1.0, 2.0]),
    }
    return drawn[kind]


@pytest.mark.parametrize("kind", KINDS.names())
@pytest.mark.parametrize("batched", [False, True])
def test_every_kind_is_drawn_at_the_size_of_the_image(kind: str, batched: bool) -> None:
    task = make_task("t", kind, find_kind(kind).channels or 3)
    value = prediction(kind)[None] if batched else prediction(kind)
    before = IMAGE.copy()
    drawn = overlay(task, value, IMAGE)
    assert drawn.shape == IMAGE.shape and drawn.dtype == np.uint8
    assert not np.array_equal(drawn, IMAGE)
    assert np.array_equal(IMAGE, before)
    single = draw_prediction(task, value, IMAGE)
    assert single.width == 320 and single.height >= 240


@pytest.mark.parametrize(
    ("task", "shape"), [(DEPTH, (3, 4, 4)), (NORMALS, (2, 4, 4)), (SEMSEG, (4,)), (KIND, (2, 2)), (EDGES, ())]
)
def test_impossible_shapes_are_named(task: Task, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=rf"task {task.name} .* cannot be drawn from shape"):
        overlay(task, np.zeros(shape), IMAGE)


def test_classes_have_their_own_colours_and_borders_are_dark() -> None:
    labels = np.zeros((48, 64), int)
    labels[:, 32:] = 2
    drawn = overlay(SEMSEG, labels, np.full_like(IMAGE, 128)).astype(int)
    expected = np.rint(0.4 * 128 + 0.6 * class_colors(3)[[0, 2]]).astype(int)
    assert np.array_equal(drawn[10, 5], expected[0]) and np.array_equal(drawn[10, 60], expected[1])
    assert drawn[10, 32].sum() < drawn[10, 33].sum() * 0.5


def test_labels_are_never_mixed_by_resizing() -> None:
    labels = np.array([[0, 2], [2, 0]])
    drawn = overlay(SEMSEG, labels, np.full((64, 64, 3), 100, np.uint8))
    allowed = {tuple(row) for row in np.rint(0.4 * 100 + 0.6 * class_colors(3)[[0, 2]]).astype(int).tolist()}
    inside = drawn[4:28, 4:28].reshape(-1, 3).tolist()
    assert {tuple(row) for row in inside} <= allowed


def test_normals_are_shown_in_the_camera_frame() -> None:
    towards = np.zeros((48, 64, 3))
    towards[..., 2] = -1
    up = np.zeros((48, 64, 3))
    up[..., 1] = -1
    right = np.zeros((48, 64, 3))
    right[..., 0] = 1
    colors = [overlay(NORMALS, each, IMAGE)[0, 0].tolist() for each in (right, up, towards)]
    assert colors == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]
    first = overlay(NORMALS, np.moveaxis(up, -1, 0)[None], IMAGE)
    assert np.array_equal(first, overlay(NORMALS, up, IMAGE))


def test_near_is_warm_far_is_blue_and_limits_are_shared() -> None:
    metres = np.tile(np.linspace(1, 5, 64), (48, 1))
    drawn = overlay(DEPTH, metres, IMAGE, limits=(1, 5)).astype(int)
    assert drawn[0, 3, 0] > drawn[0, 3, 2] and drawn[0, 60, 2] > drawn[0, 60, 0]
    assert np.array_equal(drawn[0, 0], rainbow(np.array(1.0))) and np.array_equal(drawn[0, -1], rainbow(np.array(0.0)))
    wider = overlay(DEPTH, metres, IMAGE, limits=(1, 9))
    assert np.array_equal(wider[0, -1], rainbow(np.array(0.5)))


def test_unknown_pixels_are_grey() -> None:
    mask = np.ones((48, 64), bool)
    mask[:10] = False
    drawn = overlay(DEPTH, prediction("depth", 48, 64), IMAGE, mask=mask)
    assert (drawn[:10] == (205, 210, 216)).all() and not (drawn[10:] == (205, 210, 216)).all(axis=-1).any()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=50))
def test_spread_is_never_empty(values: list[float]) -> None:
    low, high = robust_range([np.array(values), np.array([np.nan, np.inf])])
    assert low < high
    assert low <= np.median(values) <= high


def test_colours_are_distinct_and_heat_grows_lighter() -> None:
    colors = class_colors(40)
    assert len({tuple(color) for color in colors.tolist()}) == 40
    assert class_colors(5).tolist() == colors[:5].tolist()
    for table in (heat, ember):
        lightness = table(np.linspace(0, 1, 64)).astype(float) @ (0.299, 0.587, 0.114)
        assert (np.diff(lightness) > -1).all() and lightness[-1] > lightness[0] + 150
    assert rainbow(np.array([-1.0, 0.0, 1.0, 2.0, np.nan])).tolist()[0] == rainbow(np.array([0.0])).tolist()[0]


def test_a_sheet_has_a_column_a_task_and_truth_above_prediction() -> None:
    truth = {"depth": prediction("depth", 48, 64), "semseg": prediction("segmentation", 48, 64)}
    predictions = {"depth": truth["depth"] + 1, "semseg": truth["semseg"]}
    plain = contact_sheet([DEPTH, SEMSEG], [Example(IMAGE, predictions)], cell_width=64)
    both = contact_sheet([DEPTH, SEMSEG], [Example(IMAGE, predictions, truth)], cell_width=64)
    assert plain.width == both.width == 3 * 64 + 2 * 10 + 2 * 14
    assert both.height == plain.height + 48 + 3
    wider = contact_sheet([DEPTH, SEMSEG], [Example(IMAGE, predictions)] * 2, cell_width=64)
    assert wider.height == plain.height + 48 + 10


def test_a_sheet_with_holes() -> None:
    sheet = contact_sheet([DEPTH, KIND], [Example(IMAGE, {"kind": np.array([0.2, 0.8])}, {"kind": np.array(1)})])
    assert isinstance(sheet, Image.Image)
    with pytest.raises(UserError, match="is empty"):
        contact_sheet([DEPTH], [])


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=80), st.integers(20, 200))
def test_text_is_cut_to_its_place(text: str, width: int) -> None:
    shown = _fitted(text, width, font(12))
    assert "\n" not in shown
    assert _length(shown, font(12)) <= width or shown == "..."


def test_frames_of_an_animation_have_one_size_and_one_meaning_of_colours() -> None:
    near, far = (Example(IMAGE, {"depth": np.full((24, 32), metres)}) for metres in (1.0, 5.0))
    frames = animation([DEPTH], [near, far])
    assert len(frames) == 2 and frames[0].size == frames[1].size
    assert not np.array_equal(np.array(frames[0]), np.array(frames[1])), "each by itself would look alike"
    alone = animation([DEPTH], [near])[0]
    assert not np.array_equal(np.array(alone), np.array(frames[0]))
    with pytest.raises(UserError, match="0 tasks is empty"):
        animation([], [near])


def test_points_that_are_not_there_are_not_drawn() -> None:
    task = make_task("pose", "keypoints", 3)
    nothing = overlay(task, np.zeros((3, 2)), IMAGE, mask=np.zeros(3, bool))
    assert np.array_equal(nothing, IMAGE)
    assert not np.array_equal(overlay(task, np.full((3, 2), 20.0), IMAGE, mask=np.array([False, True, False])), IMAGE)
