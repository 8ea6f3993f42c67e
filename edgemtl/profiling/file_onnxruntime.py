"""Any ONNX file in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.errors import MissingDependencyError, UserError, first_line
from edgemtl.files.onnx import read_onnx
from edgemtl.profiling.blocks import cut_to, named_model
from edgemtl.profiling.bounded import FATAL, run_once
from edgemtl.profiling.inputs import Declared
from edgemtl.runtime import kernel_times

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

__all__ = ["OnnxRuntimeFile"]


class OnnxRuntimeFile:
    """It computes a whole graph whatever outputs are asked for, so each subset is cut out and opened by itself."""

    name = "onnxruntime"
    includes = "one run of the outputs' own subgraph by ONNX Runtime on random inputs; no post-processing"

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._whole = self._open(str(path))
        self.inputs: Sequence[Declared] = [
            Declared(each.name, each.type, tuple(each.shape)) for each in self._whole.get_inputs()
        ]
        self.outputs: Sequence[str] = tuple(dict.fromkeys(info.name for info in self._whole.get_outputs()))

    def run_once(self, feeds: Mapping[str, Any]) -> None:
        """Run everything once, two minutes at most."""
        run_once(self._whole, None, feeds)

    def call(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> Callable[[], object]:
        """A call that computes these outputs."""
        whole = len(outputs) == len(self.outputs)
        session = self._whole if whole else self._open(cut_to(read_onnx(self._path), outputs))
        read = {info.name: feeds[info.name] for info in session.get_inputs()}
        return lambda: session.run(list(outputs), read)

    def operator_times(
        self, outputs: Sequence[str], feeds: Mapping[str, Any], runs: int
    ) -> Mapping[tuple[str, str], float]:
        """Mean ms of each kernel by its node's name and operator, from the runtime's own profile."""
        model = named_model(self._path)
        producers = {output: node.name for node in model.graph.node for output in node.output if output}
        with tempfile.TemporaryDirectory() as scratch:
            session = self._open(cut_to(model, outputs), str(Path(scratch) / "profile"))
            read = {info.name: feeds[info.name] for info in session.get_inputs()}
            for _ in range(runs):
                session.run(list(outputs), read)
            return kernel_times(session, runs, producers)

    def close(self) -> None:
        """Release the model."""
        del self._whole

    def _open(self, model: str | onnx.ModelProto, profile: str | None = None) -> ort.InferenceSession:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError("onnxruntime", "all", f"profiling {self._path}") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self._threads, FATAL
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._path.parent.resolve())
        )
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        try:
            content = model if isinstance(model, str) else model.SerializeToString()
            return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        except Exception as error:
            raise UserError(f"ONNX Runtime {ort.__version__} cannot open {self._path}: {first_line(error)}") from error
