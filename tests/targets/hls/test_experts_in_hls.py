"""A layer of experts in fixed point: refused, emulated, and run as C++ by the compiler of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from edgemtl.errors import FileError, UnsupportedError, UserError
from edgemtl.models import Experts
from edgemtl.spaces import ConvPlan, ExpertsPlan
from edgemtl.targets.hls.emulator import emulate, within_capacity
from edgemtl.targets.hls.experts import ExpertsLayer, fixed_experts
from edgemtl.targets.hls.experts_project import simulate_experts, write_experts
from edgemtl.targets.hls.fixed import Format, Integers

TOKENS, WIDTH, HIDDEN = 12, 20, 24
"""No multiples of the linear unit's lanes."""


def plan(
    task: str,
    numbers: Sequence[int] = range(5),
    top_k: int = 2,
    renormalise: bool = False,
    capacity: float | None = None,
) -> ExpertsPlan:
    router = ConvPlan(task, WIDTH, len(numbers), 1, 1, 1, 3, 4)
    first, second = ConvPlan("expand", WIDTH, HIDDEN, 1, 1, 1, 3, 4), ConvPlan("project", HIDDEN, WIDTH, 1, 1, 1, 3, 4)
    return ExpertsPlan(router, tuple(numbers), top_k, first, second, renormalise, capacity=capacity)


def mixture(*plans: ExpertsPlan) -> Experts:
    torch.manual_seed(0)
    return Experts(plans).eval()


def images(count: int = TOKENS) -> torch.Tensor:
    return torch.randn(1, count, WIDTH, generator=torch.Generator().manual_seed(1))


def in_fixed_point(layer: Experts) -> tuple[ExpertsLayer, Integers]:
    fixed = fixed_experts(layer, TOKENS)
    return fixed, fixed.activation.integers(images()[0].numpy())


def difference(layer: Experts, fixed: ExpertsLayer, outputs: Integers, task: str) -> float:
    """The largest from what torch computes in float."""
    with torch.no_grad():
        expected = layer(images(), task)[0].numpy()
    return float(np.abs(fixed.activation.reals(outputs) - expected).max())


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("numbers", [range(5), [3, 0, 4]])
def test_the_emulator_computes_the_layer(renormalise: bool, numbers: Sequence[int]) -> None:
    layer = mixture(plan("semseg", renormalise=renormalise), plan("depth", numbers, renormalise=renormalise))
    fixed, tokens = in_fixed_point(layer)
    for task in ("semseg", "depth"):
        assert difference(layer, fixed, emulate(fixed, tokens, task), task) < 1e-3


def test_an_expert_that_a_task_does_not_reach_counts_for_nothing() -> None:
    fixed, tokens = in_fixed_point(mixture(plan("semseg"), plan("depth", [3, 0, 4])))
    before = emulate(fixed, tokens, "depth")
    fixed.expand.weights[1:3] = 99
    assert (emulate(fixed, tokens, "depth") == before).all()
    assert (emulate(fixed, tokens, "semseg") != emulate(fixed, tokens, "depth")).any()


def test_the_compiled_layer_agrees_with_the_emulator_in_every_bit(tmp_path: Path) -> None:
    layer = mixture(plan("semseg"), plan("depth", [3, 0, 4]))
    fixed, tokens = in_fixed_point(layer)
    files = write_experts(fixed, tokens, tmp_path)
    assert all((tmp_path / file).is_file() for file in files)
    outputs = simulate_experts(tmp_path, fixed)
    for task, result in outputs.items():
        assert (result == emulate(fixed, tokens, task)).all()
        assert difference(layer, fixed, result, task) < 1e-3
    assert not (tmp_path / "moe_test").exists()


def test_an_expert_of_limited_capacity_keeps_the_tokens_that_count_most(tmp_path: Path) -> None:
    layer = mixture(plan("semseg", capacity=0.6), plan("depth", [3, 0, 4], top_k=1, capacity=1.0))
    fixed, tokens = in_fixed_point(layer)
    assert fixed.capacity == {"semseg": 3, "depth": 4} and fixed.top_k == {"semseg": 2, "depth": 1}
    write_experts(fixed, tokens, tmp_path)
    for task, result in simulate_experts(tmp_path, fixed).items():
        assert (result == emulate(fixed, tokens, task)).all()
        assert difference(layer, fixed, result, task) < 1e-3


def test_of_equal_gates_the_earlier_token_keeps_its_place() -> None:
    gates = np.array([[5, 1], [7, 1], [5, 2], [7, 1]])
    assert within_capacity(gates, 3).tolist() == [[5, 1], [7, 1], [0, 2], [7, 0]]


def test_one_bit_that_differs_fails_the_test_bench(tmp_path: Path) -> None:
    layer = mixture(plan("semseg", renormalise=True))
    fixed, tokens = in_fixed_point(layer)
    write_experts(fixed, tokens[:7], tmp_path)
    simulate_experts(tmp_path, fixed)  # fewer tokens than the layer is made for
    changed = bytearray((tmp_path / "expected.bin").read_bytes())
    changed[8] ^= 1
    (tmp_path / "expected.bin").write_bytes(changed)
    with pytest.raises(FileError, match=r"C simulation failed: 1 of 140 values differ"):
        simulate_experts(tmp_path, fixed)


@pytest.mark.slow
def test_the_vendors_integers_compute_the_same(tmp_path: Path) -> None:
    templates = Path(pytest.importorskip("hls4ml").__file__).parent / "templates" / "vivado" / "ap_types"
    fixed, tokens = in_fixed_point(mixture(plan("semseg"), plan("depth", [3, 0, 4])))
    write_experts(fixed, tokens, tmp_path)
    found = simulate_experts(tmp_path, fixed, ("-DEDGEMTL_AP_TYPES", f"-I{templates}"))
    assert found.keys() == {"semseg", "depth"}, "values that differ end it"


@pytest.mark.parametrize(
    ("plans", "refusal"),
    [
        ([plan("depth", renormalise=True), plan("semseg")], "only some tasks of a layer divide gates by their sum"),
    ],
)
def test_what_the_layer_cannot_do_is_refused(plans: list[ExpertsPlan], refusal: str) -> None:
    with pytest.raises(UnsupportedError, match=refusal):
        fixed_experts(mixture(*plans), TOKENS)


def test_sums_that_are_too_wide_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"sums of 7. bits are needed, 63 are possible"):
        fixed_experts(mixture(plan("depth")), TOKENS, Format(40, 30), 24)


def test_a_machine_without_a_compiler_is_told_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, _ = in_fixed_point(mixture(plan("depth")))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs the compiler g\+\+, which is not installed: apt-get install g\+\+"):
        simulate_experts(tmp_path, fixed)
