"""Which search a request is for, and what it reads of its run's folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from refusals import refused

from edgemtl.nas.precision import PrecisionRequest
from edgemtl.nas.precision.net_search import search_for
from edgemtl.nas.precision.state import Scored


@pytest.mark.parametrize("strategy", ["", "random"])
def test_a_run_that_has_not_begun_has_not_ended_and_its_folder_stays_as_it_is(
    request_of: Callable[..., PrecisionRequest], strategy: str
) -> None:
    request = request_of(strategy=strategy)
    assert not search_for(request).has_ended()
    assert not request.out.exists(), "a folder that holds a study could not become a run"


def test_the_greedy_search_counts_engines_and_a_strategy_its_designs(
    request_of: Callable[..., PrecisionRequest],
) -> None:
    scored = Scored(request_of().out, {"fp32": {"map": 1.0}}, {}, {"fp32": {}, "fp32 map_1": {}})
    assert search_for(request_of()).evaluated(scored) == 2
    assert search_for(request_of(strategy="random")).evaluated(scored) == 0


def test_a_strategy_that_is_no_use_is_refused_before_anything_is_opened(
    request_of: Callable[..., PrecisionRequest],
) -> None:
    assert "unknown strategy" in refused(lambda: search_for(request_of(strategy="linsa")))
