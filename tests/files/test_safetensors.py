from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from edgemtl.errors import UserError
from edgemtl.files.safetensors import open_tensors

ARRAYS = {
    kind: np.arange(6).reshape(3, 2).astype(kind) for kind in ("?", "i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8")
}
GOOD = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.int8)}, {"key": "x"})


def file_of(header: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + data


def test_tensors_and_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(GOOD)
    with open_tensors(tmp_path / "w", "weights", "numpy") as file:
        assert sorted(file.names) == ["a", "b"]
        assert file.metadata == {"key": "x"}
        assert file["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(KeyError):
            file["c"]


def test_numpy_s_arrays_are_read_as_the_library_wrote_them(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(save({**ARRAYS, "empty": np.zeros((0, 3), np.float32), "one": np.array(7)}))
    with open_tensors(tmp_path / "w", "weights", "numpy") as file:
        for name, value in ARRAYS.items():
            assert file[name].dtype == value.dtype and np.array_equal(file[name], value)
        assert file["empty"].shape == (0, 3) and file["one"].shape == () and file["one"] == 7


def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(tmp_path: Path) -> None:
    content = next(
        c for n in range(1024) if (c := save({"a": np.ones(2, np.int8)}, {"key": n * "x"}))[0:2] == b"\x80\x02"
    )
    (tmp_path / "w").write_bytes(content)
    with open_tensors(tmp_path / "w", "weights", "numpy") as file:
        assert file["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:7],
        GOOD[:60],
        GOOD[:-1],
        GOOD + b"x",
        struct.pack("<Q", 2**63) + GOOD[8:],
        b"\x80\x04" + GOOD,
        b"PK\x03\x04" + GOOD,
        file_of("[]"),
        file_of("{" * 5000),
        file_of('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', bytes(8)),
        file_of('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', bytes(4)),
        file_of('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": 1}', bytes(4)),
        file_of('{"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}', bytes(4)),
        file_of('{"a": {"dtype": "U8", "shape": [4], "data_offsets": [-4, 0]}}', bytes(0)),
        file_of('{"a": {"dtype": "U8", "shape": 4, "data_offsets": [0, 4]}}', bytes(4)),
        file_of('{"a": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}', bytes(1)),
        file_of('{"a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}', bytes(4)),
        file_of(json.dumps({"a": {"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4]}}), bytes(4)),
    ],
)
def test_every_damage_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with (
        pytest.raises(UserError, match=r"weights .*/w cannot be read") as error,
        open_tensors(tmp_path / "w", "weights", "numpy"),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w")
    with pytest.raises(UserError, match="it is a pipe"), open_tensors(tmp_path / "w", "weights", "numpy"):
        pass
