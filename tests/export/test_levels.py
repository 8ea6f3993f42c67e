from __future__ import annotations

import gc
import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import TASKS, designs, pictures, scrambled, small_space
from tensorrt_fake import FakeCuda, fake_tensorrt, write_board

from edgemtl.data import Sample
from edgemtl.devices import Runtime, load_device
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.export import Tolerance
from edgemtl.export.level_files import WEIGHTS_FILE
from edgemtl.export.levels import _checked, _write, check_sharing
from edgemtl.models import Supernet, recalibrate
from edgemtl.models.quantization import calibrate
from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.levels import Level
from edgemtl.runtime import EngineSpec, open_engine
from edgemtl.runtime.tensorrt.cuda import Cuda
from edgemtl.runtime.tensorrt.session import open_session
from edgemtl.spaces import Space
from edgemtl.spaces.space import ENGINE
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor

NAMES = [task.name for task in TASKS]
COUNT = 5
TARGETS = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return small_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def supernet(where: Space) -> Supernet:
    torch.manual_seed(0)
    return scrambled(Supernet.of(where), 0)


@pytest.fixture(scope="module")
def levels(where: Space, supernet: Supernet) -> list[Level]:
    """Nets of all sizes for FP32 engines, each with statistics of its own."""
    found = []
    for number, design in enumerate(designs(where, COUNT - 2)):
        net = supernet.extract(design)
        recalibrate(net, [pictures(4, where.size, number)])
        design = where.design({**design, ENGINE: "fp32"})
        found.append(Level(f"l{number}", "", dict.fromkeys(NAMES, 1.0), Candidate(design, net, None)))
    return found


