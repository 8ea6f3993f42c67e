"""Stock INT8 of a plain ONNX file, as its user would make it by hand: by ONNX Runtime's quantizer, and by NNCF's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

__all__ = ["QUANTIZERS", "by_nncf", "by_onnxruntime"]

Array = NDArray[Any]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """The images that calibrate, as ONNX Runtime's quantizer reads them."""

    def __init__(self, name: str, images: Sequence[Array]) -> None:
        self._feeds = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        """The next image; None behind the last."""
        return next(self._feeds, None)


def by_onnxruntime(model: onnx.ModelProto, images: Sequence[Array], **options: Any) -> onnx.ModelProto:
    """ONNX Runtime's `quantize_static` (QDQ) after its own preprocessing; it raises whatever its many passes raise."""
    (name,) = _inputs(model)
    with tempfile.TemporaryDirectory() as scratch:
        source, ready, rounded = (Path(scratch) / f"{each}.onnx" for each in ("own", "ready", "int8"))
        onnx.save(model, source)
        quant_pre_process(source, ready, auto_merge=True)
        quantize_static(ready, rounded, _Reader(name, images), quant_format=QuantFormat.QDQ, **options)
        return onnx.load(rounded)


def by_nncf(model: onnx.ModelProto, images: Sequence[Array]) -> onnx.ModelProto:
    """NNCF's post-training quantization of an ONNX file, by its defaults."""
    import nncf  # it takes seconds, and logs

    (name,) = _inputs(model)
    feeds = nncf.Dataset([{name: np.ascontiguousarray(image)} for image in images])
    return nncf.quantize(model, feeds, subset_size=len(images))


def _inputs(model: onnx.ModelProto) -> list[str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [info.name for info in model.graph.input if info.name not in constants]


QUANTIZERS: Mapping[str, Callable[[onnx.ModelProto, Sequence[Array]], onnx.ModelProto]] = {
    "onnxruntime": lambda model, images: by_onnxruntime(model, images, per_channel=True),
    "nncf": by_nncf,
}
"""The better settings of each: a scale for each channel of weights, which is NNCF's default."""
