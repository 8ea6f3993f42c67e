from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from toys import TASKS, labels

from edgemtl.tasks import Task
from edgemtl.train.losses import distillation_loss, planes, prepared, task_loss

Array = NDArray[Any]
SIZE = (4, 5)
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


def raw(task: Task, output: Tensor) -> dict[str, Tensor]:
    return {task.outputs[0].name: planes(output)}


def loss_of(task: Task, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return task_loss(task, raw(task, output), target, mask)


def distance_of(task: Task, output: Tensor, teacher: Tensor) -> Tensor:
    return distillation_loss(task, prepared(task, raw(task, output)), prepared(task, raw(task, teacher)))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def cross_entropy(logits: Array, truth: Any) -> float:
    top = logits.max()
    return float(top + math.log(sum(math.exp(value - top) for value in logits)) - logits[int(truth)])


def angle_cosine(first: Array, second: Array) -> float:
    return float(first @ second / math.sqrt(float(first @ first) * float(second @ second)))


def balanced_bce(logit: Array, truth: Any) -> float:
    x = float(logit[0])
    return 5 * (0.8 * softplus(-x) if truth else 0.2 * softplus(x))


# One place at a time, from the formulas, in double precision: the output's channels there and the target.
AT_ONE_PLACE: dict[str, Callable[[Array, Any], float]] = {
    "segmentation": cross_entropy,
    "classification": cross_entropy,
    "depth": lambda output, metres: 3 * abs(float(output[0]) - math.log(float(metres))),
    "normals": lambda output, normal: 4 * (1 - angle_cosine(output, normal)),
    "edges": balanced_bce,
    "saliency": balanced_bce,
    "regression": lambda output, values: float(abs(output - values).mean()),
}


def channels_last(tensor: Tensor, positions: int) -> Array:
    """As (places, channels), or (places,) where there is one value a place."""
    array = tensor.double().numpy()
    if array.size == positions:
        return array.reshape(positions)
    return np.moveaxis(array, 1, -1).reshape(positions, -1)


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.kind in AT_ONE_PLACE], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_loss_is_the_mean_of_its_formula_over_valid_places(task: Task, seed: int) -> None:
    output, target, mask = labels(task, 3, SIZE, seed)
    positions = mask.numel()
    outputs = channels_last(output, positions).reshape(positions, -1)
    targets = channels_last(target, positions)
    terms = [AT_ONE_PLACE[task.kind](outputs[n], targets[n]) for n in range(positions) if bool(mask.flatten()[n])]
    assert float(loss_of(task, output, target, mask)) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_heat_maps_are_compared_with_a_bell_around_each_visible_point() -> None:
    output, target, mask = labels(TASKS["points"], 2, SIZE, 0)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    terms = []
    for image, point in np.argwhere(mask.numpy()):
        x, y = target[image, point].tolist()
        bell = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2)
        terms.append(((output[image, point].numpy() - bell) ** 2).mean())
    assert float(loss_of(TASKS["points"], output, target, mask)) == pytest.approx(np.mean(terms), rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(sorted(TASKS)), size=st.floats(0, 1e4))
def test_what_is_masked_out_has_no_influence(seed: int, name: str, size: float) -> None:
    task = TASKS[name]
    output, target, mask = labels(task, 3, SIZE, seed)
    other_output, other_target, _ = labels(task, 3, SIZE, seed + 1)

    def mixed(valid: Tensor, masked: Tensor) -> Tensor:
        if task.kind == "keypoints":  # a mask (N, K) over points (N, K, 2) and maps (N, K, H, W)
            return torch.where(mask.reshape(*mask.shape, *[1] * (valid.ndim - 2)), valid, masked)
        keep = mask if valid.ndim == mask.ndim else mask.unsqueeze(1)
        return torch.where(keep, valid, masked)

    if target.is_floating_point():
        other_target = size * other_target
    first = output.clone().requires_grad_()
    second = mixed(output, size * other_output).requires_grad_()
    one = loss_of(task, first, target, mask)
    two = loss_of(task, second, mixed(target, other_target), mask)
    assert float(one.detach()) == float(two.detach())
    one.backward()
    two.backward()
    assert first.grad is not None and second.grad is not None
    assert torch.equal(first.grad, second.grad)
    assert not mixed(torch.zeros_like(output), first.grad).any()


