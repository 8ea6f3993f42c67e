"""Which arithmetic trains faster is measured once on a machine, and what was measured holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgemtl.environment import BF16_FLAGS, environment
from edgemtl.files.disk import write_atomic, write_json
from edgemtl.nas.search import default_steps
from edgemtl.nas.search.request import STEPS_IN_BF16, STEPS_IN_FP32
from edgemtl.train import Recipe, timed_pass, training_speed
from edgemtl.train.speed import speed_file


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This machine's file, in a cache that has nothing yet."""
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    training_speed.cache_clear()
    yield speed_file()
    training_speed.cache_clear()


def measured_before(file: Path, fp32: float, bf16: float | None) -> None:
    write_json(file, {"schema": "edgemtl.speed/1", "fp32": fp32, "bf16": bf16})
    training_speed.cache_clear()


def test_a_measurement_changes_neither_random_numbers_nor_threads(file: Path) -> None:
    """And a damaged one is made anew."""
    write_atomic(file, "{")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    speed = training_speed()
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads
    assert speed.fp32 > 0.1
    has_bf16 = not BF16_FLAGS.isdisjoint(environment()["cpu"]["flags"])
    assert (speed.bf16 is not None) == has_bf16


def test_time_that_others_have_is_not_computed() -> None:
    waits = timed_pass(lambda: time.sleep(0.2), 1)
    assert waits.seconds >= 0.2 and waits.computed < 0.1 and waits.share < 0.5


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    assert training_speed().fp32 > 0.1


def test_the_faster_arithmetic_is_taken_as_it_was_measured_first(file: Path) -> None:
    for fp32, bf16, faster in ((100.0, 180.0, True), (100.0, 60.0, False), (100.0, None, False)):
        measured_before(file, fp32, bf16)
        assert Recipe().computes_bf16() is faster or torch.cuda.is_available()
        assert Recipe(bf16=not faster).computes_bf16() is not faster
        assert default_steps() == (STEPS_IN_BF16 if Recipe().computes_bf16() else STEPS_IN_FP32)
