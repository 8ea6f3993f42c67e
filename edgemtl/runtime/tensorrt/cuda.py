"""The few calls of CUDA's runtime library that a session needs, by `ctypes`: memory, copies, a stream.

JetPack brings the library and no Python package for it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edgemtl.errors import UnsupportedError

__all__ = ["LIBRARIES", "Cuda"]

LIBRARIES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_TO_DEVICE, _FROM_DEVICE = 1, 2
_MAJOR, _MINOR = 75, 76


class Cuda:
    """One stream on the first GPU, and the memory that was taken for it. Not thread-safe."""

    def __init__(self, library: Any = None) -> None:
        self._library = library or _load()
        self._memory: list[ctypes.c_void_p] = []
        self._stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(self._stream))

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT wants it."""
        return int(self._stream.value or 0)

    @property
    def capability(self) -> str:
        """The GPU's compute capability, as in `sm_87`."""
        values = [ctypes.c_int(), ctypes.c_int()]
        for value, attribute in zip(values, (_MAJOR, _MINOR)):
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
        return f"sm_{values[0].value}{values[1].value}"

    def take(self, count: int) -> int:
        """The address of so many bytes on the device."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(count))
        self._memory.append(pointer)
        return int(pointer.value or 0)

    def upload(self, address: int, array: Any) -> None:
        """Copy a contiguous array to the device, in the stream's order."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def download(self, array: Any, address: int) -> None:
        """Copy from the device into a contiguous array, in the stream's order."""
        self._copy(array.ctypes.data, address, array.nbytes, _FROM_DEVICE)

    def wait(self) -> None:
        """Return when the stream has done all that it was given."""
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free the memory and the stream."""
        for pointer in self._memory:
            self._call("cudaFree", pointer)
        self._memory = []
        if self._stream.value is not None:
            self._call("cudaStreamDestroy", self._stream)
            self._stream = ctypes.c_void_p()

    def _copy(self, target: int, source: int, count: int, direction: int) -> None:
        pointers = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call("cudaMemcpyAsync", *pointers, ctypes.c_size_t(count), direction, self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise UnsupportedError(f"CUDA's {name} failed with status {status}: look at dmesg and free memory")


def _load() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise UnsupportedError("CUDA's runtime library (libcudart.so) is not on this machine: install JetPack's CUDA")
