"""Mixtures of experts: routing, the experts' own tokens, and the losses that keep routing healthy.

M3ViT's layer (Liang et al. 2022): a router per task, or one gate for all tasks, conditioned on the task; softmax,
then top-k, gates as they are; `renormalise` is the option. What a token's experts give is summed by its gates. Built so
that every step is one operator of a static net: `Router`, one `Dispatch` and one MLP an expert, `Combine`. A task that
reaches as many experts as a token goes to needs no routing of tokens at all, only the weighted sum.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.spaces import Condition, ConvPlan, ExpertsPlan, expert_capacity

__all__ = [
    "Combine",
    "Dispatch",
    "Experts",
    "Router",
    "TaskConditionedRouter",
    "TaskGate",
    "apply_capacity",
    "balance_loss",
    "routing_loss",
    "sparse_gates",
    "task_expert_information",
]

_EPSILON = 1e-10
_EMBEDDING = 64


class Router(nn.Linear):
    """Gates of one task: softmax over its experts, all but the `top_k` largest of a token set to 0.

    In training, noise of the plan's standard deviation over the number of experts is added to the logits (V-MoE), and
    the probabilities before top-k are kept for the losses. Gates are FP32, whatever the rest is computed in, and in the
    order of the experts' numbers, so that tasks which reach the same experts run the same operators.
    """

    def __init__(self, plan: ExpertsPlan) -> None:
        super().__init__(plan.router.inputs, plan.router.outputs)
        self.routing = _Routing(plan)
        # Weights are in the order of the plan, where a smaller window of experts is the beginning of a larger one.
        self._order = [plan.numbers.index(number) for number in sorted(plan.numbers)]
        self._in_order = self._order == sorted(self._order)

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weight (experts, C) and bias, in the order of the experts' numbers."""
        return self.weight[self._order], self.bias[self._order]

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, C) to (N, tokens, experts)."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight.float(), self.bias.float())
            return self.routing.gates(logits if self._in_order else logits[..., self._order], self.training)


class TaskGate(nn.Module):
    """One gate for all tasks, which reads a token and an embedding of the task (M3ViT's task-conditioned router).

    The task, one-hot, goes through two linear layers with ReLU; what they give is joined to every token.
    """

    def __init__(self, width: int, condition: Condition) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(condition.tasks, _EMBEDDING), nn.ReLU(), nn.Linear(_EMBEDDING, _EMBEDDING), nn.ReLU()
        )
        self.score = nn.Linear(width + _EMBEDDING, condition.experts)

    def embedding(self, condition: Condition) -> Tensor:
        """Task embedding for the gate: (64,)."""
        tasks = torch.eye(condition.tasks, dtype=self.score.weight.dtype, device=self.score.weight.device)
        embedded: Tensor = self.embed(tasks[condition.task])
        return embedded


class TaskConditionedRouter(nn.Module):
    """The shared gate conditioned on a task: a router without parameters, with the same gates as a `Router`."""

    def __init__(self, plan: ExpertsPlan, condition: Condition, gate: TaskGate) -> None:
        super().__init__()
        self.routing, self.condition, self.numbers = _Routing(plan), condition, sorted(plan.numbers)
        self._gate = (gate,)  # the layer's module, not this one's: its parameters have one name

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weight (experts, C) and bias of the router that the gate is for this task.

        The task does not depend on the token, so its part of the logits is a bias.
        """
        gate = self._gate[0]
        weight, of_task = torch.split(gate.score.weight, [gate.score.in_features - _EMBEDDING, _EMBEDDING], 1)
        bias = gate.score.bias + of_task @ gate.embedding(self.condition)
        return weight[self.numbers], bias[self.numbers]

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, C) to (N, tokens, experts)."""
        gate = self._gate[0]
        with torch.autocast(x.device.type, enabled=False):
            embedded = gate.embedding(self.condition).expand(*x.shape[:-1], _EMBEDDING)
            return self.routing.gates(
                gate.score(torch.cat([x.float(), embedded], -1))[..., self.numbers], self.training
            )


