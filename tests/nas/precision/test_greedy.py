"""The greedy search of a net of one's own: when its channels are opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from refusals import refused

from edgemtl.nas.precision import PrecisionRequest
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.greedy import GreedySearch
from edgemtl.progress import silent
from edgemtl.units import parse_budget


@pytest.mark.parametrize(
    ("budget", "opened"), [("50%ms", False), ("50%MB", False), ("100%FLOPs", False), ("60%params", True)]
)
def test_channels_are_opened_at_once_only_where_precision_cannot_keep_a_budget(
    forms: NarrowForms, request_of: Callable[..., PrecisionRequest], budget: str, opened: bool
) -> None:
    setup = replace(forms.whole.setup, budgets=(parse_budget(budget),))
    narrowing = GreedySearch(request_of()).narrowing(setup, silent)
    assert (narrowing is not None) == opened
    if narrowing is not None:
        assert [limit.budget.text for limit in narrowing.limits] == [budget]


def test_a_counted_budget_below_all_that_is_left_is_refused(
    forms: NarrowForms, request_of: Callable[..., PrecisionRequest]
) -> None:
    setup = replace(forms.whole.setup, budgets=(parse_budget("1%FLOPs"),))
    assert "pruning reaches" in refused(lambda: GreedySearch(request_of()).narrowing(setup, silent))


def test_channels_go_by_the_preference_too(forms: NarrowForms, request_of: Callable[..., PrecisionRequest]) -> None:
    preference = {"map": 1.0, "pose": 9.0}
    setup = forms.whole.setup
    setup = replace(setup, budgets=(parse_budget("60%FLOPs"),), floors=replace(setup.floors, preference=preference))
    narrowing = GreedySearch(request_of()).narrowing(setup, silent)
    assert narrowing is not None and narrowing.opened.preference == preference
