"""Small, whole files of every kind that a stranger may hand over, and the public functions that read them.

What is read either tells whether it was changed, since it carries a hash (`sealed`): then nothing but what was written
may be read. Or it is a document that people may write too: then what is read must be what stands there (`says`), or, of
a file that is no document of ours (a space, a picture, an ONNX file), whatever still follows its format is meant so.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from edgemtl.bundle import read_manifest
from edgemtl.cli import main as command_line
from edgemtl.data.folder import FolderSource
from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.models import Supernet, load_supernet, save_supernet
from edgemtl.nas.evaluation import evaluation_of, finished, open_storage, open_study
from edgemtl.nas.evaluation.problem import Evaluation
from edgemtl.nas.evaluation.sensitivity import Sensitivity, read_sensitivity, write_sensitivity
from edgemtl.nas.latency import (
    UNFITTED,
    Fit,
    HeldOut,
    MeasuredDesign,
    Roofs,
    design_parts,
    fit_table,
    key_of,
    read_fit,
    read_table,
    spread_designs,
    write_fit,
    write_table,
)
from edgemtl.nas.prune.criterion import TrialOutcome
from edgemtl.nas.prune.trials import Trials
from edgemtl.nas.runs import RunFolder, read_measurements
from edgemtl.nas.search import SearchRequest, search
from edgemtl.nas.search.shortlist import read_shortlist
from edgemtl.own import read_declaration
from edgemtl.profiling import count_graph, profile, read_profile, write_profile
from edgemtl.profiling.inputs import InputChoice
from edgemtl.profiling.subjects import open_subject
from edgemtl.results import read_result
from edgemtl.runtime import Engine, EngineSpec, open_engine
from edgemtl.spaces import Space, load_space
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.train.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["KINDS", "WITHOUT_RUN", "Kind", "build"]

SPACE = """\
schema: edgemtl.space/1
family: cnn
input: [64, 64]
precision: [float, int8]
cnn:
  stem: {width: [8]}
  stages:
    - {name: s1, stride: 2, width: [8, 16], depth: [1], block: [fused], expand: [1, 2]}
    - {name: s2, stride: 2, width: [8, 16, 24], depth: [1, 2], block: [depthwise, fused], expand: [2]}
  features: [s1, s2]
  decoder: {width: [8, 16], depth: [1]}
"""
DATA = """\
images: {train: images/train, validation: images/validation, test: images/test}
tasks:
  depth: {kind: depth, files: "depth/{split}/{name}.npy", max_m: 80}
  kind: {kind: classification, csv: kinds.csv, image: file, column: kind, classes: [dark, bright]}
"""
DEVICE = """\
schema: edgemtl.device/1
name: board
title: A board
kind: board
memory: 4 GB
precisions: [fp32, int8]
runtimes:
  - {name: onnxruntime, precisions: [fp32, int8], note: as it ships}
peaks:
  - {unit: cpu, precision: fp32, rate: 100 GOPS, kind: derived}
power_modes: [{name: full, limit: 15 W}]
notes: [made here]
"""
TASKS = """\
input: {colour: BGR, scale: 1.0, mean: [0.0, 0.0, 0.0], std: [1.0, 1.0, 1.0]}
tasks:
  parsing: {kind: segmentation, outputs: [parsing], classes: [floor, wall]}
  pose: {kind: raw, outputs: {points: pose.points, score: pose.score}}
unused: [best]
"""
SIZE = (64, 64)
MADE_FOR = {"supernet": "a", "data": "b"}


@dataclass(frozen=True)
class Kind:
    """Files of one kind: which may be damaged (patterns below the folder), and who reads them.

    `read` answers with a JSON value. `own`: the files belong to a folder, which no path may leave. `sealed`, `says`:
    see above; neither: whatever is read is meant so. Of `lines`, some may lack: a kill cuts off the last,
    and what is no whole line is not there.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Any]
    own: bool = True
    sealed: bool = False
    lines: bool = False
    says: Callable[[Path], Any] | None = None


