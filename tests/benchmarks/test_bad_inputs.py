"""Damaged files end in one line; all kinds and many cases are `python benchmarks/bad_inputs.py`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from _damage import as_hole, as_pipe, change_value, damages, double_key, flip_bits
from _strangers import KINDS, WITHOUT_RUN
from bad_inputs import ACCEPTED, FAULT, HANG, MEANT, REFUSED, SAME, Case, cases, read_damaged, whole_files


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    with whole_files(with_run=False) as folder:
        yield folder


def wrong(found: list[Case]) -> list[Case]:
    return [case for case in found if case.outcome in (FAULT, HANG, ACCEPTED)]


def test_damaged_files_are_refused_in_one_line(whole: Path) -> None:
    found = list(cases(whole, range(42), WITHOUT_RUN))
    assert not wrong(found)
    assert len(found) == 42 and {case.kind for case in found} == {*WITHOUT_RUN}
    assert sum(case.outcome == REFUSED for case in found) > 20


@pytest.mark.slow
def test_every_kind_of_file(tmp_path: Path) -> None:
    with whole_files() as folder:
        found = list(cases(folder, range(10_000, 10_000 + 8 * len(KINDS))))
    assert not wrong(found)


def test_what_is_accepted_and_differs_is_told(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself: an answer that a sealed file should not give, a fault, a link."""
    monkeypatch.chdir(whole)
    was = KINDS["trials"].read(whole)
    assert read_damaged("trials", whole, was, False) == (SAME, "")
    assert read_damaged("trials", whole, was[1:], False)[0] == ACCEPTED
    assert read_damaged("space", whole, "another", False)[0] == MEANT
    assert read_damaged("data", whole, KINDS["data"].read(whole), True)[0] == ACCEPTED
    assert read_damaged("manifest", whole, None, False)[0] in (REFUSED, FAULT)


def test_damage_is_drawn_from_its_seed_alone(tmp_path: Path) -> None:
    for damage in (flip_bits, change_value, double_key):
        contents = []
        for _ in range(2):
            (tmp_path / "a.json").write_text('{\n  "a": 1,\n  "b": [2, 3]\n}')
            damage(tmp_path / "a.json", random.Random(5))
            contents.append((tmp_path / "a.json").read_bytes())
        assert contents[0] == contents[1] != b'{\n  "a": 1,\n  "b": [2, 3]\n}'
    assert as_pipe in damages(tmp_path / "x.png") and as_hole in damages(tmp_path / "a.json")
