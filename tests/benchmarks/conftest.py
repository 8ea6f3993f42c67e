from __future__ import annotations

import sys
from pathlib import Path

# Benchmarks are scripts beside each other, not a package: they find each other as Python does when one is run.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
