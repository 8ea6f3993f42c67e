from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemtl.data import cache as _cache
from edgemtl.data.cache import SEGMENT, RowCache
from edgemtl.errors import UserError
from edgemtl.files.cache import cache_root

FIELDS: dict[str, tuple[tuple[int, ...], str]] = {"a": ((3, 4), "<f2"), "b": ((5,), "|i1")}


def row(seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {"a": rng.random((3, 4)).astype(np.float16), "b": rng.integers(-128, 128, 5, np.int8)}


def equal(found: dict[str, NDArray[Any]] | None, expected: dict[str, NDArray[Any]]) -> bool:
    return found is not None and all(np.array_equal(found[name], expected[name]) for name in expected)


def test_rows_come_back_in_any_order_and_over_segments(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "c", FIELDS)
    indices = [5, 0, SEGMENT - 1, SEGMENT, 3 * SEGMENT + 7]
    for index in indices:
        assert cache.read(index) is None
        cache.write(index, row(index))
    again = RowCache(tmp_path / "c", FIELDS)
    for index in indices:
        assert equal(again.read(index), row(index))
        assert again.claimed(index)
    assert not again.claimed(1)
    assert again.read(1) is None
    assert cache.row_bytes == 3 * 4 * 2 + 5


def test_files_are_plain_npy(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, FIELDS)
    cache.write(2, row(2))
    assert np.array_equal(np.load(tmp_path / "0000" / "a.npy")[2], row(2)["a"])


def test_two_writers_share_one_folder(tmp_path: Path) -> None:
    one, other = RowCache(tmp_path, FIELDS), RowCache(tmp_path, FIELDS)
    one.write(0, row(0))
    assert equal(other.read(0), row(0))
    other.write(1, row(1))
    assert equal(one.read(1), row(1))
    other._create(tmp_path / "0000")  # lost the race: what is there stays
    assert equal(RowCache(tmp_path, FIELDS).read(0), row(0))
    assert [path.name for path in tmp_path.iterdir()] == ["0000"]


def test_a_half_written_row_counts_as_missing(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, FIELDS)
    cache.write(0, row(0))
    path = tmp_path / "0000" / "a.npy"
    content = bytearray(path.read_bytes())
    content[-SEGMENT * 24 + 3] ^= 1
    path.write_bytes(content)
    again = RowCache(tmp_path, FIELDS)
    assert again.read(0) is None
    again.write(0, row(0))
    assert equal(again.read(0), row(0))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, position: int, values: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_cache, "_write_row", full)
    cache = RowCache(tmp_path, FIELDS)
    with pytest.raises(UserError, match=r"No space left on device; free space there or set EDGEMTL_CACHE"):
        cache.write(0, row(0))
    assert cache.read(0) is None


def test_a_folder_that_cannot_be_made_or_read_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the cache"):
        RowCache(tmp_path / "file" / "c", FIELDS).write(0, row(0))
    cache = RowCache(tmp_path / "c", FIELDS)
    cache.write(0, row(0))
    (tmp_path / "c" / "0000" / "b.npy").write_bytes(b"short")
    with pytest.raises(UserError, match="is damaged"):
        RowCache(tmp_path / "c", FIELDS).read(0)


def test_pickling_carries_no_data(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, FIELDS)
    cache.write(0, row(0))
    cache.read(0)
    blob = pickle.dumps(cache)
    assert len(blob) < 1000
    assert equal(pickle.loads(blob).read(0), row(0))


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x"
    monkeypatch.delenv("EDGEMTL_CACHE")
    assert cache_root() == Path.home() / ".cache" / "edgemtl"