def build(folder: Path, with_run: bool = True) -> None:
    """Write one of everything below `folder`, which becomes the working directory; a run takes seconds to make."""
    os.chdir(folder)
    _write_data(folder / "data")
    for name, text in (("nas/tiny.yaml", SPACE), ("profiles/board.yaml", DEVICE), ("own/tasks.yaml", TASKS)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    space = _space(folder)
    torch.manual_seed(0)
    save_supernet(
        Supernet.of(space), folder / "supernet.safetensors", {"fingerprint": space.fingerprint, "space": "tiny"}
    )
    save_checkpoint(folder / "checkpoint.safetensors", 3, "me", {"a": torch.ones(4, 4), "b": torch.arange(3)}, {})
    trials = Trials(folder / "trials.jsonl")
    for number in range(4):
        trials.add(f"net{number}", TrialOutcome({"depth": 0.5 + number, "kind": 1.0}, "kind" if number % 2 else None))
    changes = {"s1.width": {"depth": -0.1, "kind": -0.02}, "s2.width": {"depth": -0.3, "kind": 0.0}}
    write_sensitivity(folder / "sensitivity.json", Sensitivity(changes), MADE_FOR)
    _write_table(space, folder / "latency.json")
    roofs, held_out = Roofs({"fp32": 1e11}, 2e10), HeldOut(0.1, 0.9, 30)
    write_fit(folder / "fits", Fit("avx2", "onnxruntime", ("tiny",), UNFITTED, roofs, held_out))
    if with_run:
        _write_run(folder)


def _write_table(space: Space, path: Path) -> None:
    measured = []
    for design in spread_designs(space, 4):
        parts = tuple(1e-6 * part.macs + 1e-3 for part in design_parts(design))
        measured.append(MeasuredDesign(design, {"": (sum(parts),)}, parts, 0.0))
    key = key_of(space, find_target("onnxruntime"), "measured", 1)
    write_table(path, key, measured, 1.0, fit_table(measured))


def _write_run(folder: Path) -> None:
    supernet = folder / "supernet.safetensors"
    request = SearchRequest(folder / "run", ("80%FLOPs",), space="tiny", data="data", supernet=supernet, size=SIZE)
    with contextlib.redirect_stdout(io.StringIO()):
        search(replace(request, strategy="random", evaluations=4, batch=2, finetune=2))
        status = command_line(["export", "run", "--target", "onnxruntime"])
    assert status == 0, "the small bundle cannot be made"
    write_profile(profile(folder / "run" / "bundle", runs=20), folder / "run" / "profile.json")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "photo.png")
    pixels = np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for position in ("photos", "run/pictures"):
        (folder / position).mkdir()
    for ending in ("png", "jpg", "bmp", "tif", "webp"):
        Image.fromarray(pixels).save(folder / "photos" / f"photo.{ending}")
    Image.fromarray(pixels).save(folder / "run" / "pictures" / "sheet.png")


def _write_data(folder: Path) -> None:
    rows, rng = ["file,kind"], np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for part in (f"images/{split}", f"depth/{split}"):
            (folder / part).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
                folder / "images" / split / f"{split}{number}.png"
            )
            depth = rng.uniform(1, 9, (64, 64)).astype(np.float32)
            np.save(folder / "depth" / split / f"{split}{number}.npy", depth)
            rows.append(f"{split}{number}.png,{'bright' if number % 2 else 'dark'}")
    (folder / "kinds.csv").write_text("\n".join(rows) + "\n")
    (folder / "data.yaml").write_text(DATA)


def _space(folder: Path) -> Space:
    return load_space(str(folder / "nas" / "tiny.yaml"), FolderSource(folder / "data", SIZE).tasks)


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(np.asarray(arrays[name])).tobytes())
    return digest.hexdigest()


# Readers


def _manifest(folder: Path) -> Any:
    return read_manifest(folder / "run" / "bundle").model_dump(mode="json", by_alias=True, exclude_unset=True)


def _bundle(folder: Path) -> Any:
    with Engine(folder / "run" / "bundle", threads=1) as engine:
        return _digest(by_tensor(engine.run(folder / "photo.png")))


def _engine(folder: Path) -> Any:
    position = folder / "run" / "bundle" / "engines" / "onnxruntime"
    spec = EngineSpec.read(position)
    session = open_engine(position, 1)
    found = session.run(np.zeros(spec.input, np.float32), session.tasks)
    session.close()
    return [sorted(session.tasks), _digest(by_tensor(found))]


def _result(folder: Path) -> Any:
    return read_result(folder / "run").model_dump(mode="json", by_alias=True, exclude_unset=True)


def _profile(folder: Path) -> Any:
    return read_profile(folder / "run" / "profile.json").model_dump(mode="json", by_alias=True, exclude_unset=True)


def _design(folder: Path) -> Any:
    candidate = RunFolder(folder / "run").load("best")
    state = {name: tensor.numpy() for name, tensor in candidate.net.state_dict().items()}
    ranges = None if candidate.ranges is None else candidate.ranges.limits
    return [candidate.design.as_json(), _digest(state), ranges]


def _config(folder: Path) -> Any:
    RunFolder(folder / "run").load("best")
    return RunFolder(folder / "run").config().as_json()


def _studied(folder: Path) -> Any:
    space = RunFolder(folder / "run").space()
    study = open_study("search", open_storage(folder / "run" / "study.journal"))
    return [_scored(evaluation_of(trial, space)) for trial in finished(study)]


def _measurements(folder: Path) -> Any:
    measurements = read_measurements(folder / "run", RunFolder(folder / "run").space())
    return [measurements.baseline, [[*_scored(each.evaluation), each.ratio] for each in measurements.measured]]


def _scored(evaluation: Evaluation) -> Any:
    return [evaluation.design.key, evaluation.metrics, evaluation.latency_ms]


