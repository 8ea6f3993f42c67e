from __future__ import annotations

import numpy as np
import torch

from edgemtl.targets.hls.emulator import exp_of_minus, gelu, gelu_table, route
from edgemtl.targets.hls.experts import EXP, GATE, LOGIT
from edgemtl.targets.hls.fixed import Format

ACTIVATION = Format(24, 18)
RNG = np.random.default_rng(0)


def test_gelu_is_relu_less_a_table_of_177_entries() -> None:
    table = ACTIVATION.reals(gelu_table(ACTIVATION))
    assert len(table) == 177
    assert 0.1699 < table.max() < 0.17


def test_gelu_is_that_of_torch() -> None:
    values = np.concatenate([np.linspace(-8, 8, 4001), [-32.0, 31.99, 5.5, -5.5, 5.49999, 0.0]])
    integers = ACTIVATION.integers(values)
    expected = torch.nn.functional.gelu(torch.from_numpy(ACTIVATION.reals(integers))).numpy()
    # an interpolated table in steps h is off by h^2/8 times the second derivative, 0.8 at 0
    assert np.abs(ACTIVATION.reals(gelu(integers, ACTIVATION)) - expected).max() < 0.8 / 32**2 / 8 + 2**-17


def test_exponentials_of_distances_are_close_and_never_rise() -> None:
    distances = np.linspace(0, 30, 5001)
    result = exp_of_minus(LOGIT.integers(distances))
    assert np.abs(EXP.reals(result) - np.exp(-distances)).max() < 2e-5
    assert (np.diff(result) <= 0).all()
    assert exp_of_minus(LOGIT.integers([0.0, 2000.0])).tolist() == [1 << EXP.fraction, 0]


def gates_in_float(logits: np.ndarray, top_k: int, renormalise: bool) -> np.ndarray:
    probabilities = torch.softmax(torch.from_numpy(logits), -1)
    values, chosen = probabilities.topk(top_k, -1)
    if renormalise:
        values = values / values.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, chosen, values).numpy()


def test_one_pass_over_the_logits_gives_the_gates_of_softmax_and_top_k() -> None:
    rising, falling = np.arange(12.0) * 3 - 20, 20 - np.arange(12.0) * 3
    logits = np.stack([rising, falling, *RNG.standard_normal((300, 12)) * 4])
    for renormalise in (False, True):
        gates = GATE.reals(route(LOGIT.integers(logits), 3, renormalise))
        assert np.abs(gates - gates_in_float(logits, 3, renormalise)).max() < 5e-5


def test_of_equal_logits_the_earlier_experts_are_chosen() -> None:
    logits = LOGIT.integers([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert (route(logits, 2, False) > 0).tolist() == [[False, True, True, False], [True, True, False, False]]
