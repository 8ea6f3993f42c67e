"""What a fine-tuning learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgemtl.data import open_source
from edgemtl.nas.runs import TUNING
from edgemtl.nas.runs.tuning import training_images


@pytest.mark.parametrize(("steps", "rendered"), [(4, 1024), (200, 1024), (1200, 4800), (10_000, 8192)])
def test_scenes_are_seen_twice_by_each_process(steps: int, rendered: int) -> None:
    """A short training renders a thousand at most, and a long one has all that there are."""
    source = training_images("scenes", (64, 64), replace(TUNING, steps=steps, batch=8))
    assert len(source.split("train")) == rendered
    assert len(source.split("validation")) == len(open_source("scenes", (64, 64)).split("validation"))


def test_pictures_in_files_are_all_seen(home: Path) -> None:
    data = str(home / "photos")
    whole, few = open_source(data, (64, 64)), training_images(data, (64, 64), replace(TUNING, steps=1))
    assert few.fingerprint == whole.fingerprint
    assert len(few.split("train")) == len(whole.split("train"))
