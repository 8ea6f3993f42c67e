"""A net of one's own, searched by the command line and cut by hand: what is counted and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import own_net_search
import pytest
import torch
from _by_hand import SHARES, cut, flops, pruned
from _fpn import SIZE, ResNetFpn, tasks_of
from own_net_search import FLOORS, TARGET, prepare, rows_of, searched

from edgemtl.cli.export import export
from edgemtl.cli.search import search
from edgemtl.data import open_source
from edgemtl.own import read_declaration

TASKS = tasks_of(open_source("scenes", SIZE))


def scores(miou: float, rmse: float, angle: float) -> dict[str, dict[str, float]]:
    return {"semseg": {"miou": miou}, "depth": {"rmse": rmse}, "normals": {"mean_angle": angle}}


RAW = {
    "search": {"seconds": 600.0},
    "latency_ms": {"float": 2.0, "ours": 1.0, "magnitude-nncf": 1.01},
    "agreement": {"semseg": 0.97, "depth": 0.99, "normals": 0.96},
    "metrics": {
        "float": scores(0.5, 1.0, 20.0),
        "chance": scores(0.02, 4.0, 60.0),
        "ours": scores(0.49, 1.01, 20.2),
        "magnitude-nncf": scores(0.45, 1.1, 22.0),
    },
}


def test_its_tasks_are_those_of_the_rooms() -> None:
    outputs = ResNetFpn().eval()(torch.zeros(1, 3, *SIZE))
    assert {name: value.shape[1:] for name, value in outputs.items()} == {
        task.name: (task.channels, *SIZE) for task in TASKS
    }
    assert list(FLOORS) == [task.name for task in TASKS]


def test_losses_are_of_labels_and_the_better_way_by_hand_decides() -> None:
    rows = {row.name: row for row in rows_of(RAW, TASKS, quick=False)}
    assert rows["lost_semseg"].value == pytest.approx(2) and rows["lost_depth"].value == pytest.approx(1)
    assert rows["agreement_lost_normals"].value == pytest.approx(4)
    assert rows["ahead_of_best_by_hand"].value == pytest.approx(10 - 4 / 3)
    assert all(row.holds is not False for row in rows.values())
    slow = {**RAW, "latency_ms": {**RAW["latency_ms"], "ours": 1.2}}  # type: ignore[dict-item]
    assert not next(row for row in rows_of(slow, TASKS, quick=False) if row.name == "latency_over_float").holds
    assert all(row.least is None for row in rows_of(slow, TASKS, quick=True) if row.name != "search")


def test_as_much_is_kept_as_is_fast_enough() -> None:
    assert cut(lambda share: share <= 0.42) == 0.4 and cut(lambda share: True) == 1
    assert cut(lambda share: False) == SHARES[-1]


def test_a_peer_keeps_the_share_and_the_outputs() -> None:
    whole = ResNetFpn().eval()
    net = pruned(whole, "magnitude", 0.5, lambda net: pytest.fail("its criterion reads no gradients"))
    assert (
        0.3 * flops(whole) < flops(net) <= 0.5 * flops(whole) < flops(pruned(whole, "magnitude", 1, lambda net: None))
    )
    assert [value.shape[1] for value in net(torch.zeros(1, 3, *SIZE)).values()] == [16, 1, 3]


def test_its_commands_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[dict[str, Any]] = []
    verbs = {"search": search, "export": export}
    monkeypatch.setattr(
        own_net_search,
        "edgemtl",
        lambda folder, verb, *words: given.append(verbs[verb].make_context(verb, list(words)).params),
    )
    searched(tmp_path, quick=False)
    assert [each["net"] for each in given] == ["_fpn:trained"] * 3 and given[0]["budgets"] == ("50%ms",)
    assert given[0]["floors"] == ("semseg=5%", "depth=5%", "normals=5%")
    assert [each["precision"] for each in given[1:]] == ["float", "run"] and given[2]["targets"] == (TARGET,)


def test_its_photos_and_tasks_are_files(tmp_path: Path) -> None:
    prepare(tmp_path, TASKS, quick=True)
    assert len(list((tmp_path / "photos").iterdir())) == 12
    declared = read_declaration(tmp_path / "tasks.yaml").tasks
    assert {name: (each.kind, each.tensors()) for name, each in declared.items()} == {
        task.name: (task.kind, [task.name]) for task in TASKS
    }
