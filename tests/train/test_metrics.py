from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torch import Tensor, nn
from toys import TASKS, labels

from edgemtl.data import Batch, Sample, collate
from edgemtl.errors import UserError
from edgemtl.tasks import Task
from edgemtl.train import Scorer, evaluate

Array = NDArray[Any]
SIZE = (6, 8)
SEEDS = (0, 1, 2)
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())


def batches(task: Task, count: int = 4) -> list[tuple[Tensor, Batch]]:
    """Raw outputs and what belongs to them, in batches of one task."""
    made = []
    for seed in SEEDS:
        output, target, mask = labels(task, count, SIZE, seed)
        image = np.zeros((count, 3, *SIZE), np.float32)
        made.append((output, Batch(image, {task.name: target.numpy()}, {task.name: mask.numpy()})))
    return made


def raw(task: Task, output: Tensor | Array) -> dict[str, dict[str, Tensor | Array]]:
    return {task.name: {task.outputs[0].name: output}}


def scored(task: Task, given: list[tuple[Tensor, Batch]]) -> dict[str, float]:
    scorer = Scorer([task])
    for output, batch in given:
        scorer.update(raw(task, output), batch)
    return scorer.compute()[task.name]


def valid(task: Task, given: list[tuple[Tensor, Batch]]) -> tuple[Array, Array]:
    """Raw outputs (places, channels) and targets (places, …) of every valid place of all batches."""
    outputs, targets = [], []
    for output, batch in given:
        mask, target = batch.masks[task.name], batch.targets[task.name]
        outputs.append(np.moveaxis(output.double().numpy(), 1, -1)[mask])
        targets.append((np.moveaxis(target, 1, -1) if target.ndim == output.ndim else target)[mask])
    return np.concatenate(outputs), np.concatenate(targets)


def test_miou_is_scikit_learn_s() -> None:
    task, given = TASKS["semseg"], batches(TASKS["semseg"])
    output, truth = valid(task, given)
    expected = sk.jaccard_score(truth, output.argmax(1), average="macro")
    assert scored(task, given) == {"miou": pytest.approx(expected, abs=1e-6)}


def test_the_first_of_equally_likely_classes_is_predicted() -> None:
    task = TASKS["semseg"]
    target, mask = np.full((1, *SIZE), 1), np.ones((1, *SIZE), bool)
    output = torch.tensor([0.0, 2.0, 2.0, 1.0]).view(1, 4, 1, 1).expand(1, 4, *SIZE)
    batch = Batch(np.zeros((1, 3, *SIZE), np.float32), {task.name: target}, {task.name: mask})
    assert scored(task, [(output, batch)]) == {"miou": 1}


def test_miou_leaves_out_a_class_that_is_neither_there_nor_predicted() -> None:
    task = TASKS["semseg"]
    given = batches(task)
    for output, batch in given:
        output[:, 3] = -100
        batch.targets[task.name][batch.targets[task.name] == 3] = 0
    output, truth = valid(task, given)
    expected = np.mean([sk.jaccard_score(truth == n, output.argmax(1) == n) for n in range(3)])
    assert scored(task, given)["miou"] == pytest.approx(expected, abs=1e-6)


def test_depth_errors_are_in_metres() -> None:
    task, given = TASKS["depth"], batches(TASKS["depth"])
    output, truth = valid(task, given)
    metres = np.clip(np.exp(output[:, 0]), 0.1, 20)
    ratio = np.maximum(metres / truth, truth / metres)
    assert scored(task, given) == {
        "rmse": pytest.approx(math.sqrt(sk.mean_squared_error(truth, metres)), rel=1e-5),
        "abs_rel": pytest.approx(sk.mean_absolute_percentage_error(truth, metres), rel=1e-5),
        "delta1": pytest.approx(np.mean(ratio < 1.25), abs=1e-6),
    }


def test_depth_beyond_a_room_is_scored_as_it_is() -> None:
    task, given = TASKS["depth"], batches(TASKS["depth"])
    for output, batch in given:
        batch.targets["depth"] = np.full_like(batch.targets["depth"], 80)
        output[:] = math.log(60)
    assert scored(task, given) == {"rmse": pytest.approx(20, rel=1e-4), "abs_rel": pytest.approx(0.25), "delta1": 0}


