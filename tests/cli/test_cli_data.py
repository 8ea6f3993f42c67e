from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemtl.cli import main
from edgemtl.data.folder import FolderSource

SIZE = (16, 24)
SPEC = """\
images: {train: images/train, validation: images/validation, test: images/test}
tasks:
  semseg: {kind: segmentation, files: "labels/{split}/{name}.png", classes: [bg, fg]}
  depth: {kind: depth, files: "depth/{split}/{name}.npy"}
"""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng, root = np.random.default_rng(0), tmp_path / "photos"
    for split in ("train", "validation", "test"):
        for index in range(4):
            for kind, array in (
                ("images", rng.integers(0, 256, (*SIZE, 3), np.uint8)),
                ("labels", np.eye(*SIZE, dtype=np.uint8)),
            ):
                path = root / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
            (root / "depth" / split).mkdir(parents=True, exist_ok=True)
            np.save(root / "depth" / split / f"{index}.npy", np.full(SIZE, 2 + index, np.float32))
    (root / "data.yaml").write_text(SPEC)
    return root


def mask_with_255(photos: Path) -> None:
    for path in photos.glob("labels/*/*.png"):
        Image.fromarray(np.eye(*SIZE, dtype=np.uint8) * 255).save(path)


def test_a_good_data_set_is_counted(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "photos"]) == 0
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["train", "3", "100%", "100%"] in rows
    assert ["semseg", "fg", "48", "16", "64", "64"] in rows
    assert ["Problems:", "none"] in rows and ["Warnings:", "none"] in rows
    assert "images: 12/12" in shown.err
    assert main(["data", "check", "photos/data.yaml", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is True
    assert found["images"] == {"train": 3, "calibration": 1, "validation": 4, "test": 4}
    assert found["ranges"]["test"]["depth"] == [2.0, 5.0]


def test_what_is_wrong_is_told_by_its_cause_and_ends_with_status_1(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask_with_255(photos)
    for path in photos.glob("depth/test/*"):
        path.unlink()
    assert main(["data", "check", "photos"]) == 1
    shown = capsys.readouterr()
    assert "  depth/test/0.npy: the label of task 'depth' is missing" in shown.out
    assert "(and 3 more like it)\n  the split train has no pixel of class 'fg'" in shown.out
    assert shown.out.count("\n  the split ") == 3  # one problem, two warnings
    assert shown.err.splitlines()[-1] == (
        "error: data set photos cannot be used: 5 problems of 2 kinds, listed above; mend them and check again"
    )
    assert main(["data", "check", "photos", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False
    assert [each["count"] for each in found["problems"]] == [4, 1]
    assert found["problems"][0]["file"] == "depth/test/0.npy"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere", "there is no file or folder nowhere"),
        ("scenes", "scenes comes with edgemtl, there is nothing to check"),
    ],
)
def test_what_is_no_data_set_of_ones_own_is_one_line(
    path: str, reason: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", path]) == 1
    assert capsys.readouterr().err.startswith(f"error: {reason}")


def test_stopping_a_check_says_that_nothing_was_changed(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgemtl.data.folder.check.sha256", stop)
    assert main(["data", "check", "photos"]) == 130
    assert "interrupted: nothing was changed" in capsys.readouterr().err


def test_training_begins_with_a_first_look_and_takes_the_weights_that_match(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "images" / "train" / "more.heic").write_bytes(b"x")
    words = ["train", "--data", "photos", "--size", "32x32", "--steps", "1", "--batch", "2", "--out", "r"]
    assert main(words) == 0
    warning = capsys.readouterr().err.splitlines()[0]
    assert warning.startswith("warning: images/train: 1 file is left out: the ending .heic is none")
    assert main([*words[:-1], "w", "--weights", "cnn-scenes", "--resume"]) == 1
    assert main([*words[:-1], "w", "--weights", "cnn-scenes"]) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("weights cnn-scenes: "))
    assert line.startswith(
        "weights cnn-scenes: taken are the trunk, semseg without semseg_head, depth; semseg_head begins"
    )
    assert line.endswith("edges is left in the file (no task of this data set)")
    mask_with_255(photos)
    assert main([*words[:-1], "s"]) == 1
    assert "class 'fg' of task 'semseg'" in capsys.readouterr().err
    assert not (photos.parent / "s").exists()
    assert len(FolderSource(photos, (32, 32)).warnings) == 1
