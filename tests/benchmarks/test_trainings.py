from __future__ import annotations

from pathlib import Path

import pytest
import torch
from _trainings import scored_on_test, trained_alone

from edgemtl.data import Source, open_source
from edgemtl.spaces import Space
from edgemtl.testing.landscape import space
from edgemtl.testing.world import write_data
from edgemtl.train import Recipe, fresh_supernet

RECIPE = Recipe(steps=1, batch=2, sizes=(1.0,), largest_steps=1.0)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    write_data(tmp_path / "photos")
    return open_source(str(tmp_path / "photos"), (64, 64))


@pytest.fixture
def tiny(tmp_path: Path, source: Source) -> Space:
    return space(tmp_path, source.tasks)


def test_a_training_is_made_once_for_its_design_its_weights_and_its_recipe(
    tiny: Space, source: Source, tmp_path: Path
) -> None:
    design, work = tiny.smallest(), tmp_path / "work"
    begin = fresh_supernet(tiny, 0).extract(design)
    net = trained_alone(design, begin, source, RECIPE, work / "smallest")
    assert not all(map(torch.equal, begin.parameters(), net.parameters()))
    assert {task.name for task in source.tasks} == set(scored_on_test(net, source.tasks, source))
    (folder,) = work.iterdir()
    written = (folder / "training.json").stat().st_mtime_ns
    again = trained_alone(design, begin, source, RECIPE, work / "smallest")
    assert all(map(torch.equal, net.parameters(), again.parameters()))
    assert (folder / "training.json").stat().st_mtime_ns == written
    trained_alone(design, fresh_supernet(tiny, 1).extract(design), source, RECIPE, work / "smallest")
    assert len([*work.iterdir()]) == 2
