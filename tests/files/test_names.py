from __future__ import annotations

import pytest

from edgemtl.errors import UserError
from edgemtl.files.names import check_label, check_name
from edgemtl.tasks import make_task

UNSHOWABLE = [
    "",
    "a\nb",
    "a\0b",
    "\x1b[31mred",
    "a\u202eb",
    "a\u2066b",
    "a\u200fb",
    "a\ud800",
    "a\u2028b",
    "x" * 101,
    "ö" * 51,
]


@pytest.mark.parametrize("text", UNSHOWABLE)
def test_what_cannot_be_shown_is_no_name(text: str) -> None:
    for check in (check_label, check_name):
        with pytest.raises(UserError) as error:
            check(text, "task")
        assert str(error.value).isprintable() and len(str(error.value)) < 400
    with pytest.raises(UserError, match="class of task t:"):
        make_task("t", "classification", classes=["a", text])


@pytest.mark.parametrize("text", ["..", ".", ".hidden", "a/b", "/a", "a\\b", " a", "a "])
def test_what_would_be_a_path_is_no_name(text: str) -> None:
    with pytest.raises(UserError, match="is no name"):
        check_name(text, "design")
    with pytest.raises(UserError, match="is no name"):
        make_task(text, "depth")


@pytest.mark.parametrize("text", ["a.b", "a,b", "a:b", "a=b", "a@b", "a+b"])
def test_signs_that_budgets_are_written_with_are_in_no_task(text: str) -> None:
    assert check_name(text, "design") == text
    with pytest.raises(UserError, match="is allowed in a task's name"):
        make_task(text, "depth")


@pytest.mark.parametrize("text", ["depth", "Tiefe_2", "größe", "深度", "left eye", "x" * 100])
def test_names_of_any_language(text: str) -> None:
    assert make_task(text, "depth").name == text


def test_classes_may_hold_a_slash() -> None:
    assert make_task("t", "segmentation", classes=["wall/ceiling", "n/a", "..."]).classes[1] == "n/a"
