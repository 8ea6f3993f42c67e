from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgemtl.errors import UserError
from edgemtl.models.nets.experts import (
    Experts,
    Router,
    balance_loss,
    routing_loss,
    sparse_gates,
    task_expert_information,
)
from edgemtl.spaces.plan import Condition, ConvPlan, ExpertsPlan


def plan(numbers: tuple[int, ...], top_k: int, task: str = "depth", renormalise: bool = False) -> ExpertsPlan:
    linear = ConvPlan("first", 8, 12, 1, 1, 1, 3, 4)
    second = ConvPlan("second", 12, 8, 1, 1, 1, 3, 4)
    return ExpertsPlan(ConvPlan(task, 8, len(numbers), 1, 1, 1, 3, 4), numbers, top_k, linear, second, renormalise)


def one_by_one(layer: Experts, numbers: tuple[int, ...], x: Tensor, task: str, top_k: int, renormalise: bool) -> Tensor:
    """The published sum, token by token and expert by expert: y = sum over the top k of p_k f_k(x)."""
    router, out = layer.routers[task], torch.zeros_like(x)
    for image in range(x.shape[0]):
        for token in range(x.shape[1]):
            vector = x[image, token]
            p = torch.softmax(router.weight @ vector + router.bias, 0)  # in the order of the plan
            best = sorted(range(len(p)), key=lambda e: -float(p[e]))[:top_k]
            total = sum(float(p[e]) for e in best) if renormalise else 1.0
            for e in best:
                expert = layer.experts[str(numbers[e])]
                hidden = torch.nn.functional.gelu(expert.first.weight @ vector + expert.first.bias)
                out[image, token] += p[e] / total * (expert.second.weight @ hidden + expert.second.bias)
    return out


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(("numbers", "top_k"), [((0, 1, 2, 3), 2), ((2, 3, 0), 1), ((5, 1), 2)])
def test_the_layer_is_the_published_sum(numbers: tuple[int, ...], top_k: int, renormalise: bool) -> None:
    torch.manual_seed(0)
    layer = Experts([plan(numbers, top_k, renormalise=renormalise)]).eval()
    x = torch.randn(2, 12, 8)
    with torch.no_grad():
        assert torch.allclose(layer(x, "depth"), one_by_one(layer, numbers, x, "depth", top_k, renormalise), atol=1e-5)


def test_tasks_share_experts_and_have_routers_of_their_own() -> None:
    layer = Experts([plan((0, 1, 2), 1), plan((2, 3, 0), 1, "edges")])
    assert sorted(layer.experts) == ["0", "1", "2", "3"]
    x = torch.randn(1, 12, 8)
    layer(x, "depth").sum().backward()
    assert layer.routers["depth"].weight.grad is not None
    assert layer.routers["edges"].weight.grad is None
    assert layer.experts["3"].first.weight.grad is None


@settings(deadline=None, max_examples=30)
@given(experts=st.integers(1, 9), tokens=st.integers(1, 20), seed=st.integers(0, 99), data=st.data())
def test_gates_keep_the_largest_and_nothing_else(experts: int, tokens: int, seed: int, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, experts))
    p = torch.softmax(torch.randn(1, tokens, experts, generator=torch.Generator().manual_seed(seed)), -1)
    gates = sparse_gates(p, top_k, False)
    assert (gates > 0).sum(-1).eq(top_k).all()
    assert torch.equal(gates[gates > 0], p[gates > 0])
    assert torch.allclose(sparse_gates(p, top_k, True).sum(-1), torch.ones(1, tokens))
    if top_k < experts:
        dropped = p.masked_fill(gates > 0, 0).amax(-1)
        assert (dropped <= gates.masked_fill(gates == 0, 2).amin(-1)).all()


