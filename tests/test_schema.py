"""Documents are read strictly: another schema, another type or an unknown key is one line that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from edgemtl.errors import UserError
from edgemtl.schema import Name, Strict, Text, read_document

SCHEMA = "edgemtl.note/1"


class Note(Strict):
    schema_: str = Field(alias="schema")
    name: Name
    text: Text = ""
    weight: float = 0.0
    words: tuple[str, ...] = ()


def read(folder: Path, content: Any) -> Note:
    path = folder / "note.json"
    path.write_text(json.dumps(content))
    return read_document(path, "note", Note, SCHEMA, "write it again")


def test_a_document_is_what_was_written(tmp_path: Path) -> None:
    note = read(tmp_path, {"schema": SCHEMA, "name": "one", "words": ["a", "b"]})
    assert (note.name, note.text, note.words) == ("one", "", ("a", "b"))
    with pytest.raises(ValidationError, match="frozen"):
        note.name = "two"


@pytest.mark.parametrize(
    ("content", "given"),
    [
        ({"schema": "edgemtl.note/2"}, "'edgemtl.note/2'"),
        ({"name": "one"}, "None"),
        ([1], "'list'"),
        (SCHEMA, "'str'"),
    ],
)
def test_another_schema_is_named_with_the_one_that_is_read(tmp_path: Path, content: Any, given: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    expected = f"note {tmp_path / 'note.json'} has schema {given}, this version reads 'edgemtl.note/1': write it again"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": ""}, "name: String should have at least 1 character"),
        ({"name": "x" * 501}, "name: String should have at most 500"),
        ({"text": "x" * 2001}, "text: String should have at most 2000"),
        ({"name": 3}, "name: Input should be a valid string (given: 3)"),
        ({"weight": "3"}, "weight: Input should be a valid number (given: '3')"),
        ({"words": ["a", 1]}, "words.1: Input should be a valid string (given: 1)"),
        ({"other": 1}, "other: Extra inputs are not permitted"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_with_its_place(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, {"schema": SCHEMA, "name": "one"} | change)
    text = str(error.value)
    assert text.startswith(f"note {tmp_path / 'note.json'} cannot be used: {problem}")
    assert text.endswith("it was changed by hand or is damaged: write it again") and "\n" not in text


def test_no_value_is_infinite() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Note(schema=SCHEMA, name="one", weight=float("inf"))
