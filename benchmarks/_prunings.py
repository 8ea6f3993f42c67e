"""The start of the benchmarks of pruning: the largest net of the default space, trained by itself, and its map.

Images are 96x128 pixels, so that training the net, pruning it by trials and training it again take minutes. Everything
is kept under `runs/` and made once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from _common import say
from _runs import RUNS, clear_outdated, drawn, edgemtl, opened, scenes_evaluator, supernet_hash

from edgemtl.data import open_source
from edgemtl.models import TaskNet
from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.evaluation.finalists import Finalist
from edgemtl.nas.evaluation.problem import Evaluation, Limit, Problem
from edgemtl.nas.prune import RunDesign
from edgemtl.nas.prune.decide import fit_map
from edgemtl.nas.prune.fit import Fit
from edgemtl.nas.prune.map import PruneMap, measure_map
from edgemtl.nas.prune.prunable import Prunable
from edgemtl.nas.prune.run import OpenedDesign
from edgemtl.nas.runs import RunFolder, run_tasks
from edgemtl.nas.runs.outcome import RunInfo, finalize_run
from edgemtl.profiling import Call
from edgemtl.runs import RunConfig
from edgemtl.targets import find_target
from edgemtl.train import batches_of
from edgemtl.units import parse_budget

SIZE, QUICK_SIZE = (96, 128), (64, 96)
STEPS, QUICK_STEPS = 600, 2
BATCH = 8


def begun(path: Path) -> list[str]:
    """The words that go on with a run, where there is one."""
    return ["--resume"] if (path / "config.json").is_file() else []


def unpruned(quick: bool) -> Path:
    """A run whose best design is the largest one, trained further alone, so that tuning alone gains little on it.

    With `quick` its weights stay nearly as they are in the supernet, and images are smaller still.
    """
    name, size = ("prune-quick", QUICK_SIZE) if quick else ("prune", SIZE)
    run, path = RUNS / name, RUNS / f"{name}-unpruned"
    clear_outdated(run)
    if not (run / "result.json").is_file():
        _begin(run, size)
    trained(run, path, QUICK_STEPS if quick else STEPS, "--design", "baseline")
    return path


def _begin(run: Path, size: tuple[int, int]) -> None:
    """The shipped supernet's largest design as a run, which no search made."""
    started = time.monotonic()
    space, evaluator = scenes_evaluator("onnxruntime", size=size)
    base, even = evaluator.candidate(space.largest()), {task.name: 1.0 for task in space.tasks}
    metrics = evaluator.simulated(base)
    RunFolder(run).create(
        RunConfig(
            space=space.name,
            fingerprint=space.fingerprint,
            size=size,
            data="scenes",
            data_fingerprint=evaluator.source.fingerprint,
            tasks=run_tasks(space.tasks),
            target="onnxruntime",
            device=evaluator.target.device,
            strategy="none",
            budgets=(),
            floors=(),
            preference=even,
            precisions={},
            seed=0,
            supernet_sha256=supernet_hash("cnn"),
        )
    )
    finalist = Finalist(base, Evaluation(base.design, metrics, evaluator.time(base)), 1.0)
    info = RunInfo("benchmarks/_prunings.py", 0, "none", (), 1, started)
    finalize_run(RunFolder(run), info, evaluator, Problem(space, (), (), even, metrics, True), base, [finalist])


def pruned(whole: Path, name: str, *arguments: str) -> Path:
    """The unpruned run pruned by the command line, beside it."""
    path = whole.with_name(f"{whole.name}-{name}")
    edgemtl("prune", str(whole), *arguments, "--out", str(path), *begun(path))
    return path


def with_another(run: Path, best: Candidate, out: Path) -> None:
    """Write a copy of a run with another best design, whole or not at all."""
    unfinished = out.with_name(f"{out.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(run, unfinished)
    RunFolder(unfinished).save("best", best)
    unfinished.rename(out)


def trained(run: Path, out: Path, steps: int, *arguments: str) -> Path:
    """A run's design trained further by the command line."""
    how = ["--steps", str(steps), "--batch", str(BATCH), *arguments]
    edgemtl("train", "--run", str(run), *how, "--out", str(out), *begun(out))
    return out


def mapped(quick: bool) -> tuple[OpenedDesign, PruneMap]:
    """That design with its sensitivity map, which is measured where it was not before."""
    opened = RunDesign(unpruned(quick)).open()
    return opened, measure_map(opened.prunable, lambda news: say(f"map {news.done}/{news.total} {news.text}"))


def limits_of(prunable: Prunable, budgets: Sequence[str]) -> list[Limit]:
    """Counted budgets, percentages resolved against the unpruned design."""
    return [Limit(budget, budget.limit(prunable.amount(budget, {}))) for budget in map(parse_budget, budgets)]


def fitted(prunable: Prunable, prune_map: PruneMap, budgets: Sequence[str]) -> Fit:
    """Channels under budgets, every task counting the same."""
    return fit_map(prunable, prune_map, limits_of(prunable, budgets), dict.fromkeys(prune_map.base, 1.0))


def latencies_ms(nets: Mapping[str, TaskNet], target: str, engines: int) -> dict[str, float]:
    """Median latency of all tasks by each net's FP32 engine, on a validation image, the nets in turns.

    One engine is open at a time: threads of several wait for work on the same cores. Statistics of batch normalisation
    must be the nets' own, as values else grow or vanish, and arithmetic on the smallest floats is slow.
    """
    found = dict[str, list[float]]()
    for _ in range(engines):
        for name, net in nets.items():
            samples = drawn(lambda stack, net=net: {"": _call(stack, net, target)}, 1)[""]
            found.setdefault(name, []).extend(samples.samples_ms)
    return {name: median(values) for name, values in found.items()}


def _call(stack: ExitStack, net: TaskNet, target: str) -> Call:
    tasks = [task.name for task in net.tasks]
    session = opened(stack, net, find_target(target), "fp32", [tasks])
    batch = next(iter(batches_of(open_source("scenes", net.input_size).split("validation"), 1, 1)))
    return partial(session.run, batch.image, tasks)
