from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from fpga_reports import REPORTS, Reported, error_of, modelled_of, run

JET_TAGGING = next(each for each in REPORTS if each.layer.name == "fc2")


def test_the_model_is_held_against_every_report_and_its_error_is_a_row() -> None:
    outcome = run(argparse.Namespace(quick=True))
    rows = {row.name: row for row in outcome.rows}
    assert all(row.holds is not False for row in outcome.rows)
    assert 0 < rows["luts_median_error"].value < rows["luts_largest_error"].value
    assert len(outcome.raw["layers"]) == len(REPORTS) and all(each["source"] for each in outcome.raw["layers"])


def test_an_error_is_relative_to_the_report() -> None:
    assert modelled_of(JET_TAGGING)["dsps"] == 64 * 32
    assert error_of(JET_TAGGING, "dsps") == pytest.approx(2048 / 1509 - 1)
    assert error_of(replace(JET_TAGGING, dsps=1024), "dsps") == 1.0
    assert error_of(JET_TAGGING, "cycles") is None


def test_pruned_weights_take_no_multipliers() -> None:
    halved: Reported = replace(JET_TAGGING, share=0.5)
    assert modelled_of(halved)["dsps"] == 1024
    assert 500 < modelled_of(halved)["luts"] < modelled_of(JET_TAGGING)["luts"]
