"""A net of one's own that its tests search: a trunk with a residual sum, a map and a pose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
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
LOOSE = ("map=90%", "pose=90%")


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


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PrecisionRequest]:
    """Requests for the net, or for a `model` of some of its tasks, with loose floors."""
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    write_photos(tmp_path / "photos", SIZE)
    file = saved(residual_net(), tmp_path)

    def make(model: onnx.ModelProto | None = None, **options: Any) -> PrecisionRequest:
        net = open_net(str(file if model is None else saved(model, tmp_path)))
        tasks = {name: task for name, task in TASKS.items() if set(task.tensors()) <= net.outputs.keys()}
        given = {"data": tmp_path / "photos", "out": tmp_path / "run", "floors": LOOSE, **options}
        return PrecisionRequest(net, Declaration(tasks=tasks), **given)

    return make
