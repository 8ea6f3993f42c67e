from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest
from refusals import refused

from edgemtl.data.folder.models import Folders, Fractions
from edgemtl.data.folder.spec import read_spec
from edgemtl.errors import UserError
from edgemtl.tasks import make_task
from edgemtl.tasks.depth.labels import DepthSpec
from edgemtl.tasks.segmentation.labels import SegmentationSpec

GOOD = """\
images: {train: images/train, validation: images/val, test: images/test}
tasks:
  semseg: {kind: segmentation, files: "labels/{split}/{name}.png", classes: [road, car, 3], ignore: 255}
  depth: {kind: depth, files: "depth/{name}.png", scale: 0.001, invalid: 0, partial: true}
  normals: {kind: normals, files: "normals/{name}.png", encoding: "2p/255-1"}
  edges: {kind: edges, files: "edges/{name}.png"}
  label: {kind: classification, csv: labels.csv, image: file, column: class, classes: [a, b]}
  angle: {kind: regression, csv: labels.csv, image: file, columns: [x, y, z]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def refusal(folder: Path, text: str) -> str:
    return refused(lambda: read_spec(write(folder, text)), one_line=False)


def test_every_kind_is_read(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, GOOD))
    assert spec.images == Folders(train="images/train", validation="images/val", test="images/test")
    semseg, depth = spec.tasks["semseg"], spec.tasks["depth"]
    assert isinstance(semseg, SegmentationSpec)
    assert semseg.classes == ["road", "car", "3"]
    assert isinstance(depth, DepthSpec)
    assert (depth.scale, depth.partial) == (0.001, True)
    tasks = [make_task(name, task.kind, task.channels, task.class_names) for name, task in spec.tasks.items()]
    assert [task.kind for task in tasks] == [
        "segmentation", "depth", "normals", "edges", "classification", "regression",
    ]  # fmt: skip
    assert [task.channels for task in tasks] == [3, 1, 3, 1, 2, 3]


def test_one_folder_with_shares(tmp_path: Path) -> None:
    tasks = 'tasks: {d: {kind: depth, files: "d/{name}.npy"}}\n'
    spec = read_spec(write(tmp_path, "images: all\nsplit: {train: 0.6, validation: 0.2, test: 0.2}\n" + tasks))
    assert spec.images == "all"
    assert spec.split == Fractions(train=0.6, validation=0.2, test=0.2)
    assert read_spec(write(tmp_path, "images: all\n" + tasks)).split.train == 0.8


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("classes: [road", "clases: [road", ["line 3: tasks.semseg.clases: unknown key: did you mean classes?"]),
        ("classes: [road", "clases: [road", ["line 3: tasks.semseg.classes: this key is missing"]),
        (
            "kind: depth", "kind: dept",
            ["line 4: tasks.depth.kind: unknown kind 'dept': did you mean depth? allowed: class"],
        ),
        ("kind: depth, ", "", ["line 4: tasks.depth.kind: this key is missing: allowed: classification"]),
        ("kind: edges", "kind: keypoint", ["line 6: tasks.edges.kind: unknown kind 'keypoint'"]),
        ("scale: 0.001", "scale: mm", ["line 4: tasks.depth.scale: 'mm' cannot be used: allowed is number"]),
        ("scale: 0.001", "scale: -1", ["line 4: tasks.depth.scale: -1 cannot be used: allowed is greater than 0"]),
        ("scale: 0.001", "scale: .inf", ["tasks.depth.scale: inf cannot be used: allowed is a finite number"]),
        ("partial: true", "partial: 1", ["line 4: tasks.depth.partial: 1 cannot be used: allowed is boolean"]),
        ('"2p/255-1"', '"p/127-1"', ["line 5: tasks.normals.encoding: 'p/127-1' cannot be used"]),
        ("classes: [a, b]", "classes: [a, no]", ["line 7: tasks.label.classes.1: YAML reads this class name as false"]),
        ("classes: [a, b]", "classes: [a, a]", ["line 7: tasks.label.classes: a is there twice"]),
        ("classes: [a, b]", "classes: [a]", ["line 7: tasks.label.classes: a list cannot be used"]),
        ("ignore: 255", "ignore: 1", ["line 3: tasks.semseg: ignore: 1 is also the value of the class 'car'"]),
        (
            '"depth/{name}.png"', '"../depth/{name}.png"',
            ["line 4: tasks.depth.files: the path '../depth/{name}.png' leaves"],
        ),
        (
            '"depth/{name}.png"', '"/depth/{name}.png"',
            ["line 4: tasks.depth.files: the path '/depth/{name}.png' leaves"],
        ),
        ('"depth/{name}.png"', f"'{'d' * 256}/{{name}}.png'", ["line 4: tasks.depth.files: the path", "is too long"]),
        ("csv: labels.csv", f"csv: {'é' * 128}", ["tasks.label.csv: the path", "at most 255 bytes a name"]),
        ("images/val,", f"{'a/' * 2100}b,", ["line 1: images.validation: the path", "is too long"]),
        ('"depth/{name}.png"', "'C:/{name}.png'", ["line 4: tasks.depth.files: the path 'C:/{name}.png' leaves"]),
        ('"depth/{name}.png"', "'depth\\{name}.png'", ["has a backslash"]),
        (
            '"depth/{name}.png"', '"depth/one.png"',
            ["line 4: tasks.depth.files: the pattern 'depth/one.png' needs {name}"],
        ),
        ('"depth/{name}.png"', '"{name.a}/{name}.png"', ["needs {name} and may use {split}, nothing else in braces"]),
        ('"depth/{name}.png"', '"{{name}}.png"', ["nothing else in braces"]),
        ('"depth/{name}.png"', '"depth/{name}.jpg"', ["ends in no label format: allowed are .png, .npy"]),
        (
            "csv: labels.csv, image: file, column: class", "csv: ../l.csv, image: file, column: class",
            ["tasks.label.csv"],
        ),
        ("  depth:", "  dep th:", ["tasks.dep th: a task's name has letters, digits and _"]),
        ("  depth:", "  image:", ["is not image"]),
        (
            "  depth:", "  semseg:",
            ["line 4, column 3: not valid YAML (the key 'semseg' is there twice (first on line 3): keep one)"],
        ),
        (
            "validation: images/val", "valid: images/val",
            ["line 1: images.valid: unknown key: did you mean validation?"],
        ),
        ("tasks:", "task:", ["line 2: task: unknown key: did you mean tasks?", "line 1: tasks: this key is missing"]),
        ("tasks:", "split: {train: 1, validation: 0, test: 0}\ntasks:", ["line 2: split: images already has a folder"]),
        (
            "{train: images/train, validation: images/val, test: images/test}", "all",
            ["tasks.semseg.files: {split} needs"],
        ),
        (
            "{train: images/train, validation: images/val, test: images/test}",
            "all\nsplit: {train: 0.8, validation: 0.1, test: 0.2}",
            ["line 2: split: the shares add up to 1.1: they must add up to 1"],
        ),
        (
            "{train: images/train, validation: images/val, test: images/test}", "../all",
            ["line 1: images: the path '../all'"],
        ),
        (
            "{train: images/train, validation: images/val, test: images/test}", "[a]",
            ["line 1: images: keys and values"],
        ),
    ],
)  # fmt: skip
def test_every_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    message = refusal(tmp_path, GOOD.replace(old, new, 1))
    for text in expected:
        assert text in message, message


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("scale:", "scal:").replace("kind: edges", "kind: edge").replace("columns:", "column:")
    message = refusal(tmp_path, text)
    assert "has 4 problems:" in message
    assert all(part in message for part in ("depth.scal", "edges.kind", "angle.column:", "angle.columns"))


def test_what_is_no_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    assert "data.yaml line 2, column 13: not valid YAML (" in refusal(tmp_path, "images: a\ntasks: {b: [}\n")
    assert "keys and values are needed here, not nothing" in refusal(tmp_path, "")
    assert "keys and values are needed here, not a list" in refusal(tmp_path, "[1, 2]")
    assert "not valid YAML" in refusal(tmp_path, "a: !!python/object/apply:os.system [ls]")
    assert "not valid YAML" in refusal(tmp_path, "[" * 500)
    (tmp_path / "data.yaml").write_bytes(b"images: \xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_spec(tmp_path / "data.yaml")
    with pytest.raises(UserError, match="No such file"):
        read_spec(tmp_path / "none.yaml")


def test_a_bomb_of_aliases_is_refused_quickly(tmp_path: Path) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))
    message = refusal(tmp_path, f"a0: &a0 [x]\n{levels}\nimages: all\ntasks: *a29\n")
    assert "there are more than 25000 values, aliases written out" in message
    (tmp_path / "data.yaml").write_text("#" * 2**21)
    with pytest.raises(UserError, match="larger than"):
        read_spec(tmp_path / "data.yaml")


def test_huge_values_do_not_fill_the_message(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, GOOD.replace("0.001", "x" * 5000))) < 1000
    huge = refusal(tmp_path, GOOD.replace("partial: true", "partial: 0x" + "f" * 9000))
    assert "a whole number of more than 100 digits" in huge


def test_as_many_mistakes_as_a_file_holds_are_told_quickly(tmp_path: Path) -> None:
    begun = time.process_time()
    names = ", ".join(f"c{number}" for number in range(20_000))
    assert "at most 10000 items" in refusal(tmp_path, GOOD.replace("[road, car, 3]", f"[{names}]"))
    names = ", ".join(f"c{number % 5000}" for number in range(10_000))
    assert "c0, c1, c10, c100, c1000 are there twice" in refusal(tmp_path, GOOD.replace("[road, car, 3]", f"[{names}]"))
    keys = "\n".join(f"k{number}: 1" for number in range(4_000))
    message = refusal(tmp_path, f"{GOOD}{keys}\n")
    assert "has 4000 problems" in message and "line 9: k0: unknown key" in message
    assert time.process_time() - begun < 20
