"""A task of a net as a bundle's manifest holds it."""

from __future__ import annotations

from edgemtl.bundle import BundleOutput, BundleTask
from edgemtl.tasks import Task, kind_of

__all__ = ["describe_task"]


def describe_task(task: Task, size: tuple[int, int]) -> BundleTask:
    """A task as the manifest holds it, of a net whose input has this size (height, width)."""
    postprocess = kind_of(task).postprocess
    return BundleTask(
        name=task.name,
        kind=task.kind,
        channels=task.channels,
        classes=task.classes,
        metric=task.metric.name,
        higher_is_better=task.metric.higher_is_better,
        outputs=tuple(
            BundleOutput(
                name=out.name,
                tensor=task.tensors[out.name],
                channels=out.channels,
                dense=out.dense,
                shape=(1, *((out.channels, *(size if out.dense else ())) if out.sizes is None else out.sizes)),
                unit=out.unit or None,
            )
            for out in task.outputs
        ),
        postprocess=postprocess.name,
        formula=postprocess.formula,
        result=postprocess.result,
    )
