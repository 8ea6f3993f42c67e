from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import config_of
from refusals import refused
from safetensors.torch import load, save
from small_world import Ask

from edgemtl.files.seals import sealed
from edgemtl.models import MultiTaskNet, Supernet, recalibrate
from edgemtl.models.quantization import calibrate
from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.runs import RunFolder
from edgemtl.runs import RunConfig
from edgemtl.spaces import load_space
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing.landscape import TINY
from edgemtl.testing.world import TASKS

IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32))


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps one design with INT8 blocks and one without."""
    where = load_space(str(home / "nas" / "tiny.yaml"), TASKS)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    folder.create(config_of(where))
    searched, supernet = where.for_target(find_target("onnxruntime").traits), Supernet.of(where)
    for name, design in (("best", searched.largest("int8")), ("baseline", searched.largest())):
        net = supernet.extract(design)
        recalibrate(net, [IMAGES])
        folder.save(name, Candidate(design, net, calibrate(net, IMAGES) if name == "best" else None))
    return folder.path


@pytest.fixture
def run(made: Path, tmp_path: Path, ask: Ask) -> RunFolder:
    """A copy of it to damage; the working directory has its space."""
    return RunFolder(Path(shutil.copytree(made, tmp_path / "run")))


def rewrite(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (content | changes).items() if value is not ...}))


def test_a_kept_net_is_the_one_that_was_saved(run: RunFolder) -> None:
    assert run.names() == ["baseline", "best"]
    best, baseline = run.load(), run.load("baseline")
    assert set(best.design.precision.values()) == {"fp32", "int8"}
    assert baseline.design == run.space().largest()
    assert baseline.ranges is None
    assert best.ranges is not None
    with torch.no_grad():
        outputs = by_tensor(best.net(IMAGES))
    again = calibrate(best.net, IMAGES).limits
    assert set(again) == set(best.ranges.limits)
    assert all(again[name] == pytest.approx(limits, abs=1e-5) for name, limits in best.ranges.limits.items())
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {"depth": (2, 1, 64, 64), "kind": (2, 2)}
    assert not best.net.training


def test_designs_of_other_names_are_removed(run: RunFolder) -> None:
    run.keep(["best", "not-there"])
    assert run.names() == ["best"]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert "is no run: it holds no config.json; give the folder that `edgemtl search` wrote" in refused(
        RunFolder(tmp_path).config
    )
    assert "is no run" in refused(RunFolder(tmp_path / "nowhere").load)
    assert RunFolder(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"schema": "edgemtl.run/9"}', "has schema 'edgemtl.run/9', this version reads 'edgemtl.run/1': search again"),
        ('{"seed": 1}', "has schema None"),
        ("[1, 2]", "has schema 'list'"),
        ('{"schema": "edge', "is not valid JSON"),
        ("", "is not valid JSON"),
    ],
)
def test_a_foreign_or_damaged_configuration(run: RunFolder, config: str, expected: str) -> None:
    (run.path / "config.json").write_text(config)
    assert expected in refused(run.load)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"tasks": ...},
            "cannot be used: tasks: Field required; it was changed by hand or is damaged: search again",
        ),
        ({"tasks": [1]}, "config.json cannot be used: tasks"),
        ({"tasks": [{"name": "depth"}]}, "config.json cannot be used: tasks"),
        ({"tasks": []}, "needs at least one task"),
        ({"tasks": [{"name": "d", "kind": "dept", "channels": 1, "classes": []}]}, "did you mean depth"),
        ({"size": 64}, "config.json cannot be used: size"),
        ({"size": [64]}, "config.json cannot be used: size"),
        ({"size": [100, 100]}, "positive multiples of 32"),
        ({"size": ["a", "b"]}, "config.json cannot be used: size"),
        ({"space": 7}, "config.json cannot be used: space"),
        ({"space": "tinny"}, "unknown space 'tinny': did you mean tiny"),
        ({"fingerprint": "0"}, "space 'tiny' has changed since run"),
        ({"target": "onnx"}, "unknown target 'onnx'"),
        ({"target": 7}, "config.json cannot be used: target"),
        ({"device": ...}, "config.json cannot be used: device: Field required"),
        ({"device": {"name": "host"}}, "config.json cannot be used: device."),
    ],
)
def test_a_configuration_that_was_changed_by_hand(run: RunFolder, changes: dict[str, Any], expected: str) -> None:
    rewrite(run.path / "config.json", **changes)
    assert expected in refused(run.load)


def test_a_space_that_changed_since_the_run(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "tiny.yaml").write_text(TINY.replace("[8, 16, 24]", "[8, 24]"))
    monkeypatch.chdir(tmp_path)
    assert "space 'tiny' has changed since run" in refused(run.load)


@pytest.mark.parametrize("name", ["worst", "", "..", "../run/designs/best", "/etc"])
def test_an_unknown_design(run: RunFolder, name: str) -> None:
    line = refused(lambda: run.load(name))
    assert f"unknown design in run {run.path}: {name!r}" in line
    assert "allowed: baseline, best" in line


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
        ('{"design": {}}', "is damaged"),
        ('{"design": [], "ranges": null}', "is damaged"),
        ('{"design": {"s1.width": 16}, "ranges": {"image": [1]}}', "is damaged"),
        ('{"design": {"s1.width": 16}, "ranges": {"image": ["a", 1]}}', "is damaged"),
        ('{"design": {"s1.width": 16}, "ranges": {"image": [NaN, 1]}}', "NaN is no number of JSON"),
        ('{"design": {"s1.width": 16}, "ranges": {"image": [2, 1]}}', "is damaged"),
        ('{"design": {"s1.widht": 16}, "ranges": null}', "did you mean s1.width"),
        ('{"design": {"s1.width": 17}, "ranges": null}', "cannot be 17: allowed: 8, 16"),
        ('{"design": {"s1.width": [16]}, "ranges": null}', "cannot be [16]"),
    ],
)
def test_a_damaged_design(run: RunFolder, content: str, expected: str) -> None:
    (run.path / "designs" / "best" / "design.json").write_text(
        content.replace('{"des', '{"weights_sha256": "", "weights_bytes": 0, "des', 1)
    )
    assert expected in refused(run.load)


def rehashed(run: RunFolder, weights: bytes) -> None:
    """Weights of a stranger, who made their hash too."""
    folder = run.path / "designs" / "best"
    (folder / "weights.safetensors").write_bytes(weights)
    content = json.loads((folder / "design.json").read_text())
    del content["sha256"]
    content |= {"weights_sha256": hashlib.sha256(weights).hexdigest(), "weights_bytes": len(weights)}
    (folder / "design.json").write_text(json.dumps(sealed(content)))


def tensors_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return load((run.path / "designs" / "best" / "weights.safetensors").read_bytes())


def test_weights_of_another_design_are_not_taken(run: RunFolder) -> None:
    designs = run.path / "designs"
    rehashed(run, (designs / "baseline" / "weights.safetensors").read_bytes())
    assert "belong to another design: search again" in refused(run.load)


@pytest.mark.parametrize("keep", [0, 7, 100, -1, -1000])
def test_weights_that_were_cut_short(run: RunFolder, keep: int) -> None:
    path = run.path / "designs" / "best" / "weights.safetensors"
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    assert f"weights {path} were changed or cut off" in refused(run.load)
    rehashed(run, content)
    line = refused(run.load)
    assert f"weights {path} cannot be read" in line
    assert "it was truncated or damaged" in line


def test_every_flipped_bit_is_told(run: RunFolder) -> None:
    for file in (run.path / "designs" / "best" / name for name in ("weights.safetensors", "design.json")):
        whole = file.read_bytes()
        for position in np.random.default_rng(0).integers(0, len(whole), 12).tolist():
            file.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
            assert str(run.path) in refused(run.load)
        file.write_bytes(whole)
    run.load()


def test_weights_that_are_missing_or_a_pickle(run: RunFolder) -> None:
    path = run.path / "designs" / "best" / "weights.safetensors"
    rehashed(run, pickle.dumps({"a": 1}))
    assert "cannot be read: it is a pickle" in refused(run.load)
    path.unlink()
    assert "cannot read file" in refused(run.load)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("blocks.stem.conv.conv.weight", None, "they lack or add tensors (1 differ"),
        ("blocks.stem.conv.conv.weight", lambda t: t.to(torch.int32), "of torch.int32"),
        ("blocks.stem.conv.conv.weight", lambda t: t.double(), "of torch.float64"),
        (
            "blocks.stem.conv.conv.weight",
            lambda t: t[..., :1],
            "torch.float32, (8, 3, 3, 3) of torch.float32 is wanted",
        ),
        ("blocks.stem.conv.conv.weight", lambda t: t * float("nan"), "holds NaN or infinity"),
        ("blocks.stem.conv.norm.bias", lambda t: t / 0, "holds NaN or infinity"),
        (
            "blocks.stem.conv.norm.running_var",
            lambda t: -t,
            "the variance blocks.stem.conv.norm.running_var is below zero",
        ),
    ],
)
def test_weights_that_no_training_gives(run: RunFolder, name: str, change: Any, expected: str) -> None:
    tensors, key = tensors_of(run), run.load().design.key
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name]).contiguous()
    rehashed(run, save(tensors, {"key": key}))
    assert expected in refused(run.load)


def test_a_run_whose_designs_lie_elsewhere_is_refused_and_nothing_there_is_touched(run: RunFolder) -> None:
    elsewhere, config = run.path.parent / "elsewhere", run.config()
    (elsewhere / "mine").mkdir(parents=True)
    (elsewhere / "mine" / "design.json").write_text("{}")
    shutil.rmtree(run.path / "designs")
    (run.path / "designs").symlink_to(elsewhere)
    for action in (run.load, run.config, lambda: run.check(config, resume=True)):
        assert "holds the link designs, which leads out of it: refused" in refused(action)
    assert (elsewhere / "mine" / "design.json").read_text() == "{}"


def test_a_pipe_in_a_run_is_not_waited_for(run: RunFolder) -> None:
    path = run.path / "designs" / "best" / "weights.safetensors"
    path.unlink()
    os.mkfifo(path)
    assert "holds designs/best/weights.safetensors, which is a pipe (FIFO): refused" in refused(run.load)


@pytest.fixture
def config(home: Path) -> RunConfig:
    return config_of(load_space(str(home / "nas" / "tiny.yaml"), TASKS))


def test_a_run_begins_only_in_an_empty_folder(tmp_path: Path, config: RunConfig) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check(config, resume=False)
    folder.check(config, resume=True)
    assert not folder.path.exists()
    folder.create(config)
    assert "exists: go on with --resume" in refused(lambda: folder.check(config, resume=False))
    folder.check(config, resume=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 2}, "seed (0, here 2)"),
        ({"seed": 2, "target": "openvino"}, "target (onnxruntime, here openvino) and seed (0, here 2)"),
        ({"strategy_config": {"steps": 9}}, "steps (none, here 9)"),
        ({"strategy_config": {"seed": 9}}, "seed"),
        ({"threads": 2}, "threads (none, here 2)"),
        ({"preference": {"depth": 2.0, "kind": 1.0}}, "preference (depth=1,kind=1, here depth=2,kind=1)"),
        ({"finetune": {"steps": 200, "batch": 8, "processes": 2}}, "finetune (none, here steps=200,processes=2)"),
        ({"supernet_sha256": "0"}, "supernet"),
        ({"data_fingerprint": "1"}, "content of the data set"),
        ({"data": "others", "data_fingerprint": "1"}, "data (photos, here others)"),
    ],
)
def test_a_run_goes_on_only_as_it_was_begun(
    tmp_path: Path, config: RunConfig, changes: dict[str, Any], named: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    changed = config.model_copy(update=changes)
    assert f"was started with another {named}: resume it" in refused(lambda: folder.check(changed, resume=True))


def test_a_run_goes_on_wherever_its_supernet_lies_now_and_whatever_is_faster(tmp_path: Path, config: RunConfig) -> None:
    folder, recipe = RunFolder(tmp_path / "run"), {"steps": 9, "bf16": True}
    folder.create(config.model_copy(update={"finetune": recipe}))
    changes = {"supernet": "elsewhere.safetensors", "finetune": {**recipe, "bf16": False}}
    folder.check(config.model_copy(update=changes), resume=True)


def test_a_study_that_was_just_begun_is_no_obstacle(tmp_path: Path, config: RunConfig) -> None:
    """A process may be killed between the first line of the study and the configuration."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.journal.write_text("")
    folder.check(config, resume=False)
    (folder.path / "other").write_text("")
    assert "is not empty and holds no run" in refused(lambda: folder.check(config, resume=False))


