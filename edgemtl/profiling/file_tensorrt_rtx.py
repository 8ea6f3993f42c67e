"""Any ONNX file in TensorRT-RTX: its parser runs here, its engines need an NVIDIA GPU, which is not timed."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from edgemtl.errors import MissingDependencyError, UnsupportedError
from edgemtl.files.onnx import read_onnx

__all__ = ["refuse_tensorrt_rtx"]


def refuse_tensorrt_rtx(path: Path, threads: int) -> NoReturn:
    """Raise `UnsupportedError`: the operator that the parser refuses, or that it takes the file but nothing times it.

    Raises `MissingDependencyError` without the package, and `UserError` for a file that is no ONNX model.
    """
    read_onnx(path)
    try:
        import tensorrt_rtx as trt
    except ImportError as error:
        raise MissingDependencyError("tensorrt-rtx", "tensorrt-rtx", f"reading {path} for tensorrt-rtx") from error
    logger = trt.Logger(trt.Logger.Severity.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path.resolve())):
        problem = parser.get_error(0)
        node = f"{problem.node_operator()} at {problem.node_name()!r}" if problem.node_name() else "the model"
        reason = (problem.desc().strip().splitlines() or ["it gives no reason"])[0][:400]
        raise UnsupportedError(f"TensorRT-RTX {trt.__version__} refuses {node} of {path}: {reason}")
    raise UnsupportedError(
        f"TensorRT-RTX {trt.__version__} takes {path} ({network.num_layers} layers), but its engines need an NVIDIA "
        "GPU, which profile does not time: drop --target for ONNX Runtime here"
    )
