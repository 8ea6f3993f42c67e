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


def test_the_function_that_a_person_calls_first_shows_how() -> None:
    first = {"data.opening", "devices", "profiling.timing", "runtime.engine", "spaces.space", "tasks.task", "units"}
    assert {f"edgemtl.{name}" for name in first} <= MODULES