def test_a_pruned_design_keeps_its_channels_and_other_runs_open_as_before(run: RunFolder) -> None:
    design = run.space().largest()
    narrow = run.space().design(design, {"s1_1.project": 8, "depth_neck.lateral_s1": 16}.items())
    assert narrow.pruned == (("s1_1.project", 8),), "what keeps all of its channels is not pruned"
    assert narrow.key != design.key
    assert narrow != design
    run.save("narrow", Candidate(narrow, MultiTaskNet(narrow.plan, TASKS), None))
    loaded = run.load("narrow")
    assert (loaded.design, loaded.design.cost()) == (narrow, narrow.cost())
    assert json.loads(json.dumps(narrow.as_json()))["s1_1.project.channels"] == 8
    file = run.path / "designs" / "baseline" / "design.json"
    content = json.loads(file.read_text())
    del content["pruned"], content["sha256"]
    file.write_text(json.dumps(sealed(content)))
    assert run.load("baseline").design == design


@pytest.mark.parametrize(
    "pruned", [{"s1_1.project": 99}, {"nothing": 8}, {"s1_1.project": "x"}, [1], {"s2_2.pointwise": 8}]
)
def test_channels_that_no_net_has_are_damage(run: RunFolder, pruned: Any) -> None:
    rewrite(run.path / "designs" / "baseline" / "design.json", pruned=pruned)
    assert "design.json" in refused(lambda: run.load("baseline"))


@pytest.mark.parametrize(
    "changed", [{"data": 7}, {"budgets": "2GFLOPs"}, {"seed": "0"}, {"preference": []}, {"threads": True}, {"more": 1}]
)
def test_a_configuration_of_other_types_is_damage(run: RunFolder, changed: dict[str, Any]) -> None:
    rewrite(run.path / "config.json", **changed)
    assert f"config.json cannot be used: {next(iter(changed))}: " in refused(run.config)


def test_a_key_that_a_configuration_lacks_is_damage(run: RunFolder) -> None:
    rewrite(run.path / "config.json", supernet_sha256=...)
    assert "config.json cannot be used: supernet_sha256: Field required" in refused(run.config)
