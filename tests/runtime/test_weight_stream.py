"""Weights read piece by piece: every byte is the file's, two pieces are held at most, and what is held is counted."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.errors import UserError
from edgemtl.runtime.streaming.weights import ALIGNMENT, Piece, WeightStream

UNITS = 40


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "weights.bin"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, UNITS * ALIGNMENT, np.uint8).tobytes())
    return path


def pieces() -> st.SearchStrategy[list[Piece]]:
    ranges = st.tuples(st.integers(0, UNITS - 1), st.integers(1, UNITS)).map(
        lambda pair: Piece(pair[0] * ALIGNMENT, min(pair[1], UNITS - pair[0]) * ALIGNMENT)
    )
    return st.lists(ranges, min_size=1, max_size=12)


@settings(deadline=None, max_examples=50)
@given(order=pieces(), ahead=st.booleans())
def test_pieces_are_the_files_bytes_and_two_are_held_at_most(file: Path, order: list[Piece], ahead: bool) -> None:
    content = np.frombuffer(file.read_bytes(), np.uint8)
    pairs = [a.size_bytes + b.size_bytes for a, b in itertools.pairwise(order) if a != b]
    most = max([*pairs, *(piece.size_bytes for piece in order)])
    changes = [order[0]] + [b for a, b in itertools.pairwise(order) if a != b]
    with closing(WeightStream(file, most)) as stream:
        for _ in range(2):
            stream.begin()
            for piece, following in itertools.zip_longest(order, order[1:]):
                memory = stream.take(piece)
                if ahead and following is not None:
                    stream.prefetch(following)
                assert memory.ctypes.data % ALIGNMENT == 0
                np.testing.assert_array_equal(memory, content[piece.offset :][: piece.size_bytes])
            assert stream.read_bytes == sum(piece.size_bytes for piece in changes)
        assert stream.peak_bytes == stream.buffer_bytes == most


def test_a_run_that_was_broken_off_leaves_nothing_for_the_next(file: Path) -> None:
    first, second, third = (Piece(number * ALIGNMENT, ALIGNMENT) for number in (1, 2, 3))
    with closing(WeightStream(file, 2 * ALIGNMENT)) as stream:
        stream.take(first)
        stream.prefetch(second)
        stream.begin()
        np.testing.assert_array_equal(stream.take(third), np.fromfile(file, np.uint8)[third.offset :][:ALIGNMENT])
        assert stream.read_bytes == ALIGNMENT


def test_a_file_that_is_cut_while_it_is_open_is_an_error_not_zeros(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(4 * ALIGNMENT))
    with closing(WeightStream(path, 4 * ALIGNMENT)) as stream:
        path.write_bytes(bytes(ALIGNMENT))
        with pytest.raises(UserError, match="cut short"):
            stream.take(Piece(0, 2 * ALIGNMENT))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.bin"):
        WeightStream(tmp_path / "nothing.bin", ALIGNMENT)
