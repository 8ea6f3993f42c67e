from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.errors import UserError
from edgemtl.files.yaml import parse_yaml, read_yaml

BOMB = "\n".join([f"a0: &a0 [{'x, ' * 9}x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}" for n in range(1, 9))]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "there are more than 25000 values, aliases written out"),
        (MERGES, "there are more than 25000 values, aliases written out"),
        (f"a: [{'8, ' * 200_000}8]", "there are more than 25000 values"),
        ("a: &a [*a]", "line 1, column 8: not valid YAML (an alias stands for what it is part of)"),
        ("[" * 100_000, "values are nested deeper than 40"),
        ("- " * 3000 + "a", "values are nested deeper than 40"),
        (f"a: {'9' * 5000}", "line 1, column 4: not valid YAML ('9999999999999999999999999999999999999999' is no int"),
        (f"a: 0x{'f' * 5000}", "a whole number of more than 100 digits"),
        (f"a: 1{':59' * 500}", "a whole number of more than 100 digits"),
        ("a: 2024-02-31", "'2024-02-31' is no timestamp: mend it, or put text in quotes"),
        ("a: !!bool maybe", "'maybe' is no bool"),
        ("a: !!int ''", "'' is no int"),
        ("a: !!timestamp noon", "'noon' is no timestamp"),
        (
            "a: 1\nb: 2\na: 1",
            "line 3, column 1: not valid YAML (the key 'a' is there twice (first on line 1): keep one)",
        ),
        ("a: \0", "not valid YAML"),
        (r'a: "\ud800"', "is no str"),
        (r'a: "\UFFFFFFFF"', "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("{[a]: 1}", "unhashable key"),
    ],
)
def test_what_is_refused_and_where(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_yaml(tmp_path / "space.yaml", "space", 2**20)
    line = str(error.value)
    assert line.startswith(f"space {tmp_path / 'space.yaml'}")
    assert expected in line
    assert "\n" not in line and len(line) < 500


def test_what_is_meant_so_is_read() -> None:
    _, value = parse_yaml("a: &a [1, 2.5, yes]\nb: *a\nc: {<<: {x: 1}, y: 2024-02-28}\n")
    assert value["b"] == [1, 2.5, True]
    assert value["c"]["x"] == 1 and str(value["c"]["y"]) == "2024-02-28"
    assert parse_yaml("") == (None, None)


def test_as_many_classes_as_are_allowed_are_read() -> None:
    _, value = parse_yaml(f"classes: [{', '.join(f'c{number}' for number in range(10_000))}]")
    assert len(value["classes"]) == 10_000


def test_a_file_of_another_size_or_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a" * 101)
    with pytest.raises(UserError, match="larger than 100 bytes"):
        read_yaml(tmp_path / "a.yaml", "space", 100)
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "a.yaml", "space", 100)
