"""Conformance suite for search strategies.

class TestMine(StrategyConformance):
    strategy = make_strategy("mine", {"steps": 2})
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from edgemtl.data import open_source
from edgemtl.nas.evaluation import (
    Evaluation,
    Evaluator,
    Problem,
    Sensitivity,
    finished,
    one_step_down,
    record,
    space_distributions,
)
from edgemtl.nas.search import Preparation, Prepared, Strategy, evaluated_before
from edgemtl.progress import Progress, Report, silent
from edgemtl.spaces import Space, load_space
from edgemtl.targets import find_target, measurer_of
from edgemtl.tasks import relative_change
from edgemtl.testing.landscape import TINY, drive, evaluate, problem, write_space
from edgemtl.testing.world import write_data
from edgemtl.train import fresh_supernet

__all__ = ["StrategyConformance"]

COUNT = 8
_BATCH = 5


class StrategyConformance:
    """Subclasses set `strategy`, quick settings among it, and `space_yaml` where it needs another kind of space.

    `keeps_budgets` is False where a budget that can be counted may be exceeded by a proposal; `draws` is False where
    the seed changes nothing. Where designs are measured, a landscape over the space answers.
    """

    strategy: Strategy
    space_yaml = TINY
    budgets = ("70%FLOPs", "90%ms")
    keeps_budgets = True
    draws = True

    # What the tests share.

    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder with a data set of two tasks and the space."""
        home = tmp_path_factory.mktemp("strategy")
        write_data(home / "photos")
        write_space(home, "small", cls.space_yaml)
        return home

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, home: Path) -> Problem:
        """The problem that designs are proposed for."""
        space = cls.preparation(home, home / "unused").space
        return cls.with_sensitivity(problem(space, cls.budgets))

    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, home: Path, task: Problem) -> Prepared:
        """The strategy after its stage."""
        return cls.prepare(home, home / "stage", task)

    @pytest.fixture(scope="class")
    @classmethod
    def unbroken(cls, prepared: Prepared, task: Problem) -> list[str]:
        """Keys of the first designs of a search that nothing stops."""
        return cls.proposals(prepared, task)

    @classmethod
    def preparation(cls, home: Path, folder: Path, report: Report = silent) -> Preparation:
        """Input of a stage in `folder`, as in a new process."""
        source = open_source(str(home / "photos"), (64, 64))
        space = load_space(str(home / "nas" / "small.yaml"), source.tasks)
        target = find_target("onnxruntime")
        supernet = fresh_supernet(space, 0)
        evaluator = Evaluator(source, target, measurer_of(target), [""], 1, supernet=supernet)
        return Preparation(space.for_target(target.traits), (), supernet, evaluator, 0, folder, report)

    @classmethod
    def prepare(cls, home: Path, folder: Path, task: Problem, report: Report = silent) -> Prepared:
        """Run the stage in `folder`, or go on with it there."""
        return cls.strategy.prepare(replace(cls.preparation(home, folder, report), limits=task.limits))

    @classmethod
    def with_sensitivity(cls, task: Problem) -> Problem:
        """The problem with what one step down in each choice costs, where the strategy goes by it."""
        if cls.strategy.needs.sensitivity == "unused":
            return task
        tasks, base = task.space.tasks, task.baseline
        changes = {
            name: {t.name: relative_change(t, evaluate(design).metrics[t.name], base[t.name]) for t in tasks}
            for name, design in one_step_down(task.space).items()
        }
        return replace(task, sensitivity=Sensitivity(changes))

    @classmethod
    def sampler(cls, prepared: Prepared, task: Problem, seed: int = 0, batch: int = _BATCH) -> BaseSampler:
        """A new sampler, as in a new process."""
        return prepared.sampler(replace(task), seed, batch)

    @classmethod
    def proposals(cls, prepared: Prepared, task: Problem, seed: int = 0, batch: int = _BATCH) -> list[str]:
        """Keys of the first designs."""
        return keys(drive(task, cls.sampler(prepared, task, seed, batch), COUNT)[0])

    # What it must do.

    def test_its_configuration_is_json_that_does_not_change(self, task: Problem) -> None:
        """A run is resumed with the same."""
        config = self.strategy.config(task.space)
        assert json.loads(json.dumps(config)) == dict(config) == dict(self.strategy.config(task.space))

    def test_the_seed_decides_what_is_proposed(self, prepared: Prepared, task: Problem, unbroken: list[str]) -> None:
        """Every proposal is a design of the space; the first one is made from nothing."""
        assert self.proposals(prepared, task) == unbroken
        assert len(set(unbroken)) > 1
        assert not self.draws or self.proposals(prepared, task, seed=1) != unbroken

    def test_a_finished_stage_is_found_again(self, home: Path, task: Problem, unbroken: list[str]) -> None:
        """A resumed stage keeps what was learnt."""
        assert self.proposals(self.prepare(home, home / "stage", task), task) == unbroken

    def test_a_stage_that_was_stopped_goes_on(
        self, home: Path, tmp_path: Path, task: Problem, unbroken: list[str]
    ) -> None:
        """The resumed stage ends as if it had not been stopped."""
        reports: list[Progress] = []

        def stop(progress: Progress) -> None:
            reports.append(progress)
            if len(reports) == 2:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            self.prepare(home, tmp_path / "stage", task, stop)
        assert self.proposals(self.prepare(home, tmp_path / "stage", task), task) == unbroken

    def test_a_search_that_was_stopped_proposes_what_it_would_have(
        self, prepared: Prepared, task: Problem, unbroken: list[str]
    ) -> None:
        """By kills before, within and after the writing of a trial's parameters, and between two trials."""
        study, proposed = new_study(), list[str]()
        for written in (0, 1, len(task.space.choices)):
            proposed += keys(drive(task, self.sampler(prepared, task), 2, study)[0])
            study.tell(begin(study, task.space, written), state=TrialState.FAIL)
        proposed += keys(drive(task, self.sampler(prepared, task), COUNT - len(proposed), study)[0])
        assert proposed == unbroken

    def test_a_trial_that_failed_is_proposed_again(
        self, prepared: Prepared, task: Problem, unbroken: list[str]
    ) -> None:
        """It counts for nothing."""
        study = new_study(sampler=self.sampler(prepared, task))
        for _ in range(2):
            trial = study.ask(space_distributions(task.space))
            failed = task.space.design(trial.params).key
            study.tell(trial, state=TrialState.FAIL)
        proposed, _ = drive(task, self.sampler(prepared, task), 1, study)
        assert keys(proposed) == [failed] == unbroken[:1]

    @pytest.mark.parametrize("written", [0, 2])
    def test_what_another_worker_has_half_written_is_not_there(
        self, prepared: Prepared, task: Problem, written: int
    ) -> None:
        """It is still about it, or was killed a moment ago."""
        study = new_study()
        begin(study, task.space, written)
        assert len(drive(task, self.sampler(prepared, task), _BATCH + 1, study)[0]) == _BATCH + 1

    def test_what_can_be_counted_is_never_exceeded(self, prepared: Prepared, task: Problem) -> None:
        """Budgets in FLOPs, parameters and bytes need no measurement."""
        if not self.keeps_budgets:
            pytest.skip("it learns budgets from what is measured")
        proposed, _ = drive(task, self.sampler(prepared, task), COUNT)
        assert all(task.affordable(evaluation.design) for evaluation in proposed)

    @pytest.mark.parametrize("batch", [2, 3 * COUNT])
    def test_batches_of_any_size(self, prepared: Prepared, task: Problem, batch: int) -> None:
        """Two designs, and more than are ever measured."""
        assert len(self.proposals(prepared, task, batch=batch)) == COUNT

    def test_workers_that_ask_at_once(self, prepared: Prepared, task: Problem) -> None:
        """Designs are proposed while others are still measured."""
        study = new_study(sampler=self.sampler(prepared, task))
        for _ in range(3):
            trials = [study.ask(space_distributions(task.space)) for _ in range(3)]
            for trial in trials:
                evaluation = evaluate(task.space.design(trial.params))
                record(trial, evaluation)
                study.tell(trial, list(task.objectives(evaluation)))
        assert len(finished(study)) == 9

    def test_workers_propose_what_one_would(self, prepared: Prepared, task: Problem, unbroken: list[str]) -> None:
        """As many at once as may be, and the last one ends first."""
        study, proposed = new_study(), dict[int, str]()
        while (done := len(proposed)) < COUNT:
            at_once = []
            for position in range(done, COUNT):
                study.sampler = self.sampler(prepared, task)
                if evaluated_before(study.sampler, position) <= done:
                    at_once.append((position, study.ask(space_distributions(task.space))))
            for position, trial in reversed(at_once):
                evaluation = evaluate(task.space.design(trial.params))
                record(trial, evaluation)
                study.tell(trial, list(task.objectives(evaluation)))
                proposed[position] = evaluation.design.key
        assert [proposed[position] for position in range(COUNT)] == unbroken

    def test_three_objectives(self, prepared: Prepared, task: Problem) -> None:
        """The strategy serves a problem with more than two."""
        more = replace(task, objectives_given=("delta_m", "latency", "params"))
        study = new_study(3)
        assert len({*keys(drive(more, self.sampler(prepared, more), COUNT, study)[0])}) > 1
        assert len(finished(study)) == COUNT

    def test_a_budget_that_hardly_any_design_keeps(self, prepared: Prepared, task: Problem) -> None:
        """Proposals go on when all that is affordable was measured."""
        least = min(design.cost().weight_bytes for design in task.space.uniform(task.space.smallest()))
        tight = self.with_sensitivity(problem(task.space, [f"{least}B"]))
        assert len(drive(tight, self.sampler(prepared, tight, batch=2), 4)[0]) == 4


def keys(evaluations: Sequence[Evaluation]) -> list[str]:
    """Keys of the evaluated designs."""
    return [evaluation.design.key for evaluation in evaluations]


def new_study(objectives: int = 2, sampler: BaseSampler | None = None) -> optuna.Study:
    """An empty study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)


def begin(study: optuna.Study, space: Space, written: int) -> optuna.Trial:
    """A trial of which so many parameters are written yet."""
    trial = study.ask()
    for name, distribution in list(space_distributions(space).items())[:written]:
        trial._suggest(name, distribution)
    return trial