class _Routing:
    """From logits to gates, by a plan's noise, top-k and capacity; keeps the last probabilities in training."""

    def __init__(self, plan: ExpertsPlan) -> None:
        self.plan = plan
        self.probabilities: Tensor | None = None

    def gates(self, logits: Tensor, training: bool) -> Tensor:
        tokens, experts = logits.shape[-2:]
        if training and self.plan.noise:
            logits = logits + torch.randn_like(logits) * (self.plan.noise / experts)
        probabilities = torch.softmax(logits, -1)
        self.probabilities = probabilities if training else None
        gates = sparse_gates(probabilities, self.plan.top_k, self.plan.renormalise)
        return apply_capacity(gates, expert_capacity(self.plan.capacity, tokens, experts, self.plan.top_k))


def sparse_gates(probabilities: Tensor, top_k: int, renormalise: bool) -> Tensor:
    """The `top_k` largest probabilities of each token, in their positions; 0 elsewhere."""
    values, chosen = probabilities.topk(top_k, -1)
    if renormalise:
        values = values / values.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, chosen, values)


def apply_capacity(gates: Tensor, limit: int) -> Tensor:
    """Sparse gates (..., tokens, experts) of which each expert keeps the `limit` largest of an image; 0 elsewhere.

    V-MoE's batch prioritised routing: what an expert has no place for is what it would have counted least in. Of equal
    gates that of the earlier token is kept.
    """
    if limit >= gates.shape[-2]:
        return gates
    first = torch.sort(gates.detach(), dim=-2, descending=True, stable=True).indices[..., :limit, :]
    return gates * torch.zeros_like(gates).scatter(-2, first, 1.0)


class Dispatch(nn.Module):
    """The tokens that one expert gets, in order: (tokens of the whole batch, C)."""

    def forward(self, x: Tensor, gates: Tensor, position: int) -> Tensor:
        """`position` is the expert's column of `gates`."""
        return x.flatten(0, 1).index_select(0, _tokens_of(gates, position))


class Combine(nn.Module):
    """Sum of the experts' outputs, each at its token and weighted by its gate."""

    def forward(self, gates: Tensor, *given: Tensor) -> Tensor:
        """Gates (N, tokens, experts) and one (its tokens, C) an expert to (N, tokens, C)."""
        flat, width = gates.flatten(0, 1), given[0].shape[-1]
        total = torch.zeros(len(flat), width, dtype=given[0].dtype, device=gates.device)
        for index, result in enumerate(given):
            tokens = _tokens_of(gates, index)
            gate = flat[:, index : index + 1].index_select(0, tokens).to(result.dtype)
            total = total.index_add(0, tokens, gate * result)
        return total.view(*gates.shape[:-1], width)


def _tokens_of(gates: Tensor, position: int) -> Tensor:
    """Which tokens of the whole batch one expert gets, in order."""
    return (gates[..., position].flatten() > 0).nonzero().squeeze(1)


class Experts(nn.Module):
    """The experts of one layer and a router for every task that comes by; every task's copy shares the experts."""

    def __init__(self, plans: Sequence[ExpertsPlan]) -> None:
        super().__init__()
        condition = plans[0].condition
        self.gate = None if condition is None else TaskGate(plans[0].router.inputs, condition)
        self.routers = nn.ModuleDict({plan.router.name: _router(plan, self.gate) for plan in plans})
        self.numbers = {plan.router.name: sorted(plan.numbers) for plan in plans}
        every = {number: plan for plan in plans for number in plan.numbers}
        self.experts = nn.ModuleDict({str(n): _expert(every[n].first, every[n].second) for n in sorted(every)})
        self.take, self.combine = Dispatch(), Combine()

    def forward(self, x: Tensor, router: str) -> Tensor:
        """(N, tokens, C) to the same, through the experts that the router named `router` chooses."""
        gates = self.routers[router](x)
        if self.training:
            return self._sorted(x, gates, router)
        numbers = enumerate(self.numbers[router])
        out: Tensor = self.combine(
            gates, *(self.experts[str(n)](self.take(x, gates, position)) for position, n in numbers)
        )
        return out

    def router(self, name: str) -> Router | TaskConditionedRouter:
        """The router called `name`."""
        router = self.routers[name]
        assert isinstance(router, (Router, TaskConditionedRouter))
        return router

    def _sorted(self, x: Tensor, gates: Tensor, router: str) -> Tensor:
        """The same with all tokens gathered at once: one gather and one sum to differentiate, not two an expert."""
        flat, by_expert = x.flatten(0, 1), gates.flatten(0, 1).T
        tokens = (by_expert > 0).nonzero()[:, 1]
        parts = torch.split(flat.index_select(0, tokens), (by_expert > 0).sum(1).tolist())
        numbers = self.numbers[router]
        results = torch.cat([self.experts[str(n)](part) for n, part in zip(numbers, parts, strict=True)])
        weighted = by_expert[by_expert > 0][:, None].to(results.dtype) * results
        return torch.zeros_like(flat, dtype=results.dtype).index_add(0, tokens, weighted).view_as(x)


