"""The front of a finished run, near which a further training draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from configs import config_of
from refusals import refused

from edgemtl.nas.evaluation import Evaluation, Measured, Stopped
from edgemtl.nas.runs import RunFolder, front_designs, write_measurements
from edgemtl.spaces import Design, Space, load_space
from edgemtl.testing.landscape import TINY, write_space
from edgemtl.testing.world import TASKS


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return load_space(str(write_space(tmp_path_factory.mktemp("space"))), TASKS)


def scored(design: Design, rmse: float) -> Evaluation:
    return Evaluation(design, {"depth": {"rmse": rmse}, "kind": {"accuracy": 0.5}}, {})


def finished(folder: Path, space: Space, evaluations: Sequence[Evaluation], refined: Sequence[Measured] = ()) -> Path:
    """A run's folder as a search leaves it, without nets."""
    run = unfinished(folder, space)
    write_measurements(run, scored(space.largest(), 1.0).metrics, evaluations, refined)
    return run


def unfinished(folder: Path, space: Space) -> Path:
    RunFolder(folder / "run").create(config_of(space))
    return folder / "run"


@pytest.fixture(scope="module")
def ladder(space: Space) -> list[Design]:
    """Four designs, fewest FLOPs first."""
    widths = ({}, {"s2.width": 16}, {"s2.width": 24}, {"s1.width": 16, "s2.width": 24})
    designs = [space.design(values) for values in widths]
    flops = [design.cost().flops for design in designs]
    assert flops == sorted(set(flops))
    return designs


def test_the_front_is_what_nothing_beats_in_loss_and_flops(space: Space, ladder: list[Design], tmp_path: Path) -> None:
    run = finished(tmp_path, space, [scored(d, rmse) for d, rmse in zip(ladder, (3.0, 1.5, 2.0, 1.2), strict=True)])
    assert front_designs(run, space) == (ladder[0], ladder[1], ladder[3])


def test_an_architecture_stands_there_once_with_its_best_precision(
    space: Space, ladder: list[Design], tmp_path: Path
) -> None:
    """INT8 does not change FLOPs: what a precision loses says nothing about the architecture."""
    rounded = space.design({**ladder[2], "s2_1.precision": "int8", "engine.precision": "bf16"})
    rows = [scored(ladder[1], 1.5), scored(rounded, 1.1), scored(ladder[2], 9.0)]
    for number, evaluations in enumerate((rows, rows[::-1])):
        run = finished(tmp_path / str(number), space, evaluations)
        assert front_designs(run, space) == (ladder[1], ladder[2])


def test_the_finer_figures_of_a_refined_design_count(space: Space, ladder: list[Design], tmp_path: Path) -> None:
    refined = [Measured(scored(ladder[1], 0.5), None)]
    run = finished(tmp_path, space, [scored(ladder[1], 9.0), scored(ladder[2], 1.0)], refined)
    assert front_designs(run, space) == (ladder[1],)


def test_a_run_of_another_space_is_refused(space: Space, ladder: list[Design], tmp_path: Path) -> None:
    run = finished(tmp_path, space, [scored(ladder[0], 1.0)])
    wider = load_space(str(write_space(tmp_path, text=TINY.replace("[8, 16, 24]", "[8, 16, 24, 32]"))), TASKS)
    assert "searched another space than 'tiny': give a search of this one" in refused(lambda: front_designs(run, wider))
    assert front_designs(run, replace(space, size=(128, 128))) == (ladder[0],), "weights do not depend on the size"


def test_a_run_without_a_scored_design_is_refused(space: Space, ladder: list[Design], tmp_path: Path) -> None:
    early = replace(scored(ladder[0], 1.0), stopped=Stopped("depth=5%", 8, 40))
    run = finished(tmp_path, space, [early])
    assert "stopped the scoring of every design early" in refused(lambda: front_designs(run, space))


def test_a_run_that_has_not_ended_is_refused(space: Space, tmp_path: Path) -> None:
    run = unfinished(tmp_path, space)
    assert "has not ended: go on with --resume" in refused(lambda: front_designs(run, space))
    assert "is no run" in refused(lambda: front_designs(tmp_path / "nothing", space))
