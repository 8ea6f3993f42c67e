from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLD_NAMES = {
    "agreeing": "share_prefix",
    "answer_levels": "subprocess_main",
    "asked": "the value's own name, or run_in_subprocess",
    "Beliefs": "MaskDistribution",
    "believed": "shrinkage_estimate",
    "beside": "worker_processes, or what stands there",
    "check_reach": "check_feasible",
    "Combined": "Combine",
    "conclude": "finalize_run",
    "deepest": "min_channels",
    "Dimensions": "nothing: it was of one use",
    "Effects": "LinearControlVariate",
    "frugal": "cheapest",
    "given_back": "refill_budget",
    "identity": "fingerprint",
    "Judge": "LossCriterion",
    "made_for": "cache_key",
    "make_scorer": "nothing: it was of one use",
    "MEDDLING": "DISABLED_OPTIMIZERS",
    "narrowed": "with_channels",
    "place": "index, position or what it is a place of",
    "places": "expert_capacity, positions or what they are places of",
    "raised": "dual_ascent_step",
    "said": "what it says",
    "slopes": "gradients",
    "spread": "subsample or robust_range",
    "Story": "ReportData",
    "Subject": "Prunable or ProfiledModel",
    "Taken": "Dispatch",
    "taught": "with_pseudo_labels",
    "told": "what it tells",
    "ToldRouter": "TaskConditionedRouter",
    "unserved": "dropped_by_model",
    "Verdict": "TrialOutcome",
    "within_places": "apply_capacity",
}
"""Names that were given up, each with what it is called now; a leading underscore changes nothing."""
VAGUE = {"found"}
"""Names that say nothing of what they hold."""


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module gives: functions, classes, parameters, variables, fields and aliases."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0


def given(names_wanted: set[str], *folders: str) -> list[str]:
    """Where code in these folders gives one of these names."""
    return [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in names(ast.parse(path.read_text(encoding="utf-8")))
        if name.strip("_") in names_wanted
    ]


def test_every_name_of_old_has_given_way_to_its_better_one() -> None:
    assert given(set(OLD_NAMES), "edgemtl", "tests", "benchmarks", "docs") == []


def test_every_name_says_what_it_holds() -> None:
    assert given(VAGUE, "edgemtl") == []


def test_no_docstring_begins_with_what() -> None:
    """It begins with the verb of a function, or with the noun of what something is."""
    starts = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("edgemtl", "benchmarks", "tests/plugins", "tests/shelf")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if str(node.value.value).startswith("What ")
    ]
    assert starts == []
