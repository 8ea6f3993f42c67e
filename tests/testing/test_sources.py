"""The built-in sources inherit the suite that a third party's do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from edgemtl.data import Sample, Samples, Source, open_source
from edgemtl.data.scenes import ScenesSource
from edgemtl.testing import SourceConformance
from edgemtl.testing.world import write_data


class TestScenes(SourceConformance):
    @pytest.fixture
    def opened(self) -> Callable[[tuple[int, int]], Source]:
        return lambda size: ScenesSource(size, 4, 4, 4, 4)


class TestFolder(SourceConformance):
    @pytest.fixture
    def opened(self, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[int, int]], Source]:
        return partial(open_source, str(write_data(tmp_path_factory.getbasetemp() / "photos")))


class TestElpv(SourceConformance):
    @pytest.fixture
    def opened(self) -> Callable[[tuple[int, int]], Source]:
        pytest.importorskip("elpv_dataset")
        return partial(open_source, "elpv")


class Fading(Samples):
    """Images that are darker with every reading."""

    reads = 0

    def __len__(self) -> int:
        return 1

    def read(self, position: int) -> Sample:
        self.reads += 1
        return Sample(np.full((*SourceConformance.size, 3), 240 // self.reads, np.uint8), {}, {})


def test_the_suite_fails_for_a_source_whose_samples_change() -> None:
    fading = Fading()
    with pytest.raises(AssertionError):
        SourceConformance().test_a_sample_is_the_same_each_time(SimpleNamespace(tasks=(), split=lambda name: fading))  # type: ignore[arg-type]
