from __future__ import annotations

import pytest

from edgemtl.errors import EdgeMTLError, MissingDependencyError, UnsupportedError, UserError, brief, unknown_name


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


def test_a_line_stays_short_however_long_what_was_given_is() -> None:
    text = str(UserError(f"design is damaged ({'a' * 10**6}): search again\n  second line"))
    assert len(text) < 1600
    assert text.startswith("design is damaged (aaa") and text.endswith("aaa): search again\n  second line")
    assert len(brief(["x" * 10**6] * 10**6)) < 500
