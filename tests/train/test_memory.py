from __future__ import annotations

import ctypes
import platform
import resource
from collections.abc import Iterator

import pytest
import torch

from edgemtl.train.memory import memory_kept

LARGE = 64 << 20
"""Bytes: more than the C library keeps by itself."""


def page_faults(count: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(LARGE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture
def small_pages() -> Iterator[None]:
    """Pages of one size: the kernel may back the same bytes by a few huge ones or by thousands."""
    set_thp_disable, prctl = 41, ctypes.CDLL(None).prctl
    prctl(set_thp_disable, 1, 0, 0, 0)
    yield
    prctl(set_thp_disable, 0, 0, 0, 0)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="thresholds of glibc")
def test_what_one_step_freed_the_next_one_has_without_the_kernel() -> None:
    page_faults(2)
    before = page_faults(8)
    with memory_kept():
        page_faults(2)
        kept = page_faults(8)
    assert kept < 0.25 * before
    assert page_faults(8) > 0.1 * before, "afterwards large blocks go back, but for what the heap's top still has"
