"""From a static net to what a runtime opens: ONNX, quantization, one exporter for each runtime."""

from edgemtl.export._emit import emit
from edgemtl.export._quantize import quantize

__all__ = ["emit", "quantize"]
