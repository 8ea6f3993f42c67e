"""Which search a request is for, and what it reads of its run's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from net_finalists import finalist
from refusals import refused

from edgemtl.nas.precision import PrecisionRequest
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.net_search import search_for
from edgemtl.nas.precision.state import Scored


@pytest.mark.parametrize("strategy", ["", "random"])
def test_a_run_that_has_not_begun_has_not_ended_and_its_folder_stays_as_it_is(
    request_of: Callable[..., PrecisionRequest], strategy: str
) -> None:
    request = request_of(strategy=strategy)
    assert not search_for(request).has_ended()
    assert not request.out.exists(), "a folder that holds a study could not become a run"


def test_the_greedy_search_tells_of_engines_and_a_strategy_of_its_seed_objectives_and_designs(
    forms: NarrowForms, request_of: Callable[..., PrecisionRequest]
) -> None:
    scored = Scored(request_of().out, {"fp32": {"map": 1.0}}, {}, {"fp32": {}, "fp32 map_1": {}})
    options = {"seed": 3, "objectives": ("delta_m", "bytes"), "budgets": ("50%MB",)}
    whole, narrow = (finalist(name, 10.0, 0.0, True) for name in ("fp32", "pruned-1"))
    setup = forms.whole.setup
    finalists = [replace(whole, candidate=replace(whole.candidate, setup=setup))]
    narrow = replace(narrow, candidate=replace(narrow.candidate, setup=replace(setup, channels={"body.stem": 3})))
    greedy = search_for(request_of(**options)).info(finalists, scored, 7.0)
    assert (greedy.strategy, greedy.seed, greedy.objectives, greedy.evaluations) == ("precision", None, (), 2)
    assert greedy.budgets == ("50%MB",) and greedy.started == 7.0 and not greedy.known_from
    assert search_for(request_of()).info([*finalists, narrow], scored, 7.0).strategy == "pruning and precision"
    search = search_for(request_of(**options, strategy="random")).of_run(setup.config)
    random = search.info(finalists, scored, 7.0)
    assert (random.strategy, random.seed, random.objectives) == ("random", 3, ("delta_m", "bytes"))
    assert random.evaluations == 0 and "greedy search" in random.known_from["first designs"]


def test_a_strategy_that_is_no_use_is_refused_before_anything_is_opened(
    request_of: Callable[..., PrecisionRequest],
) -> None:
    assert "unknown strategy" in refused(lambda: search_for(request_of(strategy="linsa")))
