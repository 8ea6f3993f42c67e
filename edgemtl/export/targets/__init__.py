"""One exporter for each runtime."""

from edgemtl.export.targets._onnxruntime import ONNXRUNTIME

__all__ = ["ONNXRUNTIME"]
