from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused

from edgemtl.files.seals import sealed
from edgemtl.nas.latency import (
    LatencyTable,
    MeasuredDesign,
    TableKey,
    design_parts,
    fit_table,
    key_of,
    read_table,
    spread_designs,
    table_file,
    table_files,
    write_table,
)
from edgemtl.spaces import Space
from edgemtl.targets import find_target
from edgemtl.testing.landscape import KIND, PAIR, space


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR, find_target("onnxruntime").traits)


@pytest.fixture(scope="module")
def key(pair: Space) -> TableKey:
    return key_of(pair, find_target("onnxruntime"), "measured", 1)


def some_table(where: Space, seed: int, count: int = 10) -> LatencyTable:
    rng = random.Random(seed)
    return fit_table(
        [
            MeasuredDesign(
                design,
                {"": (rng.uniform(1, 2), rng.uniform(1, 2)), "depth": (rng.uniform(0.5, 1),)},
                tuple(rng.uniform(0, 0.1) for _ in design_parts(design)),
                rng.uniform(0, 0.1),
            )
            for design in spread_designs(where, count)
        ]
    )


@pytest.fixture
def stored(pair: Space, key: TableKey, tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    table = some_table(pair, 0)
    write_table(path, key, table.measured, 12.5, table)
    return path


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), count=st.integers(2, 6))
def test_a_table_comes_back_as_it_was(pair: Space, key: TableKey, tmp_path: Path, seed: int, count: int) -> None:
    table = some_table(pair, seed, count)
    path = tmp_path / f"{seed}.json"
    write_table(path, key, table.measured, 1.0, table)
    back = read_table(path, pair)
    assert (back.table, back.key) == (table, key)
    rng = random.Random(seed)
    designs = [pair.random(rng) for _ in range(5)]
    for scope in ("", "depth"):
        np.testing.assert_array_equal(back.table.predict(designs, scope), table.predict(designs, scope))


def test_the_file_tells_people_and_says_where_and_when(stored: Path, pair: Space) -> None:
    content = json.loads(stored.read_text())
    assert content["schema"] == "edgemtl.latency/1"
    assert content["environment"]["packages"]["onnxruntime"] == content["key"]["runtime_version"]
    assert content["times_ms"].keys() == {p.key for d in spread_designs(pair, 10) for p in design_parts(d)}
    assert set(content["held_out"][""]) == {"error", "tau", "designs"}
    words = read_table(stored, pair).words
    assert "table.json" in words and "host/onnxruntime" in words and "designs held out" in words


def test_what_differs_is_named(key: TableKey) -> None:
    old = key.model_copy(update={"runtime_version": "0.1", "threads": 7})
    assert old.differences(key) == [
        f"runtime version 0.1 ({key.runtime_version} here)",
        "threads 7 (1 here)",
    ]
    assert key.differences(key) == []


def test_threads_left_to_the_runtime_are_those_of_the_machine(pair: Space, key: TableKey) -> None:
    chosen = key_of(pair, find_target("onnxruntime"), "measured", 0)
    assert chosen.threads is not None and chosen.threads >= 1
    assert key.threads == 1


def damaged(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_a_damaged_file_is_refused_in_one_line(stored: Path, pair: Space) -> None:
    content = stored.read_text()
    assert "was changed after" in refused(lambda: read_table(damaged(stored, seconds=1.0), pair))
    assert "cannot be used: designs" in refused(lambda: read_table(damaged(stored, designs=[{"options": {}}]), pair))
    stored.write_text(content[:200])
    assert "latency table" in refused(lambda: read_table(stored, pair))


def test_a_file_that_contradicts_itself_is_refused_though_its_seal_fits(stored: Path, pair: Space) -> None:
    def forged(**changes: object) -> Path:
        content = {k: v for k, v in json.loads(stored.read_text()).items() if k != "sha256"}
        other = stored.with_name("forged.json")
        other.write_text(json.dumps(sealed({**content, "designs": [content["designs"][0] | changes]})))
        return other

    assert "has not the same latencies" in refused(lambda: read_table(forged(medians_ms={"depth": [1.0]}), pair))
    assert "times other parts" in refused(lambda: read_table(forged(profiled_ms=[1.0]), pair))
    assert "choice in space tiny" in refused(lambda: read_table(forged(options={"no": 1}), pair))


def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, pair: Space) -> None:
    path = tmp_path / "foreign.json"
    path.write_text('{"schema": "edgemtl.result/1"}')
    assert "has schema 'edgemtl.result/1', this version reads 'edgemtl.latency/1'" in refused(
        lambda: read_table(path, pair)
    )


def test_a_table_of_another_space_is_refused(stored: Path, tmp_path: Path) -> None:
    other = space(tmp_path, KIND, find_target("onnxruntime").traits)
    assert "is one of another space" in refused(lambda: read_table(stored, other))


def test_a_table_that_is_not_whole_is_refused(pair: Space, key: TableKey, tmp_path: Path) -> None:
    write_table(tmp_path / "part.json", key, some_table(pair, 0).measured, 1.0)
    assert "is not whole" in refused(lambda: read_table(tmp_path / "part.json", pair))


def test_a_table_lies_beside_its_supernet_else_in_the_cache(
    key: TableKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "nets" / "own.safetensors"
    own, cached = table_files(weights, key)
    assert own == tmp_path / "nets" / f"own.latency.host-onnxruntime-{'x'.join(map(str, key.size))}-1.json"
    assert cached.parent == tmp_path / "cache" / "latency"
    assert table_files(None, key) == (cached,)
    assert table_file((own, cached)) == cached, "there is no such folder"
    weights.parent.mkdir()
    assert table_file((own, cached)) == own
    others = [key.model_copy(update=change) for change in ({"size": (8, 8)}, {"threads": 7}, {"threads": None})]
    assert len({own, *(table_files(weights, each)[0] for each in others)}) == 4, "one is never written over another"
