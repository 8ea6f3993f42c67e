from __future__ import annotations

import sys
from pathlib import Path

# The small nets that a bundle can be made of stand with the tests of export and of models.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("export", "models")]
