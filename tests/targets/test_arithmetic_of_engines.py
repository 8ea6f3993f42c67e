"""INT8 engines are right on the processor they were made for, portable ones on every one, and no other runs wrongly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgemtl.arithmetic import ANY, EXACT_INT8, EXACT_WEIGHT, lacking, own_arithmetic
from edgemtl.bundle import read_manifest
from edgemtl.data import Sample
from edgemtl.devices import Device, Runtime, any_processor, load_device
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, Tolerance, export_bundle
from edgemtl.models import MultiTaskNet
from edgemtl.models.graph.graph import trace
from edgemtl.models.quantization import Ranges, calibrate, parameters_of, simulate
from edgemtl.runtime import Engine, open_engine
from edgemtl.targets import arithmetic_of, find_target, is_runnable
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, samples_for, small_net

ROOT = Path(__file__).parents[2]
EXACT_HERE = not lacking([EXACT_INT8], own_arithmetic())
NEEDS_EXACT = pytest.mark.skipif(not EXACT_HERE, reason=f"this processor ({own_arithmetic()}) saturates")
MOST = 4.701
"""A range from 0 to it has a scale that is not the inverse of its inverse."""
LOOSE = Tolerance(reduced_metric=2.0)
SHARE = """
import sys
from pathlib import Path
sys.path[:0] = [r"{tests}", r"{shelf}"]
from test_arithmetic_of_engines import share_alike
print(*(share_alike("openvino", name, Path(r"{folder}") / name) for name in ("any", "x86-vnni")))
"""


def device(name: str) -> Device:
    return any_processor(load_device("host")) if name == "any" else load_device(name)


def share_alike(runtime: str, built_for: str, folder: Path, net: MultiTaskNet | None = None) -> float:
    """Share of the values of an all-INT8 engine that are those of its simulation, opened whatever it needs."""
    target = find_target(runtime, device(built_for))
    net, same, total = net or small_net("fused", "relu6"), 0, 0
    precision, ranges = {"engine": "fp32", **dict.fromkeys(net.blocks, "int8")}, calibrate(net, images(8))
    target.build(net, precision, ranges, folder)
    content = json.loads((folder / "engine.json").read_text())
    (folder / "engine.json").write_text(json.dumps({**content, "needs": []}))
    session, simulation = open_engine(folder, threads=1), simulate(net, precision, ranges, target.scheme)
    for image in images(6, seed=7).split(1):
        found = by_tensor(session.run(image.numpy(), session.tasks))
        for task, value in by_tensor(simulation(image)).items():
            same += int(np.isclose(found[task], value.numpy(), rtol=1e-6, atol=1e-6).sum())
            total += value.numel()
    session.close()
    return same / total


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    return small_net("fused")


@pytest.fixture(scope="module")
def samples(net: MultiTaskNet) -> list[Sample]:
    return samples_for(net)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_portable_engine_is_the_simulation_to_the_bit(tmp_path: Path, runtime: str) -> None:
    assert share_alike(runtime, "any", tmp_path) >= 0.97


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_channel_of_tiny_weights_keeps_its_bias(tmp_path: Path, runtime: str) -> None:
    """In steps of such weights the bias is beyond 32 bits."""
    net = small_net("fused", "relu6")
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            with torch.no_grad():
                module.weight[:2] = torch.tensor([1e-10, -1e-7])
                module.bias[:2] = torch.tensor([3.0, 2.0])
    assert share_alike(runtime, "any", tmp_path, net) >= 0.97


class Rounded(nn.Module):
    """The block `before`, which ends in one way or another, and the block `last`, whose convolution rounds the end."""

    input_size, block_tasks = (32, 32), {"before": None, "last": "out"}

    def __init__(self, before: nn.Module, step: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"before": before, "last": nn.Sequential(nn.Conv2d(16, 16, 1))})
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # copies channels, or half of them, and adds whole steps
                weight = torch.eye(module.in_channels).repeat(16, 1)[:16] / (1 if module.in_channels == 3 else 2)
                module.weight.data = weight[:, :, None, None]
                module.bias = nn.Parameter(step * torch.arange(1.0, 17))

    def forward(self, image: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
        """(1, 3, 32, 32) to one output."""
        return {"out": {"map": self.blocks["last"](self.blocks["before"](image))}}


class Twice(nn.Module):
    """A convolution whose result is added to the input of another, or read again beside it."""

    def __init__(self, *more: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.more = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Sequential(*more)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, 32, 32) to (1, 16, 32, 32)."""
        x = self.first(image)
        return self.more(x + self.second(x))  # type: ignore[no-any-return]


def conv(*more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 1), *more)


