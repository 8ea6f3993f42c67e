"""Strangers' nets pruned without labels: what is counted and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from _own_nets import NETS
from own_nets import SIZE, saved, three_tasks
from own_nets_prune import CHOSEN, QUICK, agreements, real_photos, rows_of
from PIL import Image

from edgemtl.own import Declaration, DeclaredNet, DeclaredTask, open_net, read_photos, resolve, torch_graph

HEADS = {"map": 0.98, "pose": 0.95}
RESULT = {
    "whole": 100,
    "flops": {"ours": 50, "magnitude": 50, "taylor": 49},
    "heads": {"ours": HEADS, "magnitude": {"map": 0.9, "pose": 0.9}, "taylor": {"map": 0.97, "pose": 0.94}},
}


def test_the_nets_are_there() -> None:
    assert set(CHOSEN) <= set(NETS) and set(QUICK) <= set(CHOSEN)


def test_the_worst_head_and_the_better_peer_decide() -> None:
    rows = {row.name: row for row in rows_of({"net": RESULT}, quick=False)}
    assert rows["worst_head_lost"].value == pytest.approx(5) and rows["worst_head_lost"].holds is False
    assert rows["least_ahead_of_best_peer"].value == pytest.approx(1) and rows["least_ahead_of_best_peer"].holds
    assert rows["flops_net"].value == 50 and rows["lost_net_magnitude"].value == pytest.approx(10)
    assert all(row.holds is not False for row in rows_of({"net": RESULT}, quick=True))


def test_agreement_is_of_each_head_and_real_photos_alone_are_scored(tmp_path: Path) -> None:
    net = open_net(str(saved(three_tasks(), tmp_path)))
    tasks = {name: DeclaredTask(outputs={"v": tensor}) for name, tensor in
             (("map", "parsing"), ("points", "pose.points"))}  # fmt: skip
    declaration = Declaration(tasks=tasks, unused=("pose.score", "best"))
    whole = DeclaredNet(torch_graph(net), resolve(net, declaration), net.size, dict).eval()
    other = whole.copy()
    with torch.no_grad():
        other.module.get_parameter("body.points_head.weight").mul_(0.9)
    given = agreements(other, whole, torch.rand(3, 3, *SIZE))
    assert given["map.v"] == 1 and given["points.v"] == pytest.approx(0.9, abs=1e-4)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        name = f"{'real' if number % 2 else 'room'}-{number}.png"
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / name)
    images = real_photos(read_photos(folder).test, SIZE)
    assert 1 <= len(images) <= 4 and images.shape[1:] == (3, *SIZE)
