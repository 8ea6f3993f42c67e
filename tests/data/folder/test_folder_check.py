"""What cannot be meant so is told: by the check, and by the first look before training."""

from __future__ import annotations

import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgemtl.data.folder import FolderSource, check_folder
from edgemtl.data.folder.problems import Problems
from edgemtl.data.pictures import read_array
from edgemtl.errors import UserError

SIZE = (8, 12)
COUNTS = {"train": 6, "validation": 2, "test": 2}
HEAD = "images: {train: images/train, validation: images/validation, test: images/test}\ntasks:\n"
SEMSEG = '  semseg: {kind: segmentation, files: "labels/{split}/{name}.png", classes: [bg, fg, far]}\n'
DEPTH = '  depth: {kind: depth, files: "depth/{split}/{name}.png", scale: 0.001}\n'
WEATHER = "  weather: {kind: classification, csv: labels.csv, image: file, column: sky, classes: [dry, rain]}\n"


def save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def mask(number: int) -> NDArray[np.uint8]:
    array = np.zeros(SIZE, np.uint8)
    array[2:5, 3 : 8 + number % 3] = 1
    array[6:, 5:] = 2
    return array


def depth(number: int) -> NDArray[np.uint16]:
    return np.full(SIZE, 1000 + 100 * number, np.uint16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set in which nothing is wrong."""
    rng, rows, number = np.random.default_rng(0), ["file,sky"], 0
    for split, count in COUNTS.items():
        for index in range(count):
            name, number = f"{split}{index}", number + 1
            save(tmp_path / "images" / split / f"{name}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
            save(tmp_path / "labels" / split / f"{name}.png", mask(number))
            save(tmp_path / "depth" / split / f"{name}.png", depth(number))
            rows.append(f"{name}.png,{'rain' if index % 2 else 'dry'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "data.yaml").write_text(HEAD + SEMSEG + DEPTH + WEATHER)
    return tmp_path


def change(root: Path, kind: str, make: Callable[[NDArray[Any]], NDArray[Any]], split: str = "*") -> None:
    for path in root.glob(f"{kind}/{split}/*.png"):
        with Image.open(path) as picture:
            array = np.array(picture)
        save(path, make(array))


def replace(root: Path, old: str, new: str, file: str = "data.yaml") -> None:
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))


def problems_of(root: Path) -> tuple[list[str], list[str]]:
    report = check_folder(root)
    return [str(finding) for finding in report.problems], [str(finding) for finding in report.warnings]


def test_a_good_data_set_is_counted_and_nothing_is_told(root: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = check_folder(root, lambda news: steps.append((news.done, news.total)))
    assert (report.problems, report.warnings) == ((), ())
    assert steps == [(done, 10) for done in range(1, 11)]
    assert report.images == {"train": 5, "calibration": 1, "validation": 2, "test": 2}
    assert report.labelled["test"] == {"semseg": 1.0, "depth": 1.0, "weather": 1.0}
    expected = sum((np.bincount(mask(number).ravel(), minlength=3) for number in (9, 10)), np.zeros(3, int))
    assert list(report.classes["test"]["semseg"].values()) == expected.tolist()
    assert report.classes["test"]["weather"] == {"dry": 1, "rain": 1}
    assert report.ranges["test"]["depth"] == pytest.approx((1.9, 2.0))
    source = FolderSource(root, (8, 8))
    assert source.check() == report
    assert source.first_look() == ()


def test_a_mask_of_0_and_255_whose_255_is_ignored_cannot_be_trained_on(root: Path) -> None:
    replace(root, "[bg, fg, far]", "[bg, fg]")
    change(root, "labels", lambda array: np.where(array, 255, 0).astype(np.uint8))
    problems, warnings = problems_of(root)
    (line,) = problems
    assert line.startswith("the split train has no pixel of class 'fg' of task 'semseg' (")
    assert "of the pixels hold 255, which is taken as `ignore`): all that is valid is 'bg'" in line
    assert "the kind saliency takes masks of 0 and 255" in line
    assert [warning.split(" has no")[0] for warning in warnings] == ["the split validation", "the split test"]
    source = FolderSource(root, (8, 8))
    for look in (source.check, source.first_look):
        with pytest.raises(UserError, match=r"class 'fg' of task 'semseg' .* 255, which is taken as `ignore`"):
            look()


def test_a_class_that_a_split_lacks_is_a_warning(root: Path) -> None:
    change(root, "labels", lambda array: np.minimum(array, 1), "test")
    change(root, "labels", lambda array: np.where(array == 0, 255, array).astype(np.uint8), "validation")
    problems, warnings = problems_of(root)
    assert problems == []
    assert warnings[0].startswith("the split validation has no pixel of class 'bg' of task 'semseg' (")
    assert warnings[1].startswith("the split test has no pixel of class 'far' of task 'semseg': add images of it")
    assert [str(finding) for finding in FolderSource(root, (8, 8)).first_look()] == warnings


def test_a_class_of_whole_images_and_maps_without_an_edge_are_told_too(root: Path) -> None:
    replace(root, ",rain", ",dry", "labels.csv")
    (root / "data.yaml").write_text(
        HEAD + WEATHER + '  edges: {kind: edges, files: "labels/{split}/{name}.png", threshold: 9}\n'
    )
    problems, warnings = problems_of(root)
    assert problems[0].startswith("the split train has no image of class 'rain' of task 'weather': all that is valid")
    assert problems[1].startswith("the split train has no pixel of class '1' of task 'edges'")
    assert problems[1].endswith("correct `threshold` or the labels")
    assert len(warnings) == 4


@pytest.mark.parametrize(
    ("value", "written"),
    [(np.uint16(65535), "65535"), (np.float32(65.535), "65.535"), (np.int32(2**31 - 1), "2.14748e+09")],
)
def test_depth_that_stands_for_nothing_is_told(root: Path, value: Any, written: str) -> None:
    scale = {"f": "1.0", "i": "1.0e-7", "u": "0.001"}[value.dtype.kind]
    replace(root, '"depth/{split}/{name}.png", scale: 0.001', f'"depth/{{split}}/{{name}}.npy", scale: {scale}')
    for path in sorted(root.glob("depth/*/*.png")):
        array = np.full(SIZE, 3 if value.dtype.kind == "f" else 1000, value.dtype)
        if path.parent.name == "train":
            array[0, :2] = value
        np.save(path.with_suffix(".npy"), array)
    problems, warnings = problems_of(root)
    assert problems == []
    (line,) = warnings
    assert line.startswith(f"depth/train/train0.npy: holds the value {written} in 2 pixels, ")
    assert "set `invalid: " in line
    assert line.endswith("or `max_m` (and 5 more like it)")
    replace(root, f"scale: {scale}", f"scale: {scale}, max_m: 50")
    assert problems_of(root) == ([], [])


def test_normals_that_point_away_from_the_camera_are_told(root: Path) -> None:
    (root / "data.yaml").write_text(HEAD + '  normals: {kind: normals, files: "normals/{split}/{name}.png"}\n')
    for path in root.glob("images/*/*.png"):
        toward = path.parent.name == "train"
        save(
            root / "normals" / path.parent.name / path.name,
            np.full((*SIZE, 3), (127, 127, 0 if toward else 255), np.uint8),
        )
    problems, warnings = problems_of(root)
    assert problems == []
    (line,) = warnings
    assert line.startswith("normals/validation/validation0.png: has normals that point away from the camera in 100% of")
    assert line.endswith("(and 3 more like it)")


@pytest.mark.parametrize("way", ["png", "jpg", "tif", "webp"])
def test_a_photo_that_is_to_be_turned_is_refused_beside_labels_in_every_format(root: Path, way: str) -> None:
    photo, exif = root / "images" / "test" / "test0.png", Image.Exif()
    exif[0x0112] = 6
    with Image.open(photo) as picture:
        picture.save(photo.with_suffix(f".{way}"), exif=exif)
    if way != "png":
        photo.unlink()
    with pytest.raises(UserError, match=rf"test0\.{way}: carries a note \(EXIF\) to turn it, which its labels do not"):
        FolderSource(root, (8, 8))


def test_a_label_that_is_to_be_turned_is_refused(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(mask(1)).save(root / "labels" / "train" / "train0.png", exif=exif)
    (line,) = problems_of(root)[0]
    assert line.startswith("labels/train/train0.png: carries a note (EXIF) to turn it, which a label cannot follow")


def test_depth_of_8_bits_is_refused(root: Path) -> None:
    change(root, "depth", lambda array: (array // 10).astype(np.uint8))
    problems, _ = problems_of(root)
    (line,) = problems
    assert "holds depth in 8 bits, 256 steps: 16 bits are needed" in line
    assert line.endswith("(and 9 more like it)")


def test_a_row_that_fits_several_images_is_refused_and_one_that_fits_none_is_told(root: Path) -> None:
    for kind in ("images", "labels", "depth"):
        path = root / kind / "test" / "test0.png"
        path.rename(path.with_name("train0.png"))
    problems, warnings = problems_of(root)
    assert problems == [
        "labels.csv: the name 'train0.png' fits 2 images, images/train/train0.png and images/test/train0.png: "
        "write their paths in the column 'file'"
    ]
    assert warnings == ["labels.csv: no image is called 'test0.png': correct the column 'file', or remove the row"]
    replace(root, "\ntrain0.png,dry", "\nimages/train/train0.png,rain\nimages/test/train0.png,dry", "labels.csv")
    replace(root, "test0.png,dry\n", "", "labels.csv")
    assert problems_of(root) == ([], [])
    assert FolderSource(root, (8, 8)).split("test")[1].targets["weather"] == 0


def test_a_label_file_that_two_images_share_is_refused(root: Path) -> None:
    (root / "data.yaml").write_text(HEAD + '  depth: {kind: depth, files: "all/{name}.png", scale: 0.001}\n')
    for path in root.glob("images/*/*.png"):
        name = path.name.replace("test", "train")
        path.rename(path.with_name(name))
        save(root / "all" / name, depth(1))
    problems, _ = problems_of(root)
    assert problems == [
        "all/train0.png: is the label of images/train/train0.png and of images/test/train0.png: give each its own, "
        "with {split} in `files` (and 1 more like it)"
    ]


def test_images_of_other_endings_are_left_out_with_a_word(root: Path) -> None:
    for name in ("a.heic", "b.HEIC", "c.gif", "notes", "labels.csv", "Thumbs.db", ".hidden.gif"):
        (root / "images" / "train" / name).write_bytes(b"x")
    problems, warnings = problems_of(root)
    assert problems == []
    assert [line.split(" is none")[0] for line in warnings] == [
        "images/train: 2 files are left out: the ending .heic",
        "images/train: 1 file is left out: the ending .gif",
        "images/train: 1 file is left out: the ending (none)",
    ]
    assert len(FolderSource(root, (8, 8)).warnings) == 3


def test_names_are_the_same_in_every_unicode_form(root: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "Grüße"), unicodedata.normalize("NFD", "Grüße")
    (root / "images/test/test0.png").rename(root / "images" / "test" / f"{apart}.png")
    (root / "labels/test/test0.png").rename(root / "labels" / "test" / f"{composed}.png")
    (root / "depth").rename(root / "Tiefe-ü")
    (root / "Tiefe-ü/test/test0.png").rename(root / "Tiefe-ü" / "test" / f"{composed}.png")
    replace(root, "depth/{split}", unicodedata.normalize("NFD", "Tiefe-ü") + "/{split}")
    replace(root, "test0.png,dry", f"{composed}.png,{composed}", "labels.csv")
    replace(root, "[dry, rain]", f"[dry, rain, {apart}]")
    assert problems_of(root)[0] == []
    assert FolderSource(root, (8, 8)).split("test")[0].targets["weather"] == 2
    save(root / "images" / "test" / f"{composed}.jpg", np.zeros((*SIZE, 3), np.uint8))
    assert any("has the same name without its ending" in line for line in problems_of(root)[0])


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "labels/validation",
            "labels/val",
            "labels/validation: there is no such folder, in which task 'semseg' has the labels of 2 images: "
            "did you mean val? {split} is validation whatever the folder of images is called: rename it to validation",
        ),
        (
            "depth",
            "dept",
            "depth: there is no such folder, in which task 'depth' has the labels of 10 images: "
            "did you mean dept? correct `files`",
        ),
    ],
)
def test_a_folder_of_labels_that_is_not_there_is_one_line(root: Path, old: str, new: str, line: str) -> None:
    (root / old).rename(root / new)
    with pytest.raises(UserError) as error:
        FolderSource(root, (8, 8))
    assert str(error.value).splitlines()[1].strip() == line
    assert len(str(error.value).splitlines()) == 2


def test_a_folder_whose_name_is_written_in_another_form_is_found_where_a_split_is_missing_in_it(root: Path) -> None:
    (root / "labels").rename(root / unicodedata.normalize("NFD", "Läbel"))
    here = next(path for path in root.iterdir() if path.name.startswith("L"))
    (here / "validation").rename(here / unicodedata.normalize("NFD", "validätion"))
    replace(root, "labels/{split}", unicodedata.normalize("NFC", "Läbel") + "/{split}")
    (line,) = problems_of(root)[0]
    assert line.startswith("Läbel/validation: there is no such folder, in which task 'semseg' has the labels of 2")
    assert "did you mean validätion?" in line


def test_a_label_array_has_the_limit_of_pictures_and_is_not_decoded(root: Path) -> None:
    (root / "images/train/train0.png").write_bytes(b"no picture")
    replace(root, "depth/{split}/{name}.png", "depth/{split}/{name}.npy")
    for path in sorted(root.glob("depth/*/*.png")):
        np.save(path.with_suffix(".npy"), np.full(SIZE, 1000, np.uint16))
    with (root / "depth/train/train0.npy").open("wb") as file:  # of which nothing is on the disk
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": (11_600, 11_600)})
        file.truncate(2 * 11_600**2 + file.tell())
    problems, _ = problems_of(root)
    assert [line.split(": ")[0] for line in problems] == ["images/train/train0.png", "depth/train/train0.npy"]
    assert problems[1].endswith("is 11,600 x 11,600 pixels: 134,217,728 at most, make it smaller")


def test_a_label_whose_image_tells_no_size_is_not_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "images/train/train0.png").write_bytes(b"no picture")
    read: list[str] = []

    def reading(path: Path) -> Any:
        read.append(path.name)
        return read_array(path)

    monkeypatch.setattr("edgemtl.data.folder.data.read_array", reading)
    (line,) = problems_of(root)[0]
    assert line.startswith("images/train/train0.png: cannot be read")
    assert "train1.png" in read and "train0.png" not in read


def write_wide_png(path: Path, xmp: bytes) -> None:
    """A 16-bit RGB picture with a note, as Pillow cannot write one."""
    height, width = SIZE
    rows = b"".join(b"\0" + bytes(range(6)) * width for _ in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in chunks:
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


def test_normals_of_16_bits_are_refused_whatever_notes_they_carry(root: Path) -> None:
    (root / "data.yaml").write_text(HEAD + '  normals: {kind: normals, files: "normals/{split}/{name}.png"}\n')
    for path in sorted(root.glob("labels/*/*.png")):
        write_wide_png(root / "normals" / path.relative_to(root / "labels"), b"<x:xmpmeta/>")
    (line,) = problems_of(root)[0]
    assert "3 channels of 16-bit whole numbers: needed is three channels (x, y, z): 8-bit RGB" in line


def test_every_problem_is_told_at_once_by_its_cause(root: Path) -> None:
    for name in ("train0", "train1", "train2"):
        (root / "depth" / "train" / f"{name}.png").unlink()
    for index in range(2):
        save(root / "labels" / "test" / f"test{index}.png", np.full(SIZE, 40 + index, np.uint16))
    image = root / "images" / "train" / "train3.png"
    image.write_bytes(image.read_bytes()[:200])
    problems, warnings = problems_of(root)
    assert warnings == []
    assert [line.split(": ")[0] for line in problems] == [
        "depth/train/train0.png",
        "images/train/train3.png",
        "labels/test/test0.png",
    ]
    assert problems[0].endswith("(and 2 more like it)")
    assert "holds the value 40 in 96 pixels: allowed are 0 to 2" in problems[2]
    assert problems[2].endswith("(and 1 more like it)")


def test_a_first_look_reads_some_labels_of_a_large_data_set(root: Path) -> None:
    change(root, "labels", lambda array: np.zeros_like(array), "train")
    lines = [str(finding) for finding in FolderSource(root, (8, 8)).first_look(images=2)]
    assert lines[0].startswith(
        "the split train (2 of 5 images were looked at) has no pixel of class 'fg', 'far' of task"
    )
    change(root, "labels", lambda array: array + 7, "train")
    with pytest.raises(UserError, match=r"has 3 problems:\n.*holds the value 7 in 96 pixels.*\(and 2 more like it\)"):
        FolderSource(root, (8, 8)).first_look(images=2)


def test_causes_are_texts_without_their_numbers() -> None:
    problems = Problems("it")
    for number, text in enumerate(
        ("holds the values 1, 2 and 3 more in 9 pixels: x", "holds the value 7 in 1 pixel: x")
    ):
        problems.add(text, f"{number}.png")
        problems.add(text, f"{number}.png")
    assert problems.count == 2
    assert [finding.count for finding in problems.problems] == [2]
