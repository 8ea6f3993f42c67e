from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from edgemtl.data import open_source
from edgemtl.devices import load_device
from edgemtl.models import Supernet, load_supernet
from edgemtl.nas.evaluation import Candidate, Evaluator, Turns
from edgemtl.nas.evaluation.evaluator import LATENCY_ENGINES
from edgemtl.spaces import Space, load_space
from edgemtl.targets import find_target, measurer_of
from edgemtl.testing.world import TASKS

T = TypeVar("T")


@pytest.fixture(scope="module")
def evaluator(home: Path) -> Evaluator:
    source = open_source(str(home / "photos"), (64, 64))
    where = load_space(str(home / "nas" / "tiny.yaml"), TASKS)
    supernet = Supernet.of(where)
    load_supernet(supernet, home / "supernet.safetensors", where.fingerprint)
    target = find_target("onnxruntime")
    return Evaluator(source, target, measurer_of(target), ["", "depth"], threads=1, supernet=supernet)


@pytest.fixture(scope="module")
def where(home: Path) -> Space:
    return load_space(str(home / "nas" / "tiny.yaml"), TASKS).for_target(find_target("onnxruntime").traits)


def test_a_candidate_is_recalibrated_and_has_ranges_where_it_needs_them(evaluator: Evaluator, where: Space) -> None:
    plain, eight = evaluator.candidate(where.largest()), evaluator.candidate(where.largest("int8"))
    assert plain.ranges is None
    assert eight.ranges is not None
    assert {"image", "depth", "kind"} <= set(eight.ranges.limits)
    state = plain.net.state_dict()
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert means
    assert any(bool(value.abs().max() > 0) for value in means)
    for name, value in eight.net.state_dict().items():
        assert torch.equal(value, state[name]), "precision changes neither weights nor statistics"


def test_corrections_are_of_int8_layers_only(evaluator: Evaluator, where: Space) -> None:
    assert evaluator.corrections(evaluator.candidate(where.largest())) == []
    eight = evaluator.candidate(where.largest("int8"))
    statistics, rounded_too, biases, weights_too = evaluator.corrections(eight)

    def changed(candidate: Candidate) -> set[str]:
        after = candidate.net.state_dict()
        return {name for name, value in eight.net.state_dict().items() if not torch.equal(value, after[name])}

    assert changed(statistics)
    assert all(name.endswith((".running_mean", ".running_var")) for name in changed(statistics))
    assert any(name.endswith(".weight") for name in changed(rounded_too) - changed(statistics))
    assert changed(biases)
    assert all(name.endswith(".bias") for name in changed(biases))
    assert changed(weights_too) - changed(biases)
    assert all(name.endswith((".bias", ".weight")) for name in changed(weights_too))
    assert changed(eight) == set()


def test_the_engine_scores_as_the_simulation_does(evaluator: Evaluator, where: Space) -> None:
    """On the same images: in float to rounding, in INT8 as closely as a simulation has to."""
    samples = list(evaluator.source.split("validation"))
    for precision, tolerance in (("float", 1e-4), ("int8", 2e-2)):
        candidate = evaluator.candidate(where.largest(precision))
        simulated, real = evaluator.simulated(candidate), evaluator.score(candidate, samples)
        assert real["depth"]["rmse"] == pytest.approx(simulated["depth"]["rmse"], rel=tolerance)
        assert set(real["kind"]) == set(simulated["kind"]) == {"accuracy"}


def test_an_evaluation_has_every_task_and_every_scope(evaluator: Evaluator, where: Space) -> None:
    found = evaluator.evaluate(where.smallest())
    assert set(found.metrics) == {"depth", "kind"}
    assert set(found.latency_ms) == {"", "depth"}
    assert all(0 < ms < 1000 for ms in found.latency_ms.values())
    assert found == type(found)(where.smallest(), evaluator.evaluate(where.smallest()).metrics, found.latency_ms)


def test_a_net_is_built_once_and_opened_anew_for_each_engine_that_is_timed(
    evaluator: Evaluator, where: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for owner, method in ((type(evaluator.target), "build"), (type(evaluator.measurer), "open")):
        whole = getattr(owner, method)

        def counted(*given: object, whole: Callable[..., object] = whole, method: str = method) -> object:
            calls.append(method)
            return whole(*given)

        monkeypatch.setattr(owner, method, counted)
    evaluator.time(evaluator.candidate(where.smallest()))
    assert calls == ["build"] + ["open"] * LATENCY_ENGINES


@pytest.mark.parametrize(("device", "waits"), [("host", ["among", "alone"]), ("raspberry-pi-5", ["among"])])
def test_only_engines_are_timed_alone(home: Path, where: Space, device: str, waits: list[str]) -> None:
    """What nothing times waits for no other worker, and an engine is built among them; images are in parts."""
    events, parts = list[str](), list[int]()

    class Heard(Turns):
        @contextmanager
        def among_others(self) -> Iterator[None]:
            events.append("among")
            yield

        @contextmanager
        def alone(self) -> Iterator[None]:
            events.append("alone")
            yield

        def in_parts(self, whole: Iterable[T]) -> Iterator[T]:
            made = [*whole]
            parts.append(len(made))
            yield from made

    target = find_target("onnxruntime", load_device(device))
    source, supernet = (
        open_source(str(home / "photos"), (64, 64)),
        Supernet.of(load_space(str(home / "nas" / "tiny.yaml"), TASKS)),
    )
    evaluator = Evaluator(source, target, measurer_of(target), [""], supernet=supernet, turns=Heard())
    found = evaluator.evaluate(where.smallest())
    assert events == waits and bool(found.latency_ms) == ("alone" in waits)
    assert parts == [len(evaluator._train_images), len(evaluator._validation)]


def test_the_images_of_a_decision_are_not_those_of_a_score(evaluator: Evaluator) -> None:
    splits = ("train", "calibration", "validation", "test")
    images = {split: {sample.image.tobytes() for sample in evaluator.source.split(split)} for split in splits}
    assert sum(map(len, images.values())) == len(set.union(*images.values()))
    assert {sample.image.tobytes() for sample in evaluator.test_samples} == images["test"]


def test_the_image_to_time_with_is_normalised(evaluator: Evaluator) -> None:
    image = evaluator.sample_image
    assert (image.shape, image.dtype) == ((1, 3, 64, 64), np.float32)
    assert -3 < float(image.min()) < float(image.max()) < 3
    assert (evaluator.tasks_of(""), evaluator.tasks_of("depth")) == (("depth", "kind"), ("depth",))
