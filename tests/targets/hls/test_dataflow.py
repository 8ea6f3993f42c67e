"""Layers as threads with FIFOs of stated depths: a small top function as hls4ml writes one, compiled and run."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from edgemtl.targets.hls.csim import shared_source
from edgemtl.targets.hls.dataflow import DEPTHS, STARVED, as_threads

LAYERS = """#include "hls_stream.h"
namespace nnet {
template <class T> void clone(hls::stream<T> &data, hls::stream<T> &one, hls::stream<T> &other) {
    for (int i = 0; i < 8; ++i) {
        const T value = data.read();
        one.write(value);
        other.write(value);
    }
}
template <class T> void turn(hls::stream<T> &data, hls::stream<T> &res) {
    T values[8];
    for (int i = 0; i < 8; ++i)
        values[i] = data.read();
    for (int i = 0; i < 8; ++i)
        res.write(values[7 - i]);
}
template <class T, int COUNT> void add(hls::stream<T> &one, hls::stream<T> &other, hls::stream<T> &res) {
    for (int i = 0; i < COUNT; ++i)
        res.write(one.read() + other.read());
}
}
"""
TOP = """void top(hls::stream<int> &data, hls::stream<int> &sums) {
    hls::stream<int> straight("straight");
    #pragma HLS STREAM variable=straight depth=3
    hls::stream<int> bent("bent");
    #pragma HLS STREAM variable=bent depth=2
    hls::stream<int> turned("turned");
    #pragma HLS STREAM variable=turned depth=2
    nnet::clone<int>(data, straight, bent); // clone
    nnet::turn<int>(bent, turned); // turn
    nnet::add<int, COUNT>(straight, turned, sums); // add
}
"""
BRIDGE = """extern "C" void run(const int *given, int *result) {
    hls::stream<int> data("data"), sums("sums");
    for (int i = 0; i < 8; ++i)
        data.write(given[i]);
    top(data, sums);
    for (int i = 0; i < 8; ++i)
        result[i] = sums.read();
}
"""


def compiled(folder: Path, count: int = 8) -> ctypes.CDLL:
    dataflow = as_threads(TOP.replace("COUNT", str(count)))
    assert dataflow.depths == {"straight": 3, "bent": 2, "turned": 2}
    source, library = folder / f"top{count}.cpp", folder / f"top{count}.so"
    source.write_text(LAYERS + dataflow.source + BRIDGE)
    streams = shared_source("dataflow/hls_stream.h").parent
    options = ["-std=c++17", "-pthread", "-shared", "-fPIC", "-w", f"-I{streams}"]
    subprocess.run(["g++", *options, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def run(library: ctypes.CDLL, depths: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """Sums, and the depths that it took to get them."""
    array = (ctypes.c_int * 3).in_dll(library, DEPTHS)
    array[:] = depths
    result = (ctypes.c_int * 8)()
    library.run((ctypes.c_int * 8)(*range(8)), result)
    return list(result), list(array)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(tmp_path_factory.mktemp("dataflow"))


def test_deep_enough_fifos_stay_as_they_are(library: ctypes.CDLL) -> None:
    assert run(library, (8, 1, 1)) == ([7] * 8, [8, 1, 1])
    assert run(library, (9, 4, 8)) == ([7] * 8, [9, 4, 8])
    assert ctypes.c_int.in_dll(library, STARVED).value == 0


def test_one_in_which_the_layers_would_wait_for_ever_grows_as_far_as_it_must(library: ctypes.CDLL) -> None:
    """The path that turns its values reads all eight before it gives one: seven wait on the other, one was read."""
    assert run(library, (3, 2, 2)) == ([7] * 8, [7, 2, 2])
    assert run(library, (1, 1, 1)) == ([7] * 8, [7, 1, 1])


def test_a_layer_that_reads_more_than_another_writes_ends_and_says_so(tmp_path: Path) -> None:
    library = compiled(tmp_path, count=9)
    assert run(library, (8, 1, 1))[0] == [7] * 8
    assert ctypes.c_int.in_dll(library, STARVED).value == 1
