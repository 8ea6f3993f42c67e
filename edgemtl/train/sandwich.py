"""A step of a supernet's training: the sandwich rule, with in-place and feature distillation."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgemtl.data import Batch
from edgemtl.models import Activations, SharedWeights
from edgemtl.spaces import DesignSource, Values
from edgemtl.tasks import map_outputs
from edgemtl.train.distill import StageEnd, differing_stages, feature_distance, stage_ends
from edgemtl.train.loop import Optimized
from edgemtl.train.losses import distillation_loss, label_loss, label_tensors, planes, prepared, to_device
from edgemtl.train.recipe import Recipe
from edgemtl.train.weighting import Weighting, make_weighting

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["SupernetTraining"]

_BF16 = "computed_in_bf16"
ROUTING_WEIGHT = 0.01
"""Of the losses that keep experts in use and apart by task (M3ViT, Mod-Squad); nets without experts have none."""


@dataclass(frozen=True)
class _Passed:
    """A design's forward pass: by task what its losses read, and the features at the ends of its stages."""

    outputs: Mapping[str, Mapping[str, Tensor]]
    features: Mapping[StageEnd, Tensor]

    def detached(self) -> _Passed:
        """The same without gradients: a teacher."""
        features = {end: value.detach() for end, value in self.features.items()}
        return _Passed(map_outputs(Tensor.detach, self.outputs), features)


