from __future__ import annotations

import pickle

import pytest

from edgemtl.errors import (
    EdgeMTLError,
    FileError,
    MissingDependencyError,
    ReadError,
    UnsupportedError,
    UserError,
    brief,
    naming,
    printable,
    unknown_name,
)


@pytest.mark.parametrize("kind", [UnsupportedError, MissingDependencyError])
def test_what_a_user_can_mend_is_a_user_error(kind: type[Exception]) -> None:
    assert issubclass(kind, UserError)
    assert issubclass(UserError, EdgeMTLError)


def test_a_missing_package_says_what_it_is_for_and_how_to_get_it() -> None:
    text = str(MissingDependencyError("openvino", "openvino", "target openvino"))
    assert text.startswith("target openvino needs the package openvino")
    assert "pip install 'edgemtl[openvino]'" in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("onnxruntim", "unknown target 'onnxruntim': did you mean onnxruntime? allowed: onnxruntime, openvino"),
        ("xyz", "unknown target 'xyz': allowed: onnxruntime, openvino"),
        ("", "unknown target '': allowed: onnxruntime, openvino"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(given: str, expected: str) -> None:
    assert str(unknown_name("target", given, ["openvino", "onnxruntime"])) == expected


def test_an_unknown_name_of_nothing() -> None:
    assert str(unknown_name("design", "best", [])) == "unknown design 'best': allowed: none"


def test_a_name_with_line_breaks_stays_on_one_line() -> None:
    assert "\n" not in str(unknown_name("task", "a\nb", ["depth"]))
    assert "\n" not in str(unknown_name("task of a\nb:", "dept", ["depth\nerror: no"]))
    assert str(FileError("a\nb.png", "is \x1b[2J no image")) == r"a\nb.png: is \x1b[2J no image"
    with pytest.raises(UserError, match=r"^folder/a\\nb: cannot read c\\rd$"), naming("folder/a\nb"):
        raise UserError("cannot read c\rd")


def test_a_file_that_cannot_be_read_is_named_as_whoever_reads_it_does() -> None:
    error = ReadError("label /data/1.png", "No such file")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "cannot read label /data/1.png: No such file"
    with pytest.raises(FileError, match=r"^1\.png: cannot be read: No such file$"), naming("1.png"):
        raise error
    with pytest.raises(FileError, match=r"^net.onnx: cannot read label /data/1.png: No such file$"), naming("net.onnx"):
        raise error


def test_several_problems_are_lines_of_ours_alone() -> None:
    error = UserError("data set has 2 problems:", "a\nb: damaged", "c: missing")
    assert str(error) == "data set has 2 problems:\n  a\\nb: damaged\n  c: missing"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_commands_a_terminal_is_shown_as_python_writes_it() -> None:
    assert printable("größe 深度 😀 [red]") == "größe 深度 😀 [red]"
    shown = printable("\x1b[2J\r\u202etxt\u2069\n\x9b\ud800\u200b")
    assert shown == r"\x1b[2J\r\u202etxt\u2069\n\x9b\ud800\u200b"
    assert shown.isprintable()


def test_a_line_stays_short_however_long_what_was_given_is() -> None:
    text = str(UserError(f"design is damaged ({'a' * 10**6}): search again", "second line"))
    assert len(text) < 1600
    assert text.startswith("design is damaged (aaa") and text.endswith("aaa): search again\n  second line")
    assert len(brief(["x" * 10**6] * 10**6)) < 500
