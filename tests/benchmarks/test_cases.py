"""Long benchmarks in pieces: finished cases are kept, until code or options are others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from _cases import Cases, hash_of
from _runs import ROOT


def test_a_finished_case_is_not_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "cases" / "builds.json"
    first = Cases(path, {"code": "a"})
    assert first.result("cnn", lambda: {"build": []}) == {"build": []}
    again = Cases(path, {"code": "a"})
    assert again.result("cnn", lambda: pytest.fail("computed again")) == {"build": []}
    assert again.seconds == first.seconds and first.seconds["cnn"] >= 0


def test_cases_of_other_code_are_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "builds.json"
    Cases(path, {"code": "a"}).result("cnn", lambda: 1)
    assert Cases(path, {"code": "b"}).result("cnn", lambda: 2) == 2


def test_a_piece_ends_between_two_cases_and_keeps_what_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "builds.json"
    Cases(path, {}).result("cnn", lambda: 1)
    late = Cases(path, {}, ends_at=time.monotonic() - 1)
    assert late.result("cnn", lambda: 2) == 1
    with pytest.raises(SystemExit, match="1 cases are finished, and more remain"):
        late.result("grid", lambda: pytest.fail("begun too late"))
    assert Cases(path, {}).results == {"cnn": 1}


def test_the_hash_of_code_follows_its_text() -> None:
    files = [ROOT / "benchmarks" / "_cases.py", ROOT / "benchmarks" / "_common.py"]
    assert hash_of(files) == hash_of(reversed(files)) != hash_of(files[:1])


def test_files_of_another_state_go(tmp_path: Path) -> None:
    old = Cases(tmp_path / "builds.json", {"code": "a"}).own_folder(tmp_path / "runs")
    (old / "run").touch()
    new = Cases(tmp_path / "builds.json", {"code": "b"})
    assert new.own_folder(tmp_path / "runs") == new.own_folder(tmp_path / "runs") != old
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [new.key]
