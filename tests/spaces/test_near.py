from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from grid_world import GRID
from small import TASKS, small_space

from edgemtl.spaces import Design, NearDesigns, Space, load_space

DRAWS = 300


@pytest.fixture(scope="module", params=["cnn", "grid"])
def near(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NearDesigns:
    """Three designs of a space, its ends among them, where there is an option on one side only."""
    folder = tmp_path_factory.mktemp("space")
    space = small_space(folder) if request.param == "cnn" else small_space(folder, TASKS[:2], GRID)
    return NearDesigns(space, (space.smallest(), space.random(random.Random(1)), space.largest()))


def draws(near: NearDesigns, seed: int) -> list[Design]:
    rng = random.Random(seed)
    return [near.random(rng) for _ in range(DRAWS)]


def is_beside(space: Space, one: Design, other: Design) -> bool:
    """Whether no choice that both designs make differs by more than an option."""
    return all(
        abs(choice.options.index(one[choice.name]) - choice.options.index(other[choice.name])) <= 1
        for choice in space.architecture
        if choice.active(one) and choice.active(other)
    )


def test_most_draws_lie_within_an_option_of_a_given_design(near: NearDesigns) -> None:
    drawn = draws(near, 0)
    near_one = [any(is_beside(near.space, each, design) for design in near.designs) for each in drawn]
    assert sum(near_one) / DRAWS > 0.7
    assert len(set(drawn)) > 20, "and are not these designs alone"


def test_each_design_is_drawn_near_as_often_and_a_quarter_anywhere() -> None:
    space = load_space("cnn", TASKS, (32, 64))
    small, large = space.smallest(), space.largest()
    drawn = draws(NearDesigns(space, (small, large)), 2)
    near_small, near_large = ([is_beside(space, each, design) for each in drawn] for design in (small, large))
    assert not any(np.logical_and(near_small, near_large))
    assert 0.3 < np.mean(near_small) < 0.5 and 0.3 < np.mean(near_large) < 0.5
    assert 0.1 < 1 - np.mean(near_small) - np.mean(near_large) < 0.3


def test_every_choice_moves_but_few_at_a_time(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    middle = space.middle()
    moved = [
        {choice.name for choice in space.architecture if each[choice.name] != middle[choice.name]}
        for each in draws(NearDesigns(space, (middle,)), 3)
    ]
    assert np.median([len(names) for names in moved]) < 0.15 * len(space.architecture)
    elastic = {choice.name for choice in space.architecture if choice.active(middle) and len(choice.options) > 1}
    assert set().union(*moved) >= elastic


def test_draws_are_canonical_and_follow_from_the_seed(near: NearDesigns) -> None:
    drawn = draws(near, 4)
    assert drawn == draws(near, 4) != draws(near, 5)
    assert all(near.space.design(each) == each for each in drawn)


def test_it_is_its_space_but_for_what_it_draws(near: NearDesigns) -> None:
    space = near.space
    for name in ("name", "tasks", "fingerprint", "architecture", "stages"):
        assert getattr(near, name) == getattr(space, name)
    assert (near.largest(), near.smallest()) == (space.largest(), space.smallest())
    assert near.plan({}) == space.plan({})


def test_what_is_drawn_near_has_a_name_of_its_own(near: NearDesigns) -> None:
    again = NearDesigns(near.space, near.designs)
    assert again.drawn == near.drawn != NearDesigns(near.space, near.designs[1:]).drawn
