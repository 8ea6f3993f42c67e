"""Conformance suite for data sources: inherit `SourceConformance` and provide the function that opens one."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from edgemtl.data import SPLITS, Sample, Source, Split, augment, collate
from edgemtl.errors import UserError
from edgemtl.tasks import kind_of

__all__ = ["SourceConformance"]

FIRST = 4
"""Samples of a split that are looked at: reading all of a real data set takes minutes."""


class SourceConformance:
    """The tests of one source at an input size (H, W).

    A subclass has a fixture `opened` that gives the function of a size which its entry point names.
    """

    size = (64, 96)
    splits: tuple[Split, ...] = SPLITS

    @pytest.fixture
    def opened(self) -> Callable[[tuple[int, int]], Source]:
        """The function that opens the source at a size (H, W)."""
        raise NotImplementedError("give the conformance suite the function that opens the source: a fixture `opened`")

    @pytest.fixture
    def source(self, opened: Callable[[tuple[int, int]], Source]) -> Source:
        """The source at the size of the suite."""
        return opened(self.size)

    def test_it_says_what_it_is(self, source: Source) -> None:
        """Results and reports carry it: every text is one line, every task has a name of its own."""
        assert source.size == self.size
        assert source.name and source.fingerprint
        assert all("\n" not in text for text in (source.name, source.fingerprint, source.license_note))
        names = [task.name for task in source.tasks]
        assert names and len(names) == len(set(names))

    def test_equal_data_have_equal_fingerprints(self, opened: Callable[[tuple[int, int]], Source]) -> None:
        """Runs are resumed, and maps found again, by the fingerprint."""
        assert opened(self.size).fingerprint == opened(self.size).fingerprint

    def test_an_unknown_split_is_refused(self, source: Source) -> None:
        """In one line."""
        with pytest.raises(UserError) as error:
            source.split("nothing")  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    def test_a_split_is_a_sequence(self, source: Source) -> None:
        """With a length, slices and indices from the end."""
        for split in self.splits:
            samples = source.split(split)
            assert len(samples) > 0
            assert_equal(samples[-1], samples[len(samples) - 1])
            assert_equal(samples[:1][0], samples[0])
            with pytest.raises(IndexError):
                samples[len(samples)]

    def test_samples_have_the_form_of_their_kinds(self, source: Source) -> None:
        """An image of the size, and for each task a label and a mask like those of an image without one."""
        for sample in self.samples(source):
            assert sample.image.dtype == np.uint8
            assert sample.image.shape == (*self.size, 3)
            for task in source.tasks:
                label, mask = sample.targets[task.name], sample.masks[task.name]
                expected_label, expected_mask = kind_of(task).missing(task, self.size)
                assert np.asarray(label).dtype == expected_label.dtype
                assert np.ndim(label) == expected_label.ndim
                assert np.asarray(mask).dtype == np.bool_
                assert np.ndim(mask) == expected_mask.ndim
                assert np.isfinite(label).all(), "what stands under a false mask is finite too"

    def test_every_task_has_labels(self, source: Source) -> None:
        """A task without a valid label could neither be learnt nor scored."""
        for task in source.tasks:
            assert any(np.any(sample.masks[task.name]) for sample in self.samples(source)), task.name

    def test_a_sample_is_the_same_each_time(self, source: Source) -> None:
        """Also after a batch was made of it and a view taken."""
        samples = source.split("train")
        before = samples[0]
        collate([before], source.tasks)
        augment(before, source.tasks, np.random.default_rng(0), self.size, (0.8, 1.2))
        assert_equal(samples[0], before)

    def test_samples_become_batches_and_views(self, source: Source) -> None:
        """As training does first."""
        rng = np.random.default_rng(1)
        samples = self.samples(source)
        views = [augment(sample, source.tasks, rng, self.size, (0.8, 1.2)) for sample in samples]
        for batch in (collate(samples, source.tasks), collate(views, source.tasks)):
            assert batch.image.shape == (len(samples), 3, *self.size)
            assert all(len(batch.masks[task.name]) == len(samples) for task in source.tasks)

    def test_no_image_is_in_two_splits(self, source: Source) -> None:
        """A decision must not have seen what is reported on."""
        seen: dict[bytes, Split] = {}
        for split in self.splits:
            for sample in source.split(split)[:FIRST]:
                assert seen.setdefault(sample.image.tobytes(), split) == split

    def test_processes_can_take_it_along(self, source: Source) -> None:
        """Images are prepared and read in processes beside the first one."""
        assert_equal(pickle.loads(pickle.dumps(source)).split("train")[0], source.split("train")[0])

    def samples(self, source: Source) -> list[Sample]:
        """The first samples of every split."""
        return [sample for split in self.splits for sample in source.split(split)[:FIRST]]


def assert_equal(one: Sample, two: Sample) -> None:
    """Fail where two samples differ in the image, a label or a mask."""
    assert np.array_equal(one.image, two.image)
    assert one.targets.keys() == two.targets.keys() == one.masks.keys() == two.masks.keys()
    for task in one.targets:
        assert np.array_equal(one.targets[task], two.targets[task])
        assert np.array_equal(one.masks[task], two.masks[task])