@pytest.mark.parametrize("least", [0.0, -3.1])
@pytest.mark.parametrize("precision", ["int8", "float"])
@pytest.mark.parametrize(
    "make",
    [
        conv,
        lambda: conv(nn.ReLU()),
        lambda: conv(nn.ReLU6()),
        lambda: conv(nn.MaxPool2d(3, 1, 1)),
        lambda: conv(nn.Upsample(scale_factor=2)),
        Twice,
        lambda: Twice(nn.ReLU()),
    ],
    ids=["conv", "relu", "relu6", "pool", "resize", "sum", "sum+relu"],
)
def test_openvino_rounds_ties_as_the_simulation(
    tmp_path: Path, make: Callable[[], nn.Module], precision: str, least: float
) -> None:
    """Values lie within a bit of the middle between two steps, where each way to round has its own results."""
    target = find_target("openvino", device("any"))
    p = parameters_of((least, MOST), target.scheme)
    net, chosen = Rounded(make(), p.scale).eval(), {"engine": "fp32", "before": precision, "last": "int8"}
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(p.low - p.zero, p.high - p.zero, (1, 3, 32, 32), generator=generator) * (p.scale / 2)
    entering = {name for node in trace(net).nodes for name in node.inputs}
    ranges = Ranges(dict.fromkeys(entering, (least, MOST)) | {"image": (least / 2, MOST / 2)})
    target.build(net, chosen, ranges, tmp_path)  # type: ignore[arg-type]
    with closing(open_engine(tmp_path, threads=1)) as session:
        found = by_tensor(session.run(image.numpy(), session.tasks))["out"].copy()
    expected = by_tensor(simulate(net, chosen, ranges, target.scheme)(image))["out"].numpy()
    different = found != expected
    assert not different.any(), f"{different.mean():.2%} of values, by {np.abs(found - expected).max():.3g}"


@NEEDS_EXACT
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_of_eight_bits_are_exact_where_nothing_saturates(tmp_path: Path, runtime: str) -> None:
    assert share_alike(runtime, "x86-vnni", tmp_path) >= 0.97


@pytest.mark.skipif(own_arithmetic() != "avx2", reason=f"this processor ({own_arithmetic()}) does not saturate")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_of_eight_bits_are_wrong_where_sums_saturate(tmp_path: Path, runtime: str) -> None:
    """What an engine for VNNI would give here if it were not refused."""
    assert share_alike(runtime, "x86-vnni", tmp_path) < 0.5


@pytest.mark.skipif(
    own_arithmetic() not in ("amx", "avx512-vnni", "avx-vnni"),
    reason=f"needs VNNI to hold back, not {own_arithmetic()}",
)
def test_openvino_held_to_avx2_is_right_with_seven_bits_and_wrong_with_eight(tmp_path: Path) -> None:
    script = SHARE.format(tests=Path(__file__).parent, shelf=ROOT / "tests" / "shelf", folder=tmp_path)
    held = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=held, capture_output=True, text=True, check=True)
    portable, exact = map(float, done.stdout.split())
    assert portable >= 0.97
    assert exact < 0.5


def test_openvino_held_to_less_than_an_engine_needs_is_refused(
    tmp_path: Path, net: MultiTaskNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of oneDNN's two names the switch has; engines that need nothing open all the same."""
    monkeypatch.setattr("edgemtl.arithmetic.own_arithmetic", lambda: "avx512-vnni")
    ranges = calibrate(net, images(2))
    for name, built_for in (("exact", "x86-vnni"), ("any", "any")):
        find_target("openvino", device(built_for)).build(net, {"s3_1": "int8"}, ranges, tmp_path / name)
    for switch, value in (("ONEDNN_MAX_CPU_ISA", "AVX2"), ("DNNL_MAX_CPU_ISA", "avx512_core")):
        with monkeypatch.context() as held:
            held.setenv(switch, value)
            with pytest.raises(UserError, match=f"{switch}={value} holds OpenVINO to less.*--portable") as e:
                open_engine(tmp_path / "exact")
            assert "\n" not in str(e.value)
            open_engine(tmp_path / "any").close()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    open_engine(tmp_path / "exact").close()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "limit", "activation"),
    [("any", 64, "uint8"), ("x86-avx2", 64, "uint8"), ("x86-vnni", 127, "uint8"), ("raspberry-pi-5", 127, "int8")],
)
def test_a_scheme_is_that_of_the_device(runtime: str, name: str, limit: int, activation: str) -> None:
    scheme = find_target(runtime, device(name)).scheme
    assert scheme.weight_limit == limit
    assert scheme.activation == (activation if runtime == "onnxruntime" else "uint8")
    assert scheme.needs == ((EXACT_INT8,) if limit > EXACT_WEIGHT else ())