def test_angles_are_in_degrees() -> None:
    task, given = TASKS["normals"], batches(TASKS["normals"])
    output, truth = valid(task, given)
    dots = (output * truth).sum(1) / np.linalg.norm(output, axis=1) / np.linalg.norm(truth, axis=1)
    angles = np.degrees(np.arccos(np.clip(dots, -1, 1)))
    assert scored(task, given) == {
        "mean_angle": pytest.approx(angles.mean(), rel=1e-4),
        "within_11": pytest.approx(np.mean(angles < 11.25), abs=1e-6),
    }


def test_an_angle_below_what_fp32_rounds_of_its_cosine_is_told() -> None:
    """A net and its engine are compared by these angles, also where the net is nearly right."""
    task, given = TASKS["normals"], batches(TASKS["normals"])
    for output, batch in given:
        truth = torch.nn.functional.normalize(
            torch.randn(output.shape, generator=torch.Generator().manual_seed(0)), dim=1
        )
        across = torch.nn.functional.normalize(torch.linalg.cross(truth, truth.roll(1, 1), dim=1), dim=1)
        batch.targets["normals"] = truth.numpy()
        output[:] = truth + math.tan(math.radians(0.005)) * across
    assert scored(task, given)["mean_angle"] == pytest.approx(0.005, rel=0.01)


@pytest.mark.parametrize("name", ["edges", "saliency"])
def test_f_is_the_best_over_one_threshold_for_all_images(name: str) -> None:
    task, given = TASKS[name], batches(TASKS[name])
    output, truth = valid(task, given)
    share = 1 / (1 + np.exp(-output[:, 0]))
    best = max(sk.f1_score(truth, share >= threshold) for threshold in np.linspace(0, 1, 39))
    assert scored(task, given) == {task.metric.name: pytest.approx(best, abs=1e-5)}


def test_a_chance_that_is_the_threshold_is_above_it() -> None:
    task, size = TASKS["edges"], (1, 2, 2)
    target, mask = np.array([[[1, 0], [0, 0]]], np.float32), np.ones(size, bool)
    output = torch.tensor([0.0, -0.01, -0.01, -9.0]).view(1, 1, 2, 2)
    batch = Batch(np.zeros((1, 3, 2, 2), np.float32), {"edges": target}, {"edges": mask})
    assert scored(task, [(output, batch)])["ods_f"] == 1


def test_edges_that_are_never_found_score_zero_and_all_found_one() -> None:
    task = TASKS["edges"]
    perfect = [((b.targets["edges"][:, None] * 40 - 20), b) for _, b in batches(task)]
    assert scored(task, [(torch.from_numpy(o), b) for o, b in perfect])["ods_f"] == pytest.approx(1, abs=1e-6)
    empty = Batch(
        np.zeros((1, 3, 2, 2), np.float32), {"edges": np.zeros((1, 2, 2))}, {"edges": np.ones((1, 2, 2), bool)}
    )
    assert scored(task, [(torch.randn(1, 1, 2, 2), empty)])["ods_f"] == 0


def test_accuracy_and_mean_absolute_error_are_scikit_learn_s() -> None:
    kind, pose = TASKS["kind"], TASKS["pose"]
    given = batches(kind, 30)
    output, truth = valid(kind, given)
    assert scored(kind, given) == {"accuracy": pytest.approx(sk.accuracy_score(truth, output.argmax(1)), abs=1e-6)}
    given = batches(pose, 30)
    output, truth = valid(pose, given)
    assert scored(pose, given) == {"mae": pytest.approx(sk.mean_absolute_error(truth, output), rel=1e-5)}


def test_a_point_is_found_within_a_tenth_of_the_height() -> None:
    task, size = TASKS["points"], (20, 30)
    peaks = {0: (10, 15), 1: (0, 0), 2: (19, 29)}
    found = {0: (11, 16), 1: (0, 2), 2: (17, 28)}  # off by 1.4, 2.0 and 2.2 pixels of the 2 allowed

    def heat(maxima: dict[int, tuple[int, int]]) -> Tensor:
        maps = torch.zeros(1, 3, *size)
        for channel, (row, column) in maxima.items():
            maps[0, channel, row, column] = 1
        return maps

    points = np.array([[(column, row) for row, column in peaks.values()]], np.float32)
    whole = Batch(np.zeros((1, 3, *size), np.float32), {"points": points}, {"points": np.ones((1, 3), bool)})
    assert scored(task, [(heat(found), whole)]) == {"pck": pytest.approx(2 / 3)}


