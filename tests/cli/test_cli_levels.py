"""From a preference to a bundle of several levels, and what is drawn as the preference moves, on the command line."""

from __future__ import annotations

import json
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chain import SPACE, environment, make_workplace
from PIL import Image, ImageSequence

from edgemtl.bundle import read_manifest
from edgemtl.cli import main
from edgemtl.data import open_source
from edgemtl.errors import UserError
from edgemtl.models import Supernet, save_supernet
from edgemtl.models.quantization import Ranges
from edgemtl.nas.runs import RunFolder
from edgemtl.profiling import measure_levels
from edgemtl.runtime import Engine
from edgemtl.spaces import load_space
from edgemtl.tasks import by_tensor

TASKS = {"regions", "depth", "side"}
DEEP = SPACE.replace("decoder: {width: [8, 16], depth: [1]}", "decoder: {width: [8, 16, 32, 48], depth: [1, 2]}")
PHOTO = "data/images/test/test0.png"
LEVELS = 5


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data, a space with decoders of many sizes, and a supernet that nobody trained."""
    folder = tmp_path_factory.mktemp("workplace")
    make_workplace(folder)
    (folder / "nas/tiny.yaml").write_text(DEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COLUMNS", "EDGEMTL_CACHE"):
            patch.setenv(name, environment(folder)[name])
        torch.manual_seed(0)
        space = load_space("tiny", open_source("data", (64, 64)).tasks)
        header = {"space": space.name, "fingerprint": space.fingerprint, "tasks": [task.name for task in space.tasks]}
        save_supernet(Supernet.of(space), folder / "supernet.safetensors", header)
        with warnings.catch_warnings():
            yield folder
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def searched(workplace: Path) -> Path:
    words = (
        "--space",
        "tiny",
        "--data",
        "data",
        "--supernet",
        "supernet.safetensors",
        "--evaluations",
        "2",
        "--finetune",
        "0",
    )
    options = ("--strategy", "preference", "--prefer", "depth=2,side=1", "--budget", "50%FLOPs", "--out", "runs/first")
    assert main(["search", *words, *options]) == 0
    return workplace / "runs/first"


@pytest.fixture(scope="module")
def bundle(workplace: Path, searched: Path) -> Path:
    words = ("--levels", str(LEVELS), "--supernet", "supernet.safetensors", "--out", "bundle")
    assert main(["export", "runs/first", *words]) == 0
    return workplace / "bundle"


def test_the_page_on_running_sets_a_level(bundle: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/running.md").read_text(encoding="utf-8")
    snippet = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)[1]
    assert "set_level" in snippet
    exec(snippet.replace("bundles/levels", str(bundle)), {"Engine": Engine})


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    def call(*words: str) -> tuple[int, str, str]:
        status = main(words)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_a_search_by_preference_tells_its_strategy(searched: Path) -> None:
    result = json.loads((searched / "result.json").read_text())
    assert result["strategy"] == "preference" and result["feasible"]
    baseline = next(entry for entry in result["front"] if entry["kind"] == "baseline")
    assert result["best"]["flops"] <= 0.5 * baseline["flops"]


def test_a_bundle_tells_its_levels(searched: Path, bundle: Path) -> None:
    manifest = read_manifest(bundle)
    first, *others = manifest.levels
    assert len(manifest.levels) == LEVELS == len({level.name for level in manifest.levels})
    assert first.preference == {"regions": 1.0, "depth": 2.0, "side": 1.0}
    assert manifest.design == first.design and manifest.cost == first.cost
    limit = 0.5 * json.loads((searched / "result.json").read_text())["front"][-1]["flops"]
    for level in manifest.levels:
        assert set(level.parity) == TASKS
        assert level.cost.flops <= limit * (0.5 if level.name.endswith("@50%") else 1)
    assert all(level.design != first.design for level in others)


def test_a_level_is_picked_by_preference_and_budget(bundle: Path) -> None:
    photo = np.full((64, 64, 3), 99, np.uint8)
    with Engine(bundle) as engine:
        levels = engine.manifest.levels
        assert engine.set_level() == levels[0]
        before = by_tensor(engine.run(photo))
        for level in levels:
            assert engine.set_level(budget=f"{level.cost.flops}FLOPs", prefer=level.preference) == level
        least = min(levels, key=lambda level: level.cost.flops)
        assert engine.set_level(budget=f"{least.cost.flops}FLOPs", prefer="side=9") == least
        changed = by_tensor(engine.run(photo))
        assert any(not np.array_equal(before[task], changed[task]) for task in TASKS)
        session = engine.session
        engine.set_level()
        assert all(np.array_equal(before[task], value) for task, value in by_tensor(engine.run(photo)).items())
        engine.set_level(budget=f"{least.cost.flops}FLOPs", prefer={"side": 9.0})
        assert engine.session is session, "a level stays open"
        lightest = min(level.cost.weight_bytes for level in levels)
        assert engine.set_level(budget=f"{lightest}B").cost.weight_bytes == lightest
    with pytest.raises(UserError, match="closed"):
        engine.run(photo)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"prefer": "dept=2"}, "unknown task in preference 'dept': did you mean depth"),
        ({"prefer": {"dept": 2.0}}, "unknown task in preference 'dept': did you mean depth"),
        ({"prefer": {"depth": -1.0}}, "give a weight of 0 or more"),
        ({"prefer": dict.fromkeys(TASKS, 0.0)}, "must add up to a finite number above 0"),
        ({"prefer": "regions=0,depth=0,side=0"}, "must add up to a finite number above 0"),
        ({"budget": "1kFLOPs"}, "has no level within '1kFLOPs': its smallest takes "),
        ({"budget": "1B"}, "has no level within '1B': its smallest takes "),
        ({"budget": "8ms"}, "budget '8ms': levels are told apart by FLOPs"),
        ({"budget": "dept:1GFLOPs"}, "did you mean depth"),
        ({"budget": "2 GFLOP"}, "no space belongs"),
        ({"budget": 2}, 'give a quantity with its unit, for example "1GFLOPs"'),
        ({"prefer": ["depth"]}, 'give "depth=2,semseg=1", or weights by task'),
        ({"prefer": {"depth": "2"}}, "give a weight of 0 or more"),
    ],
)
def test_a_level_that_the_bundle_lacks_is_one_line(bundle: Path, options: Any, expected: str) -> None:
    with Engine(bundle) as engine:
        before = engine.session
        with pytest.raises(UserError) as error:
            engine.set_level(**options)
        assert expected in str(error.value) and "\n" not in str(error.value)
        assert engine.session is before


def test_int8_levels_are_refused_in_one_line(workplace: Path, searched: Path, here: Here) -> None:
    """The design that was chosen has INT8 blocks; its levels are float, and say so."""
    run = RunFolder(Path(shutil.copytree(searched, workplace / "runs/eight")))
    best = run.load("best")
    eight = {f"{block}.precision": "int8" for block in best.design.precision if block != "engine"}
    design = best.design.space.design({**best.design, **eight})
    assert "int8" in design.precision.values()
    run.save("best", replace(best, design=design, ranges=Ranges({})))
    words = ("--levels", "2", "--supernet", "supernet.safetensors", "--out", "eight")
    status, _, errors = here("export", "runs/eight", *words)
    assert status == 0 and "levels are float, the run's INT8 blocks too" in errors
    assert all("int8" not in level.design.values() for level in read_manifest(workplace / "eight").levels)


def test_levels_for_a_board_are_scored_by_simulation_and_opened_there(searched: Path, here: Here) -> None:
    words = ("--levels", "2", "--target", "tensorrt", "--jetpack", "6.2", "--supernet", "supernet.safetensors")
    status, shown, _ = here("export", "runs/first", *words, "--out", "board")
    assert status == 0 and "simulation of their engines, which a board opens" in " ".join(shown.split())
    assert "first switch" not in shown
    manifest = read_manifest(searched.parent.parent / "board")
    assert len(manifest.levels) == 2 and manifest.targets["tensorrt"].checked == "simulation"


def test_layers_are_placed_on_a_dla_and_a_repository_is_written_for_triton(searched: Path, here: Here) -> None:
    """Of the largest net, in float: INT8 that was chosen for its latency here may lose too much in a board's scheme."""
    words = ("--design", "baseline", "--target", "tensorrt", "--device", "jetson-agx-orin", "--jetpack", "6.2")
    status, shown, errors = here("export", "runs/first", *words, "--dla", "--out", "dla")
    assert status == 0, errors
    assert re.search(r"the DLA takes [1-9]\d* of \d+ blocks: stem", shown) and "the DLA has no control flow" in shown
    status, shown, errors = here("export", "runs/first", *words, "--layout", "triton", "--tasks", "depth")
    assert status == 0 and "tritonserver --model-repository runs/first/triton/models" in shown, errors
    assert read_manifest(searched / "triton").layout == "triton"
    status, _, errors = here("export", "runs/first", "--target", "tensorrt", "--dla", "--out", "none")
    assert status == 1 and "device host has no DLA" in errors


