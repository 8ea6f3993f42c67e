"""C simulation of a project: compiled with g++ and called with real images; to the bit what the hardware computes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import FileError, UserError
from edgemtl.runtime import EngineSpec, Outputs
from edgemtl.targets.hls.project import NAME

__all__ = ["compiled"]

Images = NDArray[np.float32]
Run = Callable[[Images, Sequence[str]], Outputs]


@contextmanager
def compiled(folder: Path, shapes: Mapping[str, tuple[int, int, int]]) -> Iterator[Run]:
    """The project in `folder` as a function of an image (1, 3, H, W), normalised, and the wanted tasks.

    This runs the project's C++ in this process: it is for what was just written here, never for a stranger's folder.
    `shapes` (C, H, W) are those of the project's outputs, in its order. Raises `UserError` without g++, `FileError`
    with the compiler's first complaint.
    """
    if shutil.which("g++") is None:
        raise UserError("C simulation needs the compiler g++, which is not installed: apt-get install g++")
    spec = EngineSpec.read(folder)
    with TemporaryDirectory(prefix="edgemtl-") as scratch:
        library = Path(scratch) / f"{NAME}.so"
        _compile(folder, library)
        function = getattr(ctypes.CDLL(str(library)), f"{NAME}_float")

        def run(image: Images, tasks: Sequence[str]) -> Outputs:
            given = np.ascontiguousarray(image[0].transpose(1, 2, 0), np.float32)
            results = {name: np.zeros((*shape[1:], shape[0]), np.float32) for name, shape in shapes.items()}
            pointers = [each.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for each in (given, *results.values())]
            function(*pointers)
            return _outputs(spec, results, tasks)

        yield run


def _compile(folder: Path, library: Path) -> None:
    firmware = folder / "firmware"
    options = ["-O1", "-fPIC", "-shared", "-std=c++17", "-fno-gnu-unique", "-w", f"-I{firmware / 'ap_types'}"]
    weights = f'-DWEIGHTS_DIR="{firmware / "weights"}"'
    sources = [str(firmware / f"{NAME}.cpp"), str(folder / f"{NAME}_bridge.cpp")]
    done = subprocess.run(
        ["g++", *options, weights, *sources, "-o", str(library)], text=True, capture_output=True, check=False
    )
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), "it gave no reason")
        raise FileError(str(folder), f"C simulation does not compile: {complaint.strip()}")


def _outputs(spec: EngineSpec, results: Mapping[str, Images], tasks: Sequence[str]) -> Outputs:
    """Each wanted task's tensors (1, C, H, W) from what the project gives."""
    layers = spec.options["layers"]
    outputs: Outputs = {}
    for task in tasks:
        outputs[task] = {
            name: _tensor(results[layers[tensor]["layer"]], layers[tensor]["shuffle"], layers[tensor]["flat"])
            for name, tensor in spec.options["outputs"][task].items()
        }
    return outputs


def _tensor(value: Images, factor: int, flat: bool) -> Images:
    """(H, W, C) to (1, C, H, W) or (1, C); with a factor channels become pixels, as by ONNX's DepthToSpace in CRD."""
    if flat:
        return value.reshape(1, -1)
    height, width, channels = value.shape
    blocks = value.reshape(height, width, channels // factor**2, factor, factor)
    pixels = blocks.transpose(2, 0, 3, 1, 4).reshape(1, channels // factor**2, height * factor, width * factor)
    return np.ascontiguousarray(pixels)
