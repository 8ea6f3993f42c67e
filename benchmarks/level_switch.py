"""Levels of one bundle at run time: what a switch takes, and the memory of five levels against five bundles.

The levels are what `edgemtl export --levels 5` makes of a budget of 2 GFLOPs: all tasks alike, and each preferred. A
switch is `Engine.set_level`; the first one opens the level's engine, later ones find it open. Memory is by how much the
resident set of a fresh process grows, its libraries loaded, until every engine is open and has run three times; a
bundle by itself holds one level's design. Disk is the size of the folders. The limits are those of ONNX Runtime;
OpenVINO, which compiles when it opens, is printed next to it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _runs import scenes_evaluator, scenes_sensitivity

from edgemtl.data import Sample
from edgemtl.export import Evidence, ExportRequest, Origin, export_bundle
from edgemtl.export.levels import export_levels
from edgemtl.models import recalibrate
from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.evaluation.problem import Limit
from edgemtl.nas.levels import Level, Levels
from edgemtl.nas.search.strategies.preference import make_table, widths_for
from edgemtl.runtime import Engine
from edgemtl.targets import find_target
from edgemtl.units import parse_budget

BUDGET = "2GFLOPs"
PREFERRED = 4.0
ROUNDS = {"onnxruntime": 20, "openvino": 5}
QUICK_ROUNDS = 2


def levels(quick: bool) -> Levels:
    """Five levels of the shipped supernet; with `quick` their statistics come from noise, which changes no cost."""
    space, evaluator = scenes_evaluator("onnxruntime")
    table, budget = make_table(space, scenes_sensitivity()), parse_budget(BUDGET)
    names, found = [task.name for task in space.tasks], []
    for preferred in ("", *names):
        preference = {name: PREFERRED if name == preferred else 1.0 for name in names}
        design = widths_for(table, preference, [Limit(budget, budget.value)])
        if quick:
            net = evaluator.supernet.extract(design)
            recalibrate(net, [torch.randn(2, 3, *space.size, generator=torch.Generator().manual_seed(0))])
            candidate = Candidate(design, net, None)
        else:
            candidate = evaluator.candidate(design)
        found.append(Level(preferred or "alike", BUDGET, preference, candidate))
    return Levels(tuple(found), evaluator.supernet, evaluator.source)


def write(found: Levels, target: str, folder: Path, samples: list[Sample]) -> None:
    """One bundle of all levels, and one of each."""
    exporter, heard = find_target(target), lambda news: say(news.text)
    export_levels(found, exporter, folder / "levels", evidence=Evidence((), samples), origin=Origin(), report=heard)
    for number, level in enumerate(found.levels):
        request, evidence = ExportRequest(target), Evidence((), samples)
        export_bundle(level.candidate.net, "fp32", request, folder / f"alone{number}", evidence)


def measured(bundles: list[Path]) -> int:
    """Bytes that a process of its own grows by with these bundles."""
    command = [sys.executable, str(Path(__file__).with_name("_resident.py")), *map(str, bundles)]
    return int(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)


def switches(bundle: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Times in ms of switching to each level for the first time, and again."""
    first, again = list[float](), list[float]()
    for _ in range(rounds):
        with Engine(bundle) as engine:
            image = np.zeros((1, 3, engine.manifest.input.height, engine.manifest.input.width), np.float32)
            engine.run(image)
            for taken in (first, again):
                for level in (*engine.manifest.levels[1:], engine.manifest.levels[0]):
                    start = time.perf_counter()
                    engine.set_level(prefer=level.preference)
                    spent_ms = 1000 * (time.perf_counter() - start)
                    if taken is again or level is not engine.manifest.levels[0]:  # that one was opened with the bundle
                        taken.append(spent_ms)
    return first, again


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measured_for(target: str, found: Levels, quick: bool) -> dict[str, Any]:
    """Times of switches, and bytes in memory and on disk of levels and of bundles, for one target."""
    folder = Path(tempfile.mkdtemp())
    try:
        write(found, target, folder, list(found.source.split("validation")[: 1 if quick else 8]))
        levels_of, alone = folder / "levels", [folder / f"alone{number}" for number in range(len(found.levels))]
        first, again = switches(levels_of, QUICK_ROUNDS if quick else ROUNDS[target])
        return {
            "first_ms": first,
            "again_ms": again,
            "resident_bytes": {"levels": measured([levels_of]), "bundles": measured(alone)},
            "disk_bytes": {"levels": size_of(levels_of), "bundles": sum(map(size_of, alone))},
        }
    finally:
        shutil.rmtree(folder)


def run(options: argparse.Namespace) -> Outcome:
    """Write both for each target, then measure switches, memory and disk."""
    found = levels(options.quick)
    raw = {target: measured_for(target, found, options.quick) for target in ROUNDS}
    rows = []
    for target, figures in raw.items():
        limits, of = ((50, 1, 2), "") if target == "onnxruntime" else ((None, None, None), f"_{target}")
        memory, disk = (figures[kind]["bundles"] / figures[kind]["levels"] for kind in ("resident_bytes", "disk_bytes"))
        rows += [
            Row(f"first_switch_median{of}", statistics.median(figures["first_ms"]), "ms", limits[0]),
            Row(f"switch_median{of}", statistics.median(figures["again_ms"]), "ms", limits[1]),
            Row(f"memory_of_bundles_over_levels{of}", memory, "x", limits[2], None, False),
            Row(f"disk_of_bundles_over_levels{of}", disk, "x", None, None, False),
        ]
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
