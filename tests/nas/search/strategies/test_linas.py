from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from edgemtl.nas.evaluation.problem import Evaluation, Problem
from edgemtl.nas.evaluation.trials import design_of, finished, record, space_distributions
from edgemtl.nas.search.strategies.linas import LinasSampler, _Predicted, first_designs
from edgemtl.nas.search.strategies.random import RandomDesignSampler
from edgemtl.spaces import Design, Space
from edgemtl.testing.landscape import PAIR, drive, evaluate, problem, space

BATCH = 10
Point = tuple[float, float]
quick = partial(LinasSampler, generations=5)
"""Few generations, where it does not matter how good the proposals are."""


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("kind"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


@pytest.fixture(scope="module")
def every_point(kind: Space) -> list[Point]:
    """Objectives of every design of the space: the known truth."""
    genomes = itertools.product(*(range(len(choice.options)) for choice in kind.choices))
    designs = {design.key: design for design in map(kind.decode, genomes)}
    task = problem(kind)
    return [task.objectives(evaluate(design)) for design in designs.values()]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area that points (to be minimised) rule below a reference."""
    area, height = 0.0, reference[1]
    for x, y in sorted(points):
        if x < reference[0] and y < height:
            area += (reference[0] - x) * (height - y)
            height = y
    return area


def keys(found: Sequence[Evaluation]) -> list[str]:
    return [evaluation.design.key for evaluation in found]


def stored(folder: Path) -> optuna.Study:
    """A study as a search keeps it: in a file, opened anew every time."""
    backend = JournalFileBackend(str(folder / "study.journal"))
    directions = ["minimize", "minimize"]
    return optuna.create_study(
        study_name="s", storage=JournalStorage(backend), directions=directions, load_if_exists=True
    )


def ask(task: Problem, study: optuna.Study, sampler: LinasSampler) -> tuple[optuna.Trial, Design]:
    study.sampler = sampler
    trial = study.ask(space_distributions(task.space))
    return trial, design_of(trial.params, task.space)


def test_it_finds_almost_the_whole_front_and_beats_random_at_equal_evaluations(
    kind: Space, every_point: list[Point]
) -> None:
    """36 of 4,608 designs, three seeds."""
    task = problem(kind)
    worst = (max(x for x, _ in every_point), max(y for _, y in every_point))
    best = hypervolume(every_point, worst)
    for seed in range(3):
        linas, _ = drive(task, LinasSampler(task, seed, 12), 36)
        drawn, _ = drive(task, RandomDesignSampler(task, seed, 12), 36)
        shares = [hypervolume([task.objectives(e) for e in found], worst) / best for found in (linas, drawn)]
        assert shares[0] > 0.9
        assert shares[0] > shares[1] + 0.04
        assert len(set(keys(linas))) == 36, "a design was proposed twice"


def test_a_latency_budget_and_a_floor_are_learned(pair: Space) -> None:
    """Neither can be counted. What is found keeps both and is better than what random search finds."""
    task = problem(pair, ["50%ms"], ["depth=20%"])
    linas, _ = drive(task, LinasSampler(task, 0, BATCH), 40)
    drawn, _ = drive(task, RandomDesignSampler(task, 0, BATCH), 40)
    kept = [[e for e in found if task.feasible(e)] for found in (linas, drawn)]
    assert len(kept[0]) > 2 * len(kept[1])
    late = [task.feasible(e) for e in linas[BATCH:]]
    assert sum(late) / len(late) > 0.5
    best = [max((task.delta_m(e.metrics) for e in found), default=-1.0) for found in kept]
    assert best[0] > best[1]


@pytest.mark.parametrize("seed", range(2))
def test_floors_for_every_task_and_no_budget_are_a_search_for_speed(pair: Space, seed: int) -> None:
    """What is found keeps them and is faster than what a search for quality under the same floors finds."""
    task = problem(pair, floors=["depth=20%", "semseg=5%"])
    fastest = []
    for sought in (task, replace(task, preference={"depth": 1.001, "semseg": 1.0})):
        found, _ = drive(task, LinasSampler(sought, seed, BATCH, generations=20), 40)
        fastest.append(min(task.speed(each) for each in found if task.feasible(each)))
    assert fastest[0] < fastest[1]


def test_floors_of_every_form_constrain_alike(pair: Space) -> None:
    """A loss, the value that it comes to, and a loss of another metric that follows the first one."""

    def scored(design: Design) -> Evaluation:
        found = evaluate(design)
        depth = found.metrics["depth"]["rmse"]
        return replace(found, metrics={**found.metrics, "depth": {"rmse": depth, "abs_rel": depth / 5}})

    baseline = scored(pair.largest()).metrics
    worst = 1.2 * baseline["depth"]["rmse"]
    task = replace(problem(pair, floors=["depth=20%", f"depth<{worst:.9f}", "depth.abs_rel=20%"]), baseline=baseline)
    rng = random.Random(0)
    designs = [pair.random(rng) for _ in range(16)]
    _, excess = _Predicted(task, [scored(design) for design in designs[:12]])(designs[12:])
    for column in (1, 2):
        np.testing.assert_allclose(excess[:, column], excess[:, 0], atol=1e-6)
    assert task.requirements.drops == {"depth": pytest.approx(0.2)}


def test_every_proposal_keeps_what_can_be_counted(pair: Space) -> None:
    task = problem(pair, ["45%FLOPs", "depth:60%FLOPs", "40%MB"])
    found, _ = drive(task, quick(task, 3, BATCH), 25)
    assert all(task.affordable(evaluation.design) for evaluation in found)
    assert len(set(keys(found))) == len(found)


def test_a_budget_that_only_the_smallest_net_in_int8_keeps(pair: Space) -> None:
    """Next to nothing is affordable: proposals stay affordable, even once all were measured."""
    least = min(design.cost().weight_bytes for design in pair.uniform(pair.smallest()))
    task = problem(pair, [f"{least}B"])
    for sampler in (quick(task, 0, 4), RandomDesignSampler(task, 0, 4)):
        found, _ = drive(task, sampler, 6)
        assert all(task.affordable(evaluation.design) for evaluation in found)


def test_preference_decides_what_is_proposed(pair: Space) -> None:
    """What is measured once the predictors know something favours the task that alone counts."""
    lead = {}
    for name, other in (("depth", "semseg"), ("semseg", "depth")):
        task = problem(pair, ["50%FLOPs"], preference={name: 1.0, other: 0.0})
        found, _ = drive(task, LinasSampler(task, 0, BATCH), 2 * BATCH)
        changes = [task.changes(evaluation.metrics) for evaluation in found[BATCH:]]
        lead[name] = sum(change["depth"] - change["semseg"] for change in changes) / BATCH
    assert lead["depth"] > lead["semseg"]


def test_the_first_batch_spreads_over_sizes_and_precisions(pair: Space) -> None:
    task = problem(pair, ["90%FLOPs"])
    designs = first_designs(task, 12, random.Random(0), set())
    assert len({design.key for design in designs}) == 12
    flops = [design.cost().flops for design in designs]
    assert max(flops) > 0.8 * 0.9 * pair.largest().cost().flops
    assert max(flops) > 2 * min(flops)
    blocks = [{kind for name, kind in d.precision.items() if name != "engine"} for d in designs]
    assert blocks.count({"float"}) == blocks.count({"int8"}) == 6
    for kind in ({"float"}, {"int8"}):
        sizes = [size for size, precisions in zip(flops, blocks, strict=True) if precisions == kind]
        assert max(sizes) > 1.5 * min(sizes), "every precision is seen large and small"


def test_floors_alone_begin_with_the_largest_in_each_precision(pair: Space) -> None:
    floored = problem(pair, floors=["depth=1%", "semseg=1%"])
    first = first_designs(floored, 12, random.Random(0), set())
    assert first[:2] == pair.uniform(pair.largest()) and len({design.key for design in first}) == 12
    again = first_designs(floored, 12, random.Random(0), {design.key for design in first})
    assert not {design.key for design in again} & {design.key for design in first}
    limited = problem(pair, ["90%ms"], floors=["depth=1%", "semseg=1%"])
    assert first_designs(limited, 12, random.Random(0), set())[:2] != first[:2], "the largest may be far over a budget"


def test_designs_that_were_seen_do_not_come_first_again(pair: Space) -> None:
    task = problem(pair)
    first = first_designs(task, 12, random.Random(0), set())
    seen = {design.key for design in first}
    assert not seen & {design.key for design in first_designs(task, 12, random.Random(0), seen)}


def test_a_space_that_is_used_up_ends_in_repeats_not_in_an_error(tmp_path: Path) -> None:
    text = """\
    schema: edgemtl.space/1
    family: cnn
    input: [32, 32]
    precision: [float]
    cnn:
      stem: {width: [8]}
      stages: [{name: s1, stride: 2, width: [8, 16], depth: [1, 2], block: [fused], expand: [1]}]
      features: [s1]
      decoder: {width: [8]}
    """
    task = problem(space(tmp_path, text=text))
    found, study = drive(task, quick(task, 0, 2), 6)
    assert len(set(keys(found))) == 4
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)


def test_the_seed_decides(kind: Space) -> None:
    task = problem(kind)
    again = [keys(drive(task, quick(task, 5, BATCH), 15)[0]) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != keys(drive(task, quick(task, 6, BATCH), 15)[0])


def test_no_genome_is_predicted_twice_in_a_search_on_the_predictors(
    kind: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted, decode = list[tuple[int, ...]](), Space.decode

    def decoded(self: Space, genome: Sequence[int]) -> Design:
        predicted.extend([genome] if isinstance(genome, tuple) else [])  # those of the last population are arrays
        return decode(self, genome)

    monkeypatch.setattr(Space, "decode", decoded)
    task = problem(kind)
    drive(task, quick(task, 0, BATCH), BATCH + 1)
    assert BATCH < len(predicted) == len(set(predicted))


@pytest.mark.parametrize("done", [4, 10])
def test_what_is_stored_alone_decides_how_it_goes_on(kind: Space, tmp_path: Path, done: int) -> None:
    """Two samplers that never met the search go on in the same way from what it left in a file."""
    task = problem(kind)
    first, _ = drive(task, quick(task, 1, BATCH), done, stored(tmp_path))
    continued = []
    for name in ("a", "b"):
        copy = tmp_path / name
        copy.mkdir()
        (copy / "study.journal").write_bytes((tmp_path / "study.journal").read_bytes())
        found, _ = drive(task, quick(task, 1, BATCH), BATCH, stored(copy))
        continued.append(keys(found))
    assert continued[0] == continued[1]
    assert not set(continued[0]) & set(keys(first))


def test_two_workers_on_one_study_never_measure_the_same_design(kind: Space, tmp_path: Path) -> None:
    """They take turns, and each begins before the other has finished, but for the batches before."""
    task = problem(kind)
    workers = [(stored(tmp_path), quick(task, seed=0, batch=6)) for _ in range(2)]
    proposed, running = [], []
    for turn in range(16):
        study, sampler = workers[turn % 2]
        while len(finished(study)) < sampler.evaluated_before(turn):
            finish(task, *running.pop(0))
        trial, design = ask(task, study, sampler)
        proposed.append(design.key)
        running.append((study, trial, evaluate(design)))
        if len(running) == 2:
            finish(task, *running.pop(0))
    assert len(set(proposed)) == len(proposed)


def finish(task: Problem, study: optuna.Study, trial: optuna.Trial, evaluation: Evaluation) -> None:
    record(trial, evaluation)
    study.tell(trial, list(task.objectives(evaluation)))


def test_a_trial_that_a_killed_process_left_does_not_stop_the_next(kind: Space, tmp_path: Path) -> None:
    task = problem(kind)
    ask(task, stored(tmp_path), quick(task, 0, 4))
    found, study = drive(task, quick(task, 0, 4), 6, stored(tmp_path))
    assert len(set(keys(found))) == 6
    assert [trial.state for trial in study.trials].count(TrialState.RUNNING) == 1


def test_a_design_whose_trial_failed_may_come_again(kind: Space) -> None:
    task = problem(kind)
    study = optuna.create_study(directions=["minimize", "minimize"])
    trial, design = ask(task, study, LinasSampler(task, 0, 4))
    study.tell(trial, state=TrialState.FAIL)
    found, _ = drive(task, LinasSampler(task, 0, 4), 4, study)
    assert design.key in {d.key for d in first_designs(task, 4, random.Random("0/0"), set())}
    assert len(set(keys(found))) == 4


def test_a_parameter_of_a_users_own_is_drawn(kind: Space) -> None:
    task = problem(kind)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=LinasSampler(task, 0, 4))
    trial = study.ask(space_distributions(kind))
    assert 0 <= trial.suggest_float("own", 0, 1) <= 1


def test_half_of_the_first_batch_is_what_the_supernet_was_trained_near(pair: Space) -> None:
    task = problem(pair, ["90%FLOPs"])
    near = tuple(pair.random(random.Random(number)) for number in range(40))
    designs = first_designs(replace(task, trained_near=near), 12, random.Random(0), set())
    known = {variant.key for design in near for variant in pair.uniform(design)}
    assert len({design.key for design in designs}) == 12
    assert sum(design.key in known for design in designs[:6]) == 6
    assert all(task.affordable(design) for design in designs)
    assert max(design.cost().flops for design in designs[:6]) > 2 * min(design.cost().flops for design in designs[:6])
