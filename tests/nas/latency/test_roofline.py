"""Rooflines: times by hand, machines on paper whose efficiencies are found again, and files that keep a fit."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from refusals import refused

from edgemtl.arithmetic import own_arithmetic
from edgemtl.devices import load_device, new_device
from edgemtl.errors import UserError
from edgemtl.nas.latency import (
    UNFITTED,
    Efficiencies,
    Fit,
    HeldOut,
    MeasuredDesign,
    Part,
    Roofs,
    design_parts,
    estimate_for,
    estimate_latency,
    estimate_ms,
    find_fit,
    fit_efficiencies,
    fitting,
    judge_efficiencies,
    lacking_roofs,
    measure_roofs,
    read_fit,
    roofs_of,
    spread_designs,
    write_fit,
)
from edgemtl.nas.latency.roofline import Workload
from edgemtl.spaces import Space
from edgemtl.targets import find_target
from edgemtl.testing.landscape import PAIR, TINY, space
from edgemtl.units import parse_budget

ROOFS = Roofs({"fp32": 100e9, "int8": 400e9}, 20e9)
MACHINE = Efficiencies(
    {
        "dense float": 0.8,
        "dense int8": 0.5,
        "depthwise float": 0.1,
        "depthwise int8": 0.02,
        "pointwise float": 0.6,
        "pointwise int8": 0.3,
    },
    {"products": 1.0, "elementwise": 0.7},
    0.002,
    {"fp32": 0.8, "int8": 1.4},
)
FIT = Fit("avx512-vnni", "onnxruntime", ("tiny",), MACHINE, ROOFS, HeldOut(0.12, 0.9, 30))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("tiny"), PAIR, text=TINY.replace("[8, 16, 24]", "[8, 16, 24, 32, 40]"))


def part(operator: str, precision: str, macs: int, moved_bytes: int) -> Part:
    return Part("", "", "", "", macs, 0, 0, 0, operator, precision, moved_bytes)


def part_times(parts: list[Part], efficiencies: Efficiencies) -> NDArray[np.float64]:
    return Workload.of(parts, ROOFS).ms(efficiencies)


def test_a_part_takes_the_longer_of_its_arithmetic_and_its_bytes() -> None:
    parts = [
        part("dense", "fp32", 50_000_000, 4),
        part("dense", "int8", 50_000_000, 4),
        part("elementwise", "fp32", 0, 20_000_000),
    ]
    np.testing.assert_allclose(part_times(parts, UNFITTED), [1.0, 0.25, 1.0])
    half = Efficiencies({"dense float": 0.5, "dense int8": 0.25}, {"elementwise": 2.0}, 0.1)
    np.testing.assert_allclose(part_times(parts, half), [2.1, 1.1, 0.6])


def test_a_class_that_was_not_fitted_has_the_median_of_the_others() -> None:
    few = Efficiencies({"dense float": 0.5, "depthwise float": 0.1, "pointwise float": 0.2}, {}, 0.0)
    np.testing.assert_allclose(part_times([part("products", "fp32", 50_000_000, 4)], few), [5.0])


def test_what_an_engine_takes_over_a_profile_is_by_precision() -> None:
    parts = [part("dense", "fp32", 50_000_000, 4), part("dense", "int8", 50_000_000, 4)]
    assert estimate_ms(parts, ROOFS, Efficiencies(outside={"fp32": 0.8, "int8": 1.4})) == pytest.approx(0.8 + 0.35)
    assert estimate_ms(parts, ROOFS, Efficiencies(outside={"fp32": 2.0})) == pytest.approx(2.5), "int8 as the wider one"
    assert estimate_ms(parts, ROOFS, UNFITTED) == pytest.approx(1.25)
    launched = Efficiencies(launch_ms=0.5, outside={"fp32": 0.8, "int8": 1.4})
    assert estimate_ms(parts, ROOFS, launched) == pytest.approx(0.8 + 0.35 + 2 * 0.5), "a launch is a launch"


def test_a_precision_without_a_peak_takes_the_next_wider_ones() -> None:
    xavier = roofs_of(load_device("jetson-xavier-nx"), "tensorrt")
    assert xavier.rate("int8") == xavier.rate("fp16") == 6.76e12
    assert roofs_of(load_device("raspberry-pi-4"), "onnxruntime").rate("int8") == 57.6e9


def test_rates_are_those_of_the_unit_that_the_runtime_runs_on() -> None:
    orin = load_device("jetson-orin-nano")
    assert roofs_of(orin, "tensorrt").ops_per_s == {"fp32": 1.28e12, "fp16": 10e12, "int8": 20e12}
    assert lacking_roofs(orin, "onnxruntime") == ["peak of fp32 on its cpu"]
    assert lacking_roofs(load_device("zcu104"), "hls4ml") == ["bandwidth", "peak of fp32 on its fpga"]
    message = refused(lambda: roofs_of(load_device("kv260"), "hls4ml"))
    assert "device kv260 is an FPGA, whose time is estimated in cycles of 5 ns between two images" in message
    assert message.endswith("for 8 ms give 1.6Mcycles")


def test_rates_that_are_lacking_are_to_be_added_to_a_file_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = refused(lambda: roofs_of(load_device("x86-avx2"), "onnxruntime"))
    assert shipped.endswith("add it to a device file of your own (edgemtl devices new NAME --like x86-avx2)")
    path = new_device("mine", "x86-avx2")
    assert refused(lambda: roofs_of(load_device("mine"), "onnxruntime")).endswith(f"add it to {path.resolve()}")


def on_paper(
    where: Space, count: int, seed: int, machine: Efficiencies = MACHINE, noise: float = 0.0
) -> list[MeasuredDesign]:
    """Designs on a machine with these efficiencies, each part and the whole a little off."""
    rng, measured = random.Random(seed), []
    designs = spread_designs(where, count, seed)
    for design in designs:
        of_design = design_parts(design)
        parts = [float(ms) * rng.gauss(1, noise) for ms in part_times(of_design, machine)]
        whole = sum(
            machine.outside[part.precision] * (ms - machine.launch_ms) + machine.launch_ms
            for part, ms in zip(of_design, parts, strict=True)
        )
        measured.append(MeasuredDesign(design, {"": (whole,)}, tuple(parts), whole - sum(parts)))
    return measured


def test_the_efficiencies_of_a_machine_are_found_again(tiny: Space) -> None:
    fitted = fit_efficiencies(on_paper(tiny, 24, 0, noise=0.02), ROOFS)
    for key in ("dense float", "dense int8", "depthwise float"):
        assert fitted.compute[key] == pytest.approx(MACHINE.compute[key], rel=0.25), key
    assert fitted.launch_ms == pytest.approx(MACHINE.launch_ms, rel=0.25)
    assert fitted.outside == pytest.approx({"fp32": 0.8, "int8": 1.4}, rel=0.05)
    unseen = on_paper(tiny, 24, 7)
    estimated = [estimate_ms(design_parts(each.design), ROOFS, fitted) for each in unseen]
    assert np.mean(np.abs(np.array(estimated) / [each.latency_ms[""] for each in unseen] - 1)) < 0.05


def test_the_error_is_that_of_designs_held_out(tiny: Space) -> None:
    held_out = judge_efficiencies(on_paper(tiny, 18, 1, noise=0.02), ROOFS)
    assert held_out.error < 0.06 and held_out.tau > 0.9 and held_out.designs == 18
    rng = random.Random(0)
    odd = [replace(each, medians_ms={"": (rng.uniform(0.1, 10),)}) for each in on_paper(tiny, 18, 1)]
    assert judge_efficiencies(odd, ROOFS).error > 0.3, "latencies that follow nothing"


def test_the_roofs_of_this_machine_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("_SIDE", 64), ("_COPY_BYTES", 2**16), ("_TRIES", 2)):
        monkeypatch.setattr(fitting, name, small)
    roofs = measure_roofs("avx512-vnni")
    assert roofs.ops_per_s["int8"] == 4 * roofs.ops_per_s["fp32"] > 1e6
    assert roofs.ops_per_s["bf16"] == roofs.ops_per_s["fp32"] and roofs.bytes_per_s > 1e6


def test_a_fit_is_kept_with_its_environment_and_error(tmp_path: Path) -> None:
    path = write_fit(tmp_path / "efficiencies", FIT)
    assert path.name == "avx512-vnni.onnxruntime.json"
    assert read_fit(path) == FIT
    content = json.loads(path.read_text())
    assert content["environment"]["cpu"]["class"] == own_arithmetic() and content["held_out"]["error"] == 0.12


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"launch_ms": 0.002', '"launch_ms": 0.003', "was changed"),
        ('"launch_ms": 0.002', '"launch_ms": -1', "efficiencies.launch_ms"),
        ('"edgemtl.efficiencies/1"', '"edgemtl.efficiencies/9"', "this version reads"),
        ('"tau": 0.9', '"tau": 0.9, "more": 1', "held_out.more"),
    ],
)
def test_a_damaged_fit_is_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write_fit(tmp_path, FIT)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=says) as caught:
        read_fit(path)
    assert "\n" not in str(caught.value)


def test_the_nearest_fit_serves_and_says_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Space
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "profiles" / "efficiencies"
    write_fit(folder, FIT)
    write_fit(folder, replace(FIT, arithmetic="arm-dot"))
    write_fit(folder, replace(FIT, arithmetic="arm-dot", runtime="openvino"))

    def where(arithmetic: str, runtime: str) -> str:
        fit = find_fit(arithmetic, runtime)  # type: ignore[arg-type]
        assert fit is not None
        return fit.where

    assert where("arm-dot", "openvino") == "arm-dot/openvino"
    assert where("arm-dot", "streaming") == "arm-dot/onnxruntime", "its class comes first"
    own = estimate_latency(load_device("raspberry-pi-5"), "onnxruntime")
    assert (own.errors, own.fitted_on) == ({"": 0.12}, None)
    other = estimate_latency(load_device("jetson-orin-nano"), "tensorrt")
    assert other.fitted_on in {"avx512-vnni/onnxruntime", "arm-dot/onnxruntime"}
    assert "error 12.0 % on designs held out there, more is to be expected here" in other.words
    slower = estimate_latency(load_device("raspberry-pi-4"), "onnxruntime")
    design = tiny.largest()
    assert slower.predict([design])[0] > own.predict([design])[0] > own.predict([design], "depth")[0] > 0


def test_without_a_fit_rates_are_taken_as_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Space) -> None:
    monkeypatch.setattr("edgemtl.nas.latency.estimate.find_shared", lambda folder, name: None)
    estimate = estimate_latency(load_device("raspberry-pi-5"), "onnxruntime")
    assert (estimate.errors, estimate.fitted_on) == ({}, None)
    assert estimate.words.endswith("since no efficiencies were fitted: its error is not known")
    expected = estimate_ms(
        design_parts(tiny.largest()), roofs_of(load_device("raspberry-pi-5"), "onnxruntime"), UNFITTED
    )
    assert estimate.predict([tiny.largest()])[0] == pytest.approx(expected)


def test_only_a_board_that_nothing_reaches_is_estimated_where_milliseconds_are_asked_for() -> None:
    ms, flops = parse_budget("8ms"), parse_budget("2GFLOPs")
    pi = find_target("onnxruntime", load_device("raspberry-pi-5"))
    assert estimate_for(pi, [flops]) is None
    assert estimate_for(pi, [ms]) is not None and estimate_for(pi, [flops], ("delta_m", "latency")) is not None
    assert estimate_for(find_target("onnxruntime"), [ms]) is None, "this machine is measured"
    message = refused(lambda: estimate_for(find_target("onnxruntime", load_device("x86-avx2")), [ms]))
    assert message.startswith("budget '8ms': device x86-avx2 states no bandwidth and no peak of fp32 on its cpu")
    assert message.endswith("or give FLOPs or MB")


def test_a_jetson_is_estimated_on_its_gpu_in_each_precision(tmp_path: Path) -> None:
    orin = load_device("jetson-orin-nano")
    target = find_target("tensorrt", orin)
    where = space(tmp_path, PAIR, traits=target.traits)
    estimate = estimate_for(target, [parse_budget("8ms@jetson-orin-nano")])
    assert estimate is not None and estimate.runtime == "tensorrt"
    assert estimate.roofs.ops_per_s["fp16"] == 10e12
    plain, half_net, eight_bit, _ = where.uniform(where.largest())
    assert estimate.predict([eight_bit])[0] < estimate.predict([plain])[0]
    assert estimate.predict([half_net])[0] < estimate.predict([plain])[0]
    half = [part("dense", "fp16", 10**9, 4), part("dense", "fp32", 10**9, 4)]
    np.testing.assert_allclose(Workload.of(half, estimate.roofs).ms(UNFITTED), [0.2, 1.5625])
    agx = estimate_latency(load_device("jetson-agx-orin"), "tensorrt")
    assert agx.predict([plain])[0] < estimate.predict([plain])[0]
