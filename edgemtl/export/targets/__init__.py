"""One exporter for each runtime; a package imports its runtime only when it builds."""

from edgemtl.export.targets._onnxruntime import ONNXRUNTIME
from edgemtl.export.targets._openvino import OPENVINO

__all__ = ["ONNXRUNTIME", "OPENVINO"]
