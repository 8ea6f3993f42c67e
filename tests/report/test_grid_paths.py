from __future__ import annotations

import random
from collections import Counter

import pytest
from page_reader import HOSTILE, Page, check_harmless
from report_data import entry_content, result_content

from edgemtl.report.drawing.grid import grid_paths
from edgemtl.report.load import ReportData
from edgemtl.report.sections.network import cost_section, design_section
from edgemtl.results import Result
from edgemtl.spaces import Space, load_space
from edgemtl.tasks.task import make_task

TASKS = (make_task("depth", "depth"), make_task("kind", "classification", 3))
NAMES = ("depth", "kind")


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("grid", TASKS)


def test_paths_are_read_from_a_design(space: Space) -> None:
    kept = {"depth.s1p0_1": "keep", "depth.f3p1to0": "keep", "depth.s2p1_2": "keep", "kind.s3p3_1": "keep"}
    depth, kind = grid_paths(space.design(kept), NAMES)
    assert (depth.stages, depth.paths, depth.blocks) == (3, 4, 2)
    assert depth.kept == {(1, 0, 1), (2, 1, 2)}
    assert depth.edges == {(3, 1, 0)}
    assert depth.reads == {0}
    assert kind.reads == {3}


def test_another_familys_design_has_none() -> None:
    design = load_space("cnn", TASKS).largest()
    assert grid_paths(design, NAMES) == []


@pytest.mark.parametrize("seed", range(6))
def test_what_is_computed_together_is_what_the_plan_shares(space: Space, seed: int) -> None:
    rng = random.Random(seed)
    values = dict(space.random(rng))
    values |= {f"kind.{n}": values[f"depth.{n}"] for n in ("s1p0_1", "s1p1_1", "s1p2_1", "s1p3_1", "s1p3_2")}
    design = space.design(values)
    for path in grid_paths(design, NAMES):
        shared = {
            position: 1 + (block.task is None)
            for block in design.plan.path([path.task])
            for position in path.kept
            if block.origin == f"s{position[0]}p{position[1]}_{position[2]}"
        }
        assert path.together == shared


def test_the_picture_stands_in_the_report_and_no_split_of_cost_is_claimed(space: Space) -> None:
    design = dict(space.largest())
    result = Result.model_validate(result_content(best=entry_content(design=design)))
    data = ReportData("net", result, None, (), ())
    data.__dict__["tasks"] = NAMES
    markup = design_section(data)
    assert markup is not None
    tags = Counter(tag for tag, _ in Page(markup).tags)
    assert tags["svg"] == 2
    assert tags["rect"] == 2 * 3 * 4 * 2
    shown = Page(markup)
    check_harmless(shown)
    assert "1/32" in shown.text
    assert cost_section(data) is None


def test_hostile_names_of_choices_are_no_blocks() -> None:
    assert (
        grid_paths({f"{HOSTILE}.s1p0_1": "keep", "depth.s1p0_1x": "keep", "depth.s999p0_1": "keep"}, ("depth",)) == []
    )
