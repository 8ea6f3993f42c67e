"""The trials of a pruning, one a line: after a kill it goes on with the one that was cut short."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemtl.errors import UserError
from edgemtl.files.disk import read_bytes, write_atomic
from edgemtl.files.json import parse_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.prune.criterion import TrialOutcome

__all__ = ["Trials"]

TRIALS_LIMIT_BYTES = 2**28


class Trials:
    """Outcomes by the net and the tasks that were tried.

    Losses of a trial that ended at a limit are what had been summed until then: less than the whole, so that they
    answer for any limit below them.
    """

    def __init__(self, path: Path) -> None:
        """Read what `path` holds; a last line that was cut short is dropped."""
        self._path = path
        content = read_bytes(path, "trials", TRIALS_LIMIT_BYTES) if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            write_atomic(path, whole)
        try:
            self._trials: dict[str, dict[str, Any]] = {
                each["key"]: self._checked(each) for each in map(parse_json, whole.splitlines())
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"trials {path} are damaged ({error}): delete the file, or choose another --out") from error

    def _checked(self, each: Mapping[str, Any]) -> dict[str, Any]:
        check_seal(each, self._path, "trial in")
        losses = {name: math.inf if loss is None else float(loss) for name, loss in each["losses"].items()}
        return {"losses": losses, "whole": bool(each["whole"])}

    def __len__(self) -> int:
        return len(self._trials)

    def outcome(self, key: str, limits: Mapping[str, float]) -> TrialOutcome | None:
        """The outcome under `limits`, where what was tried tells it."""
        if key not in self._trials:
            return None
        losses, whole = self._trials[key]["losses"], self._trials[key]["whole"]
        over = {name: losses[name] / max(limit, 1e-9) for name, limit in limits.items() if losses[name] > limit}
        if over:
            return TrialOutcome(losses, max(over, key=lambda name: over[name]))
        return TrialOutcome(losses) if whole else None

    def add(self, key: str, outcome: TrialOutcome) -> None:
        """Write an outcome down."""
        whole = outcome.blocked is None
        self._trials[key] = {"losses": dict(outcome.losses), "whole": whole}
        losses = {name: loss if math.isfinite(loss) else None for name, loss in outcome.losses.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sealed({"key": key, "losses": losses, "whole": whole}), allow_nan=False) + "\n")
