"""A search begins where its supernet's training drew designs, by the supernet's file."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refused
from toys import Toys, toy_space

from edgemtl.models import Supernet, save_supernet
from edgemtl.nas.search.problem import trained_near
from edgemtl.spaces import NearDesigns, Space
from edgemtl.train import Recipe, train_supernet

RECIPE = Recipe(steps=2, batch=2, sizes=(1.0,), largest_steps=0.0, seed=3, bf16=False)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return toy_space(tmp_path)


def test_a_supernet_names_the_designs_that_it_was_trained_near(space: Space, tmp_path: Path) -> None:
    near = NearDesigns(space, (space.smallest(), space.middle()))
    path = train_supernet(near, Toys(), RECIPE, tmp_path / "near")
    assert [design.plan for design in trained_near(path, space)] == [design.plan for design in near.designs]
    assert trained_near(train_supernet(space, Toys(), RECIPE, tmp_path / "anywhere"), space) == ()
    assert trained_near(None, space) == ()


@pytest.mark.parametrize("near", [3, ["a.width"], [{"a.width": 9999}], [{"no.such": 8}], [{"a.width": [8]}]])
def test_a_list_of_designs_that_means_none_is_damaged(space: Space, tmp_path: Path, near: object) -> None:
    header = {"space": space.name, "fingerprint": space.fingerprint, "near": near}
    save_supernet(Supernet.of(space), tmp_path / "supernet.safetensors", header)
    line = refused(lambda: trained_near(tmp_path / "supernet.safetensors", space))
    assert "the designs that it was trained near are damaged: train it again" in line
