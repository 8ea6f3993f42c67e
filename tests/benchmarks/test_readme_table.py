from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_shows_what_was_measured() -> None:
    module = script()
    shown = module.PLACE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[0] == module.table()


def test_a_missed_requirement_is_marked() -> None:
    row = {"name": "some_ratio", "value": 1.2, "unit": "x", "least": 1.1, "aim": None, "holds": False}
    assert script()._line("b", row) == "| `b` | some ratio | 1.2 x (missed) | 1.1 |  |"
