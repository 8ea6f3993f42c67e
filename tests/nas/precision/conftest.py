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
from edgemtl.own import Declaration, DeclaredTask, OwnNet, open_net
from edgemtl.progress import silent
from edgemtl.spaces import Space

TASKS = {"map": DeclaredTask(outputs=("map",)), "pose": DeclaredTask(outputs=("pose.points", "pose.score"))}
LOOSE = ("map=90%", "pose=90%")


@pytest.fixture(scope="module")
def forms_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., NarrowForms]]:
    """Narrower forms of a net for a target."""
    folder = tmp_path_factory.mktemp("forms")
    photos = write_photos(folder, SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMTL_CACHE", str(folder / "cache"))

        def make(net: OwnNet, declaration: Declaration, target: str = "onnxruntime") -> NarrowForms:
            request = PrecisionRequest(net, declaration, photos, folder / "run", threads=1, target=target)
            setup, scored = set_up(request, silent), Scored(request.out)
            return NarrowForms(Proposal(setup, scored, silent), open_narrowing(request, setup, silent), scored, silent)

        yield make


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory, forms_of: Callable[..., NarrowForms]) -> NarrowForms:
    net = open_net(str(saved(residual_net(), tmp_path_factory.mktemp("net"))))
    return forms_of(net, Declaration(tasks=TASKS))


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
