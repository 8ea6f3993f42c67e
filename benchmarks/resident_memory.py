"""Resident memory with four tasks of the mixture-of-experts ViT-S ready: one engine, against an engine for each task.

Each side is a process of its own that opens its engines, runs every task once and says by how much its resident set
grew since before the first engine. How much of what is freed on the way goes back to the system is chance, so each side
is the median of several such processes, in turns with the other's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from _common import Outcome, Row, main, say
from _resident import resident_bytes
from _vit_small import SIZE, vit_small

from edgemtl.runtime import open_engine
from edgemtl.targets import find_target

TASKS, PROCESSES = 4, 3


def grown(folders: list[Path]) -> int:
    """Bytes that this process grows by when all these engines are open and have run each of their tasks."""
    image = np.zeros((1, 3, *SIZE), np.float32)
    before, sessions = resident_bytes(), []
    for folder in folders:
        names = folder.name.split("+")
        sessions.append(open_engine(folder, modes=[[name] for name in names]))
        for name in names:
            sessions[-1].run(image, [name])
    after = resident_bytes()
    for session in sessions:
        session.close()
    return after - before


def measured(folders: list[Path]) -> int:
    """`grown` in a process of its own."""
    command = [sys.executable, __file__, "--engines", *map(str, folders)]
    return int(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)


def run(options: argparse.Namespace) -> Outcome:
    """How many times less one engine takes, on each runtime."""
    net = vit_small(TASKS)
    names = [task.name for task in net.tasks]
    rows, raw = [], {}
    for runtime in ("onnxruntime", "openvino"):
        with tempfile.TemporaryDirectory() as scratch:
            whole = Path(scratch) / "+".join(names)
            alone = [Path(scratch) / name for name in names]
            for folder in (whole, *alone):
                folder.mkdir()
                find_target(runtime).build(net.subset(folder.name.split("+")), {}, None, folder)
            turns = [(measured([whole]), measured(alone)) for _ in range(1 if options.quick else PROCESSES)]
        sizes = {"one_engine": median(one for one, _ in turns), "engine_per_task": median(each for _, each in turns)}
        say(f"{runtime}: {sizes}")
        rows.append(Row(runtime, sizes["engine_per_task"] / sizes["one_engine"], "x", 2.4, 3.5, lower_is_better=False))
        raw[runtime] = {**sizes, "turns": turns}
    return Outcome(rows, raw)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--engines"]:
        print(grown([Path(name) for name in sys.argv[2:]]))
    else:
        main(run, __doc__)
