from __future__ import annotations

import ast
import itertools
import warnings
from functools import partial
from pathlib import Path

import click
import pytest
from plugged import install

import edgemtl.nas.search
from edgemtl.cli.search import search as command
from edgemtl.errors import UserError
from edgemtl.nas.evaluation.problem import Problem
from edgemtl.nas.search import STRATEGIES, SamplerStrategy, make_strategy
from edgemtl.nas.search.strategies.linas import LinasSampler
from edgemtl.nas.search.strategies.nsga2 import Nsga2Sampler
from edgemtl.nas.search.strategies.random import RandomDesignSampler
from edgemtl.nas.search.strategies.tpe import TpeSampler
from edgemtl.spaces import Space
from edgemtl.testing.landscape import drive, evaluate, problem, space

PLUGGED = """
from edgemtl.nas.search import SamplerStrategy
from edgemtl.nas.search.strategies.random import RandomDesignSampler

def mine(shift: int = 1):
    return SamplerStrategy(lambda problem, seed, batch: RandomDesignSampler(problem, seed + shift, batch))
"""
SAMPLERS = {
    "linas": partial(LinasSampler, generations=5),
    "nsga2": Nsga2Sampler,
    "random": RandomDesignSampler,
    "tpe": TpeSampler,
}


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("kind"))


@pytest.fixture(scope="module")
def limited(kind: Space) -> Problem:
    return problem(kind, ["50%FLOPs", "90%ms"])


def keys(task: Problem, name: str, seed: int) -> list[str]:
    found, _ = drive(task, SAMPLERS[name](task, seed, 6), 14)
    return [evaluation.design.key for evaluation in found]


def test_six_are_built_in() -> None:
    assert STRATEGIES.names() == sorted(STRATEGIES.names())
    assert {"linas", "masks", "nsga2", "preference", "random", "tpe"} <= set(STRATEGIES.names())


def test_the_help_names_every_strategy_of_edgemtl_s_own() -> None:
    (option,) = (each for each in command.params if each.name == "strategy")
    assert isinstance(option, click.Option)
    assert all(name in str(option.help) for name in ("linas", "masks", "nsga2", "preference", "random", "tpe"))


@pytest.mark.parametrize("name", ["linas", "nsga2", "random", "tpe"])
def test_a_strategy_proposes_designs_and_its_seed_decides_which(limited: Problem, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        first = keys(limited, name, 0)
    assert first == keys(limited, name, 0)
    assert first != keys(limited, name, 1)
    assert len(set(first)) > 7


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_a_first_batch_keeps_what_is_counted_and_most_of_it_one_precision(limited: Problem, name: str) -> None:
    found, _ = drive(limited, SAMPLERS[name](limited, 0, 24), 24)
    designs = [evaluation.design for evaluation in found]
    uniform = [design.key in {each.key for each in limited.space.uniform(design)} for design in designs]
    assert all(map(limited.affordable, designs))
    assert 12 < sum(uniform) < 24


def test_nsga2_learns_a_limit_that_is_measured(kind: Space) -> None:
    """It measures designs over the budget too, but fewer and fewer."""
    timed = problem(kind, ["40%ms"])
    found, _ = drive(timed, Nsga2Sampler(timed, 0, 10), 100)
    kept = [timed.feasible(evaluation) for evaluation in found]
    assert sum(kept[-30:]) > sum(kept[:30])
    assert any(kept)


def test_nsga2_meets_a_front_that_random_does_not(kind: Space) -> None:
    task = problem(kind)
    best = {}
    for name in ("nsga2", "random"):
        found, _ = drive(task, SAMPLERS[name](task, 0, 12), 150)
        best[name] = max(task.delta_m(e.metrics) - e.latency_ms[""] / evaluate_largest(task) for e in found)
    assert best["nsga2"] > best["random"]


def evaluate_largest(task: Problem) -> float:
    return evaluate(task.space.largest()).latency_ms[""]


@pytest.mark.parametrize(
    ("given", "expected"), [("lina", "did you mean linas"), ("", "allowed: "), ("tpee", "did you mean tpe")]
)
def test_an_unknown_strategy_names_the_nearest(given: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        make_strategy(given)
    assert f"unknown strategy {given!r}" in str(error.value)
    assert expected in str(error.value)


def test_a_strategy_of_another_package_is_found_and_set(site: Path, limited: Problem) -> None:
    install(site, "edgemtl.strategies", "walk = edgemtl_walk:mine", PLUGGED)
    assert "walk" in STRATEGIES.names()
    strategy = make_strategy("walk", {"shift": "2"})
    assert isinstance(strategy, SamplerStrategy)
    found, _ = drive(limited, strategy.sampler(limited, 0, 6), 14)
    assert [evaluation.design.key for evaluation in found] == keys(limited, "random", 2)


def test_neither_the_loop_of_a_search_nor_evaluation_names_a_strategy() -> None:
    """What is one strategy's alone is in the strategy's own modules."""
    search = Path(edgemtl.nas.search.__file__).parent
    rooms, strategies = (search, search.parent / "evaluation", search.parent / "runs"), set(STRATEGIES.names())
    named = {
        f"{path.name}: {node.value}"
        for path in itertools.chain.from_iterable(room.glob("*.py") for room in rooms)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in strategies
    }
    assert named == {"request.py: linas"}, "the default of a request alone"
