"""Conformance suite for kinds of task.

class TestDepth(KindConformance):
    task = make_task("depth", "depth")

    def label(self, rng): ...
    def outputs_of(self, label): ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export import with_postprocessing
from edgemtl.tasks import Kind, Target, Task, View, kind_of, ratio_of_counts
from edgemtl.train import label_tensors

__all__ = ["KindConformance"]

Array = NDArray[Any]
Outputs = Mapping[str, NDArray[np.float32]]
_IMAGES = 4


class KindConformance:
    """Subclasses set `task`, and say what a label is and what predicts it; images are of `image_size` (H, W)."""

    task: Task
    image_size = (24, 32)

    def label(self, rng: np.random.Generator) -> Target:
        """A random label of an image, valid somewhere."""
        raise NotImplementedError

    def outputs_of(self, label: Target) -> Outputs:
        """Raw outputs (a batch of one) of a net that predicts the label without any error."""
        raise NotImplementedError

    # What the tests share.

    @property
    def kind(self) -> Kind:
        """The kind of the task, as it is registered."""
        return kind_of(self.task)

    def labels(self, count: int = _IMAGES) -> list[Target]:
        """Labels of several images."""
        rng = np.random.default_rng(0)
        return [self.label(rng) for _ in range(count)]

    def noise(self, count: int = _IMAGES, seed: int = 1) -> dict[str, Tensor]:
        """Raw outputs that have nothing to do with any label."""
        rng = np.random.default_rng(seed)
        size = {True: self.image_size, False: ()}
        return {
            output.name: torch.from_numpy(
                3 * rng.standard_normal((count, output.channels, *size[output.dense])).astype(np.float32)
            )
            for output in self.task.outputs
        }

    def perfect(self, labels: Sequence[Target]) -> dict[str, Tensor]:
        """Raw outputs for a batch of labels."""
        each = [self.outputs_of(label) for label in labels]
        return {
            output.name: torch.from_numpy(np.concatenate([outputs[output.name] for outputs in each]))
            for output in self.task.outputs
        }

    def batch(self, labels: Sequence[Target]) -> tuple[Any, Tensor]:
        """Labels and masks of a batch, as tensors."""
        targets, masks = self.kind.collate([target for target, _ in labels], [mask for _, mask in labels])
        return label_tensors(targets), torch.from_numpy(masks)

    def loss(self, outputs: Mapping[str, Tensor], labels: Sequence[Target]) -> Tensor:
        """The loss of raw outputs."""
        learning = self.kind.learning()
        return learning.loss(self.task, learning.prepare(self.task, outputs), *self.batch(labels))

    def scores(self, outputs: Mapping[str, Tensor], labels: Sequence[Target]) -> dict[str, float]:
        """The metrics of raw outputs."""
        score = self.kind.learning().metric(self.task)
        score.update(outputs, *self.batch(labels))
        return score.compute()

    def raw(self, outputs: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """The first image's outputs, as an engine gives them."""
        return {name: value[:1].numpy() for name, value in outputs.items()}

    # What a task is.

    def test_outputs_have_names_and_channels(self) -> None:
        """Names are unique in the task and hold no dot; every output has channels."""
        names = [output.name for output in self.task.outputs]
        assert names and len(set(names)) == len(names)
        assert all(name and "." not in name for name in names)
        assert all(output.channels >= 1 for output in self.task.outputs)
        assert self.kind.outputs(self.task) == self.task.outputs

    def test_what_predicts_a_label_has_the_shapes_of_the_outputs(self) -> None:
        """Float32 (1, C, H, W) where an output is dense, else (1, C)."""
        outputs = self.outputs_of(self.labels(1)[0])
        assert outputs.keys() == {output.name for output in self.task.outputs}
        for output in self.task.outputs:
            shape = (1, output.channels, *(self.image_size if output.dense else ()))
            assert outputs[output.name].shape == shape and outputs[output.name].dtype == np.float32

    def test_metrics_are_declared(self) -> None:
        """The metrics that are computed are those that are declared; the first one decides."""
        labels = self.labels()
        assert list(self.scores(self.noise(), labels)) == [metric.name for metric in self.kind.metrics]
        assert self.task.metrics == self.kind.metrics

    # Labels.

    def test_metrics_that_are_means_are_those_of_images_by_themselves(self) -> None:
        """Weighted by each image's valid labels, in the power that a metric declares."""
        labels, outputs = self.labels(), self.noise()
        whole, counts = self.scores(outputs, labels), [int(np.sum(mask)) for _, mask in labels]
        alone = [self.scores({n: t[[i]] for n, t in outputs.items()}, [each]) for i, each in enumerate(labels)]
        for metric in self.kind.metrics:
            if metric.power is not None:
                mean = np.average([each[metric.name] ** metric.power for each in alone], weights=counts)
                assert whole[metric.name] == pytest.approx(mean ** (1 / metric.power), rel=1e-4, abs=1e-6)

    def test_metrics_that_are_ratios_are_those_of_counts(self) -> None:
        """The counts of images by themselves, added up, give what the whole batch is scored with."""
        labels, outputs = self.labels(), self.noise()
        counts = self.kind.learning().counts(self.task, outputs, *self.batch(labels))
        whole = self.scores(outputs, labels)
        assert counts.shape[0] == len(labels) and counts.shape[2] == 3
        for metric in self.kind.metrics:
            if metric.ratio is not None:
                assert ratio_of_counts(metric, counts.sum(0).numpy()) == pytest.approx(whole[metric.name], abs=1e-6)
        alone = [
            self.kind.learning().counts(self.task, {n: t[[i]] for n, t in outputs.items()}, *self.batch([each]))
            for i, each in enumerate(labels)
        ]
        assert torch.equal(torch.cat(alone), counts)

    def test_a_missing_label_stands_beside_others_in_a_batch(self) -> None:
        """Its mask is false everywhere, and the loss is that of the others."""
        labels = [*self.labels(2), self.kind.missing(self.task, self.image_size)]
        _, masks = self.batch(labels)
        assert [bool(mask.any()) for mask in masks] == [True, True, False]
        assert bool(self.loss(self.noise(3), labels).isfinite())

    def test_missing_labels_train_nothing(self) -> None:
        """A loss of zero, with gradients of zero."""
        outputs = {name: value.requires_grad_() for name, value in self.noise(2).items()}
        loss = self.loss(outputs, [self.kind.missing(self.task, self.image_size)] * 2)
        loss.backward()  # type: ignore[no-untyped-call]
        assert float(loss.detach()) == 0
        assert all(value.grad is not None and not value.grad.any() for value in outputs.values())

    def test_two_mirrors_are_none(self) -> None:
        """A label that is mirrored twice is what it was."""
        view = View(self.image_size, (0, 0), 1.0, self.image_size, mirror=True)
        for label in self.labels():
            once = self.kind.augment(self.task, label, view)
            assert _same(self.kind.augment(self.task, once, view), label)

    def test_a_view_of_the_whole_changes_nothing(self) -> None:
        """Neither does a size that is the image's own."""
        view = View(self.image_size, (0, 0), 1.0, self.image_size)
        for label in self.labels():
            assert _same(self.kind.augment(self.task, label, view), label)
            assert _same(self.kind.resize(label, self.image_size, self.image_size), label)

    def test_what_a_view_shows_is_a_label(self) -> None:
        """Zoomed, cropped, beyond the image's edge; the label that was given stays as it is."""
        height, width = self.image_size
        for scale, corner in ((2.0, (3.5, 5.25)), (0.5, (-height / 2, -width / 2))):
            view = View(self.image_size, corner, scale, self.image_size, mirror=True)
            labels, before = self.labels(), self.labels()
            shown = [self.kind.augment(self.task, label, view) for label in labels]
            assert all(map(_same, labels, before))
            assert bool(self.loss(self.noise(), shown).isfinite())

    def test_a_label_of_another_size_is_a_label(self) -> None:
        """Resized from half and from twice the size."""
        for label in self.labels(1):
            for size in ((self.image_size[0] // 2, self.image_size[1] // 2), (48, 64)):
                there = self.kind.resize(label, self.image_size, size)
                back = self.kind.resize(there, size, self.image_size)
                assert bool(self.loss(self.noise(1), [back]).isfinite())

    def test_a_teacher_s_outputs_are_a_label(self) -> None:
        """A prediction equal to a label decodes to that label; values that are not finite are no label."""
        label = self.labels(1)[0]
        outputs = self.outputs_of(label)
        made = self.kind.pseudo_label(self.task, outputs, self.image_size)
        right = float(self.loss(self.perfect([label]), [made]))
        assert right < float(self.loss(self.noise(1), [made]))
        broken = {name: np.full_like(value, np.nan) for name, value in outputs.items()}
        assert not self.kind.pseudo_label(self.task, broken, self.image_size)[1].any()

    # Learning.

    def test_the_loss_of_a_right_prediction_is_lower(self) -> None:
        """Finite, a scalar, and lower than that of noise."""
        labels = self.labels()
        right, wrong = self.loss(self.perfect(labels), labels), self.loss(self.noise(), labels)
        assert right.shape == () and bool(right.isfinite()) and bool(wrong.isfinite())
        assert float(right) < float(wrong)

    def test_a_step_against_the_gradient_lowers_the_loss(self) -> None:
        """So that it can be learnt."""
        labels = self.labels()
        outputs = {name: value.requires_grad_() for name, value in self.noise().items()}
        before = self.loss(outputs, labels)
        before.backward()  # type: ignore[no-untyped-call]
        norm = torch.cat([_gradient(value).flatten() for value in outputs.values()]).norm()
        after = self.loss({name: value - 1e-2 * _gradient(value) / norm for name, value in outputs.items()}, labels)
        assert float(after.detach()) < float(before.detach())

    def test_scores_fall_with_every_wrong_image(self) -> None:
        """The deciding metric of a perfect net, of one that is wrong in half of the images, and of one always wrong."""
        labels, sign = self.labels(), 1 if self.task.metric.higher_is_better else -1
        perfect, noise, series = self.perfect(labels), self.noise(), []
        for wrong in (0, _IMAGES // 2, _IMAGES):
            outputs = {name: torch.cat([noise[name][:wrong], perfect[name][wrong:]]) for name in perfect}
            series.append(sign * self.scores(outputs, labels)[self.task.metric.name])
        assert np.isfinite(series).all()
        assert series[0] >= series[1] >= series[2] and series[0] > series[2]

    def test_a_teacher_has_nothing_to_tell_its_equal(self) -> None:
        """Distillation is lowest where student and teacher agree."""
        learning = self.kind.learning()
        teacher, unlike = (learning.prepare(self.task, self.noise(seed=seed)) for seed in (2, 3))
        same, other = (learning.distill(self.task, outputs, teacher) for outputs in (teacher, unlike))
        assert bool(same.isfinite()) and float(same) < float(other)

    def test_the_noise_of_a_score_is_no_less_than_zero(self) -> None:
        """And falls with more images."""
        scores = self.scores(self.noise(), self.labels())
        few, many = (self.kind.learning().noise(self.task, scores, images) for images in (10, 1000))
        assert few >= many >= 0

    # Predictions.

    def test_predictions_are_decoded_for_an_image_of_any_size(self) -> None:
        """Their values are finite, in the same form."""
        raw = self.raw(self.perfect(self.labels(1)))
        own, larger = (self.kind.decode(self.task, raw, size) for size in (self.image_size, (480, 960)))
        assert [value.shape for value in _arrays(own)] == [value.shape for value in _arrays(larger)]
        assert all(np.isfinite(value).all() for value in (*_arrays(own), *_arrays(larger)))

    def test_a_graph_that_decodes_gives_the_prediction(self) -> None:
        """Where the kind has operators for it: each tensor that is a prediction is that of `decode`."""
        raw, float32 = self.raw(self.noise(1)), onnx.TensorProto.FLOAT
        names = self.task.tensors
        inputs, outputs = (
            [onnx.helper.make_tensor_value_info(name, float32, raw[key].shape) for key, name in each.items()]
            for each in ({key: f"{name}.in" for key, name in names.items()}, names)
        )
        nodes = [onnx.helper.make_node("Identity", [f"{name}.in"], [name]) for name in names.values()]
        model = onnx.helper.make_model(
            onnx.helper.make_graph(nodes, "raw", inputs, outputs),
            opset_imports=[onnx.helper.make_opsetid("", 17)],
            ir_version=9,
        )
        try:
            session = onnxruntime.InferenceSession(with_postprocessing(model, [self.task]).SerializeToString())
        except UnsupportedError:
            pytest.skip("its post-processing stays outside of graphs")
        made = session.run(list(names.values()), {f"{name}.in": raw[key] for key, name in names.items()})
        prediction = self.kind.decode(self.task, raw, self.image_size)
        if not isinstance(prediction, Mapping):
            prediction = {next(iter(names)): prediction}
        for key, (value,) in zip(names, made, strict=True):
            if key in prediction:
                np.testing.assert_allclose(value, prediction[key], rtol=1e-5, atol=1e-6)

    def test_predictions_and_labels_are_drawn_over_the_image(self) -> None:
        """At its size, the image itself left as it is; with a legend as wide as is asked for."""
        image = np.random.default_rng(0).integers(0, 256, (*self.image_size, 3), np.uint8)
        before, label = image.copy(), self.labels(1)[0]
        for value in (self.kind.decode(self.task, self.outputs_of(label), self.image_size), label[0]):
            shown = self.kind.as_prediction(self.task, value)
            limits = self.kind.limits([shown])
            drawn = self.kind.draw(self.task, shown, image, limits=limits)
            assert drawn.shape == image.shape and drawn.dtype == np.uint8
            assert not np.array_equal(drawn, image) and np.array_equal(image, before)
            assert all(strip.width == 200 for strip in self.kind.legend(self.task, [shown], 200, limits))

    def test_predictions_are_summed_up(self) -> None:
        """In figures that JSON holds, and on one line."""
        prediction = self.kind.decode(self.task, self.outputs_of(self.labels(1)[0]), self.image_size)
        summary = self.kind.summarize(self.task, prediction)
        json.dumps(dict(summary.figures), allow_nan=False)
        assert summary.words and "\n" not in summary.words

    def test_what_is_no_prediction_is_refused(self) -> None:
        """In one line, with the task's name."""
        for value in (np.zeros((2, 3, 4, 5, 6)), np.zeros((3, 0, 2, 2))):
            with pytest.raises(UserError, match=self.task.name):
                self.kind.as_prediction(self.task, value)

    def test_outputs_that_lack_are_refused(self) -> None:
        """As are those of another task."""
        with pytest.raises(UserError):
            self.kind.decode(self.task, {}, self.image_size)


def _gradient(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad


def _arrays(prediction: Any) -> list[Array]:
    values = prediction.values() if isinstance(prediction, Mapping) else [prediction]
    return [np.asarray(value) for value in values]


def _same(one: Target, other: Target) -> bool:
    """Whether two labels are equal where they are valid."""
    (label, mask), (other_label, other_mask) = one, other
    if label.shape != other_label.shape or not np.array_equal(mask, other_mask):
        return False
    close = np.isclose(label, other_label, atol=1e-4)
    return bool(close[mask].all()) if mask.ndim else bool(close.all())
