"""A net of one's own that its tests search: a trunk with a residual sum, a map and a pose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from own_nets import SIZE, residual_net, saved, write_photos

from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.joint import open_narrowing
from edgemtl.nas.precision.net_space import net_space
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.setup import set_up
from edgemtl.nas.precision.state import Scored
from edgemtl.own import Declaration, DeclaredTask, open_net
from edgemtl.progress import silent
from edgemtl.spaces import Space

TASKS = {"map": DeclaredTask(outputs=("map",)), "pose": DeclaredTask(outputs=("pose.points", "pose.score"))}


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NarrowForms]:
    folder = tmp_path_factory.mktemp("forms")
    net = open_net(str(saved(residual_net(), folder)))
    request = PrecisionRequest(net, Declaration(tasks=TASKS), write_photos(folder, SIZE), folder / "run", threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMTL_CACHE", str(folder / "cache"))
        setup, scored = set_up(request, silent), Scored(request.out)
        yield NarrowForms(Proposal(setup, scored, silent), open_narrowing(request, setup, silent), scored, silent)


@pytest.fixture(scope="module")
def space(forms: NarrowForms) -> Space:
    return net_space(forms)