def test_points_that_are_not_seen_are_not_scored() -> None:
    task, given = TASKS["points"], batches(TASKS["points"])
    for output, batch in given:
        seen = np.broadcast_to(np.array([True, False, True]), batch.masks["points"].shape).copy()
        before = scored(task, [(output, Batch(batch.image, batch.targets, {"points": seen}))])
        other = Batch(batch.image, {"points": np.where(seen[..., None], batch.targets["points"], 0)}, {"points": seen})
        changed = torch.where(torch.from_numpy(seen)[..., None, None], output, output.flip(-1))
        assert scored(task, [(changed, other)]) == before


@every_task
def test_what_is_masked_out_is_not_scored(task: Task) -> None:
    if task.kind == "keypoints":
        pytest.skip("tested by itself: its mask is over points")
    given = batches(task)
    changed = []
    for output, batch in given:
        mask, target = torch.from_numpy(batch.masks[task.name]), torch.from_numpy(batch.targets[task.name])
        wide = mask.unsqueeze(1) if output.ndim > mask.ndim else mask
        same = mask if target.ndim == mask.ndim else mask.unsqueeze(1)
        other = Batch(batch.image, {task.name: torch.where(same, target, 1).numpy()}, batch.masks)
        changed.append((torch.where(wide, output, 3.0), other))
    assert scored(task, given) == scored(task, changed)


@every_task
def test_scores_do_not_depend_on_the_batches(task: Task) -> None:
    given = batches(task)
    joined = Batch(
        np.concatenate([b.image for _, b in given]),
        {task.name: np.concatenate([b.targets[task.name] for _, b in given])},
        {task.name: np.concatenate([b.masks[task.name] for _, b in given])},
    )
    whole = scored(task, [(torch.cat([output for output, _ in given]), joined)])
    assert scored(task, given) == {name: pytest.approx(value, rel=1e-5) for name, value in whole.items()}


def test_a_batch_with_nothing_valid_changes_nothing() -> None:
    for task in TASKS.values():
        given = batches(task)
        output, batch = batches(task)[0]
        nothing = Batch(batch.image, batch.targets, {task.name: np.zeros_like(batch.masks[task.name])})
        assert scored(task, [*given, (output, nothing)]) == scored(task, given)


def test_samples_and_arrays_are_scored_like_batches_and_tensors() -> None:
    task = TASKS["semseg"]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    samples = [
        Sample(image, {"semseg": rng.integers(0, 4, SIZE)}, {"semseg": rng.random(SIZE) < 0.5}) for _ in range(3)
    ]
    output = rng.standard_normal((3, 4, *SIZE)).astype(np.float32)
    first, second = Scorer([task]), Scorer([task])
    first.update(raw(task, output), samples)
    second.update(raw(task, torch.from_numpy(output)), collate(samples, [task]))
    assert first.compute() == second.compute()


def test_a_task_without_any_valid_label_is_named() -> None:
    output, batch = batches(TASKS["depth"])[0]
    scorer = Scorer([TASKS["depth"]])
    scorer.update(raw(TASKS["depth"], output), Batch(batch.image, batch.targets, {"depth": np.zeros((4, *SIZE), bool)}))
    with pytest.raises(UserError, match="task depth cannot be scored: none of the samples has a valid label"):
        scorer.compute()


class _Answers(nn.Module):
    """Predicts every pixel's class from the image itself."""

    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        return {"semseg": {"logits": torch.cat([image, image[:, :1] * 0], 1)}}


def test_evaluate_runs_the_net_over_every_batch() -> None:
    task = TASKS["semseg"]
    rng = np.random.default_rng(1)
    made = []
    for _ in range(2):
        image = rng.standard_normal((2, 3, *SIZE)).astype(np.float32)
        truth = np.concatenate([image, 0 * image[:, :1]], 1).argmax(1)
        made.append(Batch(image, {"semseg": truth}, {"semseg": np.ones_like(truth, bool)}))
    assert evaluate(_Answers(), [task], made) == {"semseg": {"miou": pytest.approx(1)}}
