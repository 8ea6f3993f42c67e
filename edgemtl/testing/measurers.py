"""Conformance suite for measurers: inherit `MeasurerConformance` and provide the measurer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet
from edgemtl.profiling import Measurer, TimedCall
from edgemtl.results import FigureKind
from edgemtl.runtime import Session
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing.examples import images, small_net

__all__ = ["MeasurerConformance"]

FP32 = {"engine": "fp32"}
ROUNDS, BURST = 2, 3


class MeasurerConformance:
    """The tests of one measurer, with engines of `target`, which are built here.

    A subclass has a fixture `measurer` that gives it, made for a device that can be reached. Where it reaches another
    machine, a fixture `unreachable` gives one whose device cannot be.
    """

    target = "onnxruntime"

    @pytest.fixture
    def measurer(self) -> Measurer:
        """A measurer whose device can be reached."""
        raise NotImplementedError("give the conformance suite a measurer: a fixture called measurer")

    @pytest.fixture
    def unreachable(self) -> Measurer:
        """A measurer whose device cannot be reached."""
        pytest.skip("nothing has to be reached")

    @pytest.fixture
    def net(self) -> MultiTaskNet:
        """A small net of three tasks."""
        return small_net("fused", widths=(16, 24))

    @pytest.fixture
    def folder(self, net: MultiTaskNet, tmp_path: Path) -> Path:
        """Its engine."""
        find_target(self.target).build(net, FP32, None, tmp_path / "engine")
        return tmp_path / "engine"

    @pytest.fixture
    def session(self, measurer: Measurer, folder: Path) -> Iterator[Session]:
        """The engine, open."""
        with closing(measurer.open(folder, threads=1)) as session:
            yield session

    def test_it_says_where_its_latencies_come_from(self, measurer: Measurer) -> None:
        """Results carry it with each of them."""
        assert measurer.kind in get_args(FigureKind)
        assert measurer.arithmetic
        if measurer.untimed is not None:
            assert measurer.untimed.reason and "\n" not in measurer.untimed.reason + measurer.untimed.remedy

    def test_every_call_has_its_latency(self, measurer: Measurer, session: Session) -> None:
        """In ms, positive; what is measured has as many samples as were asked for, in the visits that they came in."""
        image = images(1).numpy()
        calls = {task: TimedCall(session, image, (task,)) for task in session.tasks}
        calls["all"] = TimedCall(session, image, session.tasks)
        samples = measurer.compare(calls, ROUNDS, burst=BURST, settle=0, warmup=1)
        assert list(samples) == list(calls)
        for each in samples.values():
            assert all(0 < ms < 60_000 for ms in each.samples_ms)
            if measurer.kind == "measured":
                assert (len(each.samples_ms), each.warmup, each.visit) == (2 * ROUNDS * BURST, 1, BURST)

    def test_outputs_are_those_of_the_net(self, measurer: Measurer, session: Session, net: MultiTaskNet) -> None:
        """Outputs are those of the wanted tasks only, where the measurer has outputs."""
        if not measurer.runs(FP32, ()):
            pytest.skip("it gives no outputs")
        image = images(1)
        with torch.no_grad():
            expected = by_tensor(net(image))
        for tasks in (session.tasks, session.tasks[1:], session.tasks[:1]):
            outputs = by_tensor(session.run(image.numpy(), tasks))
            assert set(outputs) == set(tasks)
            for task in tasks:
                np.testing.assert_allclose(outputs[task], expected[task].numpy(), rtol=1e-3, atol=1e-3)

    def test_engines_that_are_open_together_stay_apart(
        self, measurer: Measurer, session: Session, net: MultiTaskNet, tmp_path: Path
    ) -> None:
        """They are timed in one run, and closing one leaves the other."""
        find_target(self.target).build(net.subset(["depth"]), FP32, None, tmp_path / "depth")
        image = images(1).numpy()
        with closing(measurer.open(tmp_path / "depth", threads=1)) as alone:
            assert (alone.tasks, len(session.tasks)) == (("depth",), 3)
            both = {"whole": TimedCall(session, image, session.tasks), "depth": TimedCall(alone, image, ("depth",))}
            assert list(measurer.compare(both, 1, burst=1, settle=0, warmup=0)) == ["whole", "depth"]
        assert measurer.compare({"whole": both["whole"]}, 1, burst=1, settle=0, warmup=0)["whole"].median_ms > 0

    def test_a_closed_engine_is_closed(self, measurer: Measurer, folder: Path) -> None:
        """Closing it twice does nothing; every other call is refused."""
        session = measurer.open(folder, threads=1)
        session.close()
        session.close()
        with pytest.raises(UserError, match="closed"):
            session.run(images(1).numpy(), session.tasks)

    def test_what_is_no_engine_is_refused_in_one_line(self, measurer: Measurer, tmp_path: Path) -> None:
        """As where it is opened here."""
        with pytest.raises(UserError) as caught:
            measurer.open(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_device_that_cannot_be_reached_is_said_in_one_line(self, unreachable: Measurer, folder: Path) -> None:
        """With its name."""
        with pytest.raises(UserError) as caught:
            unreachable.open(folder)
        assert "\n" not in str(caught.value)
