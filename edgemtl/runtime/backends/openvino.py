"""OpenVINO on the CPU: whole engines for the modes that matter most, a trunk and heads for the other subsets.

An engine compiled for one mode has no seam: the runtime plans memory and layouts across trunk and head. Each costs
compilation and a copy of its weights in the layout its kernels want, so only single tasks and all tasks together get
one, and of several levels only all tasks together. Every other subset runs a trunk engine and one engine a head;
tensors between them are shared, not copied.

Where tasks run the same operators on tensors of their own (behind a mixture of experts), a whole engine for each would
hold those weights once a task. Then one engine serves them all and is given the task's routers with every call.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from edgemtl.arithmetic import EXACT_INT8, NEEDS
from edgemtl.errors import EngineWarning, MissingDependencyError, UserError
from edgemtl.runtime.backends.signal_stack import signal_stack_kept
from edgemtl.runtime.session import CLOSED, WARMUP_RUNS, EngineSpec, OperatorTime, Outputs, block_of, check_image
from edgemtl.runtime.shared import assemble
from edgemtl.tasks import check_tasks, map_outputs

if TYPE_CHECKING:
    import numpy as np
    import openvino as ov
    from numpy.typing import NDArray

__all__ = ["open_session"]

_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT_VNNI = ("sse41", "avx", "avx2", "avx512_core")
"""Instruction sets without VNNI that oneDNN, whose kernels OpenVINO uses, can be held to: sums saturate then."""
_ARM = ("aarch64", "arm64")
"""Machines where OpenVINO 2026.4 turns some INT8 convolutions into FP16 ones, whatever the engine's precision says, and
outputs are percents apart from what was simulated; without these transformations it computes INT8 in FP32, exactly."""

Mode = Callable[["NDArray[np.float32]"], Outputs]


class OpenVinoSession:
    """Output arrays are the engine's own buffers: they hold until the next `run`."""

    def __init__(self, folder: Path, spec: EngineSpec, threads: int, modes: Sequence[Sequence[str]] | None) -> None:
        self.spec, self.tasks = spec, spec.tasks
        self._read = partial(_Compiler, folder, spec, threads)
        compiler = self._read()  # what was compiled needs the model no longer: it is not kept
        mode_tasks = [check_tasks(names, self.tasks) for names in (_whole_modes(spec) if modes is None else modes)]
        in_common = compiler.path() is not None and len(mode_tasks) > 1
        self._modes: dict[tuple[str, ...], Mode] = {}
        for wanted in [] if in_common else mode_tasks:
            self._modes[wanted] = _whole(compiler.mode(wanted), {task: spec.outputs[task] for task in wanted})
        chained = in_common or (modes is None and len(mode_tasks) < 2 ** len(self.tasks) - 1)
        self._chain = _Chain(compiler) if chained else None
        self._closed = False

    def run(self, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        """Raw outputs of `tasks`; raises `UserError` for an unknown task, a wrong image or a closed engine."""
        wanted = self._wanted(tasks)
        image = check_image(image, self.spec.input)
        if mode := self._modes.get(wanted):
            return mode(image)
        if self._chain:
            return self._chain.run(image, wanted)
        raise UserError(_not_ready(wanted, self._modes))

    def _wanted(self, tasks: str | Sequence[str]) -> tuple[str, ...]:
        if self._closed:
            raise UserError(CLOSED)
        return check_tasks(tasks, self.tasks)

    def operator_times(self, image: NDArray[np.float32], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator, by OpenVINO's counters, in an engine compiled with them and then dropped."""
        wanted = self._wanted(tasks)
        request = self._read().mode(wanted, counters=True).create_infer_request()
        total: dict[str, tuple[str, float]] = {}
        for _ in range(WARMUP_RUNS):
            _infer(request, check_image(image, self.spec.input))
        for _ in range(runs):
            _infer(request, check_image(image, self.spec.input))
            for info in request.get_profiling_info():
                if str(info.status).endswith("EXECUTED") and "NOT_" not in str(info.status):
                    spent = total.get(info.node_name, ("", 0.0))[1] + info.real_time.total_seconds() * 1000
                    total[info.node_name] = (info.node_type, spent)
        return [OperatorTime(name, kind, block_of(name), spent / runs) for name, (kind, spent) in total.items()]

    def close(self) -> None:
        """Free every engine."""
        self._modes, self._chain, self._closed = {}, None, True


def open_session(
    folder: Path, spec: EngineSpec, threads: int, modes: Sequence[Sequence[str]] | None = None
) -> OpenVinoSession:
    """Open an engine that the target `openvino` wrote, ready for `modes` (none given: for every subset).

    Raises `UserError` where the environment holds OpenVINO back from what the engine needs of the processor.
    """
    _check_held_back(folder, spec)
    return OpenVinoSession(folder, spec, threads, modes)


def _check_held_back(folder: Path, spec: EngineSpec) -> None:
    held = next(((name, value) for name in _SWITCHES if (value := os.environ.get(name))), None)
    if held is not None and EXACT_INT8 in spec.needs and held[1].lower() in _WITHOUT_VNNI:
        raise UserError(
            f"engine {folder} needs {NEEDS[EXACT_INT8][1]}, and {held[0]}={held[1]} holds OpenVINO to less: it would "
            "compute wrongly; unset that variable, or export for every processor with --portable"
        )


def _whole_modes(spec: EngineSpec) -> list[tuple[str, ...]]:
    """The modes that get an engine of their own; of several levels each only for all tasks: it is opened in use."""
    single = [] if "shared" in spec.files else [(task,) for task in spec.tasks]
    return list(dict.fromkeys([spec.tasks, *single]))


def _not_ready(wanted: Iterable[str], modes: Iterable[tuple[str, ...]]) -> str:
    ready = "; ".join("+".join(mode) for mode in modes)
    return f"mode {'+'.join(wanted)} was not prepared when the engine was opened: ready are {ready}"


def _whole(compiled: ov.CompiledModel, outputs: Mapping[str, Mapping[str, str]]) -> Mode:
    """A mode of its own, of an engine whose results are these tensors, in this order."""
    request, results = compiled.create_infer_request(), iter(compiled.outputs)
    arrays = map_outputs(lambda _: request.get_tensor(next(results)).data, outputs)

    def run(image: NDArray[np.float32]) -> Outputs:
        _infer(request, image)
        return map_outputs(lambda array: array, arrays)

    return run


def _infer(request: ov.InferRequest, image: NDArray[np.float32]) -> None:
    import openvino as ov

    request.set_input_tensor(ov.Tensor(image, shared_memory=True))
    request.infer()


@dataclass(frozen=True)
class _Step:
    """An engine of a chain and when it is run: for which tasks, and with what besides the buffers it was bound to."""

    tasks: frozenset[str]
    request: ov.InferRequest
    reads_image: bool
    weights: Mapping[str, ov.Tensor]


class _Chain:
    """Trunk and heads as engines of their own; a tensor between two is one buffer, and each pays only when wanted.

    A path that tasks have in common is one engine, run for each task before its head and bound to the task's routers.
    """

    def __init__(self, compiler: _Compiler) -> None:
        self._buffers: dict[str, ov.Tensor] = {}
        path = compiler.path()
        parts = [part for part in compiler.parts() if path is None or len(part["tasks"]) > 1]
        self._steps = [self._step(compiler.part(part), part["tasks"], part) for part in parts]
        if path is not None:
            self._steps += self._common(compiler, path)
        self._outputs = map_outputs(lambda name: self._buffers[name].data, compiler.spec.outputs)

    def _step(
        self,
        engine: ov.CompiledModel,
        tasks: Iterable[str],
        part: Mapping[str, Sequence[str]],
        sources: Mapping[str, str] | None = None,
    ) -> _Step:
        """An engine bound to the buffers it reads; those that it writes are there for later ones."""
        request = engine.create_infer_request()
        for name in part["inputs"]:
            if (source := (sources or {}).get(name, name)) in self._buffers:
                request.set_tensor(name, self._buffers[source])
        self._buffers.update({name: request.get_tensor(name) for name in part["outputs"]})
        return _Step(frozenset(tasks), request, "image" in part["inputs"], {})

    def _common(self, compiler: _Compiler, path: Mapping[str, Any]) -> Iterator[_Step]:
        first = next(iter(path["weights"].values()))
        part = {"inputs": [*path["inputs"], *first], "outputs": path["outputs"]}
        shared = self._step(compiler.part(part), (), part)
        for task, sources in path["heads"].items():
            weights = {name: compiler.constant(own) for name, own in path["weights"][task].items()}
            yield replace(shared, tasks=frozenset([task]), weights=weights)
            head = {"inputs": list(sources), "outputs": [*compiler.spec.outputs[task].values()]}
            yield self._step(compiler.part(head), [task], head, sources)

    def run(self, image: NDArray[np.float32], tasks: tuple[str, ...]) -> Outputs:
        """Run every part that a wanted task needs."""
        import openvino as ov

        shared = ov.Tensor(image, shared_memory=True)
        for step in self._steps:
            if not step.tasks.isdisjoint(tasks):
                if step.reads_image:
                    step.request.set_tensor("image", shared)
                for name, weight in step.weights.items():
                    step.request.set_tensor(name, weight)
                step.request.infer()
        return {task: dict(self._outputs[task]) for task in tasks}


class _Compiler:
    """Cuts modes and parts out of one model in memory and compiles them with the engine's properties."""

    def __init__(self, folder: Path, spec: EngineSpec, threads: int) -> None:
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingDependencyError("openvino", "openvino", "an engine of the target openvino") from error
        self._ov, self.spec, self._core = ov, spec, ov.Core()
        path, weights = spec.file(folder, "model"), spec.file(folder, "weights")
        try:
            if "shared" in spec.files:
                content = b"".join(map(bytes, assemble(folder, spec, "weights")))
                self._model = self._core.read_model(path.read_bytes(), content)
            else:
                self._model = self._core.read_model(path, weights)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO {ov.__version__} cannot open {path}: {reason}") from error
        self._properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._precision(),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # else what layers of four-bit weights read would have eight bits
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
            **({"LP_TRANSFORMS_MODE": False} if platform.machine() in _ARM else {}),
        }

    def _precision(self) -> str:
        if self.spec.options.get("engine") != "bf16":
            return "f32"
        if "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            warnings.warn("this CPU has no BF16 instructions: the engine runs in FP32", EngineWarning, stacklevel=2)
            return "f32"
        return "bf16"

    def mode(self, tasks: tuple[str, ...], counters: bool = False) -> ov.CompiledModel:
        """One engine for exactly these tasks, outputs in their order."""
        names = [name for task in tasks for name in self.spec.outputs[task].values()]
        outputs = [self._output(self._model, name) for name in names]
        model = self._ov.Model([self._ov.opset13.result(output) for output in outputs], self._model.get_parameters())
        properties = {**self._properties, **({"PERF_COUNT": True} if counters else {})}
        return self._compile(model, properties)

    def parts(self) -> list[Mapping[str, Sequence[str]]]:
        """The groups of operators that the exporter found; raises `UserError` where `engine.json` lacks them."""
        parts = self.spec.options.get("parts")
        keys = ("tasks", "inputs", "outputs")
        if not isinstance(parts, list) or any(
            not isinstance(part, dict) or any(not isinstance(part.get(key), list) for key in keys) for part in parts
        ):
            raise UserError("engine.json does not say which parts trunk and heads are: export again")
        return parts

    def path(self) -> Mapping[str, Any] | None:
        """The part that tasks share, if the exporter found one; raises `UserError` for a damaged `engine.json`."""
        path = self.spec.options.get("path")
        kinds = {"inputs": list, "outputs": list, "weights": dict, "heads": dict}
        if path is None:
            return None
        if not isinstance(path, dict) or any(not isinstance(path.get(key), kind) for key, kind in kinds.items()):
            raise UserError("engine.json does not say what its tasks have in common: export again")
        return path

    def constant(self, name: str) -> ov.Tensor:
        """The weights that the model calls `name`."""
        return self._ov.Tensor(self._output(self._model, name).get_node().data.copy())

    def part(self, part: Mapping[str, Sequence[str]]) -> ov.CompiledModel:
        """One engine for a group of operators, with the tensors it reads from others as inputs."""
        model, ov = self._model.clone(), self._ov
        outputs = [self._output(model, name) for name in part["outputs"]]
        parameters = []
        for name in part["inputs"]:
            source = self._output(model, name)
            parameter = ov.opset13.parameter(source.get_partial_shape(), source.get_element_type())
            readers = source.get_target_inputs()
            for reader in readers:
                reader.replace_source_output(parameter.output(0))
            parameter.output(0).set_names({name})
            source.set_names(set())
            parameters.append(parameter)
        results = [ov.opset13.result(output) for output in outputs]
        return self._compile(ov.Model(results, parameters), self._properties)

    def _compile(self, model: ov.Model, properties: Mapping[str, Any]) -> ov.CompiledModel:
        with signal_stack_kept():
            return self._core.compile_model(model, "CPU", properties)

    @staticmethod
    def _output(model: ov.Model, name: str) -> Any:
        """The port that writes the tensor `name`."""
        for operator in model.get_ordered_ops():
            for output in operator.outputs():
                if name in output.get_names():
                    return output.get_node().input_value(0) if operator.get_type_name() == "Result" else output
        raise UserError(f"the engine's model holds no tensor {name!r}: its files do not belong together, export again")
