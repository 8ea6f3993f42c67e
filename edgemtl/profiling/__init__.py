"""What a model costs on this machine: latency, operators, memory and counts, each figure with where it came from.

Works without torch. `profile` measures a bundle, an engine or an ONNX file; `measure` and `compare` time any call.
"""

from edgemtl.profiling._measure import Call, Progress, compare, measure
from edgemtl.profiling._profile import profile
from edgemtl.profiling._samples import (
    LatencyBlock,
    Ratio,
    Samples,
    percentile,
    percentile_interval,
    ratios,
    samples_needed,
)
from edgemtl.profiling._schema import Profile, read_profile, write_profile

__all__ = [
    "Call",
    "LatencyBlock",
    "Profile",
    "Progress",
    "Ratio",
    "Samples",
    "compare",
    "measure",
    "percentile",
    "percentile_interval",
    "profile",
    "ratios",
    "read_profile",
    "samples_needed",
    "write_profile",
]
