"""C simulation of a project: compiled with g++ and called with real images; to the bit what the hardware computes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import FileError, UserError
from edgemtl.files.share import find_shared
from edgemtl.runtime import EngineSpec, Outputs
from edgemtl.targets.hls.dataflow import DEPTHS, STARVED, as_threads
from edgemtl.targets.hls.project import NAME

__all__ = ["Simulation", "check_compiler", "compiled", "shared_source"]

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Simulation:
    """A compiled project: a function of an image (1, 3, H, W), normalised, and the wanted tasks.

    Its FIFOs are of the project's `depths` (places by name), and its layers wait for each other as in hardware.
    """

    folder: Path
    library: ctypes.CDLL
    spec: EngineSpec
    shapes: Mapping[str, tuple[int, int, int]]
    depths: Mapping[str, int]

    def __call__(self, image: Images, tasks: Sequence[str]) -> Outputs:
        """Outputs of `tasks`; raises `FileError` where the hardware would wait for ever: a FIFO is not deep enough."""
        results, needed = self._run(image, self.depths)
        for name, depth in needed.items():
            if depth > self.depths[name]:
                raise FileError(
                    str(self.folder),
                    f"C simulation waits for ever: FIFO {name} has {self.depths[name]} places and needs {depth}",
                )
        return _outputs(self.spec, results, tasks)

    def least_depths(self, image: Images) -> dict[str, int]:
        """Places of each FIFO with which the layers come to their end, found from 1 on; other choices may do too."""
        return self._run(image, dict.fromkeys(self.depths, 1))[1]

    def _run(self, image: Images, depths: Mapping[str, int]) -> tuple[dict[str, Images], dict[str, int]]:
        """Results by layer, and the depths that it took to get them from those that were given."""
        array = (ctypes.c_int * len(depths)).in_dll(self.library, DEPTHS)
        array[:] = list(depths.values())
        given = np.ascontiguousarray(image[0].transpose(1, 2, 0), np.float32)
        results = {name: np.zeros((*shape[1:], shape[0]), np.float32) for name, shape in self.shapes.items()}
        pointers = [each.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for each in (given, *results.values())]
        getattr(self.library, f"{NAME}_float")(*pointers)
        if ctypes.c_int.in_dll(self.library, STARVED).value:
            raise FileError(str(self.folder), "C simulation waits for ever: a layer reads more than another writes")
        return results, dict(zip(depths, array, strict=True))


@contextmanager
def compiled(folder: Path, shapes: Mapping[str, tuple[int, int, int]]) -> Iterator[Simulation]:
    """The project in `folder`, compiled.

    This runs the project's C++ in this process: it is for what was just written here, never for a stranger's folder.
    `shapes` (C, H, W) are those of the project's outputs, in its order. Raises `UserError` without g++, `FileError`
    with the compiler's first complaint.
    """
    check_compiler()
    spec = EngineSpec.read(folder)
    with TemporaryDirectory(prefix="edgemtl-") as scratch:
        dataflow = as_threads((folder / "firmware" / f"{NAME}.cpp").read_text(encoding="utf-8"))
        top = Path(scratch) / f"{NAME}.cpp"
        top.write_text(dataflow.source, encoding="utf-8")
        library = Path(scratch) / f"{NAME}.so"
        _compile(folder, top, library)
        yield Simulation(folder, ctypes.CDLL(str(library)), spec, shapes, dataflow.depths)


def check_compiler() -> None:
    """Raise `UserError` where there is no g++."""
    if shutil.which("g++") is None:
        raise UserError("C simulation needs the compiler g++, which is not installed: apt-get install g++")


def shared_source(name: str) -> Path:
    """A file of `export/hls`; `FileError` where it is missing."""
    path = find_shared("export", f"hls/{name}")
    if path is None:
        raise FileError(f"export/hls/{name}", "is missing: reinstall edgemtl")
    return path


def _compile(folder: Path, top: Path, library: Path) -> None:
    firmware, streams = folder / "firmware", shared_source("dataflow/hls_stream.h").parent
    options = ["-O1", "-fPIC", "-shared", "-std=c++17", "-pthread", "-fno-gnu-unique", "-w"]
    options += [f"-I{each}" for each in (streams, firmware, firmware / "ap_types")]  # the first header found is taken
    weights = f'-DWEIGHTS_DIR="{firmware / "weights"}"'
    sources = [str(top), str(folder / f"{NAME}_bridge.cpp")]
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
