"""What is predicted: kinds of task, tasks, and how scores of several tasks are compared."""

from edgemtl.tasks.task import (
    FLAG_PREFIX,
    IMAGE_INPUT,
    KINDS,
    POSTPROCESSES,
    Metric,
    Task,
    check_tasks,
    delta_m,
    make_task,
    relative_change,
    remaining_drop,
)

__all__ = [
    "FLAG_PREFIX",
    "IMAGE_INPUT",
    "KINDS",
    "POSTPROCESSES",
    "Metric",
    "Task",
    "check_tasks",
    "delta_m",
    "make_task",
    "relative_change",
    "remaining_drop",
]
