"""One exporter for each runtime; a package imports its runtime only when it builds."""

from edgemtl.export.targets._onnxruntime import ONNXRUNTIME
from edgemtl.export.targets._openvino import OPENVINO
from edgemtl.export.targets._streaming import STREAMING
from edgemtl.export.targets._tensorrt_rtx import GENERATIONS, TENSORRT_RTX, TensorRtRtxTarget

__all__ = ["GENERATIONS", "ONNXRUNTIME", "OPENVINO", "STREAMING", "TENSORRT_RTX", "TensorRtRtxTarget"]
