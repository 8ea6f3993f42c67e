"""The result of a search: finalists with their limits, scored on images that no decision has seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from edgemtl.environment import environment
from edgemtl.nas.precision.finalists import Finalist
from edgemtl.nas.precision.floors import Metrics
from edgemtl.nas.precision.forms import training_of
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.scoring import Tally
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.runs import RunInfo
from edgemtl.own import FLOAT, block_records
from edgemtl.progress import Progress, Report
from edgemtl.results import Entry, Latency, Result
from edgemtl.tasks import delta_m, map_outputs

__all__ = ["make_result"]


def _tested(setup: Setup, finalists: Sequence[Finalist], report: Report) -> list[Metrics]:
    """Scores of each finalist on the images that no decision has seen."""
    tasks, total = setup.bench.tasks, len(setup.tested)
    tallies, names = [Tally(tasks) for _ in finalists], [task.name for task in tasks]
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(each.candidate.setup.bench.engine(each.candidate.precision)) for each in finalists
        ]
        for number, example in enumerate(setup.tested):
            report(Progress("reporting", number, total, "all finalists scored"))
            for session, tally in zip(sessions, tallies, strict=True):
                tally.update(example, map_outputs(np.copy, session.run(example.image, names)))
    report(Progress("reporting", total, total))
    return [each.compute() for each in tallies]


def _entries(finalists: Sequence[Finalist], baseline: Finalist, tested: Sequence[Metrics]) -> list[Entry]:
    """The finalists as a result holds them, the chosen one first, and the net in float last."""
    own = next(metrics for each, metrics in zip(finalists, tested, strict=True) if each is baseline)
    entries = [
        _entry(each, metrics, own, "best" if number == 0 else each.candidate.name)
        for number, (each, metrics) in enumerate(zip(finalists, tested, strict=True))
        if number == 0 or each is not baseline
    ]
    return [*entries, _entry(baseline, own, own, "baseline")]


def _entry(finalist: Finalist, metrics: Metrics, baseline: Metrics, name: str) -> Entry:
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
        metrics={task: dict(scores) for task, scores in metrics.items()},
        delta_m=delta_m(setup.floors.tasks, metrics, baseline),
        weighted_delta_m=setup.floors.weighted_delta_m(metrics, baseline),
        paths=dict(cost.paths),
        feasible=finalist.feasible,
        kind="baseline" if name == "baseline" else "candidate",
        name=name,
        limits=finalist.checks,
        blocks=block_records(bench.model, setup.structure, precision.values),
    )


def make_result(
    request: PrecisionRequest,
    info: RunInfo,
    finalists: Sequence[Finalist],
    best: Finalist,
    whole: Proposal,
    report: Report,
) -> Result:
    """The result, with scores on images that no decision has seen.

    The first of `finalists` is the net in float, `whole` are the precisions of the net as it was given.
    """
    setup, ordered = finalists[0].candidate.setup, [best, *(each for each in finalists if each is not best)]
    entries, images = _entries(ordered, finalists[0], _tested(setup, ordered, report)), setup.images
    about = {"name": images.name if images.labelled else "photos without labels", "fingerprint": images.fingerprint}
    return Result(
        command=info.command,
        seed=info.seed,
        data={**about, "scored_on": f"{len(setup.tested)} test images"},
        space="own",
        strategy=info.strategy,
        budgets=info.budgets,
        feasible=best.feasible,
        best=entries[0],
        front=tuple(entries),
        evaluations=info.evaluations,
        seconds=time.monotonic() - info.started,
        environment=environment(),
        floors=request.floors,
        preference=dict(setup.floors.preference),
        objectives=info.objectives,
        block_losses=whole.block_losses,
        known_from={**_known_from(setup), **info.known_from, **_training(best, request.tuning.steps)},
    )


def _training(best: Finalist, steps: int) -> dict[str, str]:
    """The training of the chosen net, in words; none where it has the weights that were given."""
    way = training_of(best.candidate.setup.name)
    return {"weights": f"{steps} steps of training {way}"} if way else {}


def _known_from(setup: Setup) -> dict[str, str]:
    """The kind of scores and floors, in words."""
    images, count = setup.images, len(setup.bench.judged)
    if images.labelled:
        scores, floors = f"each task's own metrics, by labels of {images.name}", "each task's own metric"
    else:
        scores, floors = "agreement with the float net, as the photos have no labels", "agreement"
    return {"scores": scores, "limits": f"{floors} on {count} images that no score is of, latency in turns"}
