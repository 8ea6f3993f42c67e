"""C simulation with FIFOs of a project's own depths: its layers as threads that wait for each other, as in hardware.

hls4ml's own simulation runs one layer after the other, and its FIFOs hold whatever comes: depths that would stop the
hardware for ever pass it. What a process network computes, and whether it comes to its end, depends on no order in
which its parts run (Kahn 1974), so that threads tell. How pipelines inside a layer stall is not simulated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEPTHS", "STARVED", "Dataflow", "as_threads"]

DEPTHS = "fifo_depths"
"""The array of depths in the compiled project: those to simulate with; afterwards those that it took."""
STARVED = "fifo_starved"
"""Whether a layer waited for more than another wrote, in the compiled project."""
_DEPTH = re.compile(r"#pragma HLS STREAM variable=(\w+) depth=(\d+)")
_CALL = re.compile(r"\s*nnet::(?!load_weights)\w+<.*\)\s*;.*")


@dataclass(frozen=True)
class Dataflow:
    """A project's top function whose layers run as threads, and the depths of its FIFOs by name."""

    source: str
    depths: Mapping[str, int]


def as_threads(source: str) -> Dataflow:
    """The top function that hls4ml wrote, each layer started as a thread of `export/hls/dataflow/hls_stream.h`.

    Layers stand in the order of the data, so that of the two that name a stream the first writes to it.
    """
    depths = {name: int(depth) for name, depth in _DEPTH.findall(source)}
    ends: dict[str, list[int]] = {name: [] for name in depths}
    variables = f"int {DEPTHS}[] = {{{', '.join(map(str, depths.values()))}}}, {STARVED} = 0;"
    lines, calls = [f'extern "C" {{ {variables} }}'], 0
    for line in source.splitlines():
        if not _CALL.fullmatch(line):
            lines.append(line)
            continue
        if not calls:
            lines.append("    dataflow::Region region;")
        for name in set(re.findall(r"\w+", line.partition("(")[2])) & ends.keys():
            ends[name].append(calls)
        lines.append(f"    region.start([&] {{ {line.partition('//')[0].strip()} }});")
        calls += 1
    connections = [
        f"    region.connect({name}.fifo, {DEPTHS}[{number}], {ends[name][0]}, {ends[name][1]});"
        for number, name in enumerate(depths)
    ]
    end = len(lines) - lines[::-1].index("}") - 1
    run = ["    region.run();", f"    {STARVED} = region.starved;"]
    return Dataflow("\n".join([*lines[:end], *connections, *run, *lines[end:]]) + "\n", depths)
