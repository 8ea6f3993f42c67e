from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

COUNT = """
import ctypes, json, resource
import torch
from edgemtl.train.memory import memory_kept

LARGE = 64 << 20  # bytes: more than the C library keeps by itself
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # pages of one size: the same bytes may else be a few huge ones or thousands

def page_faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(LARGE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

page_faults(2)
before = page_faults(8)
with memory_kept():
    page_faults(2)
    kept = page_faults(8)
print(json.dumps([before, kept, page_faults(8)]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="thresholds of glibc")
def test_what_one_step_freed_the_next_one_has_without_the_kernel() -> None:
    """In a process of its own: free space in the heap of one that has run other tests would serve in any case."""
    counted = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    before, kept, after = json.loads(counted.stdout)
    assert kept < 0.25 * before
    assert after > 0.1 * before, "afterwards large blocks go back, but for what the heap's top still has"
