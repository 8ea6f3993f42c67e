"""The last step of a search: every promising architecture in each sensible precision, measured side by side.

Neither FLOPs nor precision determine latency: uniform INT8 can be slower than FP32. So a finalist's
architecture is built in its own mixed precision and in every uniform one, timed in turns in one run, and only what is
as fast as the best uniform precision stays. What cannot be timed here stays as it is, where an export would take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol, TypeVar

from edgemtl.nas.evaluation.evaluator import Candidate, Evaluator
from edgemtl.nas.evaluation.problem import Evaluation, Problem, non_dominated
from edgemtl.nas.evaluation.shrinkage import ShrinkageEstimate, shrinkage_estimate
from edgemtl.profiling import Measurer, TimedCall, no_collection
from edgemtl.results import FineTuning
from edgemtl.runtime import Session
from edgemtl.spaces import Design, Space
from edgemtl.tasks import relative_change

__all__ = [
    "RATIO_ALLOWED",
    "TOLERANCE",
    "EngineTimer",
    "Finalist",
    "Measured",
    "Rated",
    "candidates_of",
    "choose",
    "fast_enough",
    "is_exportable",
    "measure_finalists",
    "medians_in_turns",
    "near_best",
    "pick_architectures",
    "precision_variants",
    "timed_together",
]

Metrics = Mapping[str, Mapping[str, float]]
# A design of several precisions must be this much faster than the best uniform one to be taken: smaller differences
# can be timing noise (ratios of one pair of files, hours apart: 1.00 and 1.09).
RATIO_ALLOWED = 0.95
TOLERANCE = 0.005
"""The delta_m that may be given away for speed."""
EXPORT_LOSS = 0.025
NEAR, NEAR_UNIFORM = 1.2, 1.6
ENGINES = 4
ROUNDS = 4
BURST = 6


class Rated(Protocol):
    """An evaluation with a `ratio`: its latency over that of its architecture's fastest uniform precision.

    None where it was not timed beside those.
    """

    @property
    def evaluation(self) -> Evaluation:
        """Of the design."""
        ...

    @property
    def ratio(self) -> float | None:
        """The ratio."""
        ...


T = TypeVar("T")
R = TypeVar("R", bound=Rated)
C = TypeVar("C", contravariant=True)


@dataclass(frozen=True)
class Measured:
    """An evaluated design without its net, and its ratio where that is known."""

    evaluation: Evaluation
    ratio: float | None


@dataclass(frozen=True)
class Finalist:
    """A measured candidate; `ratio` is its latency over the fastest uniform precision of its architecture.

    `fine_tuning` tells of its own training, None where its weights are the supernet's.
    """

    candidate: Candidate
    evaluation: Evaluation
    ratio: float
    fine_tuning: FineTuning | None = None


def precision_variants(space: Space, design: Design) -> list[Design]:
    """The design as it is, in each uniform precision, and in INT8 with both ends, or all decoders, in float.

    The ends are the blocks that read the image and those that produce the tasks' outputs.
    """
    plan = design.plan
    ends = {block.origin for block in plan.blocks if "image" in block.inputs} | plan.ends
    choices = [choice for choice in space.choices if choice.precision_of]
    at_ends = {choice.name: "float" for choice in choices if choice.precision_of in ends}
    private = {choice.name: "float" for choice in choices if choice.task is not None}
    variants = {variant.key: variant for variant in [design, *space.uniform(design)]}
    for eight_bit in [d for d in variants.values() if "int8" in d.precision.values() and is_uniform(d)]:
        for floating in (at_ends, private):
            variant = space.design({**eight_bit, **floating}, design.pruned)
            variants.setdefault(variant.key, variant)
    return list(variants.values())


def is_uniform(design: Design) -> bool:
    """Whether every block has the same precision."""
    return len({kind for name, kind in design.precision.items() if name != "engine"}) == 1


def pick_architectures(
    problem: Problem, evaluations: Sequence[Evaluation], count: int, estimate: ShrinkageEstimate | None = None
) -> list[Design]:
    """Up to `count` architectures to refine: of the feasible front, what is sought first, else the nearest to feasible.

    Where none is feasible and several are asked for, the largest is one more, if it keeps the counted budgets: it is
    the baseline, which keeps every floor. Each is the first design that has it: its other precisions are tried anyway.
    Quality is the `estimate` in each.
    """
    estimate = estimate or shrinkage_estimate(problem, ())
    feasible = [e for e in evaluations if problem.feasible(e)]
    if feasible:
        points = [(-estimate(e), *_other_objectives(problem, e)) for e in feasible]
        sought = (lambda i: problem.speed(feasible[i])) if problem.seeks_speed else points.__getitem__
        ordered = [feasible[i] for i in sorted(non_dominated(points), key=sought)]
    else:
        ordered = sorted(evaluations, key=problem.violation)
    distinct: dict[str, Design] = {}
    for evaluation in ordered:
        distinct.setdefault(repr(evaluation.design.plan), evaluation.design)
    nearest, largest = list(distinct.values())[:count], problem.space.largest()
    if feasible or count < 2 or not problem.floors or not problem.affordable(largest):
        return nearest
    return [*nearest, *([] if any(design.plan == largest.plan for design in nearest) else [largest])]


def _other_objectives(problem: Problem, evaluation: Evaluation) -> list[float]:
    """All but delta_m."""
    values = zip(problem.objective_names, problem.objectives(evaluation), strict=True)
    return [value for name, value in values if name != "delta_m"]


def measure_finalists(
    problem: Problem, evaluator: Evaluator, design: Design, export_loss: float = EXPORT_LOSS
) -> list[Finalist]:
    """The variants of one architecture that could be exported, scored by simulation and timed in turns; never none.

    What loses more to its precision than `export_loss`, which an export accepts, is dropped, and so is a mixture of
    precisions that is not clearly faster than each alone, unless only slower ones keep the budgets and floors, or none
    does. Where engines cannot be timed here the design alone is given, and its other precisions only where it would be
    dropped itself.
    """
    candidates = candidates_of(evaluator, precision_variants(problem.space, design))
    plain = next((c for c in candidates if set(c.design.precision.values()) == {"fp32", "float"}), candidates[0])
    least = problem.requirements.finite(evaluator.simulated(plain))

    def exportable(timed: Iterable[tuple[Candidate, Mapping[str, float], float]]) -> list[Finalist]:
        """Those of candidates, latencies and ratios that lose little enough; only what is given is scored."""
        finalists = []
        for candidate, ms, ratio in timed:
            metrics = least if candidate is plain else problem.requirements.finite(evaluator.simulated(candidate))
            if _lost(problem, metrics, least) <= export_loss:
                finalists.append(Finalist(candidate, Evaluation(candidate.design, metrics, ms), ratio))
        return finalists

    if not evaluator.is_timed:
        untimed: list[tuple[Candidate, Mapping[str, float], float]] = [(c, {}, 1.0) for c in candidates]
        return exportable(untimed[:1]) or exportable(untimed[1:])
    latencies = _time(evaluator, candidates)
    fastest = min(ms[""] for c, ms in zip(candidates, latencies, strict=True) if is_uniform(c.design))
    timed = [(c, ms, ms[""] / fastest) for c, ms in zip(candidates, latencies, strict=True)]
    fast = exportable(each for each in timed if _is_fast(each[0].design, each[2]))
    feasible = [f for f in fast if problem.feasible(f.evaluation)]
    slow = [] if feasible else exportable(each for each in timed if not _is_fast(each[0].design, each[2]))
    return feasible or [f for f in slow if problem.feasible(f.evaluation)] or [*fast, *slow]


def candidates_of(evaluator: Evaluator, designs: Sequence[Design]) -> list[Candidate]:
    """The designs as candidates: those of one architecture share its net, and ranges where one of them has INT8."""
    architectures: dict[str, list[Design]] = {}
    for design in designs:
        architectures.setdefault(repr(design.plan), []).append(design)
    shared = {}
    for plan, alike in architectures.items():
        base = evaluator.candidate(alike[0])
        eight_bit = any("int8" in design.precision.values() for design in alike)
        shared[plan] = base.net, base.ranges or (evaluator.ranges(base.net) if eight_bit else None)
    return [Candidate(design, *shared[repr(design.plan)]) for design in designs]


def fast_enough(problem: Problem, finalists: Sequence[R]) -> list[R]:
    """Without those that are slow for their architecture, unless no other is feasible."""
    usable = [f for f in finalists if _is_fast(f.evaluation.design, f.ratio) and problem.feasible(f.evaluation)]
    return usable or list(finalists)


def _is_fast(design: Design, ratio: float | None) -> bool:
    """Whether a design is as fast as the best uniform precision, clearly so where it is none itself; None passes."""
    return ratio is None or ratio <= (1.0 if is_uniform(design) else RATIO_ALLOWED)


def is_exportable(problem: Problem, evaluator: Evaluator, measured: Finalist, known: Iterable[Rated]) -> bool:
    """Whether a net loses no more to its precision than an export accepts: against itself in float.

    Those figures are taken from what is `known`, and measured where they are not there.
    """
    candidate = measured.candidate
    if set(candidate.precision.values()) <= {"float", candidate.precision["engine"]}:
        return True
    plain = candidate.design.in_float()
    known_metrics = (e.evaluation.metrics for e in known if e.evaluation.design.key == plain.key)
    metrics = next(known_metrics, None) or evaluator.simulated(Candidate(plain, candidate.net, candidate.ranges))
    return _lost(problem, measured.evaluation.metrics, metrics) <= EXPORT_LOSS


def _lost(problem: Problem, metrics: Metrics, plain: Metrics) -> float:
    """The largest relative loss of any task against the same net in FP32."""
    return max(-relative_change(task, metrics[task.name], plain[task.name]) for task in problem.space.tasks)


def _time(evaluator: Evaluator, candidates: Sequence[Candidate]) -> list[dict[str, float]]:
    """Median latencies of all candidates; those near the fastest uniform precision are timed again, in new engines.

    Two engines of one file can differ by a tenth in speed for as long as they live (where their memory lies), so what
    decides is pooled over several. The uniform precisions are the reference of the others: they count as near sooner.
    """
    first = timed_together(evaluator, candidates, 1)
    uniform = [is_uniform(candidate.design) for candidate in candidates]
    fastest = min(ms[""] for ms, is_uniform_design in zip(first, uniform, strict=True) if is_uniform_design)
    limits = [(NEAR_UNIFORM if is_uniform_design else NEAR) * fastest for is_uniform_design in uniform]
    near = [number for number, ms in enumerate(first) if ms[""] <= limits[number]]
    again = timed_together(evaluator, [candidates[number] for number in near], ENGINES)
    return [again[near.index(number)] if number in near else ms for number, ms in enumerate(first)]


def timed_together(
    evaluator: Evaluator, candidates: Sequence[Candidate], engines: int, rounds: int = ROUNDS
) -> list[dict[str, float]]:
    """Median latency in ms of each candidate in each scope, drawn in turns, over `engines` engines of each.

    Where latencies are estimated nothing is drawn.
    """
    if evaluator.estimate is not None:
        return [evaluator.time(candidate) for candidate in candidates]
    return medians_in_turns(evaluator, candidates, engines, rounds)


class EngineTimer(Protocol[C]):
    """Builds and opens engines of candidates, whatever those are, and times their calls by scope."""

    @property
    def scopes(self) -> Sequence[str]:
        """Sets of tasks that are timed: all under "", and single ones."""
        ...

    @property
    def measurer(self) -> Measurer:
        """How latencies come about."""
        ...

    def built(self, candidate: C, /) -> AbstractContextManager[Path]:
        """The engine of a candidate, in a folder that goes at the end."""
        ...

    def opened(self, folder: Path) -> AbstractContextManager[Session]:
        """An engine that was built, open."""
        ...

    def calls(self, session: Session) -> dict[str, TimedCall]:
        """A call of an open engine for each scope."""
        ...


def medians_in_turns(
    timer: EngineTimer[C], candidates: Sequence[C], engines: int = ENGINES, rounds: int = ROUNDS
) -> list[dict[str, float]]:
    """Median latency in ms of each candidate in each scope, drawn in turns, over `engines` engines of each."""
    drawn: list[dict[str, list[float]]] = [{scope: [] for scope in timer.scopes} for _ in candidates]
    with ExitStack() as folders:
        built = [folders.enter_context(timer.built(candidate)) for candidate in candidates]
        folders.enter_context(no_collection())
        for _ in range(engines):
            for number, scopes in enumerate(_drawn(timer, built, rounds)):
                for scope, values in scopes.items():
                    drawn[number][scope] += values
    return [{scope: median(values) for scope, values in scopes.items()} for scopes in drawn]


def _drawn(timer: EngineTimer[C], folders: Sequence[Path], rounds: int) -> list[dict[str, list[float]]]:
    """Latencies in ms of one engine of each file, drawn in turns."""
    with ExitStack() as stack:
        sessions = [stack.enter_context(timer.opened(folder)) for folder in folders]
        calls = {
            f"{number}/{scope}": call
            for number, session in enumerate(sessions)
            for scope, call in timer.calls(session).items()
        }
        samples = timer.measurer.compare(calls, rounds, burst=BURST, warmup=5)
    return [
        {scope: list(samples[f"{number}/{scope}"].samples_ms) for scope in timer.scopes}
        for number in range(len(folders))
    ]


def choose(problem: Problem, finalists: Sequence[R], estimate: ShrinkageEstimate | None = None) -> R:
    """The fastest finalist within half a point of the best feasible delta_m, else the nearest to feasible.

    Where floors say all that may be lost it is the fastest that is feasible. Each delta_m is what `estimate` makes of
    the measured one. Where its standard error is known, that much less of it is given away for speed: what looks like a
    point less may be two.
    """
    estimate = estimate or shrinkage_estimate(problem, ())
    feasible = [f for f in finalists if problem.feasible(f.evaluation)]
    if not feasible:
        return min(finalists, key=lambda f: problem.violation(f.evaluation))
    near = feasible if problem.seeks_speed else near_best(feasible, lambda f: estimate(f.evaluation), problem.noise)
    return min(near, key=lambda f: (problem.speed(f.evaluation), -estimate(f.evaluation)))


def near_best(rated: Sequence[T], delta_m: Callable[[T], float], noise: float = 0.0) -> list[T]:
    """Those within half a point of the best delta_m, or within that much less as its standard error `noise` is."""
    values = [delta_m(each) for each in rated]
    least = max(values, default=0.0) - max(0.0, TOLERANCE - noise)
    return [each for each, value in zip(rated, values, strict=True) if value >= least]


def front_of(problem: Problem, finalists: Sequence[R]) -> list[R]:
    """The finalists that no other one beats in every objective, the feasible ones first."""
    candidates = [f for f in finalists if problem.feasible(f.evaluation)] or list(finalists)
    return [candidates[i] for i in non_dominated([problem.objectives(f.evaluation) for f in candidates])]
