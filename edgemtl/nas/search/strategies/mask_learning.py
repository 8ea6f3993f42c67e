"""Learning every task's mask together with the supernet's weights: one pass an architecture for all tasks (FBNetV5)."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemtl.data import Batch, Source
from edgemtl.files.disk import write_json
from edgemtl.models import Supernet, save_supernet
from edgemtl.nas.search.strategies.masks import (
    LinearControlVariate,
    MaskDistribution,
    MaskSpace,
    as_json,
    cost_gradient,
    draw,
    dual_ascent_step,
    effective_samples,
    entropy_gradient,
    importance,
    keep_above,
    log_probabilities,
    policy_gradient,
    probabilities,
)
from edgemtl.progress import Progress, Report, silent
from edgemtl.spaces import Space
from edgemtl.tasks import map_outputs
from edgemtl.train import (
    CHECKPOINT_FILE,
    DivergedError,
    Optimized,
    Recipe,
    TrainingLoop,
    label_tensors,
    planes,
    task_loss,
    training_batches,
)

__all__ = ["MASKS", "MASKS_FILE", "MaskRun"]

MASKS = Recipe(steps=600, batch=8, sizes=(0.5, 1.0), learning_rate=2.5e-3, largest_steps=1.0)
"""How masks are learnt unless told otherwise: from scratch, on images of half the size first.

The last fifth of the steps sees whole ones, as designs are scored on them: depth depends on the scale of an image.
"""
MASKS_FILE = "masks.json"
SCHEMA = "edgemtl.masks/1"
ARCHITECTURES = 4
_WARM_UP, _WARM_LOGIT = 0.2, 2.2
"""For this share of the steps the weights learn alone, with every place kept nine times in ten."""
_TRAVEL, _PRICE, _ENTROPY = 24.0, 80.0, 0.05
"""How far log-odds can go in a whole run, what the price rises to in one that always takes twice what is allowed, and
what certainty weighs against losses."""
_SEEN = 200
_BF16 = "computed_in_bf16"


@dataclass(frozen=True)
class _Passed:
    """Outcome of one step's architectures: masks (architectures, positions) and losses (architectures, tasks)."""

    masks: NDArray[np.bool_]
    losses: NDArray[np.float64]