class SupernetTraining:
    """The largest design of a space, then narrower ones that it teaches, on every batch.

    Satisfies `edgemtl.train.loop.Training`. `average` holds the moving average of the weights by name, `loss_sums` the
    losses since `mean_losses` was called, as tensors (to read one in every step would have a GPU wait), and `trained`
    how many designs of each role they are of.
    """

    def __init__(
        self,
        space: DesignSource,
        recipe: Recipe,
        supernet: SharedWeights,
        teacher: nn.Module | None,
        accelerator: Accelerator,
    ) -> None:
        self.space, self.recipe, self.accelerator = space, recipe, accelerator
        self.bf16 = recipe.computes_bf16()
        self.supernet = supernet.to(accelerator.device)
        # With the batch's statistics where its pupils have these: those of whole images mislead it about zoomed ones.
        batch_statistics = not supernet.has_statistics
        self.teacher = teacher and copy.deepcopy(teacher).to(accelerator.device).train(batch_statistics)
        self.stages = differing_stages(space)
        own = [task.name for task in space.tasks]
        self.weighting: Weighting = make_weighting(recipe.weighting, own, accelerator.device)
        names: dict[Tensor, str] = {parameter: name for name, parameter in supernet.shared.items()}
        names |= {parameter: f"weighting{number}" for number, parameter in enumerate(self.weighting.parameters())}
        optimizer = torch.optim.AdamW(decay_groups(names, recipe), lr=recipe.learning_rate)
        self.weights = Optimized(names, accelerator.prepare(optimizer))
        self.average = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
        self.loss_sums: dict[str, Tensor] = {}
        self.trained: Counter[str] = Counter()

    @property
    def optimized(self) -> Sequence[Optimized]:
        """The shared weights, and the task weighting's parameters where it has any."""
        return (self.weights,)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights, and whether it computes in BF16: the next time that may be measured as the slower."""
        return {f"average.{name}": value for name, value in self.average.items()} | {_BF16: torch.tensor(self.bf16)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for name, value in self.average.items():
            value.copy_(state[f"average.{name}"])
        self.bf16 = bool(state[_BF16]) if _BF16 in state else self.bf16

    def one_step(self, step: int, batch: Batch) -> None:
        """Train the largest design and, once the sandwich has begun, narrow ones on a batch."""
        device = self.accelerator.device
        image = to_device(torch.from_numpy(batch.image), device).contiguous(memory_format=torch.channels_last)
        labels = {
            name: (label_tensors(batch.targets[name], device), label_tensors(batch.masks[name], device))
            for name in batch.targets
        }
        teacher = self._teach(image)
        if self.recipe.ends_at(step):
            teacher = self._design_step("largest", step, image, labels, self.space.largest(), teacher)
        elif teacher is None:
            teacher = self._largest(image)
        for values in self.narrow_designs(step):
            self._design_step("narrow", step, image, labels, values, teacher)
        self._average_gradients()
        self.weights.update(self.recipe.rate_at(step))
        self._average_weights(step)

    def mean_losses(self) -> dict[str, float]:
        """Mean losses of the designs trained since the last call, by role and task."""
        means = {name: float(value) / self.trained[name.split(".")[0]] for name, value in self.loss_sums.items()}
        self.loss_sums, self.trained = {}, Counter()
        return means

    def _teach(self, image: Tensor) -> _Passed | None:
        if self.teacher is None:
            return None
        with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            return _Passed(self._prepared(self.teacher(image)), {})

    def _largest(self, image: Tensor) -> _Passed:
        """The largest design's forward pass as a teacher, where it is not trained itself."""
        values = self.space.largest()
        with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            made = self.supernet(image, values)
            return _Passed(self._prepared(made.outputs), self._features(values, made))

    def _prepared(self, outputs: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Mapping[str, Tensor]]:
        own = map_outputs(planes, outputs)
        return {task.name: prepared(task, own[task.name]) for task in self.space.tasks}

    def narrow_designs(self, step: int) -> list[Values]:
        """The designs that a step trains, taught by the largest one; none before the sandwich begins.

        A step without the sandwich's ends has a random design in the smallest one's place.
        """
        if not self.recipe.sandwich_at(step):
            return []
        rng = random.Random(f"{self.recipe.seed}/{step}")  # the same designs in every process
        drawn = [self.space.random(rng) for _ in range(self.recipe.random_designs)]
        return [self.space.smallest() if self.recipe.ends_at(step) else self.space.random(rng), *drawn]

    def _design_step(
        self,
        role: str,
        step: int,
        image: Tensor,
        labels: Mapping[str, tuple[Tensor, Tensor]],
        values: Values,
        teacher: _Passed | None,
    ) -> _Passed:
        """Forward and backward of one design; what it gave, without gradients, to teach narrower ones."""
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            made: Activations = self.supernet(image, values)
        given = _Passed(self._prepared(made.outputs), self._features(values, made))
        outputs, tasks = given.outputs, self.space.tasks
        losses = {task.name: label_loss(task, outputs[task.name], *labels[task.name]) for task in tasks}
        extra: Tensor | None = None
        if teacher is not None:
            share = self.recipe.label_share
            soft = {t.name: distillation_loss(t, outputs[t.name], teacher.outputs[t.name]) for t in tasks}
            losses = {name: share * loss + (1 - share) * soft[name] for name, loss in losses.items()}
            if teacher.features:
                extra = self._feature_weight(step) * feature_distance(given.features, teacher.features)
        if made.routing is not None:
            routing = ROUTING_WEIGHT * made.routing
            extra = routing if extra is None else extra + routing
        self.trained[role] += 1
        for name, loss in losses.items():
            key = f"{role}.{name}"
            self.loss_sums[key] = self.loss_sums[key] + loss.detach() if key in self.loss_sums else loss.detach()
        self.weighting.backward(losses, extra, list(made.trunk.values()), self.accelerator.backward)
        return given.detached()

    def _features(self, values: Values, made: Activations) -> dict[StageEnd, Tensor]:
        blocks = {**made.trunk, **made.private}
        ends = stage_ends(self.space.plan(values), self.space.stages)
        return {end: blocks[name] for end, name in ends.items() if end[0] in self.stages}

    def _feature_weight(self, step: int) -> float:
        began = self.recipe.largest_steps * self.recipe.steps
        return self.recipe.feature_weight * min(1.0, (step - began) / (0.1 * (self.recipe.steps - began) + 1))

    def _average_gradients(self) -> None:
        """Average gradients over processes; parameters that no design of this step used have none."""
        if self.accelerator.num_processes == 1:
            return
        parameters = list(self.weights.names)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        parts = torch.split(self.accelerator.reduce(flat, "mean"), [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _average_weights(self, step: int) -> None:
        decay = min(self.recipe.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, parameter in self.supernet.shared.items():
                self.average[name].lerp_(parameter, 1 - decay)


def decay_groups(names: Mapping[Tensor, str], recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups with weight decay on matrices and kernels only; not on biases, norms or depthwise filters."""
    decayed = [p for p in names if p.ndim > 1 and p.shape[1] > 1]
    plain = [p for p in names if not (p.ndim > 1 and p.shape[1] > 1)]
    return [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
