from __future__ import annotations

import sys
from pathlib import Path

# The small space with every kind of choice stands with the tests of models.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