def test_an_engine_that_would_compute_wrongly_is_refused_in_one_line(
    tmp_path: Path, net: MultiTaskNet, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a bundle and alone; float engines need nothing, and portable ones run."""
    precision = {"engine": "fp32", "s3_1": "int8"}
    evidence, built_for = Evidence(samples, samples, tolerance=LOOSE), load_device("x86-vnni")
    own, portable = (ExportRequest("onnxruntime", built_for, portable=each) for each in (False, True))
    monkeypatch.setattr("edgemtl.arithmetic.own_arithmetic", lambda: "avx2")
    monkeypatch.setattr("edgemtl.profiling.measurer.own_arithmetic", lambda: "avx2")
    export_bundle(net, precision, own, tmp_path / "exact", evidence)
    record = read_manifest(tmp_path / "exact").targets["onnxruntime"]
    assert (record.device, record.arithmetic, record.needs) == ("x86-vnni", "avx-vnni", (EXACT_INT8,))
    assert (record.checked, record.checked_on) == ("simulation", None)
    assert set(record.parity) == {"semseg", "depth", "normals"}
    for opens in (lambda: Engine(tmp_path / "exact"), lambda: open_engine(tmp_path / "exact/engines/onnxruntime")):
        with pytest.raises(
            UserError, match=r"needs sums of .* do not saturate .* \(avx2\) .*--device host.*--portable"
        ) as e:
            opens()
        assert "\n" not in str(e.value)
    export_bundle(net, precision, portable, tmp_path / "any", evidence)
    record = read_manifest(tmp_path / "any").targets["onnxruntime"]
    assert (record.arithmetic, record.needs, record.checked) == (ANY, (), "engine")
    export_bundle(net, "fp32", own, tmp_path / "float", evidence)
    for name in ("any", "float"):
        Engine(tmp_path / name).close()


def test_a_bf16_engine_is_checked_by_simulation_where_the_processor_has_none(
    tmp_path: Path, net: MultiTaskNet, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO would run it in FP32 there, and what is checked would not be what it computes on its device."""
    board = load_device("x86-vnni")
    runtimes = (Runtime(name="openvino", precisions=("fp32", "bf16", "int8")),)
    built_for = board.model_copy(update={"precisions": ("fp32", "bf16", "int8"), "runtimes": runtimes})
    machine = environment()
    machine["cpu"] |= {"flags": ["avx2"]}
    for module in ("loading", "schema"):
        monkeypatch.setattr(f"edgemtl.devices.{module}.environment", lambda: machine)
    target = find_target("openvino", built_for)
    assert not is_runnable(target, {"engine": "bf16"})
    assert is_runnable(target, {"engine": "fp32"})
    evidence = Evidence(samples, samples, tolerance=LOOSE)
    export_bundle(net, "bf16", ExportRequest("openvino", built_for), tmp_path / "bundle", evidence)
    record = read_manifest(tmp_path / "bundle").targets["openvino"]
    assert (record.checked, record.checked_on) == ("simulation", None)
    assert record.parity["semseg"].outputs["logits"].max_abs_error > 1e-4, "that of BF16, not of FP32"


def test_a_need_that_this_version_does_not_know_is_refused(tmp_path: Path, net: MultiTaskNet) -> None:
    find_target("onnxruntime").build(net, {}, None, tmp_path)
    content = json.loads((tmp_path / "engine.json").read_text())
    (tmp_path / "engine.json").write_text(json.dumps({**content, "needs": ["a quantum"]}))
    with pytest.raises(UserError, match="'a quantum', which this version does not know"):
        open_engine(tmp_path)


@NEEDS_EXACT
def test_what_being_portable_costs_stands_in_the_manifest(
    tmp_path: Path, net: MultiTaskNet, samples: list[Sample]
) -> None:
    """Against the processor's own scheme, by both engines on the same images; nothing where nothing is INT8."""
    evidence = Evidence(samples, samples, tolerance=LOOSE)
    both, one = (ExportRequest(each, portable=True) for each in (["onnxruntime", "openvino"], "onnxruntime"))
    precision = {"engine": "fp32", "s3_1": "int8"}
    export_bundle(net, precision, both, tmp_path / "int8", evidence)
    for target in read_manifest(tmp_path / "int8").targets.values():
        assert target.own_parity is not None
        assert target.own_parity.keys() == target.parity.keys()
        assert target.own_parity["semseg"].engine != target.parity["semseg"].engine
        assert target.own_parity["semseg"].torch == target.parity["semseg"].torch
    export_bundle(net, "fp32", one, tmp_path / "float", evidence)
    assert read_manifest(tmp_path / "float").targets["onnxruntime"].own_parity is None


def test_a_target_with_an_arithmetic_of_its_own_has_it_on_every_device() -> None:
    for built_for in ("any", "host"):
        assert arithmetic_of(find_target("tensorrt-rtx", device(built_for))) == "gpu"
    assert arithmetic_of(find_target("onnxruntime", device("any"))) == ANY
    assert arithmetic_of(find_target("openvino", device("x86-vnni"))) == "avx-vnni"


def test_signed_engines_for_arm_run_right_here_only_where_sums_do_not_saturate() -> None:
    target = find_target("onnxruntime", load_device("raspberry-pi-5"))
    assert is_runnable(target, {"stem": "int8"}) == EXACT_HERE
    assert is_runnable(target, {"stem": "float"})
