from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS_A_BUNDLE = "edgemtl.runtime.engine"
"""Its examples run where a bundle is at hand: tests/runtime/test_deploy_page.py."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "edgemtl").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
}


@pytest.mark.parametrize("name", sorted(MODULES - {NEEDS_A_BUNDLE}))
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted and not results.failed


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("data", "open_source"),
        ("devices", "load_device"),
        ("profiling", "measure"),
        ("runtime", "Engine"),
        ("spaces", "load_space"),
        ("targets", "find_target"),
        ("tasks", "make_task"),
        ("units", "parse_budget"),
    ],
)
def test_what_a_person_calls_first_has_an_example(room: str, name: str) -> None:
    assert ">>> " in getattr(importlib.import_module(f"edgemtl.{room}"), name).__doc__
