"""How long `edgemtl --help` takes as a whole process, and that it imports no torch."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from _common import Outcome, Row, main

COMMAND = [sys.executable, "-m", "edgemtl", "--help"]
PROBE = """
import sys
from edgemtl.cli import main
sys.argv = ["edgemtl", "--help"]
try:
    main()
except SystemExit:
    pass
print("torch" in sys.modules, file=sys.stderr)
"""


def run(options: argparse.Namespace) -> Outcome:
    """Time the command; a warm-up first, so that files are cached as on a second call."""
    seconds = []
    for number in range(6 if options.quick else 21):
        start = time.perf_counter()
        subprocess.run(COMMAND, check=True, capture_output=True)
        if number:
            seconds.append(time.perf_counter() - start)
    probe = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    imported = probe.stderr.strip().endswith("True")
    rows = [
        Row("torch_imported_by_help", float(imported), "bool", 0),
        Row("help_median", statistics.median(seconds), "s", None, 0.3),
    ]
    return Outcome(rows, {"seconds": seconds})


if __name__ == "__main__":
    main(run, __doc__)
