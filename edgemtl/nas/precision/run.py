"""`edgemtl search NET`: from a net of one's own and photos to a precision for each block, measured on its engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from edgemtl.environment import environment
from edgemtl.files.claim import claim
from edgemtl.models.quantization import Ranges
from edgemtl.nas.precision.candidates import (
    Agreements,
    gentlest_first,
    keeps_floors,
    longest_kept,
    worth_rounding,
)
from edgemtl.nas.precision.finalists import Candidate, Finalist, choose, measure, uniform_name
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.setup import TEST_IMAGES, Setup, set_up
from edgemtl.nas.precision.state import Scored, begin
from edgemtl.own import FLOAT, INT8, Agreement, OwnPrecision, block_records, write_precision
from edgemtl.progress import Progress, Report, silent
from edgemtl.results import RESULT_FILE, Entry, Latency, Result, read_result, write_result
from edgemtl.signals import deferred
from edgemtl.tasks import map_outputs

__all__ = ["search_precision"]


def search_precision(request: PrecisionRequest, report: Report = silent) -> Result:
    """Choose the precision of the engine and of each block of a net of one's own; writes and returns the result.

    INT8 is calibrated on a third of the photos, chosen on another third, and reported on the last; scores are each
    task's agreement with the float net, as photos have no labels. The net in float and each uniform precision are
    always among the finalists, which are timed in turns on the target. Raises `UserError` for anything that cannot be
    met or understood. What was scored is kept after each engine: `resume` goes on from there.
    """
    with claim(request.out, "search"):
        return _search(request, report)


def _search(request: PrecisionRequest, report: Report) -> Result:
    started = time.monotonic()
    setup = set_up(request, report)
    begin(request.out, setup.config, request.resume)
    if (request.out / RESULT_FILE).is_file():
        return read_result(request.out)
    ranges = setup.calibrate(report) if setup.blocks else None
    scored = Scored.of(request.out)
    candidates = list(_Proposal(setup, scored, ranges, report).candidates())
    report(Progress("finalists", 0, 1, f"{len(candidates)} timed in turns"))
    finalists = measure(setup.bench, candidates, setup.budgets, setup.allowed)
    report(Progress("finalists", 1, 1))
    best = choose(finalists)
    ordered = [best, *(each for each in finalists if each is not best)]
    entries = _entries(setup, ordered, finalists[0], _tested(setup, ordered, report))
    result = _result(request, setup, best, entries, (len(scored.agreements), started))
    with deferred():  # an older precision and a newer result would not go together
        write_precision(request.out, best.candidate.precision, setup.digest, setup.bench.target.traits.name)
        write_result(request.out, result)
    return result


class _Proposal:
    """Candidates, each scored on the photos that decide."""

    def __init__(self, setup: Setup, scored: Scored, ranges: Ranges | None, report: Report) -> None:
        self._setup, self._scored, self._ranges, self._report = setup, scored, ranges, report
        self._engines = setup.bench.target.traits.engine_precisions

    def candidates(self) -> Iterator[Candidate]:
        """The uniform precisions, the net in float first; then, for each engine, mixtures that keep the floors."""
        blocks = self._setup.blocks
        uniform = [
            self._precision(engine, chosen) for chosen in dict.fromkeys(((), blocks)) for engine in self._engines
        ]
        for precision in uniform:
            yield Candidate(uniform_name(precision), precision, self._score(precision), True)
        if blocks:
            order = self._order()
            for engine in self._engines:
                yield from self._mixed(engine, order)

    def _order(self) -> list[str]:
        """Blocks, those first that lose least alone in INT8."""
        blocks, alone = self._setup.blocks, dict[str, Agreements]()
        for number, block in enumerate(blocks):
            self._report(Progress("precision", number, len(blocks), block))
            alone[block] = self._score(self._precision(self._engines[0], (block,)))
        self._report(Progress("precision", len(blocks), len(blocks)))
        return gentlest_first(alone, self._setup.allowed)

    def _mixed(self, engine: str, order: Sequence[str]) -> Iterator[Candidate]:
        """As many blocks in INT8 as the floors allow, and fewer where some are no faster so."""
        allowed, blocks = self._setup.allowed, self._setup.blocks

        def kept(count: int) -> bool:
            self._report(Progress("", 0, 0, f"{engine}: the {count} gentlest of {len(order)} blocks in INT8"))
            return keeps_floors(self._score(self._precision(engine, order[:count])), allowed)

        longest = tuple(order[: longest_kept(len(order), kept)])
        if not longest:
            return
        float_ms, rounded_ms = (self._setup.bench.block_ms(self._precision(engine, each)) for each in ((), blocks))
        fewer = worth_rounding(longest, float_ms, rounded_ms)
        for number, chosen in enumerate(dict.fromkeys((longest, *fewer)), 1):
            precision = self._precision(engine, chosen)
            agreements = self._score(precision)
            if len(chosen) < len(blocks) and keeps_floors(agreements, allowed):
                yield Candidate(f"{engine}-mixed-{number}", precision, agreements, False)

    def _precision(self, engine: str, chosen: Sequence[str]) -> OwnPrecision:
        values = {"engine": engine, **dict.fromkeys(chosen, INT8)}
        return OwnPrecision(values, self._ranges if chosen else None)

    def _score(self, precision: OwnPrecision) -> Agreements:
        eight = sorted(block for block, value in precision.values.items() if value == INT8)
        name = f"{precision.values['engine']} {' '.join(eight)}".strip()
        return self._scored.get(name, lambda: self._setup.bench.agreement(precision))


def _tested(setup: Setup, finalists: Sequence[Finalist], report: Report) -> list[Agreements]:
    """Agreement of each finalist on the photos that no decision has seen."""
    bench, names = setup.bench, [task.name for task in setup.bench.tasks]
    agreements = [Agreement(bench.tasks) for _ in finalists]
    total = min(len(setup.photos.test), TEST_IMAGES)
    with ExitStack() as stack:
        sessions = [stack.enter_context(bench.engine(each.candidate.precision)) for each in finalists]
        for number, (image, expected) in enumerate(setup.test_images()):
            report(Progress("score", number, total, "finalists on test images"))
            for session, agreement in zip(sessions, agreements, strict=True):
                agreement.update(image, map_outputs(np.copy, session.run(image, names)), expected)
    report(Progress("score", total, total))
    return [each.compute() for each in agreements]


def _entries(
    setup: Setup, finalists: Sequence[Finalist], baseline: Finalist, tested: Sequence[Agreements]
) -> list[Entry]:
    """The finalists as a result holds them, the chosen one first, and the net in float last."""
    entries = [
        _entry(setup, each, agreements, "best" if number == 0 else each.candidate.name)
        for number, (each, agreements) in enumerate(zip(finalists, tested, strict=True))
        if number == 0 or each is not baseline
    ]
    own = next(a for each, a in zip(finalists, tested, strict=True) if each is baseline)
    return [*entries, _entry(setup, baseline, own, "baseline")]


def _entry(setup: Setup, finalist: Finalist, agreements: Agreements, name: str) -> Entry:
    bench, precision = setup.bench, finalist.candidate.precision
    cost, device, runtime = bench.cost(precision), bench.target.device.name, bench.target.traits.runtime
    return Entry(
        design={"engine": precision.values["engine"], **{b: precision.values.get(b, FLOAT) for b in setup.blocks}},
        flops=cost.flops,
        macs=cost.flops // 2,
        params=cost.params,
        bytes=cost.weight_bytes,
        latency_ms=Latency(value=finalist.latency_ms[""], kind=bench.measurer.kind, device=device, runtime=runtime),
        metrics={task: {"agreement": value} for task, value in agreements.items()},
        delta_m=float(np.mean([value - 1 for value in agreements.values()])),
        paths=dict(cost.paths),
        feasible=finalist.feasible,
        kind="baseline" if name == "baseline" else "candidate",
        name=name,
        limits=finalist.checks,
        blocks=block_records(bench.model, setup.structure, precision.values),
    )


def _result(
    request: PrecisionRequest, setup: Setup, best: Finalist, entries: Sequence[Entry], spent: tuple[int, float]
) -> Result:
    """The result; `spent` are the engines that were scored, and when it began by the monotonic clock."""
    photos, bench = setup.photos, setup.bench
    return Result(
        command=request.command,
        seed=None,
        data={"name": "photos without labels", "fingerprint": photos.fingerprint},
        space="own",
        strategy="precision",
        budgets=request.budgets,
        feasible=best.feasible,
        best=entries[0],
        front=tuple(entries),
        evaluations=spent[0],
        seconds=time.monotonic() - spent[1],
        environment=environment(),
        floors=request.floors,
        known_from={
            "scores": "agreement with the float net, as the photos have no labels",
            "limits": f"agreement on {len(bench.images)} photos that no score is of, latency in turns",
        },
    )
