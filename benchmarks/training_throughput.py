"""Training throughput of the default space on this machine, by whole runs of `edgemtl train` taken in turns.

Images a second of sandwich steps (largest, smallest and a random design) at half the input size, data loading and
augmentation included: FP32 against BF16, one process with all cores against a process per core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from _common import Outcome, Row, main
from _runs import edgemtl

BATCH = 16


def run(options: argparse.Namespace) -> Outcome:
    """Train a little, several times; a run's speed is the median of its reports but for the first one's."""
    cores = os.cpu_count() or 1
    kinds = {
        "fp32_one_process": ["--no-bf16", "--batch", str(BATCH)],
        "bf16_one_process": ["--batch", str(BATCH)],
        "bf16_process_per_core": ["--batch", str(BATCH), "--processes", str(cores)],
    }
    speeds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(1 if options.quick else 2):
        for name, arguments in kinds.items():
            speeds[name].append(_speed(arguments, 40 if options.quick else 80))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    rows = [Row(name, value, "images/s") for name, value in medians.items()]
    rows.append(Row("bf16_gain", medians["bf16_one_process"] / medians["fp32_one_process"], "x"))
    rows.append(Row("processes_gain", medians["bf16_process_per_core"] / medians["bf16_one_process"], "x"))
    return Outcome(rows, {"images_per_second": speeds, "cores": cores})


def _speed(arguments: list[str], steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        common = ["--images", "512", "--steps", str(steps), "--largest-steps", "0", "--sizes", "0.5"]
        edgemtl("train", *common, *arguments, "--out", str(Path(folder) / "run"))
        lines = (Path(folder) / "run" / "train.jsonl").read_text().splitlines()
    return statistics.median([json.loads(line)["images_per_second"] for line in lines][1:])


if __name__ == "__main__":
    main(run, __doc__)