def test_only_the_levels_that_were_used_last_stay_open(bundle: Path) -> None:
    photo = np.full((64, 64, 3), 99, np.uint8)

    def use(engine: Engine, number: int) -> None:
        level = engine.manifest.levels[number]
        assert engine.set_level(budget=f"{level.cost.flops}FLOPs", prefer=level.preference) == level

    with Engine(bundle, open_levels=2) as engine:
        before, first = by_tensor(engine.run(photo)), engine.session
        use(engine, 1)
        use(engine, 0)
        assert engine.session is first
        use(engine, 2)  # closes 1, which was used longest ago
        use(engine, 0)
        assert engine.session is first
        use(engine, 1)
        use(engine, 2)
        with pytest.raises(UserError, match="closed"):
            first.run(np.zeros((1, 3, 64, 64), np.float32), ["depth"])
        use(engine, 0)
        assert all(np.array_equal(before[task], value) for task, value in by_tensor(engine.run(photo)).items())
    with pytest.raises(UserError, match="0 open levels given: give 1 or more"):
        Engine(bundle, open_levels=0)


def test_levels_tell_what_they_cost(workplace: Path, searched: Path, here: Here) -> None:
    words = ("--levels", "2", "--supernet", "supernet.safetensors", "--target", "openvino", "--out", "two")
    status, output, errors = here("export", "runs/first", *words)
    assert status == 0, errors
    assert "models and weights: " in errors and "one by one" in errors
    assert "memory grows by" in output and "first switch in ms" in output
    assert "all 2 levels open take" in output or not Path("/proc/self/status").exists()
    first, second = measure_levels(workplace / "two")
    assert first.first_ms is None and second.first_ms is not None and second.first_ms > second.again_ms > 0
    assert all(each.resident_bytes is None or each.resident_bytes >= 0 for each in (first, second))
    manifest = read_manifest(workplace / "two")
    assert [set(level.parity) for level in manifest.levels] == [TASKS, TASKS]
    with Engine(workplace / "two") as engine:
        assert engine.set_level(prefer=manifest.levels[1].preference) == manifest.levels[1]
        assert set(engine.predict(np.full((64, 64, 3), 99, np.uint8), ["depth", "side"])) == {"depth", "side"}


