"""The result of a search: `result.json`, schema `edgemtl.result/1`.

The search writes it, the report and the command line read it. The keys are stable: one that is not in the schema is
an error, so that a typing mistake in a writer cannot pass as an empty column in a reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from edgemtl.blocks import Blocks
from edgemtl.errors import UserError
from edgemtl.files.disk import write_json
from edgemtl.schema import Name, Strict, Text, read_document
from edgemtl.units import format_limit, format_quantity, preference_text

__all__ = [
    "RESULT_FILE",
    "EarlyStops",
    "Entry",
    "FigureKind",
    "FineTuning",
    "Latency",
    "LimitCheck",
    "Origin",
    "PathCost",
    "Result",
    "read_result",
    "write_result",
]

RESULT_FILE = "result.json"
SCHEMA = "edgemtl.result/1"
_REMEDY = "give the folder of a run that this version wrote"

FigureKind = Literal["measured", "estimated", "predicted", "simulated", "derived"]
"""Where a figure comes from: a clock or sensor, a roofline, a fitted model, a simulation, or arithmetic on others."""

Amount = Annotated[int, Field(ge=0, le=10**18)]
Weight = Annotated[float, Field(ge=0)]


class Latency(Strict):
    """A latency in ms, how it was obtained, and where; `error` is that of predictions or estimates of it.

    That is the mean absolute error on designs held out, a fraction; None of what was measured, and where it is not
    known. The one of an estimate was found where it was `fitted_on`, if that is another processor or runtime.
    """

    value: Annotated[float, Field(ge=0)]
    kind: FigureKind
    device: Name
    runtime: Name
    error: Annotated[float, Field(ge=0)] | None = None
    fitted_on: Name | None = None

    @property
    def origin(self) -> str:
        """How it was obtained, with its error: `measured`, `predicted (error 3.1 %)`, `estimated (error not known)`."""
        if self.error is None:
            return "estimated (error not known)" if self.kind == "estimated" else self.kind
        there = f" on {self.fitted_on}" if self.fitted_on else ""
        return f"{self.kind} (error {100 * self.error:.1f} %{there})"


class PathCost(Strict):
    """FLOPs and parameters of what one task runs alone."""

    flops: Amount
    params: Amount


class LimitCheck(Strict):
    """A budget or floor against one design, as it was decided: floors on validation images, latency measured there.

    `text` is the limit as given on the command line, `task` the one that it limits (None: all). `quantity` is that of a
    budget; of a floor "drop", the fraction of its metric that a task loses against the baseline, or "score", the
    metric's value in its `unit`. `metric` names the floor's, None where it is the deciding one that is lost. `allowed`
    and `value` are in the quantity's own unit; `allowed` is the least where `at_least`, else the most. `excess` tells
    by how much the limit is broken: of a budget as a fraction of it, of a floor as a fraction of the baseline's metric;
    0 or less where it is `kept`.
    """

    kind: Literal["budget", "floor"]
    text: Text
    quantity: Name
    task: Name | None
    allowed: float
    value: float
    excess: float
    kept: bool
    metric: Name | None = None
    unit: Annotated[str, Field(max_length=20)] = ""
    at_least: bool = False

    @property
    def name(self) -> str:
        """`3MB` or `floor depth=5%`."""
        return f"floor {self.text}" if self.kind == "floor" else self.text

    @property
    def words(self) -> str:
        """The amount and the limit: `takes 3.36 MB where 3.00 MB is allowed`; of a broken floor also by how much."""
        if self.kind == "budget":
            who = f"{self.task} " if self.task else ""
            return f"{who}takes {self.amount(self.value)} where {format_limit(self.quantity, self.allowed)} is allowed"
        missed = "" if self.kept else f", missed by {self.amount(abs(self.value - self.allowed))}"
        if self.quantity == "score":
            bound = f"at {'least' if self.at_least else 'most'} {self.amount(self.allowed)}"
            has = f"{self.task} has {self.metric} {self.amount(self.value)}"
            return f"{has} on validation images where {bound} is allowed{missed}"
        change = f"{'loses' if self.value >= 0 else 'gains'} {self.amount(abs(self.value))}"
        of_metric = f" of {self.metric}" if self.metric else ""
        return (
            f"{self.task} {change}{of_metric} on validation images where {self.amount(self.allowed)} is allowed{missed}"
        )

    def amount(self, value: float) -> str:
        """A value of its quantity in words: `3.36 MB`, `2 %`, `0.412`, `0.9 m`."""
        return f"{format_quantity(self.quantity, value)} {self.unit}".rstrip()


class FineTuning(Strict):
    """The training of a design after it was searched: optimizer steps, and delta_m on validation images around it.

    Both delta_m, fractions, are those that the search ranks by.
    """

    steps: Amount
    delta_m_before: float
    delta_m_after: float


class Entry(Strict):
    """One design with its cost and its scores; `bytes` are those of the weights.

    `delta_m` is the mean relative change of all tasks against the baseline, a fraction (0.01 is 1 %), each counting
    alike; `weighted_delta_m` the same weighted by the search's preference, None where that prefers no task. `metrics`
    hold every task's scores by metric name. `limits` are the budgets and floors one by one, `feasible` tells whether
    all are kept; `kind` tells whether it is the "baseline" that delta_m refers to or a "candidate", `name` is what its
    files are called. `fine_tuning` tells of its own training, None where its weights are the supernet's. `blocks`
    are those of its net, in order of execution; none where the net is no design of a space.
    """

    design: Annotated[dict[Name, int | float | str | bool], Field(max_length=5000)]
    flops: Amount
    macs: Amount
    params: Amount
    bytes: Amount
    latency_ms: Latency | None
    metrics: Annotated[dict[Name, dict[Name, float]], Field(max_length=100)]
    delta_m: float | None
    paths: Annotated[dict[Name, PathCost], Field(max_length=100)]
    feasible: bool | None = None
    kind: Literal["baseline", "candidate"] | None = None
    name: Name | None = None
    weighted_delta_m: float | None = None
    limits: Annotated[tuple[LimitCheck, ...], Field(max_length=150)] = ()
    fine_tuning: FineTuning | None = None
    blocks: Blocks = ()

    @property
    def broken(self) -> tuple[LimitCheck, ...]:
        """The limits that it does not keep."""
        return tuple(check for check in self.limits if not check.kept)

    @model_validator(mode="after")
    def _one_mac_is_two_flops(self) -> Entry:
        if abs(self.flops - 2 * self.macs) > 1:
            raise ValueError(f"flops {self.flops} are not twice the macs {self.macs}")
        return self


class EarlyStops(Strict):
    """Candidates of a search whose scoring was stopped early, as they could not keep one of the `floors`.

    So many `designs`, with `images_saved` of the `images` that all candidates would have been scored on; the chance
    that any of them would have kept its floors is at most `wrong_chance`.
    """

    floors: Annotated[tuple[Text, ...], Field(max_length=100)]
    designs: Amount
    images_saved: Amount
    images: Amount
    wrong_chance: Annotated[float, Field(ge=0, le=1)]

    def words(self, evaluations: int) -> str:
        """How many of a search's `evaluations` were stopped, what that saved, and the bound, on one line."""
        return (
            f"{self.designs} of {evaluations} designs were stopped early by floors that they could not keep "
            f"({', '.join(self.floors)}), which saved {self.images_saved / max(1, self.images):.0%} of the scored "
            f"images; at most {format_quantity('drop', self.wrong_chance)} chance that any of them was stopped wrongly"
        )


