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


def test_pages_show_what_was_measured() -> None:
    module = script()
    for page, table in module.pages(module.runs()).items():
        shown = module.PLACE.search(page.read_text(encoding="utf-8"))
        assert shown is not None
        assert table is None or shown[0] == table


def test_the_table_of_a_space_has_one_step_down_a_decoders_in_its_own_task() -> None:
    changes = {
        "s1.width": {"24": {"depth": -0.5, "semseg": -0.5}, "32": {"depth": -0.01, "semseg": -0.03}},
        "s1.block": {"depthwise": {"depth": -0.06, "semseg": 0.0}},
        "depth.width": {"24": {"depth": -0.302, "semseg": 0.0}},
    }
    table = script().span_table({"avx2": {"space_span": {"raw": {"changes": changes}}}})
    assert table == "|  | width | block |\n|---|---|---|\n| `s1` | -2.0 | -3.0 |\n| `depth` | -30.2 |  |\n"
    assert script().span_table({"avx2": {}}) is None


def test_every_deciding_figure_was_measured_somewhere() -> None:
    module = script()
    figures = {(name, row["name"]) for found in module.runs().values() for name in found for row in found[name]["rows"]}
    assert len(module.DECIDING) == 10
    assert {(each.benchmark, each.figure) for each in module.DECIDING} <= figures


def test_results_lie_in_the_class_that_they_were_measured_on() -> None:
    for name, found in script().runs().items():
        for run in found.values():
            assert run["environment"]["cpu"].get("class", name) == name
            assert not run["quick"]


def test_a_figure_stands_beside_that_of_other_classes_and_a_missed_one_is_marked() -> None:
    row = {"name": "some_ratio", "value": 1.2, "unit": "x", "least": 1.1, "aim": None, "holds": False}
    kept = {"avx2": {"b": {"rows": [row], "environment": MACHINE}}, "amx": {}}
    lines = script().full_table(kept).splitlines()
    assert lines[0] == "| benchmark | figure | avx2 | amx | at least | aim |"
    assert lines[2] == "| `b` | some ratio | 1.2 x (missed) |  | 1.1 |  |"
    assert lines[-1] == "- `avx2`: An old one, 4 threads, torch 2.0"


MACHINE = {"cpu": {"model": "An old one", "threads": 4, "flags": []}, "packages": {"torch": "2.0", "openvino": None}}
