"""Bundles: a folder whose `manifest.json` records tasks, costs, and the hashes of its files.

Nothing in a bundle is executed. Reading one checks its schema, that every path stays inside the folder, and the hash of
every file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from edgemtl.arithmetic import ANY, Arithmetic
from edgemtl.blocks import Blocks
from edgemtl.devices import HOST
from edgemtl.errors import UserError
from edgemtl.files.disk import write_json
from edgemtl.files.paths import inside
from edgemtl.files.seals import sha256
from edgemtl.results import PathCost
from edgemtl.schema import Name, Strict, Text, read_document
from edgemtl.tasks import Output, Task, find_kind, make_task

__all__ = [
    "MANIFEST_FILE",
    "SCHEMA",
    "BundleCost",
    "BundleDispatch",
    "BundleExperts",
    "BundleInput",
    "BundleLevel",
    "BundleOutput",
    "BundleTarget",
    "BundleTask",
    "Manifest",
    "OutputParity",
    "Parity",
    "Provenance",
    "read_manifest",
    "share_dropped_by_model",
    "share_dropped_by_target",
    "write_manifest",
]

MANIFEST_FILE = "manifest.json"
SCHEMA = "edgemtl.bundle/1"

FilePath = Annotated[str, Field(min_length=1, max_length=500)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[int, Field(ge=0, le=10**18)]
Side = Annotated[int, Field(ge=1, le=1 << 16)]
Share = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]


class BundleInput(Strict):
    """One image: the tensor `name`, a batch of one in this layout, colour order and type.

    A value is `(pixel / scale - mean) / std`, pixels from 0 to 255, with a mean and a deviation for each channel. An
    image of another size is resized as `shrinking` says where neither side grows, otherwise as `enlarging` says.
    """

    name: Literal["image"] = "image"
    height: Side
    width: Side
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    colour: Literal["RGB", "BGR"] = "RGB"
    dtype: Literal["float32", "uint8"] = "float32"
    scale: Annotated[float, Field(gt=0)] = 255.0
    mean: Triple
    std: Triple
    shrinking: Literal["area"] = "area"
    enlarging: Literal["bilinear"] = "bilinear"
    keep_aspect: Literal[False] = False


class BundleOutput(Strict):
    """One output of a task, the `tensor` of graphs and engines that it is, its values in `unit`.

    A raw one is (1, channels, H, W) where `dense`, else (1, channels), but where the task declares another `shape`.
    `unit` is None where the kind has none.
    """

    name: Name
    tensor: Name
    channels: Side
    dense: bool
    shape: Annotated[tuple[Side, ...], Field(max_length=8)] | None = None
    dtype: Literal["float32", "int64"] = "float32"
    unit: Name | None = None


class BundleTask(Strict):
    """A task as `edgemtl.tasks.Task` declares it; `metric` is the one that decides.

    `postprocess` is what is left to do with the raw output: by `formula`, which gives `result`.
    """

    name: Name
    kind: Name
    channels: Side
    classes: Annotated[tuple[Name, ...], Field(max_length=10_000)]
    metric: Name
    higher_is_better: bool
    outputs: Annotated[tuple[BundleOutput, ...], Field(min_length=1, max_length=100)]
    postprocess: Name
    formula: Text = ""
    result: Text = ""

    @model_validator(mode="after")
    def _known(self) -> BundleTask:
        try:
            self.task()
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def task(self) -> Task:
        """The task, declared again."""
        outputs: list[Output] = []
        if find_kind(self.kind).declares_outputs:
            outputs = [
                Output(out.name, out.channels, out.dense, out.unit or "", sizes=out.shape and out.shape[1:])
                for out in self.outputs
            ]
        return make_task(self.name, self.kind, self.channels, self.classes, outputs)


class OutputParity(Strict):
    """One raw output of an engine against the FP32 net's, by the net's own runtime, over the same images.

    `max_abs_error` is the largest difference of any value, in `unit`, `relative_error` the norm of the difference over
    the norm of the net's output.
    """

    max_abs_error: Annotated[float, Field(ge=0)]
    relative_error: Annotated[float, Field(ge=0)]
    unit: Name | None = None


class Parity(Strict):
    """An engine against the trained FP32 net on the same images, for one task: each of its `outputs`, and its metric.

    `torch` and `engine` are the task's own `metric` of both, over `images` images of `split`: of labels, or, where a
    net of one's own came without any (`split` is None), of what the FP32 net itself predicts. What was allowed:
    `metric_allowed` is the fraction by which the metric may be worse, `difference_allowed` what the tensors may differ
    by (None where INT8 or BF16 is on the task's path: its metric alone decides). Both are None of a net of one's own in
    less than FP32, of which `agreement` tells instead: with the float net, without labels, 1 where nothing differs.
    """

    outputs: Annotated[dict[Name, OutputParity], Field(min_length=1, max_length=100)]
    metric: Name
    torch: float
    engine: float
    images: Amount
    split: Name | None = None
    metric_allowed: Annotated[float, Field(ge=0)] | None = None
    difference_allowed: Annotated[float, Field(ge=0)] | None = None
    agreement: Annotated[float, Field(le=1)] | None = None

    def differences(self) -> list[tuple[str, OutputParity]]:
        """The parity of each output with what to call it beside the task: nothing where it is the only one."""
        return [(name if len(self.outputs) > 1 else "", output) for name, output in self.outputs.items()]

    @property
    def tolerance(self) -> str:
        """The limit in words; empty in a manifest that does not record it."""
        if self.metric_allowed is None:
            return ""
        allowed = f"{self.metric} at most {100 * self.metric_allowed:.2g} %"
        if self.difference_allowed is None:
            return f"{allowed} worse"
        return f"{allowed} apart, outputs {self.difference_allowed:g}"


class BundleDispatch(Strict):
    """How an engine's experts get their tokens: `buckets` hold `capacity` times an even share.

    No capacity means room for every token; that and the other forms drop none.
    """

    form: Literal["segments", "buckets", "masked"]
    capacity: Annotated[float, Field(gt=0)] | None = None


class BundleTarget(Strict):
    """The engine for one runtime: its folder and files inside the bundle; no parity where it could not run there.

    `dispatch` is None where the net has no experts. Who opens the files without edgemtl feeds the boolean inputs of
    `flags`, [true] or [false] for each task, where there are any, and gives the runtime its `options`. `device` is what
    it was made for, `arithmetic` what it multiplies eight-bit numbers with there ("other": any processor), `hardware`
    in words what alone it runs on where that is no processor, and `needs` what a processor must have for it to be right
    (`edgemtl.arithmetic.NEEDS`). `checked` says what parity is that of: the engine as it ran on `checked_on`, or, where
    it cannot run right there, the simulation of what it computes: of all tasks together, and on the first image of
    `modes_checked` modes besides. A portable engine keeps the parity that the device's
    own scheme had on the same images in `own_parity`.
    """

    folder: FilePath
    files: Annotated[tuple[FilePath, ...], Field(min_length=1, max_length=1000)]
    runtime: Name
    parity: Annotated[dict[Name, Parity], Field(max_length=100)]
    dispatch: BundleDispatch | None = None
    flags: Annotated[dict[Name, Name], Field(max_length=100)] = Field(default_factory=dict)
    options: Annotated[dict[Name, Text], Field(max_length=100)] = Field(default_factory=dict)
    device: Name = HOST
    arithmetic: Arithmetic = ANY
    hardware: Text = ""
    needs: Annotated[tuple[Name, ...], Field(max_length=20)] = ()
    checked: Literal["engine", "simulation"] = "engine"
    checked_on: Name | None = None
    modes_checked: Amount = 0
    own_parity: Annotated[dict[Name, Parity], Field(max_length=100)] | None = None


class BundleExperts(Strict):
    """The experts of one `layer` that a `task` reaches (None: all tasks alike), and what its tokens did on `images`.

    `shares` (they sum to 1) and mean `gates` are in the order of `experts`, of each `tokens` of an image that went to
    `top_k` of them; `most_tokens` of one image went to one expert. `expert_bytes` are the weights of one expert.
    `dropped_by_model` is the share of what the router sent that the net itself has no place for, where the net bounds
    what an expert takes; `dropped_by_target` what of the rest a target's own capacity drops, for targets that have one.
    Both are counted with the trained FP32 net, image by image.
    """

    layer: Name
    task: Name | None
    experts: Annotated[tuple[Amount, ...], Field(min_length=1, max_length=1000)]
    top_k: Side
    tokens: Annotated[Amount, Field(ge=1)]
    images: Annotated[Amount, Field(ge=1)]
    shares: Annotated[tuple[Share, ...], Field(max_length=1000)]
    gates: Annotated[tuple[Share, ...], Field(max_length=1000)]
    most_tokens: Amount
    expert_bytes: Amount
    dropped_by_model: Share = 0.0
    dropped_by_target: Annotated[dict[Name, Share], Field(max_length=50)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_lengths(self) -> BundleExperts:
        if not len(set(self.experts)) == len(self.experts) == len(self.shares) == len(self.gates):
            raise ValueError(f"layer {self.layer} names an expert twice, or other experts than it has shares and gates")
        return self


class BundleCost(Strict):
    """Counts of the exported graph: all tasks in one call, and what each task runs alone.

    Those of a net with experts are without what a target's buckets leave empty.
    """

    flops: Amount
    params: Amount
    weight_bytes: Amount
    paths: Annotated[dict[Name, PathCost], Field(max_length=100)]


class BundleLevel(Strict):
    """One of several designs over the same weights: what it answers to, what it costs, and its engine's parity.

    `budget` says in words what it was made for, `cost` what it takes. `preference` holds a weight for every task.
    """

    name: Name
    budget: Text
    preference: Annotated[dict[Name, Annotated[float, Field(ge=0)]], Field(max_length=100)]
    design: Annotated[dict[Name, int | float | str | bool], Field(max_length=5000)]
    cost: BundleCost
    parity: Annotated[dict[Name, Parity], Field(max_length=100)]


class Provenance(Strict):
    """Where the bundle comes from: the machine and versions of the last export, the run, its seed, the data.

    `net` is the ONNX file, or the function of a module, that it was made of where there was no run.

    `net_sha256` tells the net (its tasks, precision and weights) from any other: engines of no other are added.
    """

    environment: dict[Name, JsonValue]
    net_sha256: Digest | None = None
    run: Text | None = None
    seed: int | None = None
    data: Text | dict[Name, JsonValue] | None = None
    net: Text | None = None


class Manifest(Strict):
    """`manifest.json`. `design` are the options of the space that were chosen, `precision` that of engine and blocks.

    In the `layout` bundle, engines answer any subset of the tasks and `Engine` opens them; in the layout plain each is
    a file of fixed tasks for its runtime alone, in the layout triton a model repository with a model for each mode.
    `modes` are the sets of tasks that an engine holds ready; in the layout bundle any other subset runs as well.
    `files` maps every file but the manifest to its SHA-256. `experts` tell each task's use of each layer of experts,
    where there are any. `levels` are the designs that can be switched to at run time, the one that `design` and `cost`
    describe first; none where the bundle holds one design only. `blocks` are those of the net, in order of execution;
    none where who exported it did not tell.
    """

    schema_: Literal["edgemtl.bundle/1"] = Field(default="edgemtl.bundle/1", alias="schema")
    layout: Literal["bundle", "plain", "triton"] = "bundle"
    name: Name
    created: Text
    space: Text
    family: Text
    design: Annotated[dict[Name, int | float | str | bool], Field(max_length=5000)]
    precision: Annotated[dict[Name, Name], Field(max_length=5000)]
    input: BundleInput
    tasks: Annotated[tuple[BundleTask, ...], Field(min_length=1, max_length=100)]
    modes: Annotated[tuple[tuple[Name, ...], ...], Field(max_length=1000)]
    targets: Annotated[dict[Name, BundleTarget], Field(min_length=1, max_length=50)]
    files: Annotated[dict[FilePath, Digest], Field(max_length=10_000)]
    cost: BundleCost
    provenance: Provenance
    experts: Annotated[tuple[BundleExperts, ...], Field(max_length=5000)] = ()
    levels: Annotated[tuple[BundleLevel, ...], Field(max_length=100)] = ()
    blocks: Blocks = ()

    def engine_sha256(self, target: str) -> str:
        """Fingerprint of a target's engine, wherever it lies: a hash of its files' names and hashes."""
        own = self.targets[target]
        digests = {file: self.files[f"{own.folder}/{file}"] for file in own.files}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = {task.name for task in self.tasks}
        if len(names) < len(self.tasks):
            raise ValueError("two tasks have the same name")
        for mode in self.modes:
            if not mode or set(mode) - names:
                raise ValueError(f"mode {list(mode)} names no task or one that the bundle lacks")
        for name, target in self.targets.items():
            for file in target.files:
                if f"{target.folder}/{file}" not in self.files:
                    raise ValueError(f"target {name} names {target.folder}/{file}, which has no hash")
        for use in self.experts:
            if use.task not in (*names, None) or use.dropped_by_target.keys() - self.targets.keys():
                raise ValueError(f"experts of layer {use.layer} name a task or a target that the bundle lacks")
        for level in self.levels:
            if set(level.preference) != names or not sum(level.preference.values()) > 0:
                raise ValueError(f"level {level.name} has no preference over the bundle's tasks")
        return self


def share_dropped_by_target(experts: Iterable[BundleExperts], target: str) -> float:
    """Share (0 to 1) of all that routers sent to some layers' experts which a target's capacity drops."""
    return _mean(experts, lambda use: use.dropped_by_target.get(target, 0.0))


def share_dropped_by_model(experts: Iterable[BundleExperts]) -> float:
    """Share (0 to 1) of all that routers sent to some layers' experts which the net itself has no place for."""
    return _mean(experts, lambda use: use.dropped_by_model)


def _mean(experts: Iterable[BundleExperts], share: Callable[[BundleExperts], float]) -> float:
    sent = lost = 0.0
    for use in experts:
        sent += use.tokens * use.top_k
        lost += use.tokens * use.top_k * share(use)
    return lost / sent if sent else 0.0


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `folder/manifest.json` atomically; returns it."""
    content = manifest.model_dump(mode="json", by_alias=True, exclude=None if manifest.levels else {"levels"})
    write_json(folder / MANIFEST_FILE, {"schema": SCHEMA, **content})
    return folder / MANIFEST_FILE


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle, once its schema, its paths and the hash of every file were checked.

    Raises `UserError`, one line, for a folder that is no bundle, another schema, a manifest that is cut off or wrong, a
    path that leaves the folder (by `..`, a root or a link), and a file that is missing or changed.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(
            f"{folder} is no bundle: it holds no {MANIFEST_FILE}; give the folder that edgemtl export wrote"
        )
    path, remedy = inside(folder, MANIFEST_FILE, "bundle"), "export it again, or use the version that wrote it"
    manifest = read_document(path, "manifest", Manifest, SCHEMA, remedy)
    for name, digest in manifest.files.items():
        _check_file(folder, name, digest)
    for target in manifest.targets.values():
        inside(folder, target.folder, "bundle")
    return manifest


def _check_file(folder: Path, name: str, digest: str) -> None:
    path = inside(folder, name, "bundle")
    if not path.is_file():
        raise UserError(f"bundle {folder} lacks its file {name}: copy the whole folder again")
    actual = sha256(path)
    if actual != digest:
        raise UserError(
            f"file {name} of bundle {folder} was changed: its SHA-256 is {actual}, the manifest says {digest}; "
            "copy the bundle again"
        )