class Origin(Strict):
    """The run whose measurements served again: `evaluations` designs; `unmeasured` says what was not measured anew."""

    run: Text
    evaluations: Amount
    unmeasured: Text

    @property
    def words(self) -> str:
        """One line for people."""
        return f"from {self.run}: its {self.evaluations} measured designs served again; {self.unmeasured}"


class Result(Strict):
    """A finished search, pruning or training: what was asked, what came out, and where it ran.

    `budgets` and `floors` are texts as on the command line; floors refer to the `baseline`. `preference` holds every
    task's weight; it is empty in a result that does not tell. `best` is the chosen design, which is the nearest one
    where none keeps all limits (None where there is none), `front` the Pareto-optimal ones. `seconds` is wall-clock
    time, `evaluations` how many designs were scored; `early_stops` how many of them on a part of the images (None where
    no floor could stop one). `known_from` says in words what figures that others than the front's own engines gave are
    known from: latencies of candidates, sensitivities; `origin` tells which run the evaluations are of, where it is
    another one. `objectives` are those that the search was given, by name and in order; none: quality and cost.
    `block_losses` of a net of one's own: the share of its agreement with the float net that each task loses where a
    block alone is in INT8, by block; empty where that was not measured.
    """

    schema_: Literal["edgemtl.result/1"] = Field(default="edgemtl.result/1", alias="schema")
    command: Text
    seed: int | None
    data: Text | dict[Name, JsonValue]
    space: Text
    strategy: Text
    budgets: Annotated[tuple[Text, ...], Field(max_length=50)]
    feasible: bool
    best: Entry | None
    front: Annotated[tuple[Entry, ...], Field(max_length=20_000)]
    evaluations: Amount
    seconds: Annotated[float, Field(ge=0)]
    environment: dict[Name, JsonValue]
    floors: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    preference: Annotated[dict[Name, Weight], Field(max_length=100)] = Field(default_factory=dict)
    early_stops: EarlyStops | None = None
    known_from: Annotated[dict[Name, Text], Field(max_length=20)] = Field(default_factory=dict)
    origin: Origin | None = None
    objectives: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    block_losses: Annotated[dict[Name, dict[Name, float]], Field(max_length=20_000)] = Field(default_factory=dict)

    @property
    def preferred(self) -> str:
        """The preference in words, `depth=2,semseg=1`; empty where all tasks weigh alike."""
        return preference_text(self.preference)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the chosen (else the first) design."""
        entry = self.best or next(iter(self.front), None)
        return tuple(entry.metrics or entry.paths) if entry else ()

    @property
    def baseline(self) -> Entry | None:
        """The design that delta_m refers to, where the front names one."""
        return next((entry for entry in self.front if entry.kind == "baseline" or entry.name == "baseline"), None)


def write_result(folder: Path, result: Result) -> Path:
    """Write `folder/result.json` atomically; optional keys that were never set are left out. Returns the file."""
    path = folder / RESULT_FILE
    write_json(path, {"schema": SCHEMA, **result.model_dump(mode="json", by_alias=True, exclude_unset=True)})
    return path


def read_result(path: Path) -> Result:
    """Read the result of a run folder (or of a `result.json` itself).

    Raises `UserError`, one line, where there is none, where it was cut off, or where it is another tool's file.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"run {path} has no {RESULT_FILE}: give the folder that edgemtl search wrote, or finish it with --resume"
        )
    return read_document(file, "result", Result, SCHEMA, _REMEDY)
