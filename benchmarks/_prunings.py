"""What the benchmarks of pruning start from: the largest design, trained by itself, and its sensitivity map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from _common import say
from _runs import ROOT, edgemtl, searched

from edgemtl.nas import Pruning, open_pruning
from edgemtl.nas._fit import Fit
from edgemtl.nas._problem import Limit
from edgemtl.nas._prune_map import PruneMap
from edgemtl.units import parse_budget

STEPS, QUICK_STEPS = "3000", "2"


def begun(path: Path) -> list[str]:
    """What goes on with a run that is there."""
    return ["--resume"] if (path / "config.json").is_file() else []


def unpruned(quick: bool) -> Path:
    """A run whose best design is the largest one, trained further alone, so that tuning alone gains nothing on it.

    With `quick` it is the design that a search chose, which is half the work, with the supernet's weights as they are.
    """
    name = "quick" if quick else "first"
    run = searched(name, "--budget", "2GFLOPs", *(["--evaluations", "12"] if quick else [])).path
    path = ROOT / "runs" / f"{name}-unpruned"
    steps = ["--steps", QUICK_STEPS if quick else STEPS, "--batch", "8"]
    design = "best" if quick else "baseline"
    edgemtl("train", "--run", str(run), "--design", design, *steps, "--out", str(path), *begun(path))
    return path


def mapped(quick: bool) -> tuple[Pruning, PruneMap]:
    """That design with its sensitivity map, which is measured where it was not before."""
    pruning = open_pruning(unpruned(quick))
    return pruning, pruning.map(lambda done, total, text: say(f"map {done}/{total} {text}"))


def limits_of(pruning: Pruning, budgets: Sequence[str]) -> list[Limit]:
    """Counted budgets, percentages resolved against the unpruned design."""
    found = []
    for budget in map(parse_budget, budgets):
        found.append(Limit(budget, budget.limit(Limit(budget, 0).count(pruning.unpruned.design))))
    return found


def fitted(pruning: Pruning, known: PruneMap, budgets: Sequence[str]) -> Fit:
    """Channels under budgets, every task counting the same."""
    return pruning.fit(known, limits_of(pruning, budgets), dict.fromkeys(known.base, 1.0))
