"""Tasks: their kinds, declarations and floors, and how scores of several tasks are compared."""

from edgemtl.tasks.floors import MOST_DROP, Floor, named_metric, parse_floor
from edgemtl.tasks.kind import GraphBuilder, Kind, Postprocess, Summary
from edgemtl.tasks.labels import (
    Exact,
    FileSpec,
    Header,
    Names,
    RelativePath,
    TableSpec,
    Target,
    TaskSpec,
    parse_number,
    relative,
)
from edgemtl.tasks.outputs import by_tensor, map_outputs
from edgemtl.tasks.registry import KINDS, all_kinds, find_kind, kind_of, make_task
from edgemtl.tasks.scores import delta_m, metric_size, ratio_of_counts, relative_change, remaining_drop, worst_task
from edgemtl.tasks.task import FLAG_PREFIX, IMAGE_INPUT, Metric, Output, Task, check_tasks
from edgemtl.tasks.view import View, resize_points

__all__ = [
    "FLAG_PREFIX",
    "IMAGE_INPUT",
    "KINDS",
    "MOST_DROP",
    "Exact",
    "FileSpec",
    "Floor",
    "GraphBuilder",
    "Header",
    "Kind",
    "Metric",
    "Names",
    "Output",
    "Postprocess",
    "RelativePath",
    "Summary",
    "TableSpec",
    "Target",
    "Task",
    "TaskSpec",
    "View",
    "all_kinds",
    "by_tensor",
    "check_tasks",
    "delta_m",
    "find_kind",
    "kind_of",
    "make_task",
    "map_outputs",
    "metric_size",
    "named_metric",
    "parse_floor",
    "parse_number",
    "ratio_of_counts",
    "relative",
    "relative_change",
    "remaining_drop",
    "resize_points",
    "worst_task",
]
