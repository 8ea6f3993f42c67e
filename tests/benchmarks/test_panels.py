from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _panels import CLASS_COLOURS, NO_VALUE, PAPER, Sheet, class_map, depth_map, edge_map, normal_map, predicted_maps
from PIL import Image

from edgemtl.data.scenes import CLASSES


def test_every_class_has_a_colour_of_its_own() -> None:
    assert set(CLASS_COLOURS) == set(CLASSES)
    assert len(set(CLASS_COLOURS.values())) == len(CLASSES)


def test_maps_say_what_they_mean() -> None:
    assert tuple(class_map(np.array([[CLASSES.index("plant")]]), CLASSES)[0, 0]) == CLASS_COLOURS["plant"]
    depths = depth_map(np.array([[0.5, 1.0, 2.0, 4.0]]), (1.0, 3.0), np.array([[True, True, True, False]]))
    lightness = depths.astype(int).sum(-1)[0]
    assert lightness[0] == lightness[1] > lightness[2]  # nearer is lighter, and clipped at the limits
    assert tuple(depths[0, 3]) == NO_VALUE
    up = normal_map(np.array([[[0.0, -3.0, 0.0]]]))  # the camera's y points down
    assert tuple(up[0, 0]) == (128, 255, 128)
    assert tuple(edge_map(np.zeros((1, 1)))[0, 0]) == PAPER


def test_predictions_are_drawn_from_raw_outputs() -> None:
    outputs = {
        "semseg": np.zeros((1, len(CLASSES), 4, 6), np.float32),
        "depth": np.full((1, 1, 4, 6), np.log(2.0), np.float32),
        "normals": np.tile(np.array([0, 0, -2], np.float32)[None, :, None, None], (1, 1, 4, 6)),
        "edges": np.full((1, 1, 4, 6), -30, np.float32),
    }
    outputs["semseg"][0, CLASSES.index("rug"), 1:] = 5
    drawn = predicted_maps({task: {"raw": value} for task, value in outputs.items()}, CLASSES, (1.0, 4.0), scale=0.5)
    assert tuple(drawn["semseg"][2, 3]) == CLASS_COLOURS["rug"]
    np.testing.assert_array_equal(drawn["depth"], depth_map(np.ones((4, 6)), (1.0, 4.0)))  # 2 m halved
    assert tuple(drawn["normals"][0, 0]) == (128, 128, 255)
    assert (drawn["edges"] == 255).all()


def test_a_sheet_holds_what_was_put_on_it(tmp_path: Path) -> None:
    sheet = Sheet.blank(300, 120)
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 200
    sheet.put(red, (10, 15))
    sheet.write("words", (60, 30))
    sheet.write_upwards("upwards", (200, 60))
    sheet.legend({"wall": (1, 2, 3)}, (60, 50), 80, 2)
    sheet.depth_scale((1.0, 5.0), (60, 90), 100)
    path = tmp_path / "sheet.png"
    assert sheet.save(path) == path.stat().st_size
    page = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert page.shape == (120, 300, 3)
    assert np.abs(page[15:35, 10:40] - [200, 0, 0]).max() <= 8
    assert page[100:, :50].min() == pytest.approx(255, abs=2)
    for left, top, right, bottom in ((60, 18, 110, 34), (190, 20, 210, 100), (60, 50, 74, 64), (90, 90, 180, 104)):
        assert page[top:bottom, left:right].min() < 200
