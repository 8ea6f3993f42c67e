"""An engine of the target `tensorrt` on its board: built where it was not, opened, run, and profiled layer by layer.

Layers are those of TensorRT's inspector (`layers`): what they fuse and what runs them. Elsewhere than on a board with
TensorRT's bindings opening is refused with what is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.runtime.session import (
    CLOSED,
    WARMUP_RUNS,
    EngineSpec,
    OperatorTime,
    Outputs,
    check_image,
    flag_name,
)
from edgemtl.runtime.shared import assemble
from edgemtl.runtime.tensorrt.board import available_bytes, key_of
from edgemtl.runtime.tensorrt.build import build, choose_settings, quiet_logger, workspace_bytes
from edgemtl.runtime.tensorrt.cuda import Cuda
from edgemtl.runtime.tensorrt.layers import inspect_layers, named_layer, time_of
from edgemtl.runtime.tensorrt.store import stored_or_built
from edgemtl.tasks import check_tasks, map_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TensorRtSession", "open_session"]


class TensorRtSession:
    """Output arrays are the session's own and hold until the next run."""

    def __init__(self, spec: EngineSpec, trt: Any, cuda: Cuda, plan: bytes, logger: Any) -> None:
        self.spec, self.tasks = spec, spec.tasks
        self._trt, self._cuda, self._open = trt, cuda, True
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            reason = logger.errors[-1] if logger.errors else "it gave no reason"
            raise UnsupportedError(f"TensorRT {trt.__version__} does not open the engine: {reason}")
        self._context = self._engine.create_execution_context()
        self._arrays: dict[str, NDArray[Any]] = {}
        self._addresses: dict[str, int] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            kind = self._engine.get_tensor_dtype(name)
            self._arrays[name] = np.zeros(tuple(self._engine.get_tensor_shape(name)), _numpy_type(trt, kind))
            self._addresses[name] = cuda.take(self._arrays[name].nbytes)
            self._context.set_tensor_address(name, self._addresses[name])

    def run(self, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        """Raw outputs of `tasks`; raises `UserError` for an unknown task, a wrong image or a closed engine."""
        if not self._open:
            raise UserError(CLOSED)
        wanted = check_tasks(tasks, self.tasks)
        self._cuda.upload(self._addresses["image"], check_image(image, self.spec.input))
        for task in self.tasks:
            flag = flag_name(task)
            if flag in self._arrays:
                self._arrays[flag][...] = task in wanted
                self._cuda.upload(self._addresses[flag], self._arrays[flag])
        if not self._context.execute_async_v3(self._cuda.stream):
            raise UnsupportedError(f"TensorRT {self._trt.__version__} failed to run the engine")
        outputs = {task: self.spec.outputs[task] for task in wanted}
        for own in outputs.values():
            for name in own.values():
                self._cuda.download(self._arrays[name], self._addresses[name])
        self._cuda.wait()
        return map_outputs(self._arrays.__getitem__, outputs)

    def operator_times(self, image: NDArray[np.float32], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each layer, by TensorRT's own profiler, with the blocks in it and the unit that runs it."""
        self.run(image, tasks)
        times = _profiler(self._trt)
        self._context.profiler = times
        for _ in range(WARMUP_RUNS):
            self.run(image, tasks)
        times.spent.clear()
        for _ in range(runs):
            self.run(image, tasks)
        layers = inspect_layers(self._trt, self._engine)
        for_dla = self.spec.options.get("dla", ())
        return [
            time_of(name, layers.get(name) or named_layer(name), ms / runs, for_dla) for name, ms in times.spent.items()
        ]

    def close(self) -> None:
        """Free the engine, and its memory on the device."""
        if self._open:
            self._open = False
            self._context = self._engine = self._runtime = None
            self._cuda.close()


def _numpy_type(trt: Any, kind: Any) -> Any:
    """The type of an array for one of TensorRT's, of those that graphs of ours take and give.

    TensorRT's own `nptype` fails in 8.5 beside numpy 1.24, for every type (NVIDIA/TensorRT#2557).
    """
    return {trt.float32: np.float32, trt.float16: np.float16, trt.bool: np.bool_}[kind]


def _profiler(trt: Any) -> Any:
    """A profiler that sums the milliseconds of each layer."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.spent: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.spent[layer_name] = self.spent.get(layer_name, 0.0) + ms

    return Profiler()


def open_session(
    folder: Path,
    spec: EngineSpec,
    threads: int,
    modes: Sequence[Sequence[str]] | None = None,
    connect: Callable[[], Cuda] = Cuda,
    root: Path = Path("/"),
) -> TensorRtSession:
    """Open the engine in `folder`, which is built first where it was not, or for another board; every subset is ready.

    Raises `UnsupportedError` on a machine without TensorRT's bindings or CUDA, and where this TensorRT is too old.
    """
    trt = _bindings(folder, spec)
    settings = choose_settings(spec.options.get("builds", ()), trt.__version__)
    graph = settings["graph"]
    cuda, logger = connect(), _logger(trt)
    model = _graph_of(folder, spec, graph)
    key = key_of(trt.__version__, cuda.capability, hashlib.sha256(model).hexdigest(), settings, root)

    def built(timings: bytes) -> Any:
        return build(trt, logger, model, settings, workspace_bytes(available_bytes(root)), timings)

    return TensorRtSession(spec, trt, cuda, stored_or_built(key, built), logger)


def _graph_of(folder: Path, spec: EngineSpec, graph: str) -> bytes:
    """An ONNX graph of the engine, put together where it is a level's; raises `UserError` where a file is missing."""
    if "shared" not in spec.files:
        return spec.file(folder, graph).read_bytes()
    return b"".join(map(bytes, assemble(folder, spec, graph)))


@lru_cache(maxsize=None)
def _logger(trt: Any) -> Any:
    """The process's one logger: TensorRT ignores a second."""
    return quiet_logger(trt)


def _bindings(folder: Path, spec: EngineSpec) -> Any:
    try:
        import tensorrt

        if hasattr(tensorrt, "Builder"):  # a folder of that name, an engine's own for one, is a package without content
            return tensorrt
    except ImportError:
        pass
    graphs = ", ".join(spec.files.values())
    raise UnsupportedError(
        f"engine {folder} is for TensorRT on a Jetson board, which builds it from {graphs}: measure it there "
        "(edgemtl profile BUNDLE --device ssh://USER@BOARD), open it there by its Python, or another target here"
    )
