from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from refusals import refused

from edgemtl.data import Split, collate, open_source
from edgemtl.data.folder import CheckReport, FolderSource

SIZE = (12, 16)
RAW = (24, 32)
SPEC = """\
images: {train: images/train, validation: images/val, test: images/test}
tasks:
  semseg: {kind: segmentation, files: "labels/{split}/{name}.png", classes: [road, car, sky]}
  depth: {kind: depth, files: "depth/{name}.png", scale: 0.001}
  normals: {kind: normals, files: "normals/{name}.png"}
  edges: {kind: edges, files: "edges/{name}.npy"}
  label: {kind: classification, csv: labels.csv, image: file, column: class, classes: [day, night]}
  pose: {kind: regression, csv: labels.csv, image: file, columns: [x, y]}
"""
IMAGES = {"train": ["a", "b", "sub/c", "d"], "val": ["e"], "test": ["f", "g"]}
SPLIT_OF = {"train": "train", "val": "validation", "test": "test"}


def save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def labels(name: str) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(sum(map(ord, name)))
    normals = rng.standard_normal((*RAW, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    semseg = rng.integers(0, 3, RAW, np.uint8)
    semseg[0, :9] = 255
    depth = rng.integers(500, 9000, RAW).astype(np.uint16)
    depth[5] = 0
    coded = np.rint((normals + 1) * 127.5).astype(np.uint8)
    coded[7, 3] = 0
    return {
        "image": rng.integers(0, 256, (*RAW, 3), np.uint8),
        "semseg": semseg,
        "depth": depth,
        "normals": coded,
        "edges": (rng.random(RAW) < 0.1).astype(np.float32),
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    rows = ["file,class,x,y"]
    for split, names in IMAGES.items():
        for number, name in enumerate(names):
            arrays = labels(name)
            save(folder / "images" / split / f"{name}.png", arrays["image"])
            save(folder / "labels" / SPLIT_OF[split] / f"{name}.png", arrays["semseg"])
            save(folder / "depth" / f"{name}.png", arrays["depth"])
            save(folder / "normals" / f"{name}.png", arrays["normals"])
            save(folder / "edges" / f"{name}.npy", arrays["edges"])
            key = (f"{name}.png", name, f"images/{split}/{name}.png")[number % 3]
            rows.append(f"{key},{'night' if name in 'ace' else 'day'},{number}.5,-2")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "data.yaml").write_text(SPEC)
    return folder


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "data.yaml").read_text()
    assert old in text
    (root / "data.yaml").write_text(text.replace(old, new))


def opening(root: Path) -> str:
    return refused(lambda: FolderSource(root, SIZE), one_line=False)


def checking(root: Path) -> str:
    return refused(FolderSource(root, SIZE).check, one_line=False)


def test_samples_hold_what_the_files_hold(root: Path) -> None:
    source = FolderSource(root, RAW)
    assert [task.name for task in source.tasks] == ["semseg", "depth", "normals", "edges", "label", "pose"]
    sample, arrays = source.split("test")[0], labels("f")
    assert np.array_equal(sample.image, arrays["image"])
    known = arrays["semseg"] != 255
    assert np.array_equal(sample.masks["semseg"], known)
    assert np.array_equal(sample.targets["semseg"][known], arrays["semseg"][known])
    assert sample.targets["semseg"].max() < 3
    assert np.array_equal(sample.masks["depth"], arrays["depth"] > 0)
    assert np.allclose(sample.targets["depth"][arrays["depth"] > 0], arrays["depth"][arrays["depth"] > 0] / 1000)
    assert sample.targets["depth"].min() > 0
    coded = arrays["normals"].astype(float) * 2 / 255 - 1
    expected = coded / np.linalg.norm(coded, axis=-1, keepdims=True)
    assert not sample.masks["normals"][7, 3]
    assert sample.masks["normals"].sum() == RAW[0] * RAW[1] - 1
    assert np.allclose(sample.targets["normals"][sample.masks["normals"]], expected[sample.masks["normals"]], atol=1e-5)
    assert np.array_equal(sample.targets["edges"], arrays["edges"])
    assert sample.targets["label"] == 0
    assert source.split("test")[1].targets["label"] == 0
    assert source.split("validation")[0].targets["label"] == 1
    assert sample.targets["pose"].tolist() == [0.5, -2]
    types = {name: target.dtype for name, target in sample.targets.items()}
    assert types["semseg"] == types["label"] == np.int64
    assert {types[name] for name in ("depth", "normals", "edges", "pose")} == {np.dtype(np.float32)}
    assert collate(list(source.split("test")), source.tasks).targets["normals"].shape == (2, 3, *RAW)


def test_splits_are_disjoint_and_calibration_comes_from_train(root: Path) -> None:
    source = FolderSource(root, SIZE)
    found: dict[Split, int] = {
        split: len(source.split(split)) for split in ("train", "calibration", "validation", "test")
    }
    assert found == {"train": 3, "calibration": 1, "validation": 1, "test": 2}
    images = [sample.image.tobytes() for split in found for sample in source.split(split)]
    assert len(set(images)) == 7
    report = source.check()
    assert isinstance(report, CheckReport)
    assert report.images == found
    assert report.labelled["test"] == dict.fromkeys([task.name for task in source.tasks], 1.0)


def test_labels_are_picked_and_images_averaged_when_resized(root: Path) -> None:
    full, half = FolderSource(root, RAW).split("test")[0], FolderSource(root, SIZE).split("test")[0]
    assert np.array_equal(half.targets["depth"], full.targets["depth"][1::2, 1::2])
    assert np.array_equal(half.targets["semseg"], full.targets["semseg"][1::2, 1::2])
    assert np.array_equal(half.masks["depth"], full.masks["depth"][1::2, 1::2])
    edges = full.targets["edges"].reshape(12, 2, 16, 2).max((1, 3))
    assert np.array_equal(half.targets["edges"], edges)
    mean = full.image.reshape(12, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(half.image - mean).max() <= 1


def test_it_opens_by_folder_and_by_file_and_its_identity_follows_the_files(root: Path) -> None:
    one = open_source(str(root), SIZE)
    assert one.name == "mine"
    assert one.license_note == ""
    assert open_source(str(root / "data.yaml"), SIZE).fingerprint == one.fingerprint
    assert open_source(str(root), RAW).fingerprint != one.fingerprint
    again = pickle.loads(pickle.dumps(one.split("train")))
    assert np.array_equal(again[0].image, one.split("train")[0].image)
    arrays = labels("other")
    save(root / "images" / "train" / "a.png", arrays["image"][:, ::-1] // 2)
    assert open_source(str(root), SIZE).fingerprint != one.fingerprint


def test_one_folder_is_split_by_names_that_stay_where_they_are(tmp_path: Path) -> None:
    def build(names: list[str]) -> FolderSource:
        for name in names:
            save(tmp_path / "all" / f"{name}.png", np.full((8, 8, 3), sum(map(ord, name)) % 256, np.uint8))
            save(tmp_path / "sal" / f"{name}.png", np.eye(8, dtype=np.uint8) * 255)
        (tmp_path / "data.yaml").write_text(
            "images: all\nsplit: {train: 0.5, validation: 0.2, test: 0.2, calibration: 0.1}\n"
            'tasks: {salient: {kind: saliency, files: "sal/{name}.png"}}\n'
        )
        return FolderSource(tmp_path, (8, 8))

    names = [f"image{n}" for n in range(100)]
    before = {item.name: split for split, items in build(names[:70])._opened.splits.items() for item in items}
    after = {item.name: split for split, items in build(names)._opened.splits.items() for item in items}
    assert len(before) == 70
    assert all(after[name] == split for name, split in before.items())
    shares = {
        split: list(after.values()).count(split) / 100 for split in ("train", "validation", "test", "calibration")
    }
    assert shares == pytest.approx({"train": 0.5, "validation": 0.2, "test": 0.2, "calibration": 0.1}, abs=0.12)
    sample = build(names).split("test")[0]
    assert np.array_equal(sample.targets["salient"], np.eye(8))


def test_partial_tasks_have_false_masks(root: Path) -> None:
    for name in ("depth", "semseg", "normals", "edges", "label"):
        edit(root, f"  {name}: {{", f"  {name}: {{partial: true, ")
    (root / "depth" / "f.png").unlink()
    (root / "labels" / "test" / "f.png").unlink()
    (root / "normals" / "f.png").unlink()
    (root / "edges" / "f.npy").unlink()
    rows = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text(
        "\n".join(",,".join(row.split(",", 2)[::2]) if row[0] == "f" and row[1] == "." else row for row in rows)
    )
    source = FolderSource(root, SIZE)
    sample = source.split("test")[0]
    for name in ("depth", "semseg", "normals", "edges", "label"):
        assert not sample.masks[name].any()
        assert sample.targets[name].shape == source.split("test")[1].targets[name].shape
        assert sample.targets[name].dtype == source.split("test")[1].targets[name].dtype
    assert (sample.targets["depth"] > 0).all()
    assert sample.masks["pose"]
    assert source.check().labelled["test"]["depth"] == 0.5
    (root / "depth" / "g.png").unlink()
    assert "the split test has no label of task 'depth' at all" in opening(root)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (
            lambda root: (root / "depth" / "b.png").unlink(),
            "depth/b.png: the label of task 'depth' is missing: add it, or",
        ),
        (
            lambda root: save(root / "depth" / "b.png", np.zeros((24, 30), np.uint16)),
            "depth/b.png: is 24 x 30 pixels, its image 24 x 32: a label has its image's size",
        ),
        (
            lambda root: save(root / "labels" / "train" / "b.png", np.zeros((*RAW, 3), np.uint8)),
            "labels/train/b.png: is 24 x 32 with 3 channels of 8-bit whole numbers: needed is one channel of",
        ),
        (
            lambda root: save(root / "normals" / "b.png", np.zeros(RAW, np.uint8)),
            "normals/b.png: is 24 x 32 with 1 channel of 8-bit whole numbers: needed is three channels",
        ),
        (
            lambda root: save(root / "edges" / "b.npy", np.zeros((*RAW, 2))),
            "edges/b.npy: is 24 x 32 with 2 channels of 64-bit floats: needed is one channel",
        ),
        (lambda root: save(root / "edges" / "b.npy", np.zeros(7)), "edges/b.npy: has the shape (7,): (H, W)"),
        (
            lambda root: np.save(root / "edges" / "b.npy", np.array([{"a": 1}], object), allow_pickle=True),
            "edges/b.npy: cannot be read (",
        ),
        (lambda root: (root / "edges" / "b.npy").write_bytes(b""), "edges/b.npy: cannot be read ("),
        (lambda root: harm_header(root / "edges" / "b.npy"), "edges/b.npy: cannot be read ("),
        (
            lambda root: (root / "images" / "train" / "b.png").write_bytes(b"hello"),
            "b.png: cannot be read (no content of a BMP, JPEG",
        ),
        (lambda root: (root / "images" / "train" / "b.png").write_bytes(b""), "images/train/b.png: cannot be read ("),
        (
            lambda root: save(root / "images" / "test" / "g.png", np.zeros(RAW, np.uint16)),
            "images/test/g.png: holds whole numbers of 16 bits: 8 bits a channel are needed",
        ),
        (lambda root: edit(root, ", scale: 0.001", ""), "depth/a.png: holds whole numbers: say how many metres one is"),
        (lambda root: edit(root, "images/val", "images/vall"), "images/vall: there is no such folder of images"),
        (
            lambda root: (root / "images" / "val" / "e.png").unlink(),
            "the split validation has no images (its folder has",
        ),
        (lambda root: edit(root, "images/test", "images/train"), "images/train/a.png: is in the splits train and test"),
        (
            lambda root: save(root / "images" / "train" / "b.jpg", np.zeros((*RAW, 3), np.uint8)),
            "images/train/b.png: images/train/b.jpg has the same name without its ending",
        ),
        (
            lambda root: edit(root, "column: class", "column: clas"),
            "labels.csv: unknown column 'clas': did you mean class?",
        ),
        (
            lambda root: edit(root, "[day, night]", "[day, nite]"),
            "labels.csv, images/train/a.png: unknown class 'night': did",
        ),
        (lambda root: (root / "labels.csv").unlink(), "labels.csv: the file is missing"),
        (
            lambda root: (root / "labels.csv").write_text("file,class,x,y\na,day,1,2\nb,day,1,z\n"),
            "labels.csv, images/train/b.png: 'z' is no number",
        ),
        (
            lambda root: (root / "labels.csv").write_text("file,class,x,y\na,day,1,2\n"),
            "labels.csv, images/train/b.png: the label of task 'label' is missing",
        ),
        (
            lambda root: (root / "labels.csv").write_text("file,class,x,y\na,day,1,2\na,night,1,2\n"),
            "labels.csv: line 3: 'a' is there before with another label",
        ),
        (lambda root: (root / "labels.csv").write_bytes(b"file,class\n\xff,a"), "labels.csv: is not UTF-8"),
        (
            lambda root: (
                (root / "images" / "train" / "b.png").rename(root / "images" / "train" / f"{'b' * 245}.png"),
                edit(root, "depth/{name}.png", "depth/{name}_of_depth.png"),
            ),
            f"the file name 'depth/{'b' * 21}...",
        ),
        (
            lambda root: (root / "images" / "train" / "b.png").rename(root / "images" / "train" / "c\nd.png"),
            r"c\nd.png: the label of task",
        ),
    ],
)  # fmt: skip
def test_opening_tells_what_names_and_headers_show(root: Path, harm: Callable[[Path], object], expected: str) -> None:
    harm(root)
    message = opening(root)
    assert expected in message, message
    assert message.startswith(f"data set {root / 'data.yaml'} has ")


def harm_header(path: Path) -> None:
    """A bracket that is never closed: NumPy's reader of headers then fails in a way of its own."""
    path.write_bytes(path.read_bytes().replace(b"}", b"{", 1))


def spoil(root: Path, file: str, change: Callable[[NDArray[Any]], NDArray[Any] | None]) -> None:
    path = root / file
    array = np.load(path) if path.suffix == ".npy" else np.array(Image.open(path))
    result = change(array)
    save(path, array if result is None else result)


def put(value: float, count: int = 1) -> Callable[[NDArray[Any]], None]:
    def change(array: NDArray[Any]) -> None:
        array.reshape(-1)[40 : 40 + count] = value

    return change


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (
            lambda root: spoil(root, "labels/train/b.png", put(19, 3)),
            "labels/train/b.png: holds the value 19 in 3 pixels: allowed are 0 to 2 and 255 (ignore); name the missing",
        ),
        (lambda root: truncate(root / "images" / "test" / "g.png"), "images/test/g.png: cannot be read ("),
        (lambda root: truncate(root / "depth" / "sub" / "c.png"), "depth/sub/c.png: cannot be read ("),
        (
            lambda root: spoil(root, "edges/d.npy", put(0.4)),
            "edges/d.npy: holds the value 0.4 in 1 pixel: allowed are 0 and 1, or 0 and 255; set `threshold`",
        ),
        (lambda root: edit(root, "0.001", "1"), "depth/a.png: holds the values"),
        (lambda root: edit(root, "0.001", "1"), "with `scale` 1: allowed is above 0 to 1000 m; set `scale`"),
        (lambda root: spoil(root, "normals/e.png", lambda a: a // 2), "normals/e.png: has vectors of length"),
        (
            lambda root: spoil(root, "labels/validation/e.png", lambda a: np.full_like(a, 255)),
            "the split validation has no valid pixel of task 'semseg': check `ignore`",
        ),
        (
            lambda root: save(root / "images" / "test" / "g.png", labels("a")["image"]),
            "images/test/g.png: (test) is a copy of images/train/a.png (",
        ),
    ],
)  # fmt: skip
def test_checking_tells_what_the_contents_show(root: Path, harm: Callable[[Path], object], expected: str) -> None:
    harm(root)
    message = checking(root)
    assert expected in message, message


def test_a_damaged_file_is_also_named_when_it_is_read(root: Path) -> None:
    truncate(root / "depth" / "g.png")
    assert refused(lambda: FolderSource(root, SIZE).split("test")[1]).startswith("depth/g.png: cannot be read (")


def test_problems_come_by_cause_in_one_error_and_only_twenty_are_shown(root: Path) -> None:
    for name in ("a", "b", "d"):
        (root / "depth" / f"{name}.png").unlink()
        (root / "normals" / f"{name}.png").write_bytes(b"x")
    message = opening(root)
    assert "has 6 problems:" in message
    assert len(message.splitlines()) == 3
    assert message.endswith("copy or write it again (and 2 more like it)")
    for number in range(30):
        save(root / "images" / "train" / f"new{number}.png", labels("x")["image"])
    message = opening(root)
    assert "has 186 problems:" in message  # 30 images times 6 tasks, and the six
    assert len(message.splitlines()) == 8  # a missing label of each task, and the broken ones
    rows = "".join(f"images/train/new{number}.png,{chr(97 + number) * 3},1,2\n" for number in range(25))
    with (root / "labels.csv").open("a") as file:
        file.write(rows)
    message = opening(root)
    assert len(message.splitlines()) == 22
    assert re.search(r"and \d+ more$", message)


def test_a_failed_table_does_not_accuse_every_image(root: Path) -> None:
    edit(root, "column: class", "column: clas")
    assert "has 1 problem:" in opening(root)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_that_leave_the_folder_are_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for file, cause in (
        ("images/train/a.png", "images/train/a.png: is a link that leaves the folder mine"),
        ("depth/a.png", "depth/a.png: is a link that leaves the folder mine"),
        ("labels.csv", "labels.csv: is a link that leaves"),
        ("normals", "normals/a.png: is a link that leaves"),
        ("images/test", "images/test: is a link that leaves"),
        ("images/train/sub", "images/train/sub: is a link to a folder"),
    ):
        path, moved = root / file, outside / Path(file).name
        path.rename(moved)
        path.symlink_to(moved)
        message = opening(root)
        assert cause in message, message
        path.unlink()
        moved.rename(path)
    FolderSource(root, SIZE)
    (root / "data.yaml").rename(outside / "data.yaml")
    (root / "data.yaml").symlink_to(outside / "data.yaml")
    assert "lies outside it: refused" in opening(root)


def test_photos_that_must_be_turned(tmp_path: Path) -> None:
    """Without dense labels they are turned; with them, nobody knows which way the labels lie."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    array = np.zeros((16, 24, 3), np.uint8)
    array[:, :12] = 255
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(array).save(tmp_path / split / f"{split}.jpg", exif=exif)
    spec = "images: {train: train, validation: validation, test: test}\ntasks:\n"
    table = "  l: {kind: classification, csv: l.csv, image: file, column: c, classes: [0, 1]}\n"
    (tmp_path / "l.csv").write_text("file,c\n" + "".join(f"{s}.jpg,1\n" for s in ("train", "validation", "test")))
    (tmp_path / "data.yaml").write_text(spec + table)
    source = FolderSource(tmp_path, (24, 16))
    image = source.split("test")[0].image
    assert image[:10].mean() > 240
    assert image[14:].mean() < 15
    assert len(source.split("train")) == len(source.split("calibration")) == 1
    (tmp_path / "d").mkdir()
    (tmp_path / "data.yaml").write_text(spec + table + '  d: {kind: depth, partial: true, files: "d/{name}.npy"}\n')
    message = opening(tmp_path)
    assert (
        "train/train.jpg: carries a note (EXIF) to turn it, which its labels do not: turn the picture itself (and 2"
        in message
    )
    assert "the split test has no label of task 'd' at all" in message


def test_what_is_not_there_is_told_with_what_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no data.yaml, which describes a data set: write one" in refused(
        lambda: open_source(str(tmp_path / "empty"), SIZE)
    )
    (root / "data.yaml").rename(root / "other.yaml")
    assert "give one of its files other.yaml" in refused(lambda: open_source(str(root), SIZE))
    assert "there is no file or folder" in refused(lambda: open_source(str(root / "no.yaml"), SIZE))
    message = refused(lambda: open_source("scenez", SIZE))
    assert "did you mean scenes? allowed: elpv, scenes, or the path of a data set's YAML file" in message
    assert "unknown data set" in refused(lambda: open_source("a" * 5000 + "\0", SIZE))
    assert "4 x 16 pixels" in refused(lambda: FolderSource(root / "other.yaml", (4, 16)))
    assert "did you mean train" in refused(lambda: FolderSource(root / "other.yaml", SIZE).split("trian"))  # type: ignore[arg-type]
