"""Control after training (ECMT's claim): does a task gain as it is preferred, and is a preference worth its FLOPs?

Every design is cut from the shipped supernet within one budget, its batch-norm statistics are measured anew, and it is
scored on validation images in FP32. `tau` is Kendall's between a task's share of the preference and its metric, the
other tasks sharing the rest. The hypervolume over all four tasks is that of the designs of a grid of preferences, over
that of scaling the encoder alone at equal FLOPs: decoders all alike, one design for each size that they can have.

A point is the relative change of each task's metric against the largest design; the reference point is the smallest
design's, so a design that is worse than that in any task adds nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from _common import Outcome, Row, main, say
from _figures import hypervolume, kendall
from _runs import scenes_evaluator, scenes_sensitivity

from edgemtl.nas.evaluation import Evaluator
from edgemtl.nas.evaluation.problem import Limit
from edgemtl.nas.search.strategies.preference import PreferenceTable, make_table, ranked_for, widths_for
from edgemtl.spaces import Design
from edgemtl.tasks import relative_change
from edgemtl.units import parse_budget

BUDGET = "2GFLOPs"
SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
QUICK_SHARES = (0.0, 0.25, 1.0)
STEPS, QUICK_STEPS = 4, 2

Changes = dict[str, float]


class Scored:
    """Relative changes of designs, each scored once."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator, self._known = evaluator, dict[str, dict[str, dict[str, float]]]()

    def metrics(self, design: Design) -> dict[str, dict[str, float]]:
        if design.key not in self._known:
            self._known[design.key] = self._evaluator.simulated(self._evaluator.candidate(design))
            say(f"{len(self._known)}: {design.cost().flops / 1e9:.2f} GFLOPs, {self._known[design.key]}")
        return self._known[design.key]

    def changes(self, design: Design) -> Changes:
        found, largest = self.metrics(design), self.metrics(design.space.largest())
        return {t.name: relative_change(t, found[t.name], largest[t.name]) for t in design.space.tasks}


def sweep(names: Sequence[str], task: str, shares: Sequence[float]) -> Iterator[dict[str, float]]:
    """Preferences in which one task has each share and the others have the rest in equal parts."""
    for share in shares:
        yield {name: share if name == task else (1 - share) / (len(names) - 1) for name in names}


def grid(names: Sequence[str], steps: int) -> Iterator[dict[str, float]]:
    """Every preference whose shares are multiples of 1 / steps (the lattice of Das and Dennis), and all tasks alike."""
    yield dict.fromkeys(names, 1.0)
    for weights in product(range(steps + 1), repeat=len(names)):
        if sum(weights) == steps:
            yield dict(zip(names, map(float, weights), strict=True))


def volume(points: Sequence[Changes], reference: Changes) -> float:
    """The hypervolume between points and reference, in which more is better."""
    losses = [[-point[name] for name in reference] for point in points]
    return hypervolume(losses, [-change for change in reference.values()])


def run(options: argparse.Namespace) -> Outcome:
    """Score the sweeps and the grids."""
    space, evaluator = scenes_evaluator("onnxruntime")
    table, scored = make_table(space, scenes_sensitivity()), Scored(evaluator)
    budget = parse_budget(BUDGET)
    limits = [Limit(budget, budget.value)]
    names = [task.name for task in space.tasks]
    rows, raw = [], {"budget": BUDGET, "sweeps": {}}
    for name in names[:2] if options.quick else names:
        shares = QUICK_SHARES if options.quick else SHARES
        rows_of = _swept(table, scored, limits, list(sweep(names, name, shares)), name)
        tau = kendall(shares, [each["change"] for each in rows_of])
        rows.append(Row(f"tau_{name}", tau, "", 0.8, None, lower_is_better=False))
        raw["sweeps"][name] = rows_of
    reference = scored.changes(space.smallest())
    ours = _distinct(widths_for(table, each, limits) for each in grid(names, QUICK_STEPS if options.quick else STEPS))
    alike = _distinct(ranked_for(table, dict.fromkeys(names, 1.0), limits))
    volumes = {
        kind: volume([scored.changes(design) for design in designs], reference)
        for kind, designs in (("preferences", ours), ("encoder_alone", alike))
    }
    gain = volumes["preferences"] / volumes["encoder_alone"]
    rows.append(Row("hypervolume_over_encoder_alone", gain, "x", 1.0, 1.335, lower_is_better=False))
    raw |= {"reference_point": reference, "hypervolume": volumes}
    raw["designs"] = {
        kind: [{"design": dict(d), "flops": d.cost().flops, "changes": scored.changes(d)} for d in designs]
        for kind, designs in (("preferences", ours), ("encoder_alone", alike))
    }
    return Outcome(rows, raw)


def _swept(
    table: PreferenceTable,
    scored: Scored,
    limits: Sequence[Limit],
    preferences: Sequence[Mapping[str, float]],
    task: str,
) -> list[dict[str, object]]:
    designs = [widths_for(table, preference, limits) for preference in preferences]
    return [
        {
            "share": preference[task],
            "flops": design.cost().flops,
            "change": scored.changes(design)[task],
            "metrics": scored.metrics(design),
            "design": dict(design),
        }
        for preference, design in zip(preferences, designs, strict=True)
    ]


def _distinct(designs: Iterator[Design] | Sequence[Design]) -> list[Design]:
    return list({design.key: design for design in designs}.values())


if __name__ == "__main__":
    main(run, __doc__)
