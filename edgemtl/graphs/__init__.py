"""ONNX graphs: what operators read, how much they multiply, which tasks need them, and the blocks that they make."""

from edgemtl.graphs.blocks import cut_blocks
from edgemtl.graphs.macs import Shape, UnknownOperatorError, UnknownShapeError, has_rule, macs_of
from edgemtl.graphs.names import rename_tensors, renamed_node
from edgemtl.graphs.reading import bodies, moving_tensors, read_by, reads_and_writes
from edgemtl.graphs.tasks import Group, Tasks, group_by_tasks, tasks_of_operators, tasks_of_tensors

__all__ = [
    "Group",
    "Shape",
    "Tasks",
    "UnknownOperatorError",
    "UnknownShapeError",
    "bodies",
    "cut_blocks",
    "group_by_tasks",
    "has_rule",
    "macs_of",
    "moving_tensors",
    "read_by",
    "reads_and_writes",
    "rename_tensors",
    "renamed_node",
    "tasks_of_operators",
    "tasks_of_tensors",
]
