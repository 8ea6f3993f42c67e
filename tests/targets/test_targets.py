from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from plugged import install

from edgemtl.cli.targets import targets
from edgemtl.devices import Runtime, load_device
from edgemtl.errors import UserError
from edgemtl.targets import find_target, measurer_of, target_names

PLUGGED = """
from edgemtl.traits import TargetTraits

class Mine:
    traits = TargetTraits("mine", "Mine", ("float",), ("fp32",), 8, "onnxruntime", "mine")
    scheme = dispatch = build = None

    def __init__(self, device):
        self.device = device
"""


def test_built_in_targets_are_listed_in_order() -> None:
    names = target_names()
    assert names == sorted(names)
    assert {"onnxruntime", "openvino", "streaming", "tensorrt", "tensorrt-rtx"} <= set(names)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "streaming", "tensorrt", "tensorrt-rtx"])
def test_a_target_is_what_it_is_called(name: str) -> None:
    traits = find_target(name).traits
    assert traits.name == name
    assert traits.block_precisions[0] == "float"
    assert set(traits.block_precisions) <= {"float", "int8"}
    assert traits.engine_precisions[0] == "fp32"
    assert traits.channel_multiple >= 1


def test_engines_of_the_cpu_targets_are_measured_here_and_those_for_a_gpu_are_not() -> None:
    timed = {name: measurer_of(find_target(name)).untimed is None for name in target_names()}
    here = {"onnxruntime": True, "openvino": True, "streaming": True}
    assert timed == {**here, "hls": False, "tensorrt": False, "tensorrt-rtx": False}


@pytest.mark.parametrize(
    ("given", "expected"), [("onxruntime", "did you mean onnxruntime"), ("", "allowed: "), ("tflite", "allowed: ")]
)
def test_an_unknown_target_names_the_nearest(given: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        find_target(given)
    assert f"unknown target {given!r}" in str(error.value)
    assert expected in str(error.value)


def test_a_broken_target_of_another_package_does_not_hide_the_rest(site: Path) -> None:
    install(site, "edgemtl.targets", "mine = edgemtl_mine:Mine", "import a_module_that_is_missing")
    with pytest.raises(UserError, match=r"'mine', which edgemtl_mine:Mine brings, cannot be loaded .*is_missing"):
        find_target("mine")
    listed = CliRunner().invoke(targets, ["--format", "json"])
    assert listed.exit_code == 0
    assert "warning: target 'mine'" in listed.stderr
    assert [each["name"] for each in json.loads(listed.stdout)] == [
        "hls",
        "onnxruntime",
        "openvino",
        "streaming",
        "tensorrt",
        "tensorrt-rtx",
    ]
    assert json.loads(listed.stdout)[2]["installed"] is True, "it comes with edgemtl"


def test_a_target_of_another_package_is_found(site: Path) -> None:
    install(site, "edgemtl.targets", "mine = edgemtl_mine:Mine", PLUGGED)
    assert "mine" in target_names()
    assert find_target("mine").traits.title == "Mine"


def test_a_target_answers_for_its_device() -> None:
    """Precisions are those that the device's runtime honours; a board has no other runtimes than it says."""
    pi = load_device("raspberry-pi-4")
    assert find_target("openvino", pi).traits.block_precisions == ("float",)
    assert find_target("openvino", pi).traits.engine_precisions == ("fp32",)
    assert find_target("onnxruntime", pi).traits.block_precisions == ("float", "int8")
    with pytest.raises(UserError, match="unknown runtime of device raspberry-pi-4 'tensorrt-rtx'"):
        find_target("tensorrt-rtx", pi)
    bf16 = "bf16" in load_device("host").precisions
    assert ("bf16" in find_target("openvino").traits.engine_precisions) == bf16


def test_a_device_that_lacks_every_precision_of_a_target_is_refused() -> None:
    pi = load_device("raspberry-pi-4")
    odd = pi.model_copy(update={"runtimes": (Runtime(name="openvino", precisions=("fp16",)),)})
    with pytest.raises(UserError, match="needs fp32 or bf16, runtime openvino of device raspberry-pi-4 has fp16"):
        _ = find_target("openvino", odd).traits


def test_targets_are_listed_for_a_device() -> None:
    listed = CliRunner().invoke(targets, ["--device", "x86-avx2", "--format", "json"])
    found = {each["name"]: each["scheme"]["weight_limit"] for each in json.loads(listed.stdout)}
    assert found == {"onnxruntime": 64, "openvino": 64, "streaming": 127}
    assert "tensorrt-rtx" in listed.stderr
