from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from edgemtl.data import Split, open_source
from edgemtl.data.elpv import ElpvSource, _divide, _read_labels
from edgemtl.errors import MissingDependencyError, UserError

SPLITS: tuple[Split, ...] = ("train", "calibration", "validation", "test")


@pytest.fixture(scope="module")
def source() -> ElpvSource:
    pytest.importorskip("elpv_dataset")
    return ElpvSource((48, 64))


def test_splits_are_disjoint_whole_and_stratified(source: ElpvSource) -> None:
    members = {split: source._splits[split] for split in SPLITS}
    assert {split: len(cells) for split, cells in members.items()} == {
        "train": 1576, "calibration": 131, "validation": 263, "test": 654,
    }  # fmt: skip
    assert len({cell.path for cells in members.values() for cell in cells}) == 2624
    whole = Counter((cell.type, cell.probability) for cells in members.values() for cell in cells)
    for cells in members.values():
        for stratum, count in Counter((cell.type, cell.probability) for cell in cells).items():
            assert abs(count / len(cells) - whole[stratum] / 2624) < 0.01


def test_a_sample_is_the_photo_and_its_labels(source: ElpvSource) -> None:
    split = source.split("test")
    cell = source._splits["test"][5]
    sample = split[5]
    assert sample.image.shape == (48, 64, 3)
    assert np.array_equal(sample.image[..., 0], sample.image[..., 2])
    with Image.open(str(source._folder.joinpath(cell.path))) as picture:
        pixels = np.asarray(picture, float)
    assert abs(sample.image.mean() - pixels.mean()) < 0.5
    row, column = 10, 20  # an area's mean, by hand
    area = pixels[
        int(row * 6.25) : int(np.ceil((row + 1) * 6.25)), int(column * 4.6875) : int(np.ceil((column + 1) * 4.6875))
    ]
    assert abs(sample.image[row, column, 0] - area.mean()) < 12
    assert sample.targets["defect"] == int(cell.probability > 0.5)
    assert source.tasks[1].classes[int(sample.targets["type"])] == cell.type
    assert sample.targets["defect"].shape == sample.masks["defect"].shape == ()
    assert sample.masks["type"]
    assert np.array_equal(split[5].image, sample.image)  # from memory


def test_it_opens_by_name_and_says_what_may_not_be_done(source: ElpvSource) -> None:
    opened = open_source("elpv", (48, 64))
    assert opened.fingerprint == source.fingerprint != ElpvSource((48, 48)).fingerprint
    assert "CC-BY-NC-SA-4.0" in opened.license_note
    assert [task.name for task in opened.tasks] == ["defect", "type"]
    with pytest.raises(UserError, match="4 x 64"):
        ElpvSource((4, 64))


def test_without_the_package_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgemtl\[elpv\]'"):
        ElpvSource((48, 64))


def test_the_split_does_not_depend_on_the_order_of_the_lines() -> None:
    lines = [f"images/{n}.png {n % 4 / 3} {'mono' if n % 3 else 'poly'}" for n in range(200)]
    assert _divide(_read_labels("\n".join(lines))) == _divide(_read_labels("\n".join(reversed(lines))))
    with pytest.raises(UserError, match="line 2"):
        _read_labels("a.png 0.0 mono\nb.png much mono")
    with pytest.raises(UserError, match="'thin'"):
        _read_labels("a.png 0.0 thin")
