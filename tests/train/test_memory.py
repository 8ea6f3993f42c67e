from __future__ import annotations

import platform
import resource

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="thresholds of glibc")
def test_what_one_step_freed_the_next_one_has_without_the_kernel() -> None:
    page_faults(2)
    before = page_faults(8)
    with memory_kept():
        page_faults(2)
        kept = page_faults(8)
    assert kept < 0.25 * before
    assert page_faults(8) > 0.5 * before, "afterwards it is as it was"
