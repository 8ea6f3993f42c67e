"""From a static net to what a runtime opens: ONNX, quantization, one exporter for each runtime, bundles."""

from edgemtl.export._bundle import Origin, export_bundle, export_onnx
from edgemtl.export._emit import emit
from edgemtl.export._parity import Tolerance
from edgemtl.export._plain import Plain, export_plain
from edgemtl.export._quantize import quantize
from edgemtl.export._run import export_run

__all__ = [
    "Origin",
    "Plain",
    "Tolerance",
    "emit",
    "export_bundle",
    "export_onnx",
    "export_plain",
    "export_run",
    "quantize",
]
