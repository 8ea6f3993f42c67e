"""The space and the limits that all processes of one search have in common: in its study, from the first of them.

Which channels matter is measured, and so is the latency that percentages are of: another process may measure a little
else, and would search another space then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import Limit, Problem
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.joint import MARGIN, share_of, whole_cost
from edgemtl.nas.precision.net_designs import NetDesigns
from edgemtl.nas.precision.net_space import net_space
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.state import Scored
from edgemtl.nas.prune import Narrowing
from edgemtl.own import FLOAT_ENGINE
from edgemtl.progress import Report
from edgemtl.schema import Strict, parse_document
from edgemtl.spaces import Space

__all__ = ["open_designs"]

_COMMON, _SCHEMA = "common", "edgemtl.own-study/1"
_REMEDY = "begin again with another --out"


class _Common(Strict):
    schema_: Literal["edgemtl.own-study/1"] = Field(default="edgemtl.own-study/1", alias="schema")
    float_ms: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    prune_map: dict[str, Any]
    choices_sha256: str


def open_designs(
    study: optuna.Study,
    whole: Proposal,
    narrowing: Narrowing,
    scored: Scored,
    report: Report,
    check: Callable[[], None],
) -> tuple[NetDesigns, Problem]:
    """The designs of narrower forms of the net, and what is searched for among them, as the study has it.

    A study that has nothing of it yet is given it, after a `check` that may raise `UserError`. Raises it too where what
    the study has is damaged, or of a net that is another one here.
    """
    subject = f"study {study.study_name!r}"
    if (content := study.user_attrs.get(_COMMON)) is None:
        designs = _designs(whole, narrowing, scored, report)
        ms = whole.latency_ms(whole.precision(FLOAT_ENGINE, ()))
        digest = _digest(designs.space)
        common = _Common(float_ms=dict(ms), prune_map=designs.forms.narrowing.measured(), choices_sha256=digest)
        check()
        study.set_user_attr(_COMMON, common.model_dump(mode="json", by_alias=True))
    else:
        common = parse_document(content, subject, _Common, _SCHEMA, _REMEDY)
        narrowing = narrowing.with_measured(common.prune_map, subject, _REMEDY)
        designs = _designs(whole, narrowing, scored, report)
        if _digest(designs.space) != common.choices_sha256:
            raise UserError(
                f"{subject} is of a net with other channels or blocks than it has here: use the versions of PyTorch "
                f"and edgemtl that it was begun with, or {_REMEDY}"
            )
    return designs, _problem(designs.space, whole, common.float_ms)


def _designs(whole: Proposal, narrowing: Narrowing, scored: Scored, report: Report) -> NetDesigns:
    forms = NarrowForms(whole, narrowing, scored, report)
    return NetDesigns(net_space(forms), forms)


def _digest(space: Space) -> str:
    """A hash of what may be chosen."""
    choices = [[choice.name, *choice.options] for choice in space.choices]
    return hashlib.sha256(json.dumps(choices).encode()).hexdigest()


def _problem(space: Space, whole: Proposal, float_ms: Mapping[str, float]) -> Problem:
    """The limits of designs of the space; counted budgets are the same parts of the whole net as on its graph."""
    setup, limits = whole.setup, list[Limit]()
    counts = whole_cost(setup)
    for budget in setup.budgets:
        if budget.counted:
            amount = space.largest().cost(budget.task).amount(budget.quantity)
            limits.append(Limit(budget, share_of(budget, counts) * amount))
        else:
            limits.append(Limit(budget, MARGIN * budget.limit(float_ms[budget.task or ""])))
    floors = setup.floors
    return Problem(space, tuple(limits), floors.floors, floors.preference, floors.baseline, measures_latency=True)
