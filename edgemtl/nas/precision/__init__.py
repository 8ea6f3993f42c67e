"""Channels and precision of a net of one's own: sensitivity by task, candidates under floors, finalists timed."""

from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.run import check_resumed, search_precision

__all__ = ["PrecisionRequest", "check_resumed", "search_precision"]
