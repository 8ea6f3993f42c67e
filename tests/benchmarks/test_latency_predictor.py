from __future__ import annotations

from pathlib import Path

import pytest
from latency_predictor import judge, unseen_designs

from edgemtl.nas.latency import MeasuredDesign, design_parts, fit_table, spread_designs
from edgemtl.spaces import Design
from edgemtl.testing.landscape import PAIR, space


def on_paper(design: Design) -> MeasuredDesign:
    """A design on a machine that takes a microsecond for a thousand multiplications and as much for a part."""
    parts = tuple(1e-6 * part.macs + 1e-3 for part in design_parts(design))
    return MeasuredDesign(design, {"": (sum(parts),)}, parts, 0.0)


def test_a_machine_without_noise_is_predicted_well_and_every_figure_is_kept(tmp_path: Path) -> None:
    where = space(tmp_path, PAIR)
    known = spread_designs(where, 20)
    unseen = unseen_designs(where, 6, {design.key for design in known})
    assert not {design.key for design in unseen} & {design.key for design in known}
    rows, raw = judge("paper", fit_table([on_paper(each) for each in known]), [on_paper(each) for each in unseen], 1.0)
    by_name = {row.name: row for row in rows}
    assert by_name["paper_error"].value < 8 and by_name["paper_error"].holds
    assert by_name["paper_kendall_tau"].value > 0.7
    assert (len(raw["table"]), len(raw["unseen"])) == (20, 6)
    truth = [each["medians_ms"][0] for each in raw["unseen"]]
    predicted = [each["predicted_ms"] for each in raw["unseen"]]
    error = sum(abs(p / t - 1) for p, t in zip(predicted, truth, strict=True)) / 6
    assert by_name["paper_error"].value == pytest.approx(100 * error)
