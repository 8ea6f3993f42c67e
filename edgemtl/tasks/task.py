"""What is predicted: a task is declared once and carried through training, search, export, runtime and report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.files.names import check_label, check_name

__all__ = [
    "FLAG_PREFIX",
    "IMAGE_INPUT",
    "KINDS",
    "POSTPROCESSES",
    "Kind",
    "Metric",
    "Output",
    "Postprocess",
    "Task",
    "check_tasks",
    "delta_m",
    "make_task",
    "relative_change",
    "remaining_drop",
    "worst_task",
]


IMAGE_INPUT, FLAG_PREFIX = "image", "want_"
"""What engines call their inputs: the image, and the flag that says whether a task is wanted."""

_SIGNS = ".,:=@+"


@dataclass(frozen=True)
class Metric:
    """A score of one task: `higher_is_better` gives its direction, `unit` is for people ("m", "deg", "")."""

    name: str
    higher_is_better: bool
    unit: str = ""


@dataclass(frozen=True)
class Output:
    """One tensor a task predicts: `(N, channels, H, W)` where `dense`, else `(N, channels)`."""

    name: str
    channels: int
    dense: bool


@dataclass(frozen=True)
class Kind:
    """What all tasks of one kind share: the names of loss, metrics (the first one decides) and post-processing.

    `raw_unit` is the unit of what the net gives, before post-processing.
    """

    name: str
    dense: bool
    loss: str
    metrics: tuple[Metric, ...]
    postprocess: str
    raw_unit: str
    channels: int | None = None


@dataclass(frozen=True)
class Postprocess:
    """A step from a raw output to a prediction, in words: its `formula`, and what the `result` is."""

    formula: str
    result: str


POSTPROCESSES: dict[str, Postprocess] = {
    "argmax": Postprocess("the channel whose value is largest, the first of equal ones", "number of the class"),
    "exp": Postprocess("exp(raw)", "metres"),
    "none": Postprocess("raw", "values in the units of the labels"),
    "normalize": Postprocess(
        "raw / max(length of raw along the channels, 1e-12), channels last",
        "unit vectors: x right, y down, z forward",
    ),
    "peaks": Postprocess("of each channel the place of the largest value, and the value", "x and y in pixels, value"),
    "sigmoid": Postprocess("1 / (1 + exp(-raw))", "probability"),
    "softmax": Postprocess("exp(raw) / sum of exp(raw) along the channels", "probability of each class"),
}
"""What the steps of `edgemtl.runtime.postprocess` do, for those who deploy without it."""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("segmentation", True, "cross_entropy", (Metric("miou", True),), "argmax", "logits"),
        Kind(
            "depth",
            True,
            "log_l1",
            (Metric("rmse", False, "m"), Metric("abs_rel", False), Metric("delta1", True)),
            "exp",
            "log-metres",
            1,
        ),
        Kind(
            "normals",
            True,
            "cosine",
            (Metric("mean_angle", False, "deg"), Metric("within_11", True)),
            "normalize",
            "vector components",
            3,
        ),
        Kind("edges", True, "balanced_bce", (Metric("ods_f", True),), "sigmoid", "logits", 1),
        Kind("saliency", True, "balanced_bce", (Metric("max_f", True),), "sigmoid", "logits", 1),
        Kind("keypoints", True, "heatmap_mse", (Metric("pck", True),), "peaks", "heatmap values"),
        Kind("classification", False, "cross_entropy", (Metric("accuracy", True),), "softmax", "logits"),
        Kind("regression", False, "l1", (Metric("mae", False),), "none", "label units"),
    )
}


@dataclass(frozen=True)
class Task:
    """One prediction: its name, its kind, and what comes out.

    `channels` are the classes of a segmentation or classification, the points of keypoints, the values of a
    regression. `outputs` are the tensors of its head; most tasks have one, called like the task. Where a sample lacks
    the label, its boolean validity mask is false and neither loss nor metric sees the pixel.
    """

    name: str
    kind: str
    channels: int
    classes: tuple[str, ...] = ()
    loss: str = ""
    metrics: tuple[Metric, ...] = ()
    postprocess: str = ""
    outputs: tuple[Output, ...] = field(default=())

    @property
    def metric(self) -> Metric:
        """The metric that decides: the first one."""
        return self.metrics[0]

    @property
    def dense(self) -> bool:
        """Whether the target is a map over the image."""
        return KINDS[self.kind].dense


def make_task(name: str, kind: str, channels: int | None = None, classes: Sequence[str] = ()) -> Task:
    """A task with its kind's loss, metrics and post-processing; `UserError` where kind or channels do not fit.

    Names obey `check_name`, hold none of the signs that budgets and modes are written with, and are none that an
    engine's inputs have; classes obey `check_label`.

    >>> task = make_task("semseg", "segmentation", classes=["floor", "wall"])
    >>> task.channels, task.metrics[0].name
    (2, 'miou')
    """
    check_name(name, "task")
    if signs := sorted(set(name) & set(_SIGNS)):
        raise UserError(f"task {name!r} holds {signs[0]!r}: none of {' '.join(_SIGNS)} is allowed in a task's name")
    if name == IMAGE_INPUT or name.startswith(FLAG_PREFIX):
        inputs = f"{IMAGE_INPUT} and {FLAG_PREFIX}TASK"
        raise UserError(f"task {name!r} is called like an input of engines, which are {inputs}: choose another name")
    for text in classes:
        check_label(text, f"class of task {name}:")
    if kind not in KINDS:
        raise unknown_name("task kind", kind, KINDS)
    known = KINDS[kind]
    count = known.channels or channels or len(classes)
    if count < 1:
        raise UserError(f"task {name!r} of kind {kind} needs its classes or its number of channels, 1 or more")
    if channels is not None and channels != count:
        raise UserError(f"task {name!r} of kind {kind} has {count} channels, not {channels}")
    if classes and len(classes) != count:
        raise UserError(f"task {name!r} names {len(classes)} classes but has {count} channels")
    return Task(
        name,
        kind,
        count,
        tuple(classes),
        known.loss,
        known.metrics,
        known.postprocess,
        (Output(name, count, known.dense),),
    )


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
        raise UserError(f"no task was asked for: give at least one of {', '.join(known)}")
    return tuple(name for name in known if name in names)


def relative_change(task: Task, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Relative change of the task's deciding metric against the baseline, above zero where it is better."""
    value, base = metrics[task.metric.name], baseline[task.metric.name]
    change = (value - base) / _size(base)
    return change if task.metric.higher_is_better else -change