def test_a_bundle_of_one_design_has_no_levels(workplace: Path, searched: Path, here: Here) -> None:
    status, _, errors = here("export", "runs/first", "--out", "single")
    assert status == 0, errors
    assert "levels" not in json.loads((workplace / "single/manifest.json").read_text())
    with Engine(workplace / "single") as engine, pytest.raises(UserError, match="has one level only"):
        engine.set_level(prefer="depth=2")
    status, _, errors = here("run", "single", PHOTO, "--sweep", "depth:regions")
    assert status == 1 and "has one level only: export it again with --levels" in errors


def test_a_sweep_is_a_sheet_and_an_animation(workplace: Path, bundle: Path, here: Here) -> None:
    status, output, errors = here("run", "bundle", PHOTO, "--sweep", "depth:regions", "--format", "json")
    assert status == 0, errors
    (found,) = json.loads(output)
    assert found["levels"][0].startswith("depth@") and found["levels"][-1].startswith("regions@")
    with Image.open(workplace / found["picture"]) as sheet:
        assert sheet.width > 3 * 256 and sheet.height > len(found["levels"]) * 200
        whole = sheet.size
    with Image.open(workplace / found["animation"]) as moving:
        assert len(list(ImageSequence.Iterator(moving))) == 2 * len(found["levels"]) - 2 and moving.info["loop"] == 0
        assert moving.width == whole[0] and moving.height < whole[1]
    status, output, _ = here("run", "bundle", PHOTO, "--sweep", "depth:regions", "--tasks", "depth")
    assert status == 0 and " > " in output


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("dept:regions", "unknown task in --sweep 'dept': did you mean depth"),
        ("depth", "write two tasks, for example"),
        ("depth:depth", "write two tasks, for example"),
        ("depth:regions:side", "write two tasks, for example"),
    ],
)
def test_a_sweep_that_is_none_is_one_line(bundle: Path, here: Here, sweep: str, expected: str) -> None:
    status, output, errors = here("run", "bundle", PHOTO, "--sweep", sweep)
    assert (status, output) == (1, "") and expected in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--levels", "5", "--supernet", "none.safetensors"), "none.safetensors does not exist"),
        (("--levels", "5", "--supernet", "other.safetensors"), "is not the one that run runs/first was searched in"),
        (("--levels", "1", "--supernet", "supernet.safetensors"), "give 2 or more"),
        (
            ("--levels", "5", "--design", "baseline"),
            "design 'baseline' and 5 levels given: levels are designs of their",
        ),
        (("--supernet", "supernet.safetensors"), "given without levels, which alone are cut from it: add --levels 5"),
        (("--levels", "90"), "different ones within its budgets"),
        (
            ("--levels", "5", "--supernet", "supernet.safetensors", "--target", "streaming"),
            "target streaming cannot share the weights of levels: export them with --target onnxruntime or --target",
        ),
        (
            ("--levels", "5", "--target", "openvino", "--target", "onnxruntime"),
            "levels for openvino and onnxruntime asked for: a bundle of levels is for one",
        ),
    ],
)
def test_levels_that_cannot_be_exported_are_one_line(
    workplace: Path, searched: Path, here: Here, words: tuple[str, ...], expected: str
) -> None:
    shutil.copy(workplace / "supernet.safetensors", workplace / "other.safetensors")
    with (workplace / "other.safetensors").open("ab") as file:
        file.write(b" ")
    status, output, errors = here("export", "runs/first", *words, "--out", "none")
    assert (status, output) == (1, "") and expected in errors.splitlines()[-1]
    assert not (workplace / "none").exists()


def test_a_bundle_of_levels_is_profiled_and_reported(bundle: Path, here: Here) -> None:
    status, _, errors = here("profile", "bundle", "--runs", "10", "--format", "json")
    assert status == 0, errors
    status, _, errors = here("report", "bundle", "--format", "json")
    assert status == 0, errors


def test_a_part_of_the_weights_that_was_touched_is_refused(workplace: Path, bundle: Path, here: Here) -> None:
    copy = Path(shutil.copytree(bundle, workplace / "touched"))
    weights = next(copy.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    status, _, errors = here("run", "touched", PHOTO)
    assert status == 1 and "weights.safetensors" in errors
