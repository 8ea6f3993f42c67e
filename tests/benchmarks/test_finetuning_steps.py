from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from finetuning import brought, in_int8, pick, rows_of, step_seconds

from edgemtl.nas.evaluation import Evaluator
from edgemtl.nas.runs import TUNING
from edgemtl.spaces import Space
from edgemtl.testing.landscape import PAIR, space

RECIPE = replace(TUNING, steps=4, batch=2, sizes=(1.0,), frozen_statistics=True, bf16=False)


@pytest.fixture
def tiny(tiny_evaluator: Evaluator, tmp_path: Path) -> Space:
    return space(tmp_path, tiny_evaluator.source.tasks, tiny_evaluator.target.traits)


def test_the_largest_design_within_the_flops_is_trained(tiny: Space) -> None:
    assert pick(tiny, (tiny.smallest(), tiny.largest())) == tiny.largest()
    assert pick(tiny, ()) == tiny.middle()
    assert "int8" in in_int8(tiny.middle()).precision.values()


def test_scores_are_of_both_parts_of_a_training_that_is_made_once(
    tiny: Space, tiny_evaluator: Evaluator, tmp_path: Path
) -> None:
    design, teacher = in_int8(tiny.middle()), tiny_evaluator.supernet.extract(tiny.largest())
    arguments = (tiny_evaluator, design, RECIPE, teacher, tmp_path / "work")
    scores = brought(*arguments)
    assert [*scores] == ["float_before", "int8_before", "float_after", "int8_after_float", "int8_after"]
    assert scores["float_before"] != scores["float_after"]
    assert scores["int8_after_float"] != scores["int8_after"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/training.json")}
    assert len(written) == 2
    assert brought(*arguments) == scores
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/training.json")} == written


def test_steps_of_both_kinds_are_timed_equally_often(tiny: Space, tiny_evaluator: Evaluator) -> None:
    design, teacher = in_int8(tiny.middle()), tiny_evaluator.supernet.extract(tiny.largest())
    seconds = step_seconds(tiny_evaluator, design, RECIPE, teacher, 2)
    assert {name: len(each) for name, each in seconds.items()} == {"float": 4, "rounded": 4}


def test_what_is_gained_is_the_int8_designs_change() -> None:
    base = {"semseg": {"miou": 0.5}, "depth": {"rmse": 1.0}}
    worse = {"semseg": {"miou": 0.4}, "depth": {"rmse": 1.2}}
    scores = {"float_before": base, "int8_before": worse, "int8_after": base}
    rows = {row.name: row.value for row in rows_of(PAIR, 8, scores, base, {"float": [1, 2, 3], "rounded": [6, 6, 6]})}
    assert rows["gained"] == pytest.approx(20) and rows["delta_m_int8_before"] == pytest.approx(-20)
    assert (rows["steps"], rows["float_step"], rows["rounded_over_float"]) == (8, 2, 3)
