"""The answer of a search as a user gets it: delta_m and mIoU of the design chosen at 2 GFLOPs, fine-tuned by default.

`edgemtl search --budget 2GFLOPs`, nothing else: what may be chosen is trained for the default number of steps. delta_m
is against the largest net, on test images, which decide nothing, by the real engines.

The largest net is the supernet's, as in every search. So that it can be seen how much of a figure is the training and
how much the narrower net, it is then trained by the same recipe, in float, and the answer held against that too.

The run is kept under `runs/` and gone on with after a kill. --quick measures few designs and trains them for a few
steps, in under five minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from _common import Outcome, Row, main, say
from _runs import scenes_evaluator, searched

from edgemtl.nas.runs import RunFolder, tune_design
from edgemtl.nas.search import SearchRequest
from edgemtl.nas.search.finetuning import recipe_of
from edgemtl.results import read_result
from edgemtl.tasks import delta_m
from edgemtl.train import training_processes

QUICK = ("--evaluations", "6", "--finetune", "20")


def run(options: argparse.Namespace) -> Outcome:
    """One search, then the training of its largest net."""
    name, few = ("quick-answer", QUICK) if options.quick else ("answer", ())
    searched_run = searched(name, "--budget", "2GFLOPs", *few, finetuned=True)
    result = read_result(searched_run.path)
    best, baseline = result.best, result.baseline
    assert best is not None and best.delta_m is not None and baseline is not None
    rows = [
        Row("delta_m", 100 * best.delta_m, "%", -1.5, 0.0, lower_is_better=False),
        Row("miou", best.metrics["semseg"]["miou"], "", 0.55, None, lower_is_better=False),
        Row("chosen_flops", best.flops / 1e9, "GFLOPs", 2.0),
    ]
    if best.fine_tuning is not None:
        gained = best.fine_tuning.delta_m_after - best.fine_tuning.delta_m_before
        rows.append(Row("gained_on_validation", 100 * gained, "points", None, None, lower_is_better=False))
    largest = trained_largest(searched_run, best.fine_tuning.steps if best.fine_tuning else 0)
    against = 100 * delta_m(searched_run.source().tasks, best.metrics, largest)
    rows.append(Row("delta_m_to_the_largest_so_trained", against, "%", lower_is_better=False))
    raw = {
        "fine_tuning": None if best.fine_tuning is None else best.fine_tuning.model_dump(),
        "metrics": best.metrics,
        "largest": baseline.metrics,
        "largest_so_trained": largest,
        "design": best.design,
        "latency_ms": None if best.latency_ms is None else best.latency_ms.value,
        "evaluations": result.evaluations,
        "seconds": result.seconds,
    }
    return Outcome(rows, raw)


def trained_largest(run: RunFolder, steps: int) -> Mapping[str, Mapping[str, float]]:
    """Test metrics of the run's largest net after as many steps by the same recipe, in its own precision.

    They are by its real engine. It stays under the run's name, and is not trained again.
    """
    _, evaluator = scenes_evaluator("onnxruntime")
    baseline = run.load("baseline")
    if not steps:
        return evaluator.score(baseline, evaluator.test_samples)
    out = run.path.with_name(f"{run.path.name}-largest")
    request = SearchRequest(out, finetune=steps, processes=training_processes())
    trained = tune_design(
        run.path,
        "baseline",
        out,
        recipe_of(request, evaluator.source),
        request.processes,
        report=lambda news: say(f"{news.stage}: {news.done}/{news.total} {news.text}"),
    )
    return evaluator.score(evaluator.as_trained(baseline.design, trained.net, trained.limits), evaluator.test_samples)


if __name__ == "__main__":
    main(run, __doc__)
