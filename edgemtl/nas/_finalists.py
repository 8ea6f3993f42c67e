"""The last step of a search: every promising architecture in each sensible precision, measured side by side.

FLOPs do not tell latency and neither does precision: uniform INT8 can be slower than FP32. So a finalist's
architecture is built in its own mixed precision and in every uniform one, timed in turns in one run, and only what is
as fast as the best uniform precision stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from edgemtl.nas._evaluator import Candidate, Evaluator
from edgemtl.nas._problem import Evaluation, Problem, non_dominated
from edgemtl.nas._space import ENGINE, Design, Space
from edgemtl.profiling import compare

__all__ = ["Finalist", "choose", "finalists", "pick_architectures", "precision_variants"]

SLOWER_ALLOWED = 1.01
TOLERANCE = 0.01
ROUNDS = 4
BURST = 6


@dataclass(frozen=True)
class Finalist:
    """A measured candidate; `ratio` is its latency over the fastest uniform precision of its architecture."""

    candidate: Candidate
    evaluation: Evaluation
    ratio: float


def precision_variants(space: Space, design: Design) -> list[Design]:
    """The design as it is, in each uniform precision, and in INT8 with stem and heads, or all decoders, in float."""
    tasks = {task.name for task in space.tasks}
    blocks = [c.name for c in space.choices if c.name.endswith(".precision") and c.name != ENGINE]
    ends = {"stem.precision", *(f"{task}_head.precision" for task in tasks)}
    private = {name for name in blocks if name.rpartition("_")[0] in tasks}
    found = {made.key: made for made in [design, *space.uniform(design)]}
    for eight_bit in [d for d in found.values() if "int8" in d.precision.values() and is_uniform(d)]:
        for kept in (ends, private):
            made = space.design({**eight_bit, **{name: "float" for name in blocks if name in kept}})
            found.setdefault(made.key, made)
    return list(found.values())


def is_uniform(design: Design) -> bool:
    """Whether every block has the same precision."""
    return len({kind for name, kind in design.precision.items() if name != "engine"}) == 1


def pick_architectures(problem: Problem, evaluations: Sequence[Evaluation], count: int) -> list[Design]:
    """Up to `count` designs to refine: the feasible front (else the least infeasible ones), best quality first."""
    kept = [e for e in evaluations if problem.feasible(e)]
    if not kept:
        return [e.design for e in sorted(evaluations, key=problem.violation)[:count]]
    front = sorted(
        (kept[i] for i in non_dominated([problem.objectives(e) for e in kept])), key=lambda e: problem.objectives(e)
    )
    return [e.design for e in front[:count]]


def finalists(problem: Problem, evaluator: Evaluator, design: Design) -> list[Finalist]:
    """The variants of one architecture, scored by simulation and timed in turns; those no faster precision beats.

    Where a floor needs it (no fast variant is feasible), the feasible slower ones stay as well.
    """
    base = evaluator.candidate(design)
    variants = precision_variants(problem.space, design) if evaluator.executes else [design]
    ranges = base.ranges or (
        evaluator.ranges(base.net) if any("int8" in v.precision.values() for v in variants) else None
    )
    candidates = [Candidate(v, base.net, ranges) for v in variants]
    latencies = _time(evaluator, candidates) if evaluator.executes else [{} for _ in candidates]
    fastest = min(
        (ms[""] for c, ms in zip(candidates, latencies, strict=True) if ms and is_uniform(c.design)), default=0.0
    )
    found = []
    for candidate, latency in zip(candidates, latencies, strict=True):
        ratio = latency[""] / fastest if fastest else 1.0
        metrics = evaluator.simulated(candidate)
        found.append(Finalist(candidate, Evaluation(candidate.design, metrics, latency), ratio))
    fast = [f for f in found if f.ratio <= SLOWER_ALLOWED]
    feasible = [f for f in found if problem.feasible(f.evaluation)]
    return fast if not feasible or any(problem.feasible(f.evaluation) for f in fast) else feasible


def _time(evaluator: Evaluator, candidates: Sequence[Candidate]) -> list[dict[str, float]]:
    """Median latencies of all candidates, drawn in one interleaved run."""
    with ExitStack() as stack:
        sessions = [stack.enter_context(evaluator.engine(candidate)) for candidate in candidates]
        calls = {
            f"{number}/{scope}": partial(session.run, evaluator.sample_image, evaluator.tasks_of(scope))
            for number, session in enumerate(sessions)
            for scope in evaluator.scopes
        }
        samples = compare(calls, ROUNDS, burst=BURST, warmup=5)
    return [
        {scope: samples[f"{number}/{scope}"].median_ms for scope in evaluator.scopes}
        for number in range(len(candidates))
    ]


def choose(problem: Problem, found: Sequence[Finalist]) -> Finalist:
    """The fastest finalist whose delta_m is within 1 % of the best feasible one; the least infeasible if none is."""
    feasible = [f for f in found if problem.feasible(f.evaluation)]
    if not feasible:
        return min(found, key=lambda f: problem.violation(f.evaluation))
    best = max(problem.delta_m(f.evaluation.metrics) for f in feasible)
    near = [f for f in feasible if problem.delta_m(f.evaluation.metrics) >= best - TOLERANCE]
    return min(near, key=lambda f: (problem.objectives(f.evaluation)[1], problem.objectives(f.evaluation)[0]))


def front_of(problem: Problem, found: Sequence[Finalist]) -> list[Finalist]:
    """The finalists that no other one beats in both delta_m and latency, the feasible ones first."""
    kept = [f for f in found if problem.feasible(f.evaluation)] or list(found)
    return [kept[i] for i in non_dominated([problem.objectives(f.evaluation) for f in kept])]


def changes_text(changes: Mapping[str, float]) -> str:
    """`semseg -1.2 %, depth +0.3 %`."""
    return ", ".join(f"{task} {100 * change:+.1f} %" for task, change in changes.items())
