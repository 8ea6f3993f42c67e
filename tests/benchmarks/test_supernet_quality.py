from __future__ import annotations

from supernet_quality import LARGEST, largest_rows

from edgemtl.data.scenes.source import SCENES_TASKS


def test_the_largest_net_is_held_to_the_one_before_in_each_direction() -> None:
    same = {task.name: {task.metric.name: LARGEST[task.name]} for task in SCENES_TASKS}
    assert all(row.holds for row in largest_rows(same))
    worse = {
        task.name: {task.metric.name: LARGEST[task.name] * (0.99 if task.metric.higher_is_better else 1.01)}
        for task in SCENES_TASKS
    }
    assert not any(row.holds for row in largest_rows(worse))
