from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemtl.data import open_source
from edgemtl.models import Supernet
from edgemtl.nas.evaluation import Evaluator
from edgemtl.nas.latency import TableKey, design_parts, key_of, make_table, making, read_table
from edgemtl.progress import Progress
from edgemtl.spaces import Space, load_space
from edgemtl.targets import find_target, measurer_of
from edgemtl.testing.landscape import write_space
from edgemtl.testing.world import TASKS, write_data

DESIGNS, PASSES = 6, 2


@dataclass(frozen=True)
class Bench:
    """A tiny space on ONNX Runtime, and what makes its tables."""

    space: Space
    evaluator: Evaluator
    key: TableKey


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    home = tmp_path_factory.mktemp("home")
    space = load_space(str(write_space(home)), TASKS)
    source, target = open_source(str(write_data(home / "photos")), (64, 64)), find_target("onnxruntime")
    evaluator = Evaluator(source, target, measurer_of(target), ["", "depth"], threads=1, supernet=Supernet.of(space))
    space = space.for_target(target.traits)
    return Bench(space, evaluator, key_of(space, target, "measured", 1))


def test_a_table_is_measured_on_engines_and_goes_on_where_it_was_stopped(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "DESIGNS", DESIGNS)
    monkeypatch.setattr(making, "PASSES", PASSES)
    path, events = tmp_path / "table.json", list[Progress]()

    def stop(event: Progress) -> None:
        events.append(event)
        if event.done == DESIGNS + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_table(path, bench.key, bench.space, bench.evaluator, stop)
    before = json.loads(path.read_text())
    assert [len(each["medians_ms"][""]) for each in before["designs"]] == [1] * (DESIGNS - 1) + [2]
    assert [event.done for event in events] == list(range(DESIGNS + 2))
    events.clear()
    table = make_table(path, bench.key, bench.space, bench.evaluator, events.append)
    assert [event.done for event in events] == list(range(DESIGNS + 1, DESIGNS * PASSES + 1))
    assert events[-1].total == DESIGNS * PASSES
    stored = read_table(path, bench.space)
    assert stored.table == table
    after = json.loads(path.read_text())
    for old, new in zip(before["designs"], after["designs"], strict=True):
        assert new["profiled_ms"] == old["profiled_ms"]
        assert new["medians_ms"]["depth"][0] == old["medians_ms"]["depth"][0]
    for each in table.measured:
        assert all(len(medians) == PASSES for medians in each.medians_ms.values())
        parts = design_parts(each.design)
        assert sum(ms > 0 for part, ms in zip(parts, each.parts_ms, strict=True) if part.layer) > 5, "convolutions"
        assert sum(each.parts_ms) + each.moving_ms == pytest.approx(each.latency_ms[""])
    for scope in ("", "depth"):
        (predicted,) = table.predict([bench.space.middle()], scope)
        assert 0.2 < predicted / table.measured[0].latency_ms[scope] < 5
