"""A tiny space and a landscape over it: scores and latencies computed from a design itself, so that optima are known.

Nothing is trained or timed. Quality grows with capacity and falls with every INT8 block by a rate of its own; latency
follows FLOPs by block type and precision, and changing precision between blocks costs, as it does on real engines.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from edgemtl.nas.evaluation import Evaluation, Limit, Problem, limits_of, preflight_budgets, record, space_distributions
from edgemtl.spaces import Design, Space, load_space
from edgemtl.tasks import Task, make_task, parse_floor
from edgemtl.traits import TargetTraits
from edgemtl.units import Budget, parse_budget

__all__ = ["KIND", "PAIR", "TINY", "TRAITS", "Paper", "drive", "evaluate", "problem", "space", "write_space"]

TINY = """\
schema: edgemtl.space/1
family: cnn
input: [64, 64]
precision: [float, int8]
cnn:
  stem: {width: [8]}
  stages:
    - {name: s1, stride: 2, width: [8, 16], depth: [1], block: [fused], expand: [1, 2]}
    - {name: s2, stride: 2, width: [8, 16, 24], depth: [1, 2], block: [depthwise, fused], expand: [2]}
  features: [s1, s2]
  decoder: {width: [8, 16], depth: [1]}
"""
TRAITS = TargetTraits("paper", "Paper", ("float", "int8"), ("fp32",), 8, "onnxruntime", "paper")
KIND = (make_task("kind", "classification", 4),)
PAIR = (make_task("semseg", "segmentation", 3), make_task("depth", "depth"))
NS_PER_KFLOP = {
    ("fused", "float"): 2.0,
    ("fused", "int8"): 1.0,
    ("depthwise", "float"): 5.0,
    ("depthwise", "int8"): 9.0,
}
CHANGE_US = 0.3


def write_space(folder: Path, name: str = "tiny", text: str = TINY) -> Path:
    """The YAML of a space under `folder/nas/`."""
    path = folder / "nas" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def space(folder: Path, tasks: Sequence[Task] = KIND, traits: TargetTraits = TRAITS, text: str = TINY) -> Space:
    """The tiny space for `tasks`, restricted to what a target honours."""
    return load_space(str(write_space(folder, text=text)), tasks).for_target(traits)


def evaluate(design: Design) -> Evaluation:
    """Scores and latency of a design: a function of nothing else."""
    metrics = {task.name: {task.metric.name: _score(design, task)} for task in design.space.tasks}
    scopes: dict[str, list[str]] = {"": [task.name for task in design.space.tasks]}
    scopes |= {task.name: [task.name] for task in design.space.tasks}
    return Evaluation(design, metrics, {scope: _latency_ms(design, tasks) for scope, tasks in scopes.items()})


def _score(design: Design, task: Task) -> float:
    capacity = math.log10(design.cost([task.name]).params) / 5
    loss = sum(_rate(block) for block, kind in design.path(task.name).items() if kind == "int8")
    quality = min(0.99, capacity * (1 - loss))
    return quality if task.metric.higher_is_better else 1.5 - quality


def _rate(block: str) -> float:
    """Loss by INT8 in this block: up to 6 %, drawn once from its name."""
    return 0.06 * (hashlib.sha256(block.encode()).digest()[0] / 255) ** 2


def _latency_ms(design: Design, tasks: Sequence[str]) -> float:
    total, before = 1000.0, "float"
    for block in design.plan.blocks:
        if block.task is not None and block.task not in tasks:
            continue
        kind = design.precision[block.name]
        flops = sum(2 * conv.macs for conv in block.convs)
        total += flops / 1000 * NS_PER_KFLOP["depthwise" if block.kind == "depthwise" else "fused", kind]
        total += 1000 * CHANGE_US * (kind != before)
        before = kind
    return total / 1e6


@dataclass(frozen=True)
class PaperTarget:
    """Stands where an evaluator has its target."""

    traits: TargetTraits = TRAITS


class Paper:
    """Stands where a search has its evaluator: times designs by the landscape."""

    target = PaperTarget()

    def candidate(self, design: Design) -> Design:
        """The design itself: no net is made."""
        return design

    def time(self, candidate: Design) -> Mapping[str, float]:
        """Latency in ms of all tasks, under "", and of each."""
        return evaluate(candidate).latency_ms


def problem(
    where: Space, budgets: Sequence[str] = (), floors: Sequence[str] = (), preference: Mapping[str, float] | None = None
) -> Problem:
    """The problem that budgets and floors make of a space, its baseline the largest design in float."""
    names = [task.name for task in where.tasks]
    parsed: list[Budget] = [parse_budget(text) for text in budgets]
    limits: tuple[Limit, ...] = limits_of(preflight_budgets(where, parsed, Paper()))  # type: ignore[arg-type]
    return Problem(
        where,
        limits,
        tuple(parse_floor(text, where.tasks) for text in floors),
        preference or dict.fromkeys(names, 1.0),
        evaluate(where.largest()).metrics,
        measures_latency=True,
    )


def drive(
    task: Problem, sampler: optuna.samplers.BaseSampler, count: int, study: optuna.Study | None = None
) -> tuple[list[Evaluation], optuna.Study]:
    """Let a sampler propose `count` designs, one after another, each scored by the landscape."""
    if study is None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(directions=["minimize", "minimize"])
    study.sampler = sampler
    evaluations = []
    for _ in range(count):
        trial = study.ask(space_distributions(task.space))
        evaluation = evaluate(task.space.design(trial.params))
        record(trial, evaluation)
        study.tell(trial, list(task.objectives(evaluation)))
        evaluations.append(evaluation)
    return evaluations, study
