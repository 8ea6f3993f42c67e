from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from page_reader import HOSTILE, Page, check_harmless
from report_data import TASKS, block_content, entry_content, manifest_content, result_content

from edgemtl.blocks import BlockRecord
from edgemtl.bundle import Manifest
from edgemtl.report.drawing.net import draw_net
from edgemtl.report.load import ReportData
from edgemtl.report.sections.network import cost_section, design_section, split
from edgemtl.results import Result
from edgemtl.spaces import Design, load_space
from edgemtl.tasks import make_task

PAIR = (make_task("depth", "depth"), make_task("kind", "classification", 3))
NAMES = ("depth", "kind")


def record(name: str, task: str | None = None, **changes: Any) -> BlockRecord:
    return BlockRecord.model_validate(block_content(name, task, **changes))


def drawn(design: Design) -> tuple[str, Page]:
    markup = draw_net(design.blocks, NAMES, "bf16")
    page = Page(markup)
    check_harmless(page)
    return markup, page


def names_of(markup: str) -> list[str]:
    return re.findall(r'class="name">([\w/]+)', markup)


def data_of(**changes: Any) -> ReportData:
    return ReportData("net", Result.model_validate(result_content(best=entry_content(**changes))), None, (), ())


def test_rows_stand_in_the_order_of_execution_and_a_stage_is_one_row() -> None:
    design = load_space("cnn", PAIR).largest("int8")
    markup, page = drawn(design)
    assert names_of(markup) == ["stem", "s1", "s2", "s3", "s4", "depth", "kind"]
    bars = Counter(re.findall(r'title="(\w+)[,:]', markup))
    assert bars == Counter({block.name: block.repeats for block in design.blocks})
    assert "features of the trunk, read by 2 decoders" in page.text
    assert "int8" in page.text


def test_a_bar_is_as_wide_as_its_channels_and_says_them() -> None:
    blocks = [record("a", channels=64), record("b", channels=16), record("d", "depth", channels=8)]
    markup = draw_net(blocks, TASKS, "")
    assert re.findall(r'width:([\d.]+)%" title="(\w+)', markup) == [("100.0", "a"), ("25.0", "b"), ("100.0", "d")]
    assert re.findall(r">(\d+)</div>", markup) == ["64", "16", "8"]


def test_words_that_a_row_shares_stand_beside_it_and_others_in_its_bars() -> None:
    blocks = [record(f"s_{n}", stage="s", words=[f"x{n}", "fused"]) for n in (2, 3)]
    text = Page(draw_net(blocks, TASKS, "")).text
    assert "sfused" in text and "16, x2" in text and "16, x3" in text


def test_a_row_that_only_some_tasks_run_says_whose_it_is() -> None:
    text = Page(draw_net([record("a"), record("b", tasks=["depth"])], TASKS, "")).text
    assert "ax2, fused, 3x316" in text and "bx2, fused, 3x3, for depth16" in text


def test_layers_of_one_kind_are_drawn_each() -> None:
    markup = draw_net([record("d", "depth", repeats=3)], TASKS, "")
    assert [f"d, layer {n} of 3" in markup for n in (1, 2, 3, 4)] == [True, True, True, False]


def test_tasks_that_part_stand_side_by_side_as_wide_as_their_weights() -> None:
    space = load_space("moe-vit", PAIR)
    design = space.design({**space.largest(), "kind.experts": 8})
    markup, page = drawn(design)
    text = page.text
    assert text.index("b1") < text.index("from here on each task runs") < text.index("b2")
    assert "each task's own features, read by its decoder" in text
    experts = next(block for block in design.blocks if block.name == "b2_kind")
    assert f"kind {experts.words[1]}" in text and experts.words[1].endswith("experts")
    flex = re.findall(r'flex:(\d+) 1 0" title="b2_kind', markup)
    assert flex == [str(sum(table.params for table in experts.weights))]


