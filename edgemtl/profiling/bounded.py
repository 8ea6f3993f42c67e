"""Runs of untrusted models under a time limit: a loop in one may never end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Timer
from typing import TYPE_CHECKING, Any

from edgemtl.errors import UserError

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["FATAL", "run_once"]

LIMIT_S = 120.0
FATAL = 4
"""The log level at which ONNX Runtime keeps off standard error."""


def run_once(session: ort.InferenceSession, outputs: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
    """One run; raises whatever ONNX Runtime raises, and `UserError` where it was stopped after two minutes."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = FATAL
    timer = Timer(LIMIT_S, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return list(session.run(outputs, dict(feeds), options))
    except Exception as error:
        if options.terminate:
            raise UserError(
                f"one run took longer than {LIMIT_S:.0f} s and was stopped: give a smaller model"
            ) from error
        raise
    finally:
        timer.cancel()
