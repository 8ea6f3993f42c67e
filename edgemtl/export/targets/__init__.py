"""One exporter for each runtime; a package imports its runtime only when it builds."""

from edgemtl.export.targets._onnxruntime import OnnxRuntimeTarget
from edgemtl.export.targets._openvino import OpenVinoTarget
from edgemtl.export.targets._streaming import StreamingTarget
from edgemtl.export.targets._tensorrt_rtx import GENERATIONS, TensorRtRtxTarget

__all__ = ["GENERATIONS", "OnnxRuntimeTarget", "OpenVinoTarget", "StreamingTarget", "TensorRtRtxTarget"]
