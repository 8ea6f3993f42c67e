"""The logic of both benchmarks of estimates, on a machine on paper."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from estimate_error import judge
from fit_estimates import fit_and_keep
from latency_predictor import unseen_designs

from edgemtl.arithmetic import own_arithmetic
from edgemtl.nas.latency import (
    Efficiencies,
    MeasuredDesign,
    Roofs,
    design_parts,
    estimate_ms,
    read_fit,
    spread_designs,
)
from edgemtl.nas.latency.roofline import Workload
from edgemtl.spaces import Design
from edgemtl.testing.landscape import PAIR, space

ROOFS = Roofs({"fp32": 50e9, "int8": 200e9}, 10e9)
MACHINE = Efficiencies(
    {"dense float": 0.7, "dense int8": 0.4, "depthwise int8": 0.03},
    {"elementwise": 0.5},
    0.003,
    {"fp32": 1.2, "int8": 1.2},
)


def on_paper(design: Design, rng: random.Random) -> MeasuredDesign:
    """A design on that machine, three hundredths off."""
    parts = Workload.of(design_parts(design), ROOFS).ms(MACHINE)
    whole = estimate_ms(design_parts(design), ROOFS, MACHINE) * rng.gauss(1, 0.03)
    return MeasuredDesign(design, {"": (1.1 * whole, whole)}, tuple(map(float, parts)), 0.2 * float(parts.sum()))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[MeasuredDesign], list[MeasuredDesign]]:
    where, rng = space(tmp_path_factory.mktemp("space"), PAIR), random.Random(0)
    known = spread_designs(where, 14)
    unseen = unseen_designs(where, 8, {design.key for design in known})
    return [on_paper(each, rng) for each in known], [on_paper(each, rng) for each in unseen]


def test_unseen_designs_are_estimated_and_every_figure_is_kept(
    measured: tuple[list[MeasuredDesign], list[MeasuredDesign]],
) -> None:
    rows, raw = judge("paper", *measured, ROOFS)
    by_name = {row.name: row for row in rows}
    assert by_name["paper_kendall_tau"].value >= 0.8 and by_name["paper_kendall_tau"].holds
    assert by_name["paper_mape"].value < 8 and (by_name["paper_mape"].least, by_name["paper_mape"].aim) == (None, 15)
    pairs = [(each["estimated_ms"], min(each["medians_ms"])) for each in raw["unseen"]]
    assert by_name["paper_mape"].value == pytest.approx(100 * np.mean([abs(a / b - 1) for a, b in pairs]))
    assert (len(raw["known"]), len(raw["unseen"])) == (14, 8)
    assert by_name["paper_kendall_tau_of_measuring_again"].value == 1, "one pass is a tenth slower than the other"


def test_latencies_that_follow_nothing_fail(measured: tuple[list[MeasuredDesign], list[MeasuredDesign]]) -> None:
    rng = random.Random(1)
    odd = [replace(each, medians_ms={"": (rng.uniform(0.1, 10), 20.0)}) for each in measured[1]]
    rows, _ = judge("paper", measured[0], odd, ROOFS)
    assert rows[0].holds is False and rows[1].value > 30


def test_a_fit_is_kept_with_its_error_and_only_where_it_is_to_be(
    measured: tuple[list[MeasuredDesign], list[MeasuredDesign]], tmp_path: Path
) -> None:
    rows, raw = fit_and_keep("onnxruntime", ["tiny"], measured[0], ROOFS, tmp_path / "efficiencies")
    (path,) = (tmp_path / "efficiencies").iterdir()
    fit = read_fit(path)
    assert path.name == f"{own_arithmetic()}.onnxruntime.json" and fit.spaces == ("tiny",)
    assert rows[0].value == pytest.approx(100 * fit.held_out.error) and raw["held_out"]["designs"] == 14
    fit_and_keep("onnxruntime", ["tiny"], measured[0], ROOFS, None)
    assert len(list(tmp_path.rglob("*.json"))) == 1