def _shown(folder: Path) -> Any:
    """Call `report` and `compare` and return their output; a fault of theirs is one here."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        statuses = [command_line(["report", "run", "--out", "page.html"]), command_line(["compare", "run", "run"])]
    text = stream.getvalue()
    assert "".join(text.split("\n")).isprintable(), f"printed raw: {text[:300]!r}"
    assert not {*statuses} - {0, 1}, text[-600:]
    if 1 in statuses:
        raise UserError(text)
    return "shown"


def _device(folder: Path) -> Any:
    return load_device("board").model_dump(mode="json")


def _data(folder: Path) -> Any:
    source = FolderSource(folder / "data", SIZE)
    source.check()
    return [_digest(sample.targets) for split in ("train", "test") for sample in source.split(split)]  # type: ignore[arg-type]


def _supernet(folder: Path) -> Any:
    supernet = Supernet.of(_space(folder))
    load_supernet(supernet, folder / "supernet.safetensors", _space(folder).fingerprint)
    return _digest({name: tensor.detach().numpy() for name, tensor in supernet.shared.items()})


def _checkpoint(folder: Path) -> Any:
    found = load_checkpoint(folder / "checkpoint.safetensors", "me", {})
    return None if found is None else [found[0], _digest(found[1])]


def _tasks(folder: Path) -> Any:
    return read_declaration(folder / "own" / "tasks.yaml").model_dump(mode="json")


def _onnx(folder: Path) -> Any:
    path = folder / "run" / "bundle" / "engines" / "onnxruntime" / "model.onnx"
    counted = count_graph(path)
    subject = open_subject(path, None, 1, InputChoice())
    subject.settle()
    return [counted.total.flops, list(subject.tasks)]


def _trials(folder: Path) -> Any:
    return [list(each) for each in Trials(folder / "trials.jsonl")._trials.items()]


def _sensitivity(folder: Path) -> Any:
    found = read_sensitivity(folder / "sensitivity.json", MADE_FOR)
    return None if found is None else found.changes


def _fit(folder: Path) -> Any:
    fit = read_fit(folder / "fits" / "avx2.onnxruntime.json")
    return [fit.where, fit.held_out.error, fit.roofs.bytes_per_s]


def _latency(folder: Path) -> Any:
    table = read_table(folder / "latency.json", _space(folder)).table
    return [[each.design.key, each.latency_ms[""]] for each in table.measured]


def _finalists(folder: Path) -> Any:
    run = folder / "run"
    state = {"evaluations": read_result(run).evaluations, "architectures": 3}
    measured = read_shortlist(run, state, RunFolder(run).space())
    return None if measured is None else [[*_scored(evaluation), ratio] for evaluation, ratio in measured]


def _pictures(folder: Path) -> Any:
    with Engine(folder / "run" / "bundle", threads=1) as engine:
        return [_digest(by_tensor(engine.run(path))) for path in sorted((folder / "photos").iterdir())]


def _written(name: str) -> Callable[[Path], Any]:
    return lambda folder: json.loads((folder / name).read_text())


_ENGINE = "run/bundle/engines/onnxruntime"
KINDS: dict[str, Kind] = {
    "manifest": Kind(("run/bundle/manifest.json",), _manifest, says=_written("run/bundle/manifest.json")),
    "bundle": Kind((f"{_ENGINE}/*",), _bundle, sealed=True),
    "engine": Kind((f"{_ENGINE}/engine.json",), _engine),
    "result": Kind(("run/result.json",), _result, own=False, says=_written("run/result.json")),
    "profile": Kind(("run/profile.json",), _profile, own=False, says=_written("run/profile.json")),
    "design": Kind(("run/designs/best/*",), _design, sealed=True),
    "config": Kind(("run/config.json",), _config, says=_written("run/config.json")),
    "finalists": Kind(("run/finalists.json",), _finalists, sealed=True),
    "measurements": Kind(("run/measurements.json",), _measurements, sealed=True),
    "journal": Kind(("run/study.journal",), _studied, sealed=True, lines=True),
    "report": Kind(("run/result.json", "run/profile.json", "run/bundle/manifest.json", "run/pictures/*.png"), _shown),
    "space": Kind(("nas/tiny.yaml",), lambda folder: _space(folder).fingerprint, own=False),
    "device": Kind(("profiles/board.yaml",), _device),
    "tasks": Kind(("own/tasks.yaml",), _tasks, own=False),
    "data": Kind(("data/data.yaml", "data/data.yaml", "data/kinds.csv", "data/images/*/*", "data/depth/*/*"), _data),
    "supernet": Kind(("supernet.safetensors",), _supernet, own=False, sealed=True),
    "checkpoint": Kind(("checkpoint.safetensors",), _checkpoint, own=False, sealed=True),
    "onnx": Kind((f"{_ENGINE}/model.onnx",), _onnx, own=False),
    "trials": Kind(("trials.jsonl",), _trials, own=False, sealed=True, lines=True),
    "sensitivity": Kind(("sensitivity.json",), _sensitivity, own=False, sealed=True),
    "latency": Kind(("latency.json",), _latency, own=False, sealed=True),
    "fit": Kind(("fits/avx2.onnxruntime.json",), _fit, own=False, sealed=True),
    "pictures": Kind(("photos/*",), _pictures, own=False),
}
WITHOUT_RUN = ("space", "device", "tasks", "data", "supernet", "checkpoint", "trials", "sensitivity", "latency", "fit")