class MaskRun:
    """One learning run: weights, log-odds, both optimizers. Satisfies `edgemtl.train.loop.Training`.

    Every step draws `ARCHITECTURES` masks from the mixture of all tasks' distributions and runs each once, for all
    tasks, on the same images. The weights follow the sum of the tasks' losses; after a warm-up with most positions
    kept, each task's log-odds follow its own loss, measured in its own spread, and the price of its path. Prices rise
    while the likeliest design takes more than `allowed_flops`, by task and "" for all together, and else
    fall.
    """

    def __init__(
        self,
        space: Space,
        masks: MaskSpace,
        source: Source,
        supernet: Supernet,
        recipe: Recipe,
        allowed_flops: Mapping[str, float],
        out: Path,
    ) -> None:
        self.space, self.masks, self.source, self.supernet = space, masks, source, supernet
        self.recipe, self.allowed_flops, self.out = recipe, dict(allowed_flops), out
        self.learning_steps = max(1.0, (1 - _WARM_UP) * recipe.steps)
        names: dict[Tensor, str] = {parameter: name for name, parameter in supernet.shared.items()}
        optimizer = torch.optim.AdamW(list(names), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.weights = Optimized(names, optimizer)
        self.logits = nn.Parameter(torch.full(masks.present.shape, _WARM_LOGIT, dtype=torch.float64))
        rate = min(0.2, _TRAVEL / self.learning_steps)
        self.log_odds = Optimized({self.logits: "logits"}, torch.optim.Adam([self.logits], rate))
        self.bf16 = recipe.computes_bf16()
        self.loss_scale, self.losses = np.ones(len(masks.tasks)), np.zeros(len(masks.tasks))
        self.prices = np.zeros(len(masks.tasks))
        self.control_variate = LinearControlVariate.none(len(masks.positions), len(masks.tasks))
        self.importance: deque[NDArray[np.float64]] = deque(maxlen=_SEEN)
        self.loop = TrainingLoop(self, recipe, out / CHECKPOINT_FILE, self._fingerprint)

    @property
    def optimized(self) -> Sequence[Optimized]:
        """The shared weights and the log-odds."""
        return self.weights, self.log_odds

    @property
    def distribution(self) -> MaskDistribution:
        """The log-odds as they are."""
        return MaskDistribution(self.masks, self.logits.detach().numpy().copy())

    def learn(self, report: Report = silent) -> MaskDistribution:
        """All remaining steps; what was learnt, in `masks.json` and `supernet.safetensors` too.

        Raises `DivergedError` soon after weights are not finite.
        """

        def tell(step: int) -> None:
            self._check_finite(step)
            report(self._progress(step))

        batches = training_batches(self.source.split("train"), self.space.tasks, self.recipe, self.loop.step, 0)
        report(self._progress(self.loop.step))
        self.loop.run(batches, tell)
        self._write()
        return self.distribution

    def one_step(self, step: int, batch: Batch) -> None:
        """One batch through the step's architectures; weights, then log-odds."""
        passed = self._pass(step, batch)
        self.weights.update(self.recipe.rate_at(step))
        self._observe(step, passed)

    def state(self) -> dict[str, Tensor]:
        """State that the next step depends on, and whether it computes in BF16, which may be measured otherwise."""
        state = {"loss_scale": torch.from_numpy(self.loss_scale), "prices": torch.from_numpy(self.prices)}
        state[_BF16] = torch.tensor(self.bf16)
        state |= {f"effects.{name}": torch.from_numpy(value) for name, value in asdict(self.control_variate).items()}
        if self.importance:
            state["importance"] = torch.from_numpy(np.stack(list(self.importance)))
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.loss_scale, self.prices = (state[name].numpy().copy() for name in ("loss_scale", "prices"))
        self.control_variate = LinearControlVariate(
            *(state[f"effects.{field.name}"].numpy().copy() for field in fields(LinearControlVariate))
        )
        if "importance" in state:
            self.importance.extend(state["importance"].numpy())
        self.bf16 = bool(state[_BF16]) if _BF16 in state else self.bf16

    def _check_finite(self, step: int) -> None:
        """`DivergedError` where losses are not finite because weights are not, which no further step can mend."""
        if np.isfinite(self.losses).all() or all(bool(each.isfinite().all()) for each in self.weights.names):
            return
        raise DivergedError(
            f"the masks' supernet diverged, its weights are not finite after {step} steps: search anew in another "
            "--out, with another --seed or from a trained --supernet"
        )

    def _pass(self, step: int, batch: Batch) -> _Passed:
        """Forward and backward of the step's architectures, each once for all tasks."""
        chances = probabilities(self.logits.detach().numpy(), self.masks.present)
        masks = draw(chances, ARCHITECTURES, np.random.default_rng([self.recipe.seed, step]))
        image = torch.from_numpy(batch.image).to(memory_format=torch.channels_last)
        labels = {
            task.name: (label_tensors(batch.targets[task.name]), label_tensors(batch.masks[task.name]))
            for task in self.space.tasks
        }
        losses = np.zeros((ARCHITECTURES, len(self.masks.tasks)))
        for row, mask in enumerate(masks):
            with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
                made = self.supernet(image, self.masks.values(mask)).outputs
            outputs = map_outputs(planes, made)
            by_task = [task_loss(task, outputs[task.name], *labels[task.name]) for task in self.space.tasks]
            torch.stack(by_task).sum().div(ARCHITECTURES).backward()  # type: ignore[no-untyped-call]
            losses[row] = [float(loss.detach()) for loss in by_task]
        return _Passed(masks, losses)

    def _observe(self, step: int, passed: _Passed) -> None:
        """Move the log-odds by what the step's losses say."""
        self.losses = passed.losses.mean(0)
        warm_up = _WARM_UP * self.recipe.steps
        if step < warm_up or not np.isfinite(passed.losses).all():
            return
        chances = probabilities(self.logits.detach().numpy(), self.masks.present)
        weights = importance(log_probabilities(chances, passed.masks))
        share = 0.05 if self.importance else 1.0
        self.loss_scale = (1 - share) * self.loss_scale + share * passed.losses.std(0, ddof=1)
        self.importance.append(weights)
        losses = passed.losses / np.maximum(self.loss_scale, 1e-6)
        gradient = policy_gradient(chances, passed.masks, weights, losses, self.control_variate.coefficients())
        self.control_variate = self.control_variate.seen(passed.masks, losses)
        self.prices = dual_ascent_step(self.prices, self.masks, self._used(), _PRICE / self.learning_steps)
        gradient += cost_gradient(chances, self.masks, self.prices)
        left = 1 - (step - warm_up) / self.learning_steps
        gradient += _ENTROPY * left * entropy_gradient(chances)
        self.logits.grad = torch.from_numpy(np.where(self.masks.present, gradient, 0.0))
        self.log_odds.optimizer.step()

    def _used(self) -> dict[str, float]:
        """Amount of every limit that the most likely design takes."""
        design = self.space.design(self.masks.values(keep_above(self.distribution, 0.0)))
        return {
            name: design.cost([name] if name else None).flops / max(flops, 1.0)
            for name, flops in self.allowed_flops.items()
        }

    def effective_samples(self) -> Mapping[str, float]:
        """Of the last architectures, the share that counted for each task (Kish's effective sample size)."""
        if not self.importance:
            return dict.fromkeys(self.masks.tasks, 1.0)
        weights = np.concatenate(list(self.importance))
        return dict(zip(self.masks.tasks, (effective_samples(weights) / len(weights)).tolist(), strict=True))

    def _progress(self, step: int) -> Progress:
        chances = probabilities(self.logits.detach().numpy(), self.masks.present)
        spent = self.masks.base_flops + (chances * self.masks.flops).sum(1)
        rows = zip(self.masks.tasks, self.losses, spent / 1e9, strict=True)
        tasks = ", ".join(f"{task} {loss:.2f} at {gflops:.2f}" for task, loss, gflops in rows)
        least = min(self.effective_samples().values())
        text = f"loss at expected GFLOPs: {tasks}; effective samples at least {least:.0%}"
        return Progress("masks", step, self.recipe.steps, text, self.loop.seconds_left)

    @property
    def _fingerprint(self) -> str:
        allowed = {name: round(flops) for name, flops in self.allowed_flops.items()}
        content = [self.space.fingerprint, self.source.fingerprint, self.recipe.as_json(), allowed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _write(self) -> None:
        content = {
            "schema": SCHEMA,
            "steps": self.recipe.steps,
            "allowed_flops": self.allowed_flops,
            "effective_samples": self.effective_samples(),
            "probabilities": as_json(self.distribution),
        }
        write_json(self.out / MASKS_FILE, content)
        header = {
            "space": self.space.name,
            "fingerprint": self.space.fingerprint,
            "tasks": list(self.masks.tasks),
            "data": {"name": self.source.name, "fingerprint": self.source.fingerprint},
            "recipe": self.recipe.as_json(),
        }
        with torch.no_grad():
            for parameter in self.weights.names:
                parameter.copy_(parameter.half())  # what is searched is what is stored
        save_supernet(self.supernet, self.out / "supernet.safetensors", header)