def test_a_gate_of_all_tasks_joins_the_task_to_every_token() -> None:
    """M3ViT's equations 6 and 7: softmax(W [x; e(task)] + b), here among the experts of the task's window only."""
    torch.manual_seed(0)
    plans = [
        replace(plan(numbers, 2, task), condition=Condition(index, 2, 4))
        for index, (task, numbers) in enumerate({"depth": (0, 1, 2), "edges": (3, 0, 1)}.items())
    ]
    layer, x = Experts(plans).train(), torch.randn(1, 12, 8)
    for index, (task, numbers) in enumerate({"depth": [0, 1, 2], "edges": [3, 0, 1]}.items()):
        layer(x, task)
        assert layer.gate is not None
        embedding = layer.gate.embed(torch.nn.functional.one_hot(torch.tensor(index), 2).float())
        joined = torch.cat([x, embedding.expand(1, 12, -1)], -1)
        logits = joined @ layer.gate.score.weight.T + layer.gate.score.bias
        assert torch.allclose(
            layer.routers[task].routing.probabilities, logits[..., sorted(numbers)].softmax(-1), atol=1e-6
        )


def test_training_computes_the_same_all_at_once() -> None:
    torch.manual_seed(0)
    layer, x = Experts([plan((2, 0, 3, 1), 2)]), torch.randn(2, 12, 8)
    results, gradients = [], []
    for mode in (True, False):
        layer.train(mode).zero_grad()
        results.append(layer(x, "depth"))
        results[-1].square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters() if p.grad is not None])
    assert torch.allclose(results[0], results[1], atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_noise_moves_gates_in_training_only() -> None:
    torch.manual_seed(0)
    router = Router(replace(plan((0, 1, 2, 3), 2), noise=4.0))
    x = torch.randn(1, 12, 8)
    assert not torch.equal(router(x), router(x))
    assert router.routing.probabilities is not None
    router.eval()
    assert torch.equal(router(x), router(x))
    assert router.routing.probabilities is None


def test_balance_is_least_where_all_experts_are_used_alike() -> None:
    even = torch.eye(4).repeat(1, 3, 1)
    one = torch.tensor([1.0, 0, 0, 0]).repeat(1, 12, 1)
    assert float(balance_loss(even, 1)) == pytest.approx(0, abs=1e-6)
    # One expert takes all: the mean is a quarter of the sum, the variance (unbiased) a quarter of its square.
    assert float(balance_loss(one, 1)) == pytest.approx(2 * (0.25 / 0.0625), rel=1e-4)


def test_information_of_tasks_and_experts() -> None:
    alike = torch.full((1, 5, 4), 0.25)
    first, second = torch.zeros(1, 5, 4), torch.zeros(1, 5, 4)
    first[..., 0], second[..., 3] = 1, 1
    assert float(task_expert_information([alike, alike])) == pytest.approx(0, abs=1e-6)
    assert float(task_expert_information([first, second])) == pytest.approx(math.log(2), rel=1e-5)


def test_routing_loss_counts_each_pass_once() -> None:
    layer = Experts([plan((0, 1, 2), 1), plan((2, 3, 0), 1, "edges")])
    assert routing_loss(nn.Linear(2, 2)) is None
    assert routing_loss(layer.eval()) is None
    x = torch.randn(2, 12, 8)
    layer.train()
    for router in layer.routers.values():
        nn.init.zeros_(router.bias)
    for task in ("depth", "edges"):
        layer(x, task)
    p = {name: torch.softmax(router.weight @ x[..., None], -2)[..., 0] for name, router in layer.routers.items()}
    wider = [torch.zeros(2, 12, 4), torch.zeros(2, 12, 4)]
    wider[0][..., [0, 1, 2]], wider[1][..., [2, 3, 0]] = p["depth"], p["edges"]
    expected = sum(balance_loss(each, 1) for each in p.values()) - task_expert_information(wider)
    found = routing_loss(layer)
    assert found is not None
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    found.backward()
    assert layer.routers["depth"].weight.grad is not None
    assert routing_loss(layer) is None


@pytest.mark.parametrize("top_k", [0, 4])
def test_more_experts_than_there_are(top_k: int) -> None:
    with pytest.raises(UserError, match=f"top-{top_k} routing among 3 experts: give 1 to 3"):
        plan((0, 1, 2), top_k)


def test_a_task_without_experts() -> None:
    with pytest.raises(UserError, match="reaches no expert: keep one or more for every task"):
        plan((), 1)