@every_task
def test_nothing_valid_is_a_loss_of_zero_that_trains_nothing(task: Task) -> None:
    output, target, mask = labels(task, 2, SIZE, 3)
    output.requires_grad_()
    loss = loss_of(task, output, target, torch.zeros_like(mask))
    loss.backward()
    assert float(loss.detach()) == 0
    assert output.grad is not None and not output.grad.any()


@every_task
def test_a_step_against_the_gradient_lowers_the_loss(task: Task) -> None:
    output, target, mask = labels(task, 3, SIZE, 4)
    output.requires_grad_()
    before = loss_of(task, output, target, mask)
    before.backward()
    assert output.grad is not None
    after = loss_of(task, output - 1e-2 * output.grad / output.grad.norm(), target, mask)
    assert float(after.detach()) < float(before.detach())


def test_a_depth_of_zero_metres_is_finite() -> None:
    task = TASKS["depth"]
    output, target, mask = labels(task, 1, SIZE, 5)
    assert math.isfinite(float(loss_of(task, output, torch.zeros_like(target), mask)))


def test_losses_of_half_precision_outputs_are_computed_in_full() -> None:
    task = TASKS["semseg"]
    output, target, mask = labels(task, 2, SIZE, 6)
    rounded = output.bfloat16()
    assert loss_of(task, rounded, target, mask).dtype == torch.float32
    assert torch.equal(loss_of(task, rounded, target, mask), loss_of(task, rounded.float(), target, mask))


def entropy_of(teacher: Array, student: Array) -> float:
    shares = np.exp(teacher - teacher.max())
    shares /= shares.sum()
    return sum(float(share) * cross_entropy(student, n) for n, share in enumerate(shares))


def soft_bce(teacher: Array, student: Array) -> float:
    share = 1 / (1 + math.exp(-float(teacher[0])))
    return 2 * (share * softplus(-float(student[0])) + (1 - share) * softplus(float(student[0])))


TO_A_TEACHER: dict[str, Callable[[Array, Array], float]] = {
    "segmentation": entropy_of,
    "classification": entropy_of,
    "depth": lambda teacher, student: 3 * abs(float(teacher[0] - student[0])),
    "normals": lambda teacher, student: 4 * (1 - angle_cosine(teacher, student)),
    "edges": soft_bce,
    "saliency": soft_bce,
    "keypoints": lambda teacher, student: float(((teacher - student) ** 2).mean()),
    "regression": lambda teacher, student: float(abs(teacher - student).mean()),
}


@every_task
def test_distillation_is_the_mean_distance_to_the_teacher(task: Task) -> None:
    student, _, _ = labels(task, 2, SIZE, 7)
    teacher, _, _ = labels(task, 2, SIZE, 8)
    positions = student.numel() // task.channels
    students, teachers = (channels_last(x, positions).reshape(positions, -1) for x in (student, teacher))
    expected = np.mean([TO_A_TEACHER[task.kind](t, s) for t, s in zip(teachers, students, strict=True)])
    assert float(distance_of(task, student, teacher)) == pytest.approx(float(expected), rel=1e-5)


@every_task
def test_a_teacher_has_nothing_to_tell_its_equal(task: Task) -> None:
    teacher, _, _ = labels(task, 2, SIZE, 9)
    student = teacher.clone().requires_grad_()
    distance_of(task, student, teacher).backward()
    assert student.grad is not None
    if task.kind not in ("depth", "regression"):  # a distance with a kink there
        assert float(student.grad.abs().max()) < 1e-6
    other, _, _ = labels(task, 2, SIZE, 10)
    assert float(distance_of(task, other, teacher)) > float(distance_of(task, teacher, teacher))
