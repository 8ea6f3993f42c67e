"""One thread for every numeric library, in tests and in the processes they start: workers share the cores."""

from __future__ import annotations

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background jobs ignore Ctrl-C, and so would every process that a test starts in order to interrupt it
    signal.signal(signal.SIGINT, signal.default_int_handler)

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_report_header() -> str:
    """The class of processor decides how INT8 is written, and so which of two tests runs."""
    from edgemtl.environment import environment

    cpu = environment()["cpu"]
    return f"processor: {cpu['class']} ({cpu['model']})"
