"""`profile.json`, schema `edgemtl.profile/1`: what was measured, what was derived from it, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from edgemtl.files.disk import check_own, write_json
from edgemtl.profiling.samples import LatencyBlock
from edgemtl.results import FigureKind
from edgemtl.schema import Name, Strict, Text, read_document

__all__ = [
    "Count", "Counts", "Energy", "EnergyFigure", "Figure", "Mode", "Opening", "OperatorShare", "Operators", "Profile",
    "Stability", "TaskProfile", "profile_file", "read_profile", "write_profile",
]  # fmt: skip

PROFILE_FILE = "profile.json"
SCHEMA = "edgemtl.profile/1"
MOST = 10**18
MOST_BLOCKS, MOST_TYPES, MOST_INPUTS = 10_000, 1000, 10_000
"""Limits of a profile file; what exceeds them is cut, with a note, before it is written."""
Amount = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Figure(Strict):
    """One number in ms, its kind, and how it was obtained. A derived one may fall below zero: that is noise, shown."""

    value: float
    kind: FigureKind
    how: Text


class Mode(Strict):
    """A set of tasks run in one call, and its latency."""

    name: Name
    tasks: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
    latency: LatencyBlock


class TaskProfile(Strict):
    """Cost of one task: run alone, its own part (alone minus trunk), and what the others save without it."""

    alone_ms: Figure
    own_ms: Figure | None
    marginal_ms: Figure | None


class Count(Strict):
    """Exact counts of a part of the graph; 1 MAC is 2 FLOPs, bytes are those of the weights as stored.

    FLOPs are None where an operator of the part cannot be counted: the profile's notes name it. `activation_bytes` is
    the most that activations take at once while operators of the part run, in a call of all tasks; None where a size is
    not known.
    """

    flops: Amount | None
    macs: Amount | None
    params: Amount
    weight_bytes: Amount
    activation_bytes: Amount | None = None


class Counts(Strict):
    """Counts on the exported graph: the whole, the part that several tasks share, and each task's own part.

    Its own part is what a task costs at the margin; of activations, whose peaks do not add up, `activations_saved` is:
    by how many bytes the peak falls without the task.
    """

    total: Count
    trunk: Count
    tasks: Annotated[dict[Name, Count], Field(max_length=100)]
    activations_saved: Annotated[dict[Name, Amount], Field(max_length=100)] = Field(default_factory=dict)


class OperatorShare(Strict):
    """Time of the operators of one block, of one type or on one unit: mean ms in one run, and share of all operators.

    `unit` is what ran them, or all that did; empty where the runtime does not tell.
    """

    name: Name
    owner: Text = ""
    unit: Text = ""
    operators: Amount
    ms: Annotated[float, Field(ge=0)]
    share: Fraction


class Operators(Strict):
    """The runtime's own profile of all tasks at once. Profiling costs time itself: compare shares, not ms.

    Operators that the runtime fused across blocks are rows of their own. `by_unit` is where the time was spent (GPU,
    DLA, what fell back to the GPU), empty where the runtime does not tell.
    """

    runs: Amount
    total_ms: Annotated[float, Field(ge=0)]
    by_block: Annotated[tuple[OperatorShare, ...], Field(max_length=MOST_BLOCKS)]
    by_type: Annotated[tuple[OperatorShare, ...], Field(max_length=MOST_TYPES)]
    by_unit: Annotated[tuple[OperatorShare, ...], Field(max_length=MOST_TYPES)] = ()
    kind: Literal["measured"] = "measured"


class Opening(Strict):
    """A fresh process that opens the engine and runs every task once.

    `open_ms` includes loading the runtime's libraries. Memory is resident: `baseline_bytes` with Python and edgemtl
    loaded, then the peak up to the end of opening and up to the end of the first run.
    """

    open_ms: Annotated[float, Field(ge=0)]
    first_run_ms: Annotated[float, Field(ge=0)]
    baseline_bytes: Amount | None
    open_peak_bytes: Amount | None
    run_peak_bytes: Amount | None
    kind: Literal["measured"] = "measured"


class EnergyFigure(Strict):
    """Energy in mJ of one call, idle taken off, with its standard uncertainty; below zero it is noise, shown."""

    mj: float
    uncertainty_mj: Annotated[float, Field(ge=0)]


class Energy(Strict):
    """Energy of each mode, and what each task costs at the margin: all tasks minus all but it.

    `visits` are the loops that were metered, (seconds, joules, calls) each, "" those that idled, at `idle_w` in the
    mean. `rails` were covered, `rate_hz` is how often they were read (None: counters, at both ends).
    """

    rails: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    rate_hz: Annotated[float, Field(gt=0)] | None
    idle_w: float
    modes: Annotated[dict[Name, EnergyFigure], Field(max_length=200)]
    marginal: Annotated[dict[Name, EnergyFigure], Field(max_length=100)]
    visits: Annotated[dict[str, tuple[tuple[float, float, float], ...]], Field(max_length=201)]
    kind: Literal["measured"] = "measured"


class Stability(Strict):
    """Whether the figures may be trusted: every reason against them is written out.

    `worst_cov` is the largest coefficient of variation of a mode; `others_cpu` and `stolen_cpu` are the fractions
    of the machine that other processes and other virtual machines took meanwhile (None: not readable).
    """

    stable: bool
    throttled: Literal["yes", "no", "unknown"]
    worst_cov: Annotated[float, Field(ge=0)]
    load_average: float | None
    others_cpu: Fraction | None
    stolen_cpu: Fraction | None
    reasons: tuple[Text, ...]


class Profile(Strict):
    """A measured model. `modes` start with all tasks together; `trunk_ms` is what all tasks share, where it shows.

    `separate_ms` is what the tasks would cost run one after another: against the first mode it says whether sharing
    pays. `inputs` are the sizes that an ONNX file was run with; `notes` say what was assumed and what was not counted.
    `engine_sha256` tells which of a bundle's engines was measured (`Manifest.engine_sha256`), None for other sources.
    Without `energy`, `energy_unmeasured` says why.
    """

    schema_: Literal["edgemtl.profile/1"] = Field(default="edgemtl.profile/1", alias="schema")
    name: Name
    source: Literal["bundle", "engine", "onnx"]
    target: Name
    runtime: Name
    device: Name
    threads: Amount
    tasks: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
    modes: Annotated[tuple[Mode, ...], Field(min_length=1, max_length=1000)]
    task_costs: Annotated[dict[Name, TaskProfile], Field(max_length=100)]
    trunk_ms: Figure | None
    separate_ms: Figure | None
    counts: Counts | None
    operators: Operators | None
    opening: Opening | None
    inputs: Annotated[dict[Text, tuple[Amount, ...]], Field(max_length=MOST_INPUTS)] = Field(default_factory=dict)
    notes: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    engine_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    stability: Stability
    energy: Energy | None = None
    energy_unmeasured: Text = ""
    seconds: Annotated[float, Field(ge=0)]
    environment: dict[Name, JsonValue]

    @property
    def latency(self) -> LatencyBlock:
        """Latency of all tasks in one call."""
        return self.modes[0].latency


def profile_file(path: Path) -> Path:
    """Where a profile at `path` goes (a folder gets `profile.json`); `UserError` where another file is there."""
    file = path / PROFILE_FILE if path.is_dir() else path
    check_own(file, '"schema": "edgemtl.profile/', "profile")
    return file


def write_profile(profile: Profile, path: Path) -> Path:
    """Write a profile atomically to `profile_file(path)`, in place of an older one; returns the file."""
    file = profile_file(path)
    write_json(file, profile.model_dump(mode="json", by_alias=True))
    return file


def read_profile(path: Path) -> Profile:
    """Read a profile (a folder's `profile.json`); raises `UserError`, one line, for a damaged or foreign file."""
    file = path / PROFILE_FILE if path.is_dir() else path
    return read_document(file, "profile", Profile, SCHEMA, "profile the model again")
