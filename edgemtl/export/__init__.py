"""From a static net to what a runtime opens: ONNX, quantization, one exporter for each runtime, bundles."""

from edgemtl.export.bundle import export_bundle, export_onnx
from edgemtl.export.own import Rounding, export_own_net
from edgemtl.export.own_levels import export_own_levels
from edgemtl.export.parity import Tolerance
from edgemtl.export.plain import Form, Plain, export_plain
from edgemtl.export.request import Evidence, ExportRequest, Origin
from edgemtl.export.run import export_run
from edgemtl.export.triton import export_triton
from edgemtl.export.wrap import with_postprocessing

__all__ = [
    "Evidence",
    "ExportRequest",
    "Form",
    "Origin",
    "Plain",
    "Rounding",
    "Tolerance",
    "export_bundle",
    "export_onnx",
    "export_own_levels",
    "export_own_net",
    "export_plain",
    "export_run",
    "export_triton",
    "with_postprocessing",
]
