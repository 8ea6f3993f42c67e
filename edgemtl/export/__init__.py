"""From a static net to what a runtime opens: ONNX, quantization, one exporter for each runtime."""

from edgemtl.export._emit import emit

__all__ = ["emit"]
