from __future__ import annotations

from pathlib import Path

from against_int8 import STOCK, Contest, near_stock, stock_onnxruntime

from edgemtl.data import collate
from edgemtl.export import export_onnx
from edgemtl.nas.evaluation import Evaluator
from edgemtl.testing.landscape import space


def test_designs_within_a_point_of_the_stock_net_compete() -> None:
    assert near_stock({"stock": -0.01, "a": -0.019, "b": 0.02, "c": -0.021}) == ["a", "b"]


def test_the_nearest_competes_where_none_is_so_near() -> None:
    assert near_stock({"stock": 0.0, "a": -0.05, "b": -0.03}) == ["b"]


def test_stock_and_candidates_are_scored_and_timed_by_their_engines(tiny_evaluator: Evaluator, tmp_path: Path) -> None:
    tiny = space(tmp_path, tiny_evaluator.source.tasks, tiny_evaluator.target.traits)
    largest = tiny_evaluator.candidate(tiny.largest())
    export_onnx(largest.net, tmp_path / "largest.onnx")
    images = collate(tiny_evaluator.source.split("calibration")[:4]).image
    open_stock, stock_bytes = stock_onnxruntime(tmp_path / "largest.onnx", images, [t.name for t in tiny.tasks])
    contest = Contest(tiny_evaluator, largest, open_stock)
    sides = {"same": largest}
    deltas = contest.deltas(sides, list(tiny_evaluator.source.split("test")))
    assert deltas["same"] == 0 and set(deltas) == {STOCK, "same"}
    assert set(contest.latencies(sides, 1)) == {STOCK, "same"}
    assert stock_bytes > 0
