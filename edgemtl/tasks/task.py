"""Tasks: each is declared once and carried through training, search, export, runtime and report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.tasks.outputs import by_tensor

__all__ = ["FLAG_PREFIX", "IMAGE_INPUT", "Metric", "Output", "Task", "check_tasks"]


IMAGE_INPUT, FLAG_PREFIX = "image", "want_"
"""Names of an engine's inputs: the image, and the flag that says whether a task is wanted."""


@dataclass(frozen=True)
class Metric:
    """A score of one task: `higher_is_better` gives its direction, `unit` is for people ("m", "deg", "").

    `power` is 1 where the score is a mean over all valid labels of all images, and 2 where it is the root of a mean of
    squares; None where it is neither. Such a mean is of shares of up to 1 where higher is better, else of errors that
    are 0 or more: an image's score alone then tells its part, whatever the others have. `ratio` says how the score
    follows from counts of right, false and missed labels over all images, as `ratio_of_counts` has it: "mean_iou" over
    classes, or "best_f" over thresholds; None where it does not.
    """

    name: str
    higher_is_better: bool
    unit: str = ""
    power: int | None = None
    ratio: Literal["mean_iou", "best_f"] | None = None


@dataclass(frozen=True)
class Output:
    """One tensor a task's head gives: `(N, channels, H, W)` where `dense`, else `(N, channels)`, its values in `unit`.

    Its `name` is local to the task. `decoded` says what a graph that decodes has in its place, where that is not all of
    what the kind's post-processing gives. `sizes` are those of a tensor `(N, *sizes)` of neither form.
    """

    name: str
    channels: int
    dense: bool
    unit: str = ""
    decoded: str = ""
    sizes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Task:
    """One prediction: its name, the name of its kind, and what comes out.

    `channels` are the classes of a segmentation or classification, the points of keypoints, the values of a
    regression; `classes` name them. `metrics` are scored, `outputs` are the tensors of its head in order. Where a
    sample lacks the label, its boolean validity mask is false and neither loss nor metric sees it.
    """

    name: str
    kind: str
    channels: int
    classes: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    outputs: tuple[Output, ...] = ()

    @property
    def metric(self) -> Metric:
        """The metric that decides: the first one."""
        return self.metrics[0]

    @property
    def dense(self) -> bool:
        """Whether one of its outputs is a map over the image."""
        return any(output.dense for output in self.outputs)

    @property
    def tensors(self) -> dict[str, str]:
        """The name that graphs and engines have for each of its outputs."""
        named = by_tensor({self.name: {output.name: output.name for output in self.outputs}})
        return {output: tensor for tensor, output in named.items()}

    def class_name(self, number: int) -> str:
        """The name of a class, or its number in words where it has none."""
        return self.classes[number] if 0 <= number < len(self.classes) else f"class {number}"


def check_tasks(wanted: str | Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """The wanted tasks, each once, in the order of `known`; a string is the name of one.

    Raises `UserError` for an unknown task, for none at all, and for what is no name.
    """
    if not isinstance(wanted, Iterable):
        raise UserError(f"tasks {brief(wanted)} given: give a name, or a list of names, of {', '.join(known)}")
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"task {brief(name)} given: tasks are names, of {', '.join(known)}")
        if name not in known:
            raise unknown_name("task", name, known)
    if not names:
        raise UserError(f"no task was named: give at least one of {', '.join(known)}")
    return tuple(name for name in known if name in names)
