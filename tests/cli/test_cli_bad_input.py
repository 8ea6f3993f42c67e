from __future__ import annotations

import logging
import pickle
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemtl.cli import main

SEARCH = [
    ("--budget '2 GFLOP'", "no space"),
    ("--budget 2GFLOP", "2GFLOP"),
    ("--budget=-1ms", "positive"),
    ("--budget 0", "positive"),
    ("--budget 0ms", "above zero"),
    ("--budget 2GFLOPs@host", "drop @host"),
    ("--budget 8ms@nowhere", "unknown device 'nowhere'"),
    ("--budget 8ms@jetson-orin-nan", "did you mean jetson-orin-nano"),
    ("--budget 8ms@host/openvin", "did you mean openvino"),
    ("--budget dept:1GFLOPs", "did you mean depth"),
    ("--budget 20mJ", "energy"),
    ("--floor dept=2%", "did you mean depth"),
    ("--floor depth", "depth=2%"),
    ("--floor 'semseg.mio>0.5'", "did you mean miou"),
    ("--floor 'depth.rmse>0.9'", "so a floor on it is 'depth.rmse<0.9'"),
    ("--prefer depht=2", "did you mean depth"),
    ("--strategy preference --prefer depht=2", "did you mean depth"),
    ("--strategy preference --prefer depth=0,semseg=0,normals=0,edges=0", "add up to a finite number above 0"),
    ("--space cn", "did you mean cnn"),
    ("--data scene", "did you mean scenes"),
    ("--data photos/data.yaml", "photos/data.yaml"),
    ("--strategy lina", "did you mean linas"),
    ("--target onnxruntim", "did you mean onnxruntime"),
    ("--size 100", "192x256"),
    ("--size 100x100", "multiples of 32"),
    ("--space moe-vit --size 100x96", "multiples of 16"),
    ("--evaluations 1", "evaluations"),
    ("--supernet none.safetensors", "none.safetensors"),
    ("--resume", "--out"),
]
OTHERS = [
    ("devices jetson-orin-nan", "did you mean jetson-orin-nano"),
    ("tasks --data elp", "did you mean elpv"),
    ("train --weighting equ --out r", "did you mean equal"),
    ("train --steps 0 --out r", "a step or more"),
    ("train --data elpv --images 5 --out r", "--images 5"),
    ("train --resume --out r", "no checkpoint"),
    ("profile nothing", "nothing does not exist"),
    ("profile . --device zcu102", "zcu102"),
    ("profile . --runs 0", "runs 0"),
    ("export nothing --target onnxruntime", "nothing"),
    ("prune nothing --budget 40%FLOPs", "nothing is no run"),
    ("prune nothing --resume", "--out"),
    ("prune nothing --data scenes", "--data belongs to a net of one's own"),
    ("prune nets:build --budget 40%FLOPs", "give --data"),
    ("prune no_such_nets:build --data scenes --precisions", "--precisions belongs to a run"),
    ("prune no_such_nets:build --data scenes --size 100", "192x256"),
    ("prune no_such_nets:build --data scenes --budget 40%FLOPs", "no Python module 'no_such_nets'"),
    ("prune nets-a:build --data scenes --budget 40%FLOPs", "write package.module:function"),
    ("report nothing", "nothing"),
    ("compare nothing none", "nothing"),
    ("run nothing photo.png", "nothing"),
    *[
        (f"{verb} {'a' * 300}", "is too long")
        for verb in ("profile", "report", "export --target onnxruntime", "prune --budget 9ms", "data check")
    ],
    (f"run {'a' * 300} photo.png", "is too long"),
    (f"compare {'a' * 300} none", "is too long"),
    (f"search --budget 9ms --data ./{'a' * 300}", "is too long"),
    ("run nothing photo.png --schedule depth:30 --tasks depth", "drop --tasks"),
    ("run nothing photo.png --seconds 5", "--schedule depth:30"),
]


@pytest.fixture(autouse=True)
def _own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        yield
    logging.disable(logging.NOTSET)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with, after checks that it is one."""
    status = main(words)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert (status, shown.out) == (1, ""), shown.err
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(("words", "text"), [(f"search {words}", text) for words, text in SEARCH] + OTHERS)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text in refused(shlex.split(words), capsys)
    assert list(tmp_path.iterdir()) == []


EXPERTS = """
schema: edgemtl.space/1
family: vit
input: [64, 64]
vit:
  width: 32
  heads: [1]
  depth: [2]
  hidden: [32]
  experts: {count: 4, hidden: 16, kept: KEPT, top_k: TOP_K}
  decoder: {width: [8]}
"""


@pytest.mark.parametrize(
    ("kept", "top_k", "text"),
    [
        ("[2, 8]", "[1]", "8 experts are kept of 4"),
        ("[2, 4]", "[3]", "a token goes to 3 experts where a task may keep only 2"),
        ("[0, 4]", "[1]", "experts.kept.0: Input should be greater than 0"),
        ("[]", "[1]", "experts.kept: "),
    ],
)
def test_experts_that_cannot_route_are_one_line(
    kept: str, top_k: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/mine.yaml").write_text(EXPERTS.replace("KEPT", kept).replace("TOP_K", top_k))
    for verb in ("search", "train --out r"):
        line = refused([*verb.split(), "--space", "mine"], capsys)
        assert text in line and "mine.yaml" in line


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = tmp_path / "supernet.safetensors"
    marker = tmp_path / "executed"
    bomb.write_bytes(pickle.dumps(_Bomb(str(marker))))
    assert "pickle" in refused(["search", "--supernet", str(bomb), "--out", "r"], capsys)
    assert not marker.exists()


class _Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.marker, "w")


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = refused(
        ["train", "--steps", "1", "--batch", "2", "--images", "2", "--size", "32x32", "--out", "file/run"], capsys
    )
    assert "file" in line