def remaining_drop(task: Task, metrics: Mapping[str, float], baseline: Mapping[str, float], max_drop: float) -> float:
    """The share of its own deciding metric that a task may still lose before it has lost `max_drop` of the baseline's.

    Zero or below where it has lost that already. It is the inverse of `relative_change`, whichever way is better.
    """
    left = max_drop + relative_change(task, metrics, baseline)
    return left * _size(baseline[task.metric.name]) / _size(metrics[task.metric.name])


def _size(value: float) -> float:
    """What changes of a metric are relative to; never zero."""
    return max(abs(value), 1e-12)


def delta_m(
    tasks: Sequence[Task],
    metrics: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
    preference: Mapping[str, float] | None = None,
) -> float:
    """Mean relative change over tasks (M3ViT's delta_m, as a fraction), weighted where a preference is given.

    >>> depth = make_task("depth", "depth")
    >>> delta_m([depth], {"depth": {"rmse": 0.25}}, {"depth": {"rmse": 0.5}})
    0.5
    """
    weights = {task.name: (preference or {}).get(task.name, 1.0) for task in tasks}
    total = sum(weights[task.name] * relative_change(task, metrics[task.name], baseline[task.name]) for task in tasks)
    return total / sum(weights.values())


def worst_task(
    tasks: Sequence[Task], metrics: Mapping[str, Mapping[str, float]], baseline: Mapping[str, Mapping[str, float]]
) -> tuple[str, float]:
    """The task that lost most against the baseline, and its relative change."""
    changes = {task.name: relative_change(task, metrics[task.name], baseline[task.name]) for task in tasks}
    name = min(changes, key=lambda task: changes[task])
    return name, changes[name]
