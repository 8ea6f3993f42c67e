"""Nets from packages: found in an archive, compared in every mode, counted; a run that was stopped goes on."""

from __future__ import annotations

import argparse
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import _own_nets
import numpy as np
import pytest
from _own_nets import NETS, OwnFile, fetch, member
from own_nets import SIZE, channels_last, saved, three_tasks
from own_nets_in import modes, own_outputs, own_session, rows_of, take, worst
from PIL import Image

from edgemtl.own import Pixels

PIXELS = Pixels(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
OUTPUTS = {"parsing": {"v": "parsing"}, "pose": {"points": "pose.points", "score": "pose.score"}, "best": {"v": "best"}}


def test_every_net_has_a_version_a_digest_and_tasks_of_its_own() -> None:
    for net in NETS.values():
        assert ("==" in net.package or net.package.startswith("npm:")) and len(net.sha256) == 64
        tensors = [tensor for task in net.declaration().tasks.values() for tensor in task.tensors()]
        assert len(tensors) == len(set(tensors))
    assert set(_own_nets.QUICK) <= set(NETS)


def test_a_file_is_found_in_a_wheel_and_in_a_source_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as wheel:
        wheel.writestr("nets/a.onnx", b"wheel")
    with tarfile.open(tmp_path / "b", "w:gz") as source:
        info = tarfile.TarInfo("package-1.0/nets/a.onnx")
        info.size = 6
        source.addfile(info, io.BytesIO(b"source"))
    assert member(tmp_path / "a", "nets/a.onnx") == b"wheel" and member(tmp_path / "b", "nets/a.onnx") == b"source"
    with pytest.raises(SystemExit, match="holds no nets/b"):
        member(tmp_path / "b", "nets/b.onnx")


def test_a_net_of_tensorflow_lite_is_checked_and_is_not_converted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"a net"
    digest = hashlib.sha256(content).hexdigest()
    net = OwnFile("npm:@a/net@1", "net.tflite", digest, SIZE, PIXELS, {"one": {"v": "a"}})
    monkeypatch.setitem(NETS, "lite", net)
    (tmp_path / "lite.tflite").write_bytes(content)
    (tmp_path / "lite.onnx").write_bytes(b"converted")
    assert fetch("lite", tmp_path).read_bytes() == b"converted"
    (tmp_path / "lite.tflite").write_bytes(b"another")
    with pytest.raises(SystemExit, match="is not the file of npm:@a/net@1"):
        fetch("lite", tmp_path)


def test_a_difference_is_of_the_largest_value_over_all_images() -> None:
    one = np.array([1.0, -4.0])
    apart = worst([("a", one, one), ("a", one + 0.01, one), ("b", 2 * one, one)])
    assert apart == {"a": pytest.approx(0.0025), "b": 1.0}
    assert worst([("a", one[None], one)]) == {"a": float("inf")}
    assert modes(["a", "b"]) == [("a",), ("b",), ("a", "b")]


def test_the_file_itself_is_run_for_one_image_of_the_size(tmp_path: Path) -> None:
    image = np.ones((1, 3, 32, 48), np.float32)
    theirs = own_outputs(own_session(saved(three_tasks((10, 3, *SIZE)), tmp_path), (32, 48)), image)
    assert theirs["parsing"].shape == (1, 5, 32, 48)
    session = own_session(saved(channels_last(), tmp_path), SIZE)
    assert session.get_inputs()[0].shape == [1, *SIZE, 3]


def tiny(folder: Path, monkeypatch: pytest.MonkeyPatch, digest: str = "") -> argparse.Namespace:
    path = saved(three_tasks(), folder, "tiny.onnx")
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(NETS, "tiny", OwnFile("tiny==1", "tiny.onnx", digest, SIZE, PIXELS, OUTPUTS))
    return argparse.Namespace(nets=folder, quick=True)


def test_a_net_is_taken_in_every_mode_of_both_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny(tmp_path, monkeypatch)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(tmp_path / "photo.png")
    taken = take(NETS["tiny"], fetch("tiny", options.nets), [tmp_path / "photo.png"])
    assert (taken["tasks"], taken["modes"], taken["images"]) == (3, 7, 1)
    assert taken["gpu"] == "built" or "tensorrt-rtx" in taken["gpu"]
    assert set(taken["apart"]) == {"onnxruntime", "openvino"}
    for apart in taken["apart"].values():
        assert set(apart) == {"parsing.v", "pose.points", "pose.score", "best.v"} and max(apart.values()) < 1e-3


def test_another_file_than_that_of_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="is not the file of tiny==1"):
        fetch("tiny", tiny(tmp_path, monkeypatch, 64 * "0").nets)


def test_a_net_that_is_refused_or_apart_is_not_counted() -> None:
    results = {
        "good": {"tasks": 2, "modes": 3, "apart": {"onnxruntime": {"a": 0.0}, "openvino": {"a": 1e-4}}},
        "apart": {"tasks": 1, "modes": 1, "apart": {"onnxruntime": {"a": 0.0}, "openvino": {"a": 1e-2}}},
        "refused": {"why": "control flow"},
    }
    rows = {row.name: row for row in rows_of(results, quick=False)}
    assert (rows["taken_whole"].value, rows["taken_whole"].least, rows["taken_whole"].holds) == (1, 8, False)
    assert (rows["refused"].value, rows["worst_difference"].value, rows["modes_compared"].value) == (1, 1e-2, 4)
    assert rows["taken_whole_of_several_tasks"].value == 1
    assert next(row for row in rows_of(results, quick=True) if row.name == "taken_whole").least == 3
