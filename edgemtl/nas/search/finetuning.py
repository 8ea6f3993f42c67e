"""The finalists' own training: what may be chosen is trained further in its own precision, and only then one is chosen.

A training costs minutes, so it goes to the one that can win: the fastest precision of the best architecture, for which
it wins back what rounding had cost. The other precisions of that architecture are scored with its weights too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import JsonValue

from edgemtl.data import Source
from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet
from edgemtl.nas.evaluation import Candidate, Evaluator, Finalist, Limit, Problem, fast_enough
from edgemtl.nas.runs import FINETUNING, RunFolder, Tuned, by_labels, tune_design
from edgemtl.nas.search.request import SearchRequest
from edgemtl.progress import Progress, Report, note
from edgemtl.results import FineTuning
from edgemtl.spaces import Design
from edgemtl.train import DivergedError, Recipe, timed_pass

__all__ = [
    "FINETUNE_FOLDER",
    "FineTuneEstimate",
    "check_train_labels",
    "estimate",
    "finetune_config",
    "parts_of",
    "tune_finalists",
]

FINETUNE_FOLDER, _BEGUN = "finetune", "untrained-"
ROUNDED_SHARE, ROUNDED_RATE = 0.1, 0.2
"""The last part of the steps, which goes through the rounding of INT8 blocks, and its share of the learning rate."""
_ROUNDED_COST = 2.0
"""A step through rounding over one in float, in processor time: 1.6 by a processor that multiplies BF16, without the
teacher (0.36 s and 0.23 s for eight images of 2 GFLOPs)."""
_TIMED_IMAGES = 4
"""Images of the pass that an estimate times: the search should begin soon, and so few take no less time each."""
_TIMED_PASSES = 3
"""Of which the first allocates."""


@dataclass(frozen=True)
class FineTuneEstimate:
    """A fine-tuning before it begins: its steps, and about how long they take."""

    steps: int
    seconds: float


def recipe_of(request: SearchRequest, source: Source) -> Recipe:
    """The recipe of a search's fine-tuning."""
    return replace(by_labels(FINETUNING, source), steps=request.finetune, seed=request.seed, bf16=request.bf16)


def parts_of(recipe: Recipe) -> tuple[Recipe, Recipe] | None:
    """The recipes of the part in float and of that through rounding; None for a single step, which has no parts.

    The latter has a seed of its own: with the same one it would see the first images again.
    """
    steps = max(1, round(ROUNDED_SHARE * recipe.steps))
    if steps == recipe.steps:
        return None
    rate = ROUNDED_RATE * recipe.learning_rate
    rounded = replace(recipe, steps=steps, learning_rate=rate, seed=recipe.seed + 1)
    return replace(recipe, steps=recipe.steps - steps), rounded


def finetune_config(request: SearchRequest, source: Source) -> dict[str, JsonValue] | None:
    """The part of a run's configuration that a fine-tuning follows from; None where there is none."""
    return {**recipe_of(request, source).as_json(), "processes": request.processes} if request.finetune else None


def check_train_labels(source: Source) -> None:
    """`UserError` where no training image has a valid label of a task: nothing could be learnt."""
    missing = {task.name for task in source.tasks}
    samples = iter(source.split("train"))
    while missing and (sample := next(samples, None)) is not None:
        missing -= {name for name in missing if np.any(sample.masks[name])}
    if missing:
        raise UserError(
            f"data set {source.name}: no training image has a valid label of task {min(missing)!r}, so finalists "
            "cannot be trained further: add labels, or give --finetune 0"
        )


def tune_finalists(
    request: SearchRequest,
    problem: Problem,
    evaluator: Evaluator,
    finalists: Sequence[Finalist],
    report: Report,
) -> tuple[list[Finalist], bool]:
    """The finalists, each with the weights that serve it best, and whether Ctrl-C cut this short.

    A design whose training diverged, or did not help on the validation images, keeps the weights that it had. What was
    trained, also in part, is kept in the run's folder, so that a search that was stopped goes on from there.
    """
    subject = _subject(problem, finalists)
    try:
        trained = _train(request, evaluator, subject.candidate, _as_stage(report))
        tuned = _with_weights(problem, evaluator, finalists, subject.candidate.design, trained, request.finetune)
    except DivergedError:
        design = subject.candidate.design
        note(report, f"fine-tuning {design.key} diverged, what it trained became NaN: its weights stay as they were")
        return list(finalists), False
    except KeyboardInterrupt:
        return list(finalists), True
    _tell(subject, tuned, report)
    return tuned, False


def _subject(problem: Problem, finalists: Sequence[Finalist]) -> Finalist:
    """The finalist to train: of the best architecture that may be chosen the fastest precision."""
    candidates = fast_enough(problem, finalists)
    best = min(candidates, key=lambda each: problem.order(each.evaluation)).candidate.design.plan
    return min(
        (each for each in candidates if each.candidate.design.plan == best), key=lambda each: _slowness(problem, each)
    )


def _slowness(problem: Problem, finalist: Finalist) -> tuple[float, float]:
    """Order of the precisions of one architecture: limits first, then latency."""
    return problem.violation(finalist.evaluation), problem.speed(finalist.evaluation)


