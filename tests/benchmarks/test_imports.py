"""Every benchmark finds what it imports: renames in the package reach the slow ones too."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("[a-z]*.py")))
def test_a_benchmark_can_be_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = FOLDER.parent / "tests" / "shelf"  # pytest's path has it, a benchmark's only where it says so
    for module in [each for each in sys.modules if (shelf / f"{each}.py").is_file()]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *(each for each in sys.path if Path(each) != shelf)])
    assert runpy.run_path(str(FOLDER / name), run_name="imported")["__doc__"]
