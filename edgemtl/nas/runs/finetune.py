"""Training a searched design further: its own weights, with the run's baseline as its teacher."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from edgemtl.data import Source, open_source
from edgemtl.files.claim import claim
from edgemtl.files.seals import sha256
from edgemtl.models import MultiTaskNet, Supernet, load_supernet
from edgemtl.nas.evaluation import (
    Candidate,
    Evaluation,
    Evaluator,
    Finalist,
    Limit,
    Problem,
    check_budgets,
    timed_scopes,
)
from edgemtl.nas.runs.folder import RunFolder
from edgemtl.nas.runs.outcome import RunInfo, finalize_run
from edgemtl.progress import Report, silent
from edgemtl.results import RESULT_FILE, Result, read_result
from edgemtl.spaces import Choice, Design, Plan, Values
from edgemtl.targets import measurer_of
from edgemtl.tasks import Task, parse_floor
from edgemtl.train import InitialWeights, Recipe, train_supernet, worker_processes
from edgemtl.units import parse_budget

__all__ = ["TUNING", "OneDesign", "fine_tune"]

TUNING = Recipe(steps=600, sizes=(0.67, 1.0), learning_rate=1e-3, largest_steps=1.0)
"""Defaults of a fine-tuning."""


@dataclass(frozen=True)
class OneDesign:
    """A space of one design, so that it trains as supernets do: with the batch's statistics, distilled, resumable."""

    design: Design
    begin: MultiTaskNet
    weights_sha256: str

    @property
    def name(self) -> str:
        """The name of its space."""
        return self.design.space.name

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the design."""
        return self.design.space.tasks

    @property
    def fingerprint(self) -> str:
        """Hash of the space, the design and the weights that training begins with."""
        content = f"{self.design.space.fingerprint} {self.design.key} {self.weights_sha256}"
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def architecture(self) -> tuple[Choice, ...]:
        """No choice is left."""
        return ()

    def plan(self, values: Values) -> Plan:
        """The net of the design."""
        return self.design.plan.standing_alone()

    def supernet(self) -> Supernet:
        """Shared weights that are the net's own."""
        supernet = Supernet.of(self)
        with torch.no_grad():
            for name, parameter in self.begin.named_parameters():
                supernet.shared[name].copy_(parameter)
        return supernet

    def largest(self) -> Values:
        """The one design."""
        return {}

    def smallest(self) -> Values:
        """The one design."""
        return {}

    def random(self, rng: random.Random) -> Values:
        """The one design."""
        return {}


def fine_tune(
    run: Path,
    out: Path,
    recipe: Recipe = TUNING,
    *,
    name: str = "best",
    processes: int = 1,
    resume: bool = False,
    command: str = "edgemtl train",
    report: Report = silent,
) -> Result:
    """Train the kept design `name` of a run further, and write it as a run of its own in `out`; its result.

    The design learns from labels and, in equal parts, from the outputs of the run's baseline (the largest design, in
    float); its precision stays. Statistics, ranges, latency and scores are made anew. `resume` goes on from the
    checkpoint. Raises `UserError` for an unknown design, for an `out` that holds something else or is in use, and for a
    limit in ms of engines that cannot be timed on this machine.
    """
    with claim(out, "train"):
        started = time.monotonic()
        subject, folder, before = _subject(run, name), RunFolder(out), RunFolder(run).config()
        tuned = {"design": name, "fingerprint": subject.fingerprint, "recipe": recipe.as_json()}
        config = before.model_copy(update={"tuned": tuned})
        folder.check(config, resume)
        if (out / RESULT_FILE).is_file():
            return read_result(out)
        _check_budgets(run, before.budgets)
        folder.create(config)
        trained = _trained(run, name, out / "training", recipe, processes, command, report)
        problem, evaluator, base = _scoring(run, trained, open_source(before.data, subject.design.space.size))
        candidate = evaluator.candidate(subject.design)
        evaluation = Evaluation(subject.design, evaluator.simulated(candidate), evaluator.time(candidate))
        searched = read_result(run)
        info = RunInfo(command, recipe.seed, searched.strategy, searched.budgets, searched.evaluations, started)
        return finalize_run(folder, info, evaluator, problem, base, [Finalist(candidate, evaluation, 1.0)])


def _check_budgets(run: Path, budgets: Sequence[str]) -> None:
    remedy = f"train run {run} further on that machine, or search here first"
    check_budgets(map(parse_budget, budgets), RunFolder(run).target(), remedy)


def _subject(run: Path, name: str) -> OneDesign:
    candidate = RunFolder(run).load(name)
    return OneDesign(candidate.design, candidate.net, sha256(run / "designs" / name / "weights.safetensors"))


def _trained(run: Path, name: str, out: Path, recipe: Recipe, processes: int, command: str, report: Report) -> Supernet:
    """The one-design supernet after training, which is not begun where it was finished before."""
    if not (out / "training.json").is_file():
        with worker_processes(partial(_train, run, name, out, recipe), processes):
            _train(run, name, out, recipe, command, report)
    subject = _subject(run, name)
    supernet = subject.supernet()
    load_supernet(supernet, out / "supernet.safetensors", subject.fingerprint)
    return supernet


def _train(run: Path, name: str, out: Path, recipe: Recipe, command: str = "", report: Report = silent) -> None:
    subject, folder = _subject(run, name), RunFolder(run)
    train_supernet(
        subject,
        open_source(folder.config().data, subject.design.space.size),
        recipe,
        out,
        initial=InitialWeights(subject.supernet(), subject.weights_sha256),
        teacher=folder.load("baseline").net,
        command=command,
        report=report,
    )


def _scoring(run: Path, supernet: Supernet, source: Source) -> tuple[Problem, Evaluator, Candidate]:
    """The run's problem, its limits resolved against its baseline as it is today, and what scores its designs."""
    config, base = RunFolder(run).config(), RunFolder(run).load("baseline")
    target = RunFolder(run).target()
    budgets = [parse_budget(text) for text in config.budgets]
    scopes, threads = timed_scopes(budgets), config.threads or 0
    evaluator = Evaluator(source, target, measurer_of(target), scopes, threads, supernet=supernet)
    latency_ms = evaluator.time(base)
    metrics = evaluator.simulated(base)
    of_base = Evaluation(base.design, metrics, latency_ms)
    limits = tuple(Limit(budget, budget.limit(Limit(budget, 0).measured(of_base))) for budget in budgets)
    floors = tuple(parse_floor(text, source.tasks) for text in config.floors)
    problem = Problem(base.design.space, limits, floors, config.preference, metrics, evaluator.is_timed)
    return problem, evaluator, base