@pytest.fixture(params=TARGETS)
def engine(request: pytest.FixtureRequest, levels: list[Level], supernet: Supernet, tmp_path: Path) -> Path:
    _write(levels, supernet, find_target(request.param), tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def image(where: Space) -> NDArray[np.float32]:
    return pictures(1, where.size, 9).numpy()


def test_every_level_is_its_net(engine: Path, levels: list[Level], image: NDArray[np.float32]) -> None:
    for number, level in enumerate(levels):
        with torch.no_grad():
            expected = by_tensor(level.candidate.net(torch.from_numpy(image)))
        with closing(open_engine(engine, 1, level=number)) as session:
            found = by_tensor(session.run(image, NAMES))
            for name in NAMES:
                scale = max(1.0, float(expected[name].abs().max()))
                assert np.abs(found[name] - expected[name].numpy()).max() < 1e-4 * scale
            whole = {name: value.copy() for name, value in found.items()}
            for tasks in (["depth"], ["depth", "kind"]):
                part = by_tensor(session.run(image, tasks))
                assert set(part) == set(tasks)
                assert all(np.allclose(part[name], whole[name], atol=1e-4) for name in tasks)
            assert session.operator_times(image, ["depth"], 1)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_stored_once(levels: list[Level], supernet: Supernet, tmp_path: Path, target: str) -> None:
    written = _write(levels, supernet, find_target(target), tmp_path)
    sizes = {name: (tmp_path / name).stat().st_size for name in written.files}
    assert written.shared_bytes == sum(sizes.values()) - sizes["engine.json"]
    graphs = sum(size for name, size in sizes.items() if name.endswith(".xml"))
    assert written.shared_bytes - graphs < 0.8 * (written.alone_bytes - graphs)
    whole = sum(4 * parameter.numel() for parameter in supernet.parameters())
    assert sizes[WEIGHTS_FILE] < 1.2 * whole, "however many levels there are"


def test_levels_in_bf16_are_checked_by_simulation_where_the_processor_has_none(
    levels: list[Level], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine is opened: there is none in the folder."""
    runtimes = (Runtime(name="openvino", precisions=("fp32", "bf16")),)
    board = load_device("x86-vnni").model_copy(update={"precisions": ("fp32", "bf16"), "runtimes": runtimes})
    machine = environment()
    machine["cpu"] |= {"flags": ["avx2"]}
    for module in ("loading", "schema"):
        monkeypatch.setattr(f"edgemtl.devices.{module}.environment", lambda: machine)
    target, net = find_target("openvino", board), levels[0].candidate.net
    design = levels[0].candidate.design.space.design({**levels[0].candidate.design, ENGINE: "bf16"})
    level = replace(levels[0], candidate=Candidate(design, net, None))
    monkeypatch.setattr("edgemtl.export.levels.Tolerance", lambda: Tolerance(reduced_metric=2.0))
    size, rng = net.input_size, np.random.default_rng(0)
    targets = {"semseg": np.zeros(size, np.int64), "depth": np.ones(size, np.float32), "kind": np.array(0)}
    masks = {name: np.ones(value.shape, bool) for name, value in targets.items()}
    sample = Sample(rng.integers(0, 256, (*size, 3), dtype=np.uint8), targets, masks)
    found = _checked(0, level, target, tmp_path, [sample])
    assert found.parity["depth"].outputs["log_metres"].max_abs_error > 1e-4


@pytest.mark.parametrize(
    ("engine_precision", "version"), [("fp32", "8.5.2.2"), ("fp16", "8.5.2.2"), ("fp16", "10.3.0")]
)
def test_levels_for_tensorrt_are_put_together_on_the_board(
    levels: list[Level],
    supernet: Supernet,
    where: Space,
    image: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine_precision: str,
    version: str,
) -> None:
    """In FP32 for 8.5, in FP16 by a flag there and by types from 10 on: two graphs a level over one copy of weights."""
    chosen = []
    for level in levels[:2]:
        design = where.design({**level.candidate.design, ENGINE: engine_precision})
        ranges = calibrate(level.candidate.net, [pictures(2, where.size, 3)])
        chosen.append(replace(level, candidate=replace(level.candidate, design=design, ranges=ranges)))
    folder = tmp_path / "engine"
    folder.mkdir()
    written = _write(chosen, supernet, find_target("tensorrt"), folder)
    assert written.shared_bytes < written.alone_bytes
    shared = EngineSpec.read(folder).options["levels"][1]["shared"]
    kinds = {key: {kind for *_, kind in parts} for key, parts in shared.items()}
    assert kinds == {"model": {"float32"}, **({"typed": {"float16"}} if engine_precision == "fp16" else {})}
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    trt = fake_tensorrt(version)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    for number, level in enumerate(chosen):
        with torch.no_grad():
            expected = by_tensor(level.candidate.net(torch.from_numpy(image)))
        spec = EngineSpec.read(folder).at(number)
        connect = lambda: Cuda(FakeCuda())  # noqa: E731
        session = open_session(folder, spec, 0, None, connect, write_board(tmp_path))
        found = by_tensor(session.run(image, NAMES))
        for name in NAMES:
            limit = 0.02 if version.startswith("10") else 1e-4
            scale = max(1.0, float(expected[name].abs().max()))
            assert np.abs(found[name] - expected[name].numpy()).max() < limit * scale
        session.close()
    assert len(trt.built) == 2


def test_levels_stay_open_side_by_side(engine: Path, levels: list[Level], image: NDArray[np.float32]) -> None:
    sessions = [open_engine(engine, 1, level=number) for number in range(COUNT)]
    first = [by_tensor(session.run(image, NAMES))["depth"].copy() for session in sessions]
    again = [by_tensor(session.run(image, NAMES))["depth"].copy() for session in reversed(sessions)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({value.tobytes() for value in first}) == COUNT
    for session in sessions:
        session.close()


INTERRUPTED = """
import gc, signal, sys
from pathlib import Path
from edgemtl.runtime import open_engine

sessions = [open_engine(Path(sys.argv[1]), 1, level=number) for number in range(3)]
while sessions:
    sessions.pop(0).close()
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_one_after_engines_were_closed_first_one_first(engine: Path) -> None:
    """Engines of OpenVINO leave signal handlers the stack of one that is gone, where nobody puts it back."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(engine)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_a_level_that_the_engine_lacks(engine: Path) -> None:
    with pytest.raises(UserError, match="names no file for level 7"):
        open_engine(engine, 1, level=7)


def parts(options: Any) -> list[Any]:
    """The first shared weight of level 1, in whichever file holds it."""
    (shared,) = options["levels"][1]["shared"].values()
    first: list[Any] = shared[0]
    return first


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda options: options.pop("levels"), "does not describe level 1"),
        (lambda options: options["levels"].__delitem__(slice(1, None)), "does not describe level 1"),
        (lambda options: options["levels"][1].pop("shared"), "do not fit"),
        (lambda options: parts(options).__setitem__(0, 10**9), "belongs at byte 1000000000"),
        (lambda options: parts(options).__setitem__(1, "nowhere"), "nowhere"),
        (lambda options: parts(options).__setitem__(2, [10**6, 1, 1, 1]), "do not fit"),
        (lambda options: parts(options).__setitem__(2, "wide"), "do not fit"),
        (lambda options: parts(options).__setitem__(3, "float8"), "is float8"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(engine: Path, spoil: object, expected: str) -> None:
    content = json.loads((engine / "engine.json").read_text())
    assert callable(spoil)
    spoil(content["options"])
    (engine / "engine.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        open_engine(engine, 1, level=1)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_weights_that_was_cut_off(engine: Path) -> None:
    content = (engine / WEIGHTS_FILE).read_bytes()
    (engine / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        open_engine(engine, 1)


def test_an_engine_of_one_design_is_its_level_0(levels: list[Level], tmp_path: Path) -> None:
    find_target("onnxruntime").build(levels[0].candidate.net, {"engine": "fp32"}, None, tmp_path)
    assert EngineSpec.read(tmp_path).at(0) == EngineSpec.read(tmp_path)
    with pytest.raises(UserError, match="names no file for level 1"):
        open_engine(tmp_path, 1, level=1)


def test_a_level_has_the_precision_of_its_design_where_the_target_honours_it(
    levels: list[Level], supernet: Supernet, where: Space, tmp_path: Path
) -> None:
    half = []
    for level in levels[:2]:
        design = where.design({**level.candidate.design, ENGINE: "bf16"})
        half.append(replace(level, candidate=replace(level.candidate, design=design)))
    here = "bf16" if "bf16" in load_device("host").precisions else "fp32"
    for target, expected in (("openvino", here), ("onnxruntime", "fp32")):
        position = tmp_path / target
        position.mkdir()
        _write(half, supernet, find_target(target), position)
        assert EngineSpec.read(position).at(1).options["precision"]["engine"] == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["streaming"], "target streaming cannot share the weights of levels: export them with --target onnxruntime"),
        (["onnxruntime", "tensorrt-rtx"], "target tensorrt-rtx cannot share"),
        (["openvino", "onnxruntime"], "levels for openvino and onnxruntime asked for: a bundle of levels is for one"),
        (["onnx"], "did you mean onnxruntime"),
    ],
)
def test_levels_are_for_one_target_that_can_share(targets: list[str], expected: str) -> None:
    with pytest.raises(UserError) as error:
        check_sharing(targets)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert check_sharing(["openvino", "openvino"]).traits.name == "openvino"


def test_a_dropped_level_leaves_no_file_open(engine: Path, image: NDArray[np.float32]) -> None:
    def use() -> None:
        for level in range(2):
            open_engine(engine, 1, level=level).run(image, "depth")

    use()
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    use()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
