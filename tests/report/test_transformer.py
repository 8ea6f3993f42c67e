from __future__ import annotations

import re
from pathlib import Path

from page_reader import Page
from report_data import entry_content, manifest_content, result_content

from edgemtl.bundle import BundleExperts, Manifest
from edgemtl.report.drawing.transformer import Route, TokenBlock, other_choices, token_blocks
from edgemtl.report.load import ReportData
from edgemtl.report.sections.network import cost_section, design_section
from edgemtl.results import Result

TASKS = ("depth", "semseg")
DESIGN = {
    "vit.heads": 4,
    "vit.depth": 3,
    "vit.hidden": 256,
    "depth.experts": 4,
    "depth.b2.top_k": 1,
    "depth.b4.top_k": 1,
    "depth.width": 16,
    "semseg.experts": 8,
    "semseg.b2.top_k": 2,
    "semseg.b4.top_k": 1,
    "semseg.width": 32,
    "stem1.precision": "float",
    "stem2.precision": "int8",
    "patches.precision": "float",
    "b1.precision": "int8",
    "b2.precision": "float",
    "b3.precision": "float",
    "b4.precision": "float",
    "top.precision": "int8",
    "vit.precision": "float",
    "depth_head.precision": "float",
    "engine.precision": "bf16",
}


def use(layer: str, task: str | None, experts: int, top_k: int) -> BundleExperts:
    share = [1 / experts] * experts
    return BundleExperts(
        layer=layer, task=task, experts=tuple(range(experts)), top_k=top_k, tokens=9, images=1, shares=tuple(share),
        gates=tuple(share), most_tokens=9, expert_bytes=10,
    )  # fmt: skip


def test_blocks_are_read_from_a_design_alone() -> None:
    """b4 is beyond the depth, though its precision and its top-k have a fixed value."""
    assert token_blocks(DESIGN, TASKS, {}) == [
        TokenBlock("b1", "int8", 4, 256),
        TokenBlock("b2", "float", 4, 256, (Route("depth", 4, 1), Route("semseg", 8, 2))),
        TokenBlock("b3", "float", 4, 256),
    ]


def test_a_manifest_tells_what_is_no_choice() -> None:
    precision = {"engine": "fp32", "patches": "float", "b1": "float", "b2": "int8", "top": "float"}
    experts = [use("b2", "depth", 4, 1), use("b2", "semseg", 16, 2)]
    assert token_blocks({"vit.heads": 2}, TASKS, precision, experts) == [
        TokenBlock("b1", "float", 2, None),
        TokenBlock("b2", "int8", 2, None, (Route("depth", 4, 1), Route("semseg", 16, 2))),
    ]
    shared = token_blocks({}, TASKS, precision, [use("b2", None, 4, 2)])
    assert shared[1].routes == (Route(None, 4, 2),)


def test_other_families_have_no_such_blocks() -> None:
    assert token_blocks({"s1.width": 8, "b1.width": 8}, TASKS, {"stem": "float", "b1": "float"}) == []


def test_foreign_designs_do_not_break_the_drawing() -> None:
    assert len(token_blocks({"vit.depth": 10**9}, TASKS, {})) <= 1000
    assert token_blocks({"vit.depth": "deep", "vit.heads": True, "b99999999999.precision": "x"}, (), {}) == []


def test_only_what_blocks_do_not_tell_is_left_to_the_other_drawing() -> None:
    assert set(other_choices(DESIGN, TASKS)) == {
        "depth.width", "semseg.width", "stem1.precision", "stem2.precision", "patches.precision", "top.precision",
        "depth_head.precision", "engine.precision",
    }  # fmt: skip


def test_the_picture_stands_in_the_order_of_execution() -> None:
    result = Result.model_validate(result_content(best=entry_content(design=DESIGN)))
    markup = design_section(ReportData("net", result, None, (), ()))
    assert markup is not None
    names = re.findall(r'class="name">(\w+)', markup)
    assert names == ["stem1", "stem2", "patches", "b1", "b2", "b3", "top", "depth", "semseg"]
    text = Page(markup).text
    assert text.index("b1") < text.index("from here on each task runs") < text.index("b2experts")
    for words in ("4 heads", "hidden 256", "depth 1 of 4", "semseg 2 of 8", "float (bf16 in the engine)"):
        assert words in text, words


def test_no_split_of_weights_is_claimed_that_some_tasks_share(tmp_path: Path) -> None:
    made = manifest_content(tmp_path)
    plain = cost_section(ReportData("net", None, Manifest.model_validate(made), (), ()))
    made["experts"] = [use("b2", "depth", 4, 1).model_dump(mode="json")]
    mixed = cost_section(ReportData("net", None, Manifest.model_validate(made), (), ()))
    assert plain is not None and "parameters" in plain
    assert mixed is not None and "parameters" not in mixed and "compute" in mixed