def _router(plan: ExpertsPlan, gate: TaskGate | None) -> Router | TaskConditionedRouter:
    return Router(plan) if gate is None or plan.condition is None else TaskConditionedRouter(plan, plan.condition, gate)


def _expert(first: ConvPlan, second: ConvPlan) -> nn.Sequential:
    expand, project = nn.Linear(first.inputs, first.outputs), nn.Linear(second.inputs, second.outputs)
    return nn.Sequential(OrderedDict([(first.name, expand), ("act", nn.GELU()), (second.name, project)]))


def balance_loss(probabilities: Tensor, top_k: int) -> Tensor:
    """How unevenly experts are used: squared coefficients of variation of importance and of load, summed.

    Importance is an expert's sum of kept gates, load how many tokens it gets (Shazeer et al. 2017); the latter is a
    count, so the former alone has a gradient. `probabilities` (N, tokens, experts) are those before top-k.
    """
    gates = sparse_gates(probabilities, top_k, False).flatten(0, -2)
    return _variation(gates.sum(0)) + _variation((gates > 0).float().sum(0))


def _variation(values: Tensor) -> Tensor:
    return values.var() / (values.mean() ** 2 + _EPSILON) if len(values) > 1 else values.sum() * 0


def task_expert_information(probabilities: Sequence[Tensor]) -> Tensor:
    """Mutual information of tasks and experts in nats (Mod-Squad, Chen et al. 2023); to be raised, so subtract it.

    One tensor (N, tokens, experts) a task, all over the same experts. 0 where every task uses experts alike, the
    logarithm of the number of tasks where no two share one.
    """
    joint = torch.stack([p.flatten(0, -2).mean(0) for p in probabilities]) / len(probabilities)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * (torch.log(joint + _EPSILON) - torch.log(independent + _EPSILON))).sum()


def routing_loss(net: nn.Module) -> Tensor | None:
    """Losses of the routers in a net's last training step: `balance_loss` less `task_expert_information`, all layers.

    None where the net has no router. The probabilities are released, so that each forward pass counts once.
    """
    losses = []
    for layer in (module for module in net.modules() if isinstance(module, Experts)):
        tasks, every = [], sorted(map(int, layer.experts))
        for name in layer.routers:
            routing = layer.router(name).routing
            if routing.probabilities is not None:
                losses.append(balance_loss(routing.probabilities, routing.plan.top_k))
                tasks.append(_over_all(routing.probabilities, layer.numbers[name], every))
                routing.probabilities = None
        if len(tasks) > 1:
            losses.append(-task_expert_information(tasks))
    return torch.stack(losses).sum() if losses else None


def _over_all(probabilities: Tensor, numbers: Sequence[int], every: Sequence[int]) -> Tensor:
    """Probabilities of a task's own experts, in their positions among `every` expert of the layer."""
    positions = torch.tensor([every.index(number) for number in numbers], device=probabilities.device)
    wider = torch.zeros(*probabilities.shape[:-1], len(every), device=probabilities.device)
    return wider.index_copy(-1, positions, probabilities)
