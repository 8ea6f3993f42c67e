"""Any ONNX file in OpenVINO, on this machine's CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.errors import MissingDependencyError, UserError
from edgemtl.files.onnx import read_onnx
from edgemtl.profiling.inputs import Declared, declared_in
from edgemtl.runtime import signal_stack_kept

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["OpenVinoFile"]

WARMUP_RUNS = 3


class OpenVinoFile:
    """An engine of fixed sizes for each subset of outputs; it computes in FP32, never by itself in BF16."""

    name = "openvino"
    includes = "one run of the outputs' own subgraph by OpenVINO in FP32 on random inputs; no post-processing"

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingDependencyError("openvino", "openvino", f"profiling {path} for the target openvino") from error
        graph = read_onnx(path).graph
        self._ov, self._core, self._path = ov, ov.Core(), path
        self._properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        try:
            self._model = self._core.read_model(str(path))
        except RuntimeError as error:
            raise UserError(f"OpenVINO {ov.__version__} cannot open {path}: {_reason(error)}") from error
        self.inputs: Sequence[Declared] = declared_in(graph)
        self.outputs: Sequence[str] = tuple(dict.fromkeys(info.name for info in graph.output))
        self._settled: ov.Model | None = None

    def run_once(self, feeds: Mapping[str, Any]) -> None:
        """Give the inputs their sizes, compile everything and run it once."""
        self._settled = None
        try:
            self._request(self.outputs, feeds).infer()
        except RuntimeError as error:
            raise RuntimeError(_reason(error)) from error

    def call(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> Callable[[], object]:
        """A call that computes these outputs; the inputs lie in the engine already."""
        request = self._request(outputs, feeds)
        return lambda: request.infer()

    def operator_times(
        self, outputs: Sequence[str], feeds: Mapping[str, Any], runs: int
    ) -> Mapping[tuple[str, str], float]:
        """Mean ms of each operator by name and kind, from the runtime's own counters."""
        request = self._request(outputs, feeds, {"PERF_COUNT": True})
        spent: dict[tuple[str, str], float] = {}
        for turn in range(WARMUP_RUNS + runs):
            request.infer()
            for info in request.get_profiling_info() if turn >= WARMUP_RUNS else ():
                if str(info.status).endswith(".EXECUTED"):
                    key = info.node_name, info.node_type
                    spent[key] = spent.get(key, 0.0) + 1000 * info.real_time.total_seconds() / runs
        return spent

    def close(self) -> None:
        """Release the model."""
        del self._model, self._settled

    def _request(
        self, outputs: Sequence[str], feeds: Mapping[str, Any], more: Mapping[str, Any] | None = None
    ) -> ov.InferRequest:
        """An engine of these outputs, its inputs filled."""
        if self._settled is None:
            self._settled = self._model.clone()
            self._settled.reshape({name: list(value.shape) for name, value in feeds.items()})
        whole = self._settled
        results = [whole.output(name).get_node() for name in outputs]
        read = _parameters(results)
        parameters = [each for each in whole.get_parameters() if each.get_friendly_name() in read]
        part = self._ov.Model(results, parameters)
        with signal_stack_kept():
            compiled = self._core.compile_model(part, "CPU", {**self._properties, **(more or {})})
        request = compiled.create_infer_request()
        for port in compiled.inputs:
            request.set_tensor(port, self._ov.Tensor(feeds[port.any_name]))
        return request


def _parameters(results: Sequence[Any]) -> set[str]:
    """Names of the inputs that results depend on."""
    waiting, seen, names = list(results), set[str](), set[str]()
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name() if node.get_type_name() == "Parameter" else ""
        if name:
            names.add(name)
        for source in node.input_values():
            before = source.get_node()
            if before.get_name() not in seen:
                seen.add(before.get_name())
                waiting.append(before)
    return names


def _reason(error: Exception) -> str:
    """The line of OpenVINO's message that says most: the last that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:400]