def _train(request: SearchRequest, evaluator: Evaluator, candidate: Candidate, report: Report) -> Tuned:
    """A finalist after its training: in float first, and, where it has INT8 blocks, through their rounding then.

    A step through rounding takes up to twice as long, and what rounding costs is won back in few. Each part goes on
    from its checkpoint in the run's folder where there is one.
    """
    recipe = recipe_of(request, evaluator.source)
    parts = parts_of(recipe)
    if "int8" not in candidate.precision.values() or parts is None:
        return _part(request, candidate, recipe, report)
    in_float, rounded = parts
    design, whole = candidate.design, _of_whole(report, 0, recipe.steps, _ROUNDED_COST * rounded.steps)
    plain = evaluator.candidate_of(design.in_float(), candidate.net.copy(), {})
    trained = _part(request, plain, in_float, whole)
    begun = evaluator.as_trained(design, trained.net, {})
    return _part(request, begun, rounded, _of_whole(report, in_float.steps, recipe.steps))


def _part(request: SearchRequest, candidate: Candidate, recipe: Recipe, report: Report) -> Tuned:
    """A candidate after `recipe`; what was trained before is not begun anew.

    The net that it begins with is kept under a name of its own: under the key of its design may lie what an earlier
    result holds, with other weights.
    """
    key, run = candidate.design.key, RunFolder(request.out)
    name, folder = f"{_BEGUN}{key}", request.out / FINETUNE_FOLDER / key
    if name not in run.names():
        run.save(name, candidate)
    return tune_design(request.out, name, folder, recipe, request.processes, request.command, report)


def _of_whole(report: Report, before: int, steps: int, to_come: float = 0.0) -> Report:
    """Receive the progress of a part as that of all `steps`: `before` are done, and `to_come` like its own follow."""

    def receive(part: Progress) -> None:
        if not part.total:
            return report(part)
        left = part.seconds_left
        if left is not None and to_come:
            left = left * (1 + to_come / (part.total - part.done)) if part.total > part.done else None
        return report(replace(part, done=before + part.done, total=steps, seconds_left=left))

    return receive


def _with_weights(
    problem: Problem,
    evaluator: Evaluator,
    finalists: Sequence[Finalist],
    design: Design,
    trained: Tuned,
    steps: int,
) -> list[Finalist]:
    """The finalists, those of the trained design's architecture with its weights where these are better for them."""
    own = evaluator.as_trained(design, trained.net, trained.limits)
    eight_bit = any(each.candidate.ranges for each in finalists if each.candidate.design.plan == design.plan)
    ranges = own.ranges or (evaluator.ranges(own.net) if eight_bit else None)

    def better(finalist: Finalist) -> Finalist:
        before, variant = finalist.evaluation, finalist.candidate.design
        if variant.plan != design.plan:
            return finalist
        candidate = Candidate(variant, own.net, ranges)
        after = replace(before, metrics=evaluator.simulated(candidate))
        delta_m_before, delta_m_after = (problem.delta_m(each.metrics) for each in (before, after))
        record = FineTuning(steps=steps, delta_m_before=delta_m_before, delta_m_after=delta_m_after)
        with_weights = Finalist(candidate, after, finalist.ratio, record)
        return min(finalist, with_weights, key=lambda each: problem.rank(each.evaluation))

    return [better(each) for each in finalists]


def _as_stage(report: Report) -> Report:
    """Receive the progress of a training as that of a search's stage."""
    return lambda progress: report(replace(progress, stage="finetune"))


def _tell(subject: Finalist, finalists: Sequence[Finalist], report: Report) -> None:
    """Report one line: what the training of `subject` did for it on the validation images."""
    design = subject.candidate.design
    (record,) = (each.fine_tuning for each in finalists if each.candidate.design.key == design.key)
    if record is None:
        note(report, f"fine-tuning {design.key} did not help on validation images: its weights stay as they were")
    else:
        before, after = 100 * record.delta_m_before, 100 * record.delta_m_after
        note(report, f"fine-tuning {design.key}: validation delta_m {before:+.1f} % before, {after:+.1f} % after")


def estimate(
    request: SearchRequest, limits: Sequence[Limit], evaluator: Evaluator, largest: Design
) -> FineTuneEstimate:
    """How long a fine-tuning takes about: its work, counted, at the speeds of training passes that are timed now.

    The largest net is the teacher, if there is one. What is trained takes as many FLOPs as a budget allows, or as the
    largest net, at the rate of the middle design, and rounds INT8 blocks in its last part.
    """
    recipe, flops, middle = recipe_of(request, evaluator.source), largest.cost().flops, largest.space.middle()
    allowed = [limit.value for limit in limits if limit.budget.quantity == "flops" and limit.budget.task is None]
    images = recipe.batch * request.processes
    timed = min(images, _TIMED_IMAGES)
    of_largest, of_middle = (
        _pass_seconds(evaluator.supernet.extract(design), recipe, timed) / timed / recipe.sizes[0] ** 2
        for design in (largest, middle)
    )
    rounding = 1 + ROUNDED_SHARE * (_ROUNDED_COST - 1)
    own = of_middle * min([flops, *allowed]) / middle.cost().flops * rounding
    work = sum(map(recipe.work_at, range(recipe.steps))) * images
    teacher = of_largest / 3 if recipe.label_share < 1 else 0.0
    return FineTuneEstimate(recipe.steps, work * (own + teacher))


def _pass_seconds(net: MultiTaskNet, recipe: Recipe, images: int) -> float:
    """Seconds of a forward and a backward pass at the first of the recipe's sizes, as a process alone takes them."""
    height, width = (max(32, 32 * round(side * recipe.sizes[0] / 32)) for side in net.input_size)
    image = torch.zeros(images, 3, height, width).to(memory_format=torch.channels_last)
    net.train()

    def whole_pass() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.computes_bf16()):
            outputs = [output for own in net(image).values() for output in own.values()]
        torch.stack([output.float().mean() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]

    return min(timed_pass(whole_pass, torch.get_num_threads()) for _ in range(_TIMED_PASSES)).computed
