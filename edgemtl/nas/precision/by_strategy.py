"""The search of a net's space by a strategy: what a greedy search ended with is known to it from the beginning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import optuna

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.nas.evaluation import (
    COUNTED,
    Evaluation,
    Problem,
    check_objectives,
    finished,
    near_best,
    non_dominated,
    open_storage,
)
from edgemtl.nas.precision.common import open_designs
from edgemtl.nas.precision.finalists import Candidate, Finalist, acceptable, choose, timed_finalists
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.greedy import GreedySearch
from edgemtl.nas.precision.joint import TRAINING_FOLDER, open_narrowing
from edgemtl.nas.precision.net_designs import NetDesigns
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest, usable_strategy
from edgemtl.nas.precision.rounded import NOT_WORTH, trains_rounded, with_rounded
from edgemtl.nas.precision.setup import Setup, set_up
from edgemtl.nas.precision.state import Scored, difference_of, shared_config
from edgemtl.nas.prune import NO_TUNING, Narrowing
from edgemtl.nas.runs import RunFolder, RunInfo
from edgemtl.nas.search import (
    RunStudy,
    SamplerStrategy,
    Worker,
    end_abandoned,
    evaluate_all,
    evaluations_in,
    is_seeded,
    run_helpers,
    seeding_turn,
    take_known,
    wanted_in,
    worker_name,
)
from edgemtl.progress import Report, note, silent
from edgemtl.results import RESULT_FILE
from edgemtl.units import preference_text

__all__ = ["StrategySearch"]

BATCH = 12
"""Designs that are evaluated between two fits of predictors, or in a generation."""
SHORTLIST = 6
"""Designs of the front that are timed in turns at the end."""


@dataclass(frozen=True)
class StrategySearch:
    """The search by a request's `strategy`, after the greedy one; a `NetSearch`. `config` is its run's, once known."""

    request: PrecisionRequest
    strategy: SamplerStrategy
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, request: PrecisionRequest) -> Self:
        """The search of a request; `UserError` for a strategy, numbers or a storage that are no use."""
        strategy = usable_strategy(request)
        if request.storage is not None:
            open_storage(RunFolder(request.out).journal, request.storage)
        return cls(request, strategy)

    def narrowing(self, setup: Setup, report: Report) -> Narrowing:
        """The net as a module whose channels a strategy may choose; `UserError` where there are none.

        Raises it for an unknown objective too, for one alone, and where the user's own train step fails.
        """
        check_objectives(self.request.objectives, [task.name for task in setup.floors.tasks], is_timed=True)
        try:
            narrowing = open_narrowing(self.request, setup, report)
        except (UserError, UnsupportedError) as error:
            raise UserError(f"--strategy {self.request.strategy} chooses channels too: {error}") from error
        narrowing.check_train_step(self.request.tuning)
        return narrowing

    def of_run(self, config: Mapping[str, Any]) -> Self:
        """See `NetSearch`; a shared study of something else is refused."""
        search = replace(self, config=config)
        search._run_study.check()
        return search

    def has_ended(self) -> bool:
        """Whether the run has a result, of all evaluations that are requested."""
        if not (self.request.out / RESULT_FILE).is_file():
            return False
        done = len(finished(self._study))
        refined = self._run_study.is_refined(self._study, done)
        return done >= wanted_in(self._study, self.request.evaluations) and refined

    def finalists(
        self, whole: Proposal, narrowing: Narrowing | None, scored: Scored, report: Report
    ) -> tuple[list[Finalist], NarrowForms]:
        """See `NetSearch`; on Ctrl-C all that was evaluated is kept.

        What the greedy search ended with comes first among the evaluations, its own choice before the others, and that
        is always a finalist: so no strategy's answer is worse.
        """
        assert narrowing is not None
        request, study = self.request, self._study
        name, shares = worker_name(request.out), request.storage is not None
        end_abandoned(study, name if shares else None)
        with seeding_turn(study, name, report) as check_turn:
            designs, problem = self._opened(whole, narrowing, scored, report, check_turn)
            if not is_seeded(study):
                known = self._first(designs, scored, report)
                check_turn()
                take_known(study, problem, known)
        study.sampler = self.strategy.sampler(problem, request.seed, BATCH)
        wanted = wanted_in(study, request.evaluations)
        work = _NetWork(request, whole.setup.config, wanted)
        with run_helpers(request.out, request.workers, work, designs.turns, study, report) as check:
            worker = Worker(name, shares or request.workers > 1, check)
            interrupted = evaluate_all(wanted, problem, designs, study, worker, report)
        if interrupted:
            raise KeyboardInterrupt
        forms = designs.forms
        candidates = _candidates(problem, designs, evaluations_in(study, designs.space))
        finalists = timed_finalists(candidates, whole.setup, report)
        return self._with_tuned(finalists, forms, report), forms

    def choose(self, finalists: Sequence[Finalist]) -> Finalist:
        """The one with the least of the first cost that is an objective, latency by default, of the acceptable ones."""
        costs = [name for name in self.request.objectives if name == "latency" or name in COUNTED]
        within = acceptable(finalists)
        if not within or not costs or costs[0] == "latency":
            return choose(finalists)
        return min(within, key=lambda each: (_count(costs[0], each.candidate), each.latency_ms[""]))

    def info(self, finalists: Sequence[Finalist], scored: Scored, started: float) -> RunInfo:
        """See `NetSearch`; its evaluations are all designs of the study, those of the greedy search included."""
        request, count = self.request, len(finished(self._study))
        first = {"first designs": "those that the greedy search ended with"}
        info = RunInfo(request.command, request.seed, request.strategy, request.budgets, count, started)
        return replace(info, known_from=first, objectives=request.objectives)

    def mark_ended(self) -> None:
        """Keep that the run's result speaks of all designs that its study has."""
        self._run_study.mark_refined(self._study, len(finished(self._study)))

    def help_evaluate(self, wanted: int, config: Mapping[str, Any], worker: Worker, turns_folder: Path) -> None:
        """Evaluate designs of the run's study as one of its workers, until it has as many as are wanted.

        Space and limits are the study's, and what the run's own process measured is read from its folder. Raises
        `UserError` where the net, or anything else of the run's `config`, is another one here.
        """
        request, study = self.request, self._study
        setup, scored = set_up(request, silent), replace(Scored.of(request.out), writes=False)
        if setup.config != config:
            raise UserError(f"{request.net.name} is another net each time that it is opened: let it be the same")
        setup.bench.turns.folder = turns_folder
        whole = Proposal(setup, scored, silent)
        designs, problem = self._opened(whole, self.narrowing(setup, silent), scored, silent)
        study.sampler = self.strategy.sampler(problem, request.seed, BATCH)
        evaluate_all(wanted, problem, designs, study, worker, silent)

    def _opened(
        self,
        whole: Proposal,
        narrowing: Narrowing,
        scored: Scored,
        report: Report,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[NetDesigns, Problem]:
        """See `open_designs`."""
        designs, problem = open_designs(self._study, whole, narrowing, scored, report, check)
        return designs, replace(problem, objectives_given=self.request.objectives)

    def _first(self, designs: NetDesigns, scored: Scored, report: Report) -> list[Evaluation]:
        """The evaluations that the greedy search ended with, its own choice first."""
        greedy, forms = GreedySearch(replace(self.request, tuning=NO_TUNING)), designs.forms
        finalists, _ = greedy.finalists(forms.whole, forms.narrowing, scored, report)
        best = choose(finalists)
        return [*map(designs.known, (best, *(each for each in finalists if each is not best)))]

    @cached_property
    def _study(self) -> optuna.Study:
        """The run's study, opened when it is first read: a folder that holds a journal can no longer become a run."""
        return self._run_study.open()

    @property
    def _run_study(self) -> RunStudy:
        request, config = self.request, shared_config(self.config)

        def difference(stored: object, subject: str, remedy: str) -> str:
            return difference_of(stored, config, subject, remedy)

        return RunStudy(request.out, request.storage, len(request.objectives) or 2, config, difference)

    def _with_tuned(self, finalists: list[Finalist], forms: NarrowForms, report: Report) -> list[Finalist]:
        """The finalists, and the chosen one once it is trained, where that was asked for.

        Where no channel is gone, the net is trained through eight bits, if that could make it faster. Else what is
        trained stands for all precisions of its channels: with the weights that they had they would differ in speed
        alone.
        """
        request, best = self.request, self.choose(finalists).candidate
        if not request.tuning.steps:
            return finalists
        if best.setup.whole and trains_rounded(request, finalists):
            return with_rounded(request, finalists, forms, report)
        if best.setup.whole:
            note(report, NOT_WORTH)
            return finalists
        form, floors = best.setup.name, forms.whole.setup.floors
        proposal = forms.tuned(form, request.tuning, request.out / TRAINING_FOLDER / form)
        values = best.precision.values
        tuned = proposal.candidate(proposal.precision(values["engine"], [*values]), "")
        if floors.are_kept(best.metrics) and not floors.are_kept(tuned.metrics):
            note(report, "once trained, the best design breaks a floor that it kept: its weights stay as they were")
            return finalists
        others = [each.candidate for each in finalists if each.candidate.setup.name != form]
        return timed_finalists([*others, tuned], forms.whole.setup, report)


@dataclass(frozen=True)
class _NetWork:
    """The part of a helper in the search of a net of one's own; a `HelperWork`."""

    request: PrecisionRequest
    config: Mapping[str, Any]
    evaluations: int

    def evaluate(self, name: str, turns_folder: Path) -> None:
        """See `HelperWork`."""
        search = StrategySearch(self.request, usable_strategy(self.request), self.config)
        search.help_evaluate(self.evaluations, self.config, Worker(name, shares=True), turns_folder)


def _candidates(problem: Problem, designs: NetDesigns, evaluations: Sequence[Evaluation]) -> list[Candidate]:
    """Each uniform precision of the whole net, the greedy search's choice, and the fastest of the front."""
    uniform = list(designs.forms.whole.uniform())
    among = {designs.design(each).key for each in uniform}
    further = {each.design.key: each for each in (evaluations[0], *_shortlist(problem, evaluations))}
    return [*uniform, *(designs.candidate(each) for key, each in further.items() if key not in among)]


def _shortlist(problem: Problem, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The fastest designs of the front that keep all limits, and a preference, or those that are nearest to it."""
    feasible = [each for each in evaluations if problem.feasible(each)]
    if preference_text(problem.preference):
        feasible = near_best(feasible, lambda each: problem.delta_m(each.metrics))
    if not feasible:
        return sorted(evaluations, key=problem.violation)[:SHORTLIST]
    front = [feasible[number] for number in non_dominated([problem.objectives(each) for each in feasible])]
    return sorted(front, key=problem.speed)[:SHORTLIST]


def _count(name: str, candidate: Candidate) -> float:
    """A counted cost of a candidate, on its engine's graph."""
    return float(getattr(candidate.setup.bench.cost(candidate.precision), COUNTED[name]))
