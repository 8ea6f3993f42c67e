"""Making a latency table: a few dozen well spread designs, each built, timed in several engines, and profiled once."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from edgemtl.errors import UnsupportedError
from edgemtl.models import recalibrate
from edgemtl.models.quantization import calibrate
from edgemtl.nas.evaluation import Evaluator
from edgemtl.nas.latency.file import TableKey, measured_in, read_document, write_table
from edgemtl.nas.latency.parts import attributed, design_parts
from edgemtl.nas.latency.table import LatencyTable, MeasuredDesign, fit_table
from edgemtl.progress import Progress, Report, silent
from edgemtl.spaces import Design, Space

__all__ = ["DESIGNS", "PASSES", "make_table", "measure_designs", "spread_designs"]

DESIGNS = 40
"""How many designs a table is made of."""
PASSES = 3
"""How many engines of each design are timed."""
PROFILE_RUNS = 15
_IMAGES = 4
_DRAWS, _NEAR = 200, 12
_GOLDEN = 0.618034


def spread_designs(space: Space, count: int, seed: int = 0) -> list[Design]:
    """Designs of every size and precision that have as many different parts as can be; fewer in a small space.

    The largest and the smallest in each uniform precision come first, so that nothing lies outside of what is measured.
    Sizes follow the golden ratio; of the designs near one the one that has most parts not seen before is taken.
    """
    rng = random.Random(seed)
    drawn = [space.random(rng) for _ in range(_DRAWS)]
    pools = [drawn, *map(list, zip(*(space.uniform(design) for design in drawn), strict=True))]
    sizes = {design.key: float(np.log(design.cost().flops)) for design in drawn}
    ends = [each for design in (space.largest(), space.smallest()) for each in space.uniform(design)]
    picked = {design.key: design for design in ends[:count]}
    seen = {part.key for design in picked.values() for part in design_parts(design)}
    least, most = min(sizes.values()), max(sizes.values())
    for turn in range(_DRAWS):
        if len(picked) == count:
            break
        wanted = least + (turn * _GOLDEN % 1) * (most - least)
        near = [
            number
            for number in sorted(range(_DRAWS), key=lambda index: abs(sizes[drawn[index].key] - wanted))
            if pools[turn % len(pools)][number].key not in picked
        ]
        if near:
            candidates = [pools[turn % len(pools)][number] for number in near[:_NEAR]]
            design = max(candidates, key=lambda each: len({part.key for part in design_parts(each)} - seen))
            picked[design.key] = design
            seen |= {part.key for part in design_parts(design)}
    return list(picked.values())


@dataclass
class _Record:
    """Figures of one design as far as they are measured."""

    design: Design
    medians_ms: dict[str, list[float]] = field(default_factory=dict)
    profiled_ms: tuple[float, ...] = ()
    unnamed_ms: float = 0.0

    @property
    def engines(self) -> int:
        """How many engines were timed."""
        return len(next(iter(self.medians_ms.values()), ()))

    def measured(self) -> MeasuredDesign:
        """The record as the table takes it."""
        medians_ms = {scope: tuple(medians) for scope, medians in self.medians_ms.items()}
        return MeasuredDesign(self.design, medians_ms, self.profiled_ms, self.unnamed_ms)


def make_table(path: Path, key: TableKey, space: Space, evaluator: Evaluator, report: Report = silent) -> LatencyTable:
    """Measure a table of `DESIGNS` designs with an evaluator's target, device, threads and scopes.

    Raises `UnsupportedError` where the runtime tells no times of its operators.
    """
    measured, seconds = measure_designs(spread_designs(space, DESIGNS), path, key, evaluator, PASSES, report)
    table = fit_table(measured)
    write_table(path, key, measured, seconds, table)
    return table


def measure_designs(
    designs: Sequence[Design],
    path: Path,
    key: TableKey,
    evaluator: Evaluator,
    passes: int = PASSES,
    report: Report = silent,
) -> tuple[list[MeasuredDesign], float]:
    """Designs with the latencies of an engine in each of `passes` and one profile, and the seconds that it took.

    A pass goes through all designs, every other one backwards, so that a drift weighs on all alike. What is measured is
    written into `path` after each engine, so that what was stopped goes on. Engines lie in a temporary folder
    meanwhile. Raises `UnsupportedError` where the runtime tells no times of its operators.
    """
    started = time.monotonic()
    records = [_Record(design) for design in designs]
    spent = _go_on(records, path, key, evaluator)
    total, done = passes * len(records), sum(each.engines for each in records)
    report(Progress("latency table", done, total))
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as scratch:
        for number, record in _visits(records, passes):
            _measure(record, evaluator, Path(scratch) / str(number))
            done += 1
            begun = [each.measured() for each in records if each.engines]
            write_table(path, key, begun, spent + time.monotonic() - started)
            report(Progress("latency table", done, total, f"{min(record.medians_ms['']):.2f} ms"))
    return [each.measured() for each in records], spent + time.monotonic() - started


def _visits(records: Sequence[_Record], passes: int) -> Iterator[tuple[int, _Record]]:
    """The designs of every pass that are still to be timed in it."""
    for turn in range(passes):
        numbered = list(enumerate(records))
        yield from ((n, each) for n, each in (reversed(numbered) if turn % 2 else numbered) if each.engines <= turn)


def _go_on(records: Sequence[_Record], path: Path, key: TableKey, evaluator: Evaluator) -> float:
    """Take over what a part of this very table holds; the seconds that it took."""
    if not path.is_file():
        return 0.0
    document = read_document(path)
    if document.key != key:
        return 0.0
    before = {each.design.key: each for each in measured_in(document, records[0].design.space, path)}
    for record in records:
        each = before.get(record.design.key)
        if each is not None and [*each.medians_ms] == [*evaluator.scopes]:
            record.medians_ms = {scope: list(medians) for scope, medians in each.medians_ms.items()}
            record.profiled_ms, record.unnamed_ms = each.profiled_ms, each.unnamed_ms
    return document.seconds


def _measure(record: _Record, evaluator: Evaluator, folder: Path) -> None:
    """Time one more engine of a design, which is built where it is not there yet; profile the first one."""
    if not folder.exists():
        _build(record.design, evaluator, folder)
    modes = [evaluator.tasks_of(scope) for scope in evaluator.scopes]
    with closing(evaluator.measurer.open(folder, evaluator.threads, modes)) as session:
        for scope, ms in evaluator.medians(session).items():
            record.medians_ms.setdefault(scope, []).append(ms)
        if not record.profiled_ms:
            times = session.operator_times(evaluator.sample_image, evaluator.tasks_of(""), PROFILE_RUNS)
            parts_ms, record.unnamed_ms = attributed(times, design_parts(record.design))
            record.profiled_ms = tuple(parts_ms)
    if not sum(record.profiled_ms):
        runtime = evaluator.target.traits.runtime
        raise UnsupportedError(f"runtime {runtime} tells no times of a net's blocks: search with --latency measured")


def _build(design: Design, evaluator: Evaluator, folder: Path) -> None:
    """A design's engine; its statistics and ranges are those of noise, since latency does not depend on values."""
    net = evaluator.supernet.extract(design)
    noise = [torch.randn(_IMAGES, 3, *design.space.size, generator=torch.Generator().manual_seed(0))]
    recalibrate(net, noise)
    ranges = calibrate(net, noise) if "int8" in design.precision.values() else None
    evaluator.target.build(net, design.precision, ranges, folder)
