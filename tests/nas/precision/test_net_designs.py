"""Designs of a net of one's own and the engines that they mean."""

from __future__ import annotations

import pytest

from edgemtl.nas.precision.finalists import Candidate, Finalist
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.net_designs import NetDesigns
from edgemtl.own import OwnPrecision
from edgemtl.spaces import Space


def finalist(forms: NarrowForms, *eight: str) -> Finalist:
    """The whole net with these blocks in INT8, with scores and a latency that it would not be measured at."""
    precision = OwnPrecision({"engine": "fp32", **dict.fromkeys(eight, "int8")})
    metrics = {task: {"agreement": 0.5} for task in ("map", "pose")}
    return Finalist(Candidate("known", forms.whole.setup, precision, metrics, uniform=False), {"": 1000.0}, ())


def test_a_design_is_evaluated_on_its_own_engine_and_is_a_candidate_then(forms: NarrowForms, space: Space) -> None:
    designs = NetDesigns(space, forms)
    whole = designs.evaluate(space.largest())
    assert all(scores["agreement"] == pytest.approx(1, abs=1e-5) for scores in whole.metrics.values())
    narrow = space.design({**space.largest(), "body.stem.channels": 8, "map_1.precision": "int8"})
    evaluation = designs.evaluate(narrow)
    assert evaluation.metrics["map"]["agreement"] < 0.999 and evaluation.latency_ms[""] > 0
    candidate = designs.candidate(evaluation)
    assert candidate.setup.channels == {"body.stem": 8, "body.narrow": 24} and not candidate.setup.whole
    assert candidate.precision.values == {"engine": "fp32", "map_1": "int8"}
    assert designs.design(candidate) == narrow
    forms.let_go(candidate.setup.name)


def test_what_is_known_is_not_measured_again_where_the_space_has_that_precision(
    forms: NarrowForms, space: Space
) -> None:
    designs = NetDesigns(space, forms)
    known = designs.known(finalist(forms, "map_1"))
    assert known.latency_ms == {"": 1000.0} and known.metrics["map"] == {"agreement": 0.5}
    assert known.design["map_1.precision"] == "int8" and known.design["trunk_1.precision"] == "float"
    measured = designs.known(finalist(forms, "map_1", "a block that the export has not"))
    assert measured.design == known.design and measured.metrics["map"]["agreement"] > 0.9
