from __future__ import annotations

import pytest
from space_span import changes_of, relative_changes, rows_of

from edgemtl.data.scenes.source import SCENES_TASKS
from edgemtl.spaces import load_space


def test_changes_are_of_one_choice_each_and_the_smallest_options_are_among_them() -> None:
    space = load_space("cnn", SCENES_TASKS)
    largest, every = space.largest(), [*changes_of(space)]
    assert len({design.key for _, _, design in every}) == len(every) > 24
    assert all(design[choice.name] == option != largest[choice.name] for choice, option, design in every)
    quick = [*changes_of(space, smallest_only=True)]
    assert {choice.name for choice, _, _ in quick} == {choice.name for choice, _, _ in every}
    assert ("depth.depth", 1) in [(choice.name, option) for choice, option, _ in quick]


def test_a_decoders_choice_has_a_row_of_its_own_task() -> None:
    space = load_space("cnn", SCENES_TASKS)
    choices = {choice.name: choice for choice in space.architecture}
    base = {task.name: {task.metric.name: 0.5} for task in SCENES_TASKS}
    changes = relative_changes(SCENES_TASKS, {**base, "depth": {"rmse": 0.6}}, base)
    own = {row.name: row.value for row in rows_of(choices["depth.depth"], 1, changes)}
    assert own == pytest.approx({"depth.depth=1": -5.0, "depth.depth=1 of depth": -20.0})
    assert [row.name for row in rows_of(choices["s1.width"], 24, changes)] == ["s1.width=24"]
