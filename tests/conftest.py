"""One thread for every numeric library, in tests and in the processes they start: workers share the cores."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background jobs ignore Ctrl-C, and so would every process that a test starts in order to interrupt it
    signal.signal(signal.SIGINT, signal.default_int_handler)

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# The same examples in every run, so that what fails is the change's doing: `--hypothesis-profile default` draws others.
# A machine with other work may take its time to draw them.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory for installed packages (`plugged.install`), whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def operators_read_once() -> Iterator[None]:
    """PyTorch's exporter reads its table of ONNX operators for every net anew, for longer than a small net takes."""
    if "torch" not in sys.modules:  # no test of this session exports a net
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


def pytest_report_header() -> str:
    """The class of processor decides how INT8 is written, and so which of two tests runs."""
    from edgemtl.environment import environment

    cpu = environment()["cpu"]
    return f"processor: {cpu['class']} ({cpu['model']})"


def pytest_collection_finish() -> None:
    """Take all that tests import out of the garbage collector's sight, which a timing lets look through everything."""
    gc.collect()
    gc.freeze()
