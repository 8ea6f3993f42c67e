from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from experts import TASKS, experts_yaml
from small import small_space

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.models.graph import trace
from edgemtl.runtime import open_engine
from edgemtl.targets import find_target
from edgemtl.targets.onnx.common_path import CommonPath, common_path
from edgemtl.targets.onnx.emit import emit
from edgemtl.targets.onnx.partition import groups_of
from edgemtl.tasks import by_tensor
from edgemtl.testing import small_net

OPENVINO = find_target("openvino")


def net_of(folder: Path, choices: Mapping[str, int] = MappingProxyType({})) -> MultiTaskNet:
    """A small net; its tasks reach all six experts, where `choices` do not say otherwise."""
    space = small_space(folder, TASKS, experts_yaml("kept: [4, 6], top_k: [1, 2]"))
    torch.manual_seed(0)
    return Supernet.of(space).extract(space.design({**space.largest(), **choices}))


def path_of(net: MultiTaskNet) -> CommonPath | None:
    model = emit(net)
    groups = groups_of(model.graph, trace(net).outputs)
    return common_path(groups, {tensor.name: tensor for tensor in model.graph.initializer})


def test_tasks_of_the_same_experts_have_all_but_routers_and_decoders_in_common(tmp_path: Path) -> None:
    path = path_of(net_of(tmp_path))
    assert path is not None
    assert path.inputs == ("blocks.b1.add_1",)
    assert len(path.outputs) == 1
    assert path.outputs[0].startswith("blocks.top.")
    for task in ("semseg", "depth", "kind"):
        assert set(path.weights[task]) == set(path.weights["depth"])
        assert all(f".routers.{task}." in own for own in path.weights[task].values())
        assert set(path.outputs) <= set(path.heads[task].values())
    assert {name for name in path.heads["depth"] if "stem" in name}, "its decoder reads the stem's maps too"


@pytest.mark.parametrize("choices", [{"depth.experts": 4}, {"depth.b2.top_k": 1}])
def test_another_window_or_top_k_has_nothing_in_common(tmp_path: Path, choices: dict[str, int]) -> None:
    assert path_of(net_of(tmp_path, choices)) is None


def test_one_task_or_no_experts_have_nothing_in_common(tmp_path: Path) -> None:
    assert path_of(net_of(tmp_path).subset(["depth"])) is None
    assert path_of(small_net()) is None


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    OPENVINO.build(net_of(tmp_path), {"engine": "fp32"}, None, tmp_path)
    return tmp_path


@pytest.mark.parametrize("modes", [None, [["semseg"], ["depth"], ["kind", "semseg"]]])
def test_one_engine_serves_every_task(tmp_path: Path, engine: Path, modes: list[list[str]] | None) -> None:
    """Whatever ran before, and together with whichever others."""
    net, image = net_of(tmp_path), torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = {task: value.numpy() for task, value in by_tensor(net(image)).items()}
    session = open_engine(engine, threads=1, modes=modes)
    for names in (["depth"], ["semseg", "kind"], ["semseg"], ["semseg", "depth", "kind"], ["depth"]):
        for task, found in by_tensor(session.run(image.numpy(), names)).items():
            np.testing.assert_allclose(found, expected[task], atol=1e-4)
    session.close()


@pytest.mark.parametrize("damage", [[], {"inputs": []}, {"inputs": 1, "outputs": [], "weights": {}, "heads": {}}])
def test_a_damaged_path_is_refused_in_one_line(engine: Path, damage: Any) -> None:
    content = read_json(engine / "engine.json", "engine")
    write_json(engine / "engine.json", {**content, "options": {**content["options"], "path": damage}})
    with pytest.raises(UserError, match="does not say what its tasks have in common: export again"):
        open_engine(engine, threads=1)
