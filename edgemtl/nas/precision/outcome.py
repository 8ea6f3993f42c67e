"""The result of a search: finalists with their limits, scored on photos that no decision has seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from edgemtl.environment import environment
from edgemtl.nas.precision.candidates import Agreements
from edgemtl.nas.precision.finalists import Finalist
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.setup import TEST_IMAGES, Setup
from edgemtl.own import FLOAT, Agreement, block_records
from edgemtl.progress import Progress, Report
from edgemtl.results import Entry, Latency, Result
from edgemtl.tasks import map_outputs

__all__ = ["make_result"]


def _tested(setup: Setup, finalists: Sequence[Finalist], report: Report) -> list[Agreements]:
    """Agreement of each finalist on the photos that no decision has seen."""
    tasks = setup.bench.tasks
    agreements, names = [Agreement(tasks) for _ in finalists], [task.name for task in tasks]
    total = min(len(setup.photos.test), TEST_IMAGES)
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(each.candidate.setup.bench.engine(each.candidate.precision)) for each in finalists
        ]
        for number, (image, expected) in enumerate(setup.test_images()):
            report(Progress("score", number, total, "finalists on test images"))
            for session, agreement in zip(sessions, agreements, strict=True):
                agreement.update(image, map_outputs(np.copy, session.run(image, names)), expected)
    report(Progress("score", total, total))
    return [each.compute() for each in agreements]


def _entries(finalists: Sequence[Finalist], baseline: Finalist, tested: Sequence[Agreements]) -> list[Entry]:
    """The finalists as a result holds them, the chosen one first, and the net in float last."""
    entries = [
        _entry(each, agreements, "best" if number == 0 else each.candidate.name)
        for number, (each, agreements) in enumerate(zip(finalists, tested, strict=True))
        if number == 0 or each is not baseline
    ]
    own = next(a for each, a in zip(finalists, tested, strict=True) if each is baseline)
    return [*entries, _entry(baseline, own, "baseline")]


def _entry(finalist: Finalist, agreements: Agreements, name: str) -> Entry:
    setup, precision = finalist.candidate.setup, finalist.candidate.precision
    bench = setup.bench
    cost, device, runtime = bench.cost(precision), bench.target.device.name, bench.target.traits.runtime
    return Entry(
        design={
            "engine": precision.values["engine"],
            **{block: precision.values.get(block, FLOAT) for block in setup.blocks},
            **{f"{group}.channels"[-200:]: count for group, count in setup.channels.items()},
        },
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


def make_result(
    request: PrecisionRequest,
    finalists: Sequence[Finalist],
    best: Finalist,
    spent: tuple[int, float],
    report: Report,
) -> Result:
    """The result, the first of `finalists` being the net in float, with scores on photos that no decision has seen.

    `spent` are the engines that were scored, and when it began by the monotonic clock.
    """
    setup, ordered = finalists[0].candidate.setup, [best, *(each for each in finalists if each is not best)]
    entries = _entries(ordered, finalists[0], _tested(setup, ordered, report))
    pruned = any(not each.candidate.setup.whole for each in finalists)
    return Result(
        command=request.command,
        seed=None,
        data={"name": "photos without labels", "fingerprint": setup.photos.fingerprint},
        space="own",
        strategy="pruning and precision" if pruned else "precision",
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
            "limits": f"agreement on {len(setup.bench.images)} photos that no score is of, latency in turns",
        },
    )
