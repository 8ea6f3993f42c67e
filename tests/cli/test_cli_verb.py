from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from edgemtl.cli.profile import _profile_path
from edgemtl.cli.verb import Interrupted, interruptible, new_run, parse_shapes, parse_size, reserved_output, resume_line
from edgemtl.errors import UserError


def test_a_run_without_a_name_gets_the_next_free_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run(None, "search", resume=False) == Path("runs/search-1")
    Path("runs/search-1").mkdir(parents=True)
    assert new_run(None, "search", resume=False) == Path("runs/search-2")
    assert new_run(Path("mine"), "search", resume=True) == Path("mine")
    with pytest.raises(UserError, match="--out"):
        new_run(None, "search", resume=True)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["search", "--budget", "2GFLOPs"], ["search", "--budget", "2GFLOPs", "--out", "runs/a b", "--resume"]),
        (["search", "--out", "runs/a b"], ["search", "--out", "runs/a b", "--resume"]),
        (["search", "--out=runs/a b", "--resume"], ["search", "--out=runs/a b", "--resume"]),
    ],
)
def test_the_line_that_goes_on_can_be_pasted(
    given: list[str], wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/edgemtl", *given])
    assert shlex.split(resume_line(Path("runs/a b"))) == ["edgemtl", *wanted]


@pytest.mark.parametrize("text", ["192", "192x", "x256", "192x256x3", "0x64", "-1x64", "1.5x2", "a x b"])
def test_a_wrong_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UserError, match="192x256"):
        parse_size(text)


def test_a_size_is_height_then_width() -> None:
    assert parse_size("192x256") == parse_size("192X256") == (192, 256)
    assert parse_size(None) is None


def test_an_interruption_says_what_is_usable() -> None:
    with pytest.raises(Interrupted, match="half is kept"), interruptible("half is kept"):
        raise KeyboardInterrupt


def test_reserved_output_is_handed_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="of the body"), reserved_output(for_good=False) as output:
        assert output is not None
        print("a word")
        os.write(1, b"a library\n")
        print("{}", file=output)
        raise OSError("of the body")
    print("after")
    os.write(1, b"library after\n")
    shown = capfd.readouterr()
    assert shown.out.split("\n") == ["{}", "after", "library after", ""]
    assert "a word" in shown.err and "a library" in shown.err


def test_shapes_of_inputs() -> None:
    assert parse_shapes(["image=1x3x480x640", "a=b:0=7"]) == {"image": (1, 3, 480, 640), "a=b:0": (7,)}
    assert parse_shapes(["1X3x8x8"]) == {"": (1, 3, 8, 8)}
    for text in (
        "",
        "image=",
        "image=1x",
        "image=1x0",
        "image=1x-3",
        "image=1.5x2",
        "image",
        "image=1x²",
        "a=9999999999",
    ):
        with pytest.raises(UserError, match="write NAME=SIZES"):
            parse_shapes([text])
    with pytest.raises(UserError, match="given twice"):
        parse_shapes(["a=1", "a=2"])


def test_a_profile_lies_beside_its_file_however_long_its_name(tmp_path: Path) -> None:
    assert _profile_path(Path("folder/net.v2.onnx")) == Path("folder/net.v2.profile.json")
    long = tmp_path / f"{'ü' * 120}.onnx"
    long.touch()
    _profile_path(long).with_name(f".{_profile_path(long).name}.temporary").touch()
    assert _profile_path(long).name.startswith("ü" * 100)