@pytest.mark.parametrize("seed", range(4))
def test_a_lattice_shows_what_each_task_runs_and_with_whom(seed: int) -> None:
    space = load_space("grid", PAIR)
    rng = random.Random(seed)
    values = dict(space.random(rng))
    values |= {f"kind.{n}": values[f"depth.{n}"] for n in ("s1p0_1", "s1p1_1", "s1p2_1", "s1p3_1", "s1p3_2")}
    design = space.design(values)
    markup, page = drawn(design)
    maps = re.findall(r"<svg.*?</svg>", markup)
    assert len(maps) == 2 and "1/32" in page.text
    for task, drawing in zip(NAMES, maps, strict=True):
        own = {block.name for block in design.plan.path(task)}
        placed = [block for block in design.blocks if block.name in own and block.column is not None]
        boxes = [block for block in placed if not block.link]
        assert drawing.count("lattice-run") == len(boxes)
        assert drawing.count("lattice-count") == sum(len(block.tasks) > 1 for block in boxes)
        crossing = {block.name for block in placed if block.link or block.name.startswith("open")} - {"open0"}
        assert set(re.findall(r"<title>(\w+): 1/\d+ brought to", drawing)) == crossing
        reads = next(block for block in design.blocks if block.name == f"{task}_neck").inputs
        assert drawing.count("lattice-end") == len(reads)
    rows, columns = 4, len({block.column for block in design.blocks if block.column is not None and not block.link})
    assert all(drawing.count("<rect") == rows * columns for drawing in maps)


def test_a_lattice_too_large_to_show_what_is_skipped_is_still_drawn() -> None:
    blocks = [record(f"n{number}", stage=f"r{number}", column=number) for number in range(300)]
    assert draw_net(blocks, TASKS, "").count("<rect") == 2 * 300


def test_hostile_names_are_only_text() -> None:
    odd = {"kind": HOSTILE, "words": [HOSTILE], "precision": HOSTILE, "inputs": [HOSTILE]}
    shapes = [{"stage": HOSTILE}, {"stage": HOSTILE, "column": 1}, {"stage": None, "tasks": [HOSTILE]}]
    check_harmless(
        Page(
            draw_net(
                [BlockRecord.model_validate(block_content(HOSTILE, **{**odd, **shape})) for shape in shapes],
                [HOSTILE],
                HOSTILE,
            )
        )
    )


def test_the_section_draws_the_manifests_blocks_before_the_results(tmp_path: Path) -> None:
    made = manifest_content(tmp_path)
    made["blocks"] = [block_content("only_here")]
    result = Result.model_validate(result_content())
    markup = design_section(ReportData("net", result, Manifest.model_validate(made), (), ()))
    assert markup is not None and names_of(markup) == ["only_here"]
    assert "float (bf16 in the engine)" in Page(markup).text


def test_a_net_that_is_no_design_shows_its_choices_alone() -> None:
    markup = design_section(data_of(blocks=[], design={"layer1.channels": 12}))
    assert markup is not None
    assert "no design of a space" in Page(markup).text and "layer1.channels" in Page(markup).text
    assert design_section(data_of(blocks=[], design={})) is None


def test_cost_is_split_among_trunk_tasks_and_those_who_share() -> None:
    shared = {"name": "expert", "params": 50, "bytes": 200}
    blocks = [
        block_content("trunk"),
        block_content("depth_b", "depth", weights=[shared]),
        block_content("semseg_b", "semseg", weights=[shared, {"name": "own", "params": 7, "bytes": 28}]),
    ]
    markup = cost_section(data_of(blocks=blocks))
    assert markup is not None
    titles = re.findall(r'title="([^"]*)"', markup)
    assert titles == [
        "trunk: 1.00 MFLOPs (33%)", "depth: 1.00 MFLOPs (33%)", "semseg: 1.00 MFLOPs (33%)",
        "trunk: 350 (98%)", "semseg: 7.00 (2%)",
    ]  # fmt: skip


def test_what_some_tasks_share_is_a_part_of_its_own() -> None:
    space = load_space("grid", (*PAIR, make_task("edges", "edges")))
    values = dict.fromkeys((c.name for c in space.architecture if c.task in ("depth", "edges")), "keep")
    data = data_of(blocks=[block.model_dump() for block in space.design(values).blocks])
    data.__dict__["tasks"] = tuple(task.name for task in space.tasks)
    markup = cost_section(data)
    assert markup is not None
    assert "depth + edges: " in markup and "shared by some of the tasks" in Page(markup).text


def test_without_blocks_cost_is_split_by_what_tasks_run_alone_where_that_adds_up() -> None:
    assert split(100, {"a": 70, "b": 80}) == {(): 50, ("a",): 20, ("b",): 30}
    assert split(130, {"a": 70, "b": 80, "c": 80}) == {(): 50, ("a",): 20, ("b",): 30, ("c",): 30}
    assert split(100, {"a": 100}) is None
    assert split(200, {"a": 70, "b": 80}) is None
    markup = cost_section(data_of(blocks=[]))
    assert markup is not None and "compute" in markup
