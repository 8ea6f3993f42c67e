from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import Toys, toy_space

from edgemtl.errors import MissingDependencyError, UserError
from edgemtl.train import InitialWeights, Recipe, fresh_supernet, train_supernet, weighting_names
from edgemtl.train.weighting import Aggregated, Uncertainty, Weighting, make_weighting

AGGREGATORS = [name for name in weighting_names() if name not in ("equal", "uncertainty")]


class TwoTasks:
    """A trunk of two layers whose both outputs feed two decoders, as a feature pyramid does."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def matrix(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

        self.trunk = [matrix(4, 6), matrix(6, 5)]
        self.heads = {"x": matrix(6 + 5, 1), "y": matrix(6 + 5, 2)}
        self.image = torch.randn(7, 4, generator=generator, dtype=torch.float64)
        self.idle = matrix(5, 3)

    def forward(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        early = torch.tanh(self.image @ self.trunk[0])
        late = torch.tanh(early @ self.trunk[1])
        unread = late @ self.idle
        both = torch.cat([early, late], 1)
        losses = {"x": (both @ self.heads["x"]).square().mean(), "y": (both @ self.heads["y"] + 3).square().mean()}
        return losses, [early, late, unread]

    def gradients(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, self.trunk, retain_graph=True))

    def clear(self) -> None:
        for parameter in (*self.trunk, *self.heads.values()):
            parameter.grad = None

    def backward(self, weighting: Weighting, extra: Callable[[list[Tensor]], Tensor] | None = None) -> list[Tensor]:
        """The gradients that the trunk gets."""
        losses, features = self.forward()
        weighting.backward(losses, None if extra is None else extra(features), features, lambda loss: loss.backward())
        found = [parameter.grad for parameter in self.trunk]
        assert all(gradient is not None for gradient in found)
        return [gradient.clone() for gradient in found if gradient is not None]


def flat(gradients: list[Tensor]) -> np.ndarray:
    return torch.cat([gradient.flatten() for gradient in gradients]).numpy()


def rows(net: TwoTasks) -> tuple[np.ndarray, np.ndarray]:
    losses, _ = net.forward()
    return flat(net.gradients(losses["x"])), flat(net.gradients(losses["y"]))


def test_equal_is_the_sum_of_the_gradients() -> None:
    net = TwoTasks()
    first, second = rows(net)
    np.testing.assert_allclose(flat(net.backward(make_weighting("equal", ["x", "y"]))), first + second, rtol=1e-9)


def test_uncertainty_divides_by_a_learnt_variance() -> None:
    net = TwoTasks()
    weighting = Uncertainty(["x", "y"])
    subsample = {"x": 0.7, "y": -1.3}
    with torch.no_grad():
        for task, value in subsample.items():
            weighting.log_variance[task].fill_(value)
    losses, _ = net.forward()
    first, second = rows(net)
    expected = math.exp(-0.7) * first + math.exp(1.3) * second
    np.testing.assert_allclose(flat(net.backward(weighting)), expected, atol=1e-6 * np.abs(expected).max())
    # d/ds of loss * exp(-s) + s / 2, whose zero is a variance of twice the loss
    for task, parameter in zip(subsample, weighting.parameters(), strict=True):
        assert parameter.grad is not None
        wanted = 0.5 - float(losses[task].detach()) * math.exp(-subsample[task])
        assert float(parameter.grad) == pytest.approx(wanted, rel=1e-5)


def test_uncertainty_finds_twice_each_loss() -> None:
    weighting = Uncertainty(["x", "y"])
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(60):
        losses = {"x": torch.tensor(0.3), "y": torch.tensor(5.0)}
        optimizer.zero_grad()
        weighting.backward(losses, None, [], lambda loss: loss.backward())
        optimizer.step()
    variances = [math.exp(float(parameter.detach())) for parameter in weighting.parameters()]
    assert variances == pytest.approx([0.6, 10.0], rel=1e-3)


def without_conflict(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """PCGrad for two tasks: each gradient less its part against the other."""

    def projected(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return one - min(0.0, float(one @ other)) / float(other @ other) * other

    return projected(first, second) + projected(second, first)


def shortest(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """MGDA for two tasks: the shortest vector between both gradients."""
    share = float((second - first) @ second) / float((first - second) @ (first - second))
    share = min(1.0, max(0.0, share))
    return share * first + (1 - share) * second


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("name", "formula"), [("pcgrad", without_conflict), ("mgda", shortest)])
def test_aggregators_see_the_gradient_of_each_task_once(
    name: str, formula: Callable[[np.ndarray, np.ndarray], np.ndarray], seed: int
) -> None:
    net = TwoTasks(seed)
    weighting = make_weighting(name, ["x", "y"])
    expected = formula(*rows(net))
    tolerance = 1e-6 if name == "pcgrad" else 0.02  # MGDA goes there step by step
    np.testing.assert_allclose(flat(net.backward(weighting)), expected, atol=tolerance * np.abs(expected).max())


def test_some_of_the_gradients_conflict() -> None:
    signs = {float(np.sign(np.dot(*rows(TwoTasks(seed))))) for seed in range(6)}
    assert signs == {-1.0, 1.0}


def test_a_decoder_gets_its_own_task_s_gradient_and_the_trunk_the_extra_loss_as_it_is() -> None:
    net = TwoTasks(1)
    losses, features = net.forward()
    own = {task: torch.autograd.grad(losses[task], head, retain_graph=True)[0] for task, head in net.heads.items()}
    added = flat(net.gradients(features[1].sum()))
    weighting = make_weighting("pcgrad", ["x", "y"])
    alone = flat(net.backward(weighting))
    for task, head in net.heads.items():
        assert head.grad is not None
        torch.testing.assert_close(head.grad, own[task])
    net.clear()
    np.testing.assert_allclose(flat(net.backward(weighting, lambda f: f[1].sum())), alone + added, rtol=1e-9)
    assert net.idle.grad is None


def test_gradients_of_several_designs_add_up() -> None:
    net = TwoTasks(2)
    weighting = Aggregated(lambda matrix: matrix.sum(0))
    once = flat(net.backward(weighting))
    np.testing.assert_allclose(flat(net.backward(weighting)), 2 * once, rtol=1e-9)
    assert net.heads["x"].grad is not None


def test_names_are_known_and_unknown_ones_answered() -> None:
    assert {"equal", "uncertainty", "pcgrad", "cagrad", "nash-mtl", "upgrad"} <= set(weighting_names())
    with pytest.raises(UserError, match="unknown task weighting 'pc-grad': did you mean pcgrad"):
        make_weighting("pc-grad", ["x"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, Tensor]]:
    """What two steps of training with a weighting leave."""
    folder = tmp_path_factory.mktemp("runs")
    space, source = toy_space(folder), Toys()

    @cache
    def train(name: str) -> Mapping[str, Tensor]:
        supernet = fresh_supernet(space, 0)
        recipe = Recipe(steps=2, batch=2, sizes=(1.0,), largest_steps=0.5, weighting=name, bf16=False)
        train_supernet(space, source, recipe, folder / name, initial=InitialWeights(supernet))
        return {key: parameter.detach() for key, parameter in supernet.shared.items()}

    return train


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_aggregator_trains_or_says_what_it_needs(
    name: str, trained: Callable[[str], Mapping[str, Tensor]]
) -> None:
    try:
        make_weighting(name, ["semseg", "depth"])
    except UserError as error:
        assert f"task weighting {name} needs a solver that is not installed: pip install 'torchjd[" in str(error)
        pytest.skip(str(error))
    found, equal = trained(name), trained("equal")
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert any(not torch.equal(found[key], equal[key]) for key in found)


def test_without_torchjd_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(
        MissingDependencyError, match=r"task weighting pcgrad needs .* pip install 'edgemtl\[torchjd\]'"
    ):
        make_weighting("pcgrad", ["x", "y"])
    assert make_weighting("equal", ["x", "y"]).parameters() == []


def test_a_task_may_be_called_like_what_torch_modules_have() -> None:
    assert len(Uncertainty(["type", "depth"]).parameters()) == 2
