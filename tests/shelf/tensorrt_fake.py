"""Stands in for `tensorrt` and CUDA's library as a board has them: each version has what its documentation lists.

What a version lacks is no attribute of its fake (8.5: `STRONGLY_TYPED`; 10: `build_engine`, bindings by number; 11:
flags of precision). Calls take the documented arguments only, a network without an explicit batch is not parsed by 8.5,
whose `nptype` fails beside numpy 1.24, precision cannot be set on a strongly typed network, an opset beyond that of the
parser is refused, and a plan opens by the version and on the GPU that it was built by and for. What is built runs by
ONNX Runtime, on addresses of the fake CUDA.
"""

from __future__ import annotations

import ctypes
import json
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

VERSIONS = {"8.5.2.2": 17, "10.3.0": 20, "10.13.3": 24, "11.4.1": 25}
"""Each version, and the newest opset that its parser reads."""


LAYERS = {
    "blocks.stem.conv + blocks.stem.act": ("CaskConvolution", ("blocks.stem.conv", "blocks.stem.act")),
    "{ForeignNode[blocks.s1_1.conv...blocks.s2_1.conv]}": (
        "DLA", ("blocks.s1_1.conv", "blocks.s1_2.conv", "blocks.s2_1.conv"),
    ),
    "Reformatting CopyNode for Output Tensor 0 to blocks.s1_1.conv": ("Reformat", ()),
}  # fmt: skip
"""Layers that every engine is said to have, with their types and nodes."""


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None: ...


class IProfiler:
    def __init__(self) -> None: ...


class _Settable:
    """A bound object: only what a version documents may be set on it."""

    _fields: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self._fields:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        object.__setattr__(self, name, value)


class FakeCuda:
    """CUDA's runtime library on the host's own memory."""

    def __init__(self, capability: tuple[int, int] = (8, 7), free_bytes: int = 1 << 30) -> None:
        self.capability, self.free_bytes, self.live = capability, free_bytes, {}

    def cudaStreamCreate(self, stream: Any) -> int:
        stream._obj.value = 7
        return 0

    def cudaDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
        value._obj.value = self.capability[attribute - 75]
        return 0

    def cudaMalloc(self, pointer: Any, count: Any) -> int:
        if count.value > self.free_bytes:
            return 2  # cudaErrorMemoryAllocation
        memory = ctypes.create_string_buffer(max(count.value, 1))
        pointer._obj.value = ctypes.addressof(memory)
        self.live[pointer._obj.value] = memory
        return 0

    def cudaMemcpyAsync(self, target: Any, source: Any, count: Any, direction: int, stream: Any) -> int:
        if (target if direction == 1 else source).value not in self.live or stream.value != 7:
            return 1  # cudaErrorInvalidValue
        ctypes.memmove(target.value, source.value, count.value)
        return 0

    def cudaStreamSynchronize(self, stream: Any) -> int:
        return 0 if stream.value == 7 else 400  # cudaErrorInvalidResourceHandle

    def cudaFree(self, pointer: Any) -> int:
        return 0 if self.live.pop(pointer.value, None) is not None else 1

    def cudaStreamDestroy(self, stream: Any) -> int:
        return 0


_KINDS = {"FLOAT": np.float32, "HALF": np.float16, "BOOL": np.bool_}


def _without_numpy_bool(kind: str) -> Any:
    """8.5's `nptype` beside numpy 1.24, the last one of Python 3.8 (NVIDIA/TensorRT#2557)."""
    raise AttributeError(f"module 'numpy' has no attribute 'bool' (for {kind})")


def fake_tensorrt(version: str, gpu: str = "sm_87", dla_cores: int = 0) -> Any:
    """The module `tensorrt` of a version, on a board with this GPU and so many DLAs."""
    major = int(version.split(".")[0])
    module: Any = ModuleType("tensorrt")
    module.__version__, module.ILogger, module.IProfiler = version, ILogger, IProfiler
    module.float32, module.float16, module.bool, module.built = "FLOAT", "HALF", "BOOL", []
    module.nptype = _without_numpy_bool if version.startswith("8.5") else _KINDS.__getitem__
    flags = ["STRONGLY_TYPED"] if major >= 10 else ["EXPLICIT_PRECISION"]
    values = {"EXPLICIT_BATCH": 0} if major < 11 else {}
    module.NetworkDefinitionCreationFlag = IntEnum(
        "NetworkDefinitionCreationFlag", {**values, **{name: len(values) for name in flags}}
    )
    names = ["DEBUG", "GPU_FALLBACK", "REFIT", "TF32"]
    names += ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"] if major < 11 else []
    module.BuilderFlag = IntEnum("BuilderFlag", {name: number for number, name in enumerate(names)})
    module.DeviceType = IntEnum("DeviceType", {"GPU": 0, "DLA": 1})
    module.MemoryPoolType = IntEnum("MemoryPoolType", {"WORKSPACE": 0, "DLA_MANAGED_SRAM": 1})
    module.ProfilingVerbosity = IntEnum("ProfilingVerbosity", {"LAYER_NAMES_ONLY": 0, "NONE": 1, "DETAILED": 2})
    module.LayerInformationFormat = IntEnum("LayerInformationFormat", {"ONELINE": 0, "JSON": 1})
    classes = _classes(module, major, VERSIONS[version], gpu, dla_cores)
    for each in classes:
        setattr(module, each.__name__, each)
    return module


def _classes(  # noqa: C901 (one closure for each class)
    module: Any, major: int, opset: int, gpu: str, dla_cores: int
) -> list[type]:
    weakly_typed_allowed = major < 11

    class Tensor:
        def __init__(self, name: str, dtype: str, ranges: dict[str, tuple[float, float]]) -> None:
            self.name, self.dtype = name, dtype
            if major < 11:
                self.set_dynamic_range = lambda min, max: ranges.__setitem__(name, (min, max))

    class Layer(_Settable):
        _fields = ("precision",)

        def __init__(self, node: onnx.NodeProto, kind: str, network: Network) -> None:
            self._node, self._kind, self._typed, self._held = node, kind, network.typed, False
            self._ranges = network.ranges
            self.__dict__["num_outputs"] = len(node.output)

        @property
        def name(self) -> str:
            return self._node.name

        def get_output(self, index: int) -> Any:
            return Tensor(self._node.output[index], self._kind, self._ranges)

        def set_output_type(self, index: int, dtype: str) -> None:
            if self._typed or not weakly_typed_allowed:
                raise RuntimeError("types of a strongly typed network cannot be set")
            self._held = True

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "precision" and (self._typed or not weakly_typed_allowed):
                raise RuntimeError("precision of a strongly typed network cannot be set")
            super().__setattr__(name, value)

    class Network:
        def __init__(self, flags: int) -> None:
            known = {1 << int(flag) for flag in module.NetworkDefinitionCreationFlag}
            if flags & ~sum(known):
                raise TypeError(f"unknown flags of a network: {flags}")
            self.explicit = major >= 10 or bool(flags & 1)
            strong = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
            self.typed = major >= 11 or (strong is not None and bool(flags & (1 << int(strong))))
            self.layers: list[Layer] = []
            self.model: onnx.ModelProto | None = None
            self.ranges: dict[str, tuple[float, float]] = {}

        @property
        def num_inputs(self) -> int:
            assert self.model is not None
            return len(self.model.graph.input)

        def get_input(self, index: int) -> Tensor:
            assert self.model is not None
            return Tensor(self.model.graph.input[index].name, "FLOAT", self.ranges)

        @property
        def num_layers(self) -> int:
            return len(self.layers)

        def get_layer(self, index: int) -> Layer:
            return self.layers[index]

    class ParserError:
        def __init__(self, text: str, node: onnx.NodeProto | None) -> None:
            self._text, self._node = text, node
            if major >= 10:
                self.node_name = lambda: node.name if node is not None else ""
                self.node_operator = lambda: node.op_type if node is not None else ""

        def desc(self) -> str:
            return self._text

        def node(self) -> int:
            return 0

    class OnnxParser:
        def __init__(self, network: Network, logger: ILogger) -> None:
            if not network.explicit:
                raise RuntimeError("this network is not of an explicit batch")
            self._network, self._errors = network, list[ParserError]()

        def parse(self, model: bytes) -> bool:
            loaded = onnx.load_from_string(model)
            if loaded.opset_import[0].version > opset:
                self._errors.append(ParserError(f"opset {loaded.opset_import[0].version} is not read\nmore", None))
                return False
            for node in loaded.graph.node:
                if node.op_type == "LayerNormalization" and major == 8:
                    self._errors.append(ParserError("no importer for LayerNormalization", node))
                    return False
            inferred = onnx.shape_inference.infer_shapes(loaded)
            kinds = {
                info.name: info.type.tensor_type.elem_type
                for info in (*inferred.graph.value_info, *loaded.graph.output)
            }
            names = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF"}
            self._network.model = loaded
            self._network.layers = [
                Layer(node, names.get(kinds.get(node.output[0], 0), "INT64"), self._network)
                for node in _nodes(loaded.graph)
            ]
            return True

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

    class TimingCache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> memoryview:
            return memoryview(self.content or b"timings")

    class BuilderConfig:
        def __init__(self) -> None:
            self._flags: set[Any] = set()
            self._workspace = 0
            self._cache: TimingCache | None = None
            self.default_device_type, self.DLA_core = module.DeviceType.GPU, -1
            self.profiling_verbosity = module.ProfilingVerbosity.LAYER_NAMES_ONLY

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            if not isinstance(pool, module.MemoryPoolType):
                raise TypeError("incompatible function arguments")
            self._workspace = int(pool_size)

        def set_flag(self, flag: Any) -> None:
            if not isinstance(flag, module.BuilderFlag):
                raise TypeError("incompatible function arguments")
            self._flags.add(flag)

        def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
            if serialized_timing_cache not in (b"", b"timings"):
                raise ValueError("a timing cache of another device")
            return TimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            self._cache = cache
            return True

        def get_timing_cache(self) -> TimingCache | None:
            return self._cache

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            if not isinstance(logger, ILogger):
                raise TypeError("incompatible constructor arguments")
            self._logger: Any = logger
            self.num_DLA_cores = dla_cores

        def create_network(self, flags: int = 0) -> Network:
            return Network(flags)

        def create_builder_config(self) -> BuilderConfig:
            return BuilderConfig()

        def build_serialized_network(self, network: Network, config: BuilderConfig) -> memoryview | None:
            names = {flag.name for flag in config._flags}
            model = network.model
            assert model is not None
            rounded = any(node.op_type == "QuantizeLinear" for node in _nodes(model.graph))
            if network.typed and names & {"FP16", "INT8"}:
                self._logger.log(ILogger.ERROR, "flags of precision on a strongly typed network\nat /_src")
                return None
            if rounded and not network.typed and "INT8" not in names:
                self._logger.log(ILogger.ERROR, "int8 is not enabled, and the network has Q/DQ layers")
                return None
            if config._workspace < 1 << 20:
                self._logger.log(ILogger.ERROR, "no workspace")
                return None
            for_dla = config.default_device_type == module.DeviceType.DLA
            if for_dla and (rounded or network.typed or not names & {"FP16", "INT8"} or config.DLA_core >= dla_cores):
                self._logger.log(ILogger.ERROR, "the DLA takes no Q/DQ, and runs in FP16 or INT8")
                return None
            if for_dla and "GPU_FALLBACK" not in names:
                self._logger.log(ILogger.ERROR, "a layer is not supported on DLA, and GPU fallback is off")
                return None
            held = sorted(layer.name for layer in network.layers if layer._held)
            built = {"flags": sorted(names), "held": held, "typed": network.typed, "cache": config._cache}
            module.built.append({**built, "dla": for_dla, "ranges": network.ranges})
            detailed = config.profiling_verbosity == module.ProfilingVerbosity.DETAILED
            head = {"version": module.__version__, "gpu": gpu, "held": held, "detailed": detailed}
            return memoryview(json.dumps(head).encode() + b"\0" + model.SerializeToString())

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger: Any = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
            head, _, model = serialized_engine.partition(b"\0")
            made = json.loads(head)
            if (made["version"], made["gpu"]) != (module.__version__, gpu):
                self._logger.log(ILogger.ERROR, f"the engine is of {made['version']} on {made['gpu']}\nmore")
                return None
            return Engine(model, made)

    class Engine:
        def __init__(self, model: bytes, made: dict[str, Any]) -> None:
            self._made = made
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._inputs, self._outputs = self._session.get_inputs(), self._session.get_outputs()
            self._tensors = {each.name: each for each in (*self._inputs, *self._outputs)}
            self.num_io_tensors = len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_dtype(self, name: str) -> str:
            return {"tensor(float)": "FLOAT", "tensor(bool)": "BOOL"}[self._tensors[name].type]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._tensors[name].shape)

        def create_execution_context(self) -> Context:
            return Context(self)

        def create_engine_inspector(self) -> Inspector:
            return Inspector(self._made)

    class Inspector:
        def __init__(self, made: dict[str, Any]) -> None:
            self._made = made

        def get_engine_information(self, format: Any) -> str:
            if not isinstance(format, module.LayerInformationFormat):
                raise TypeError("incompatible function arguments")
            layers: list[Any] = list(LAYERS)
            if self._made["detailed"]:
                layers = [{"Name": name, "LayerType": kind} for name, (kind, _) in LAYERS.items()]
                if major >= 10:
                    for layer, (_, nodes) in zip(layers, LAYERS.values(), strict=True):
                        layer["Metadata"] = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
            return json.dumps({"Layers": layers, "Bindings": []})

    class Context(_Settable):
        _fields = ("profiler",)

        def __init__(self, engine: Engine) -> None:
            self._engine, self._addresses = engine, {}

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return name in self._engine._tensors

        def execute_async_v3(self, stream_handle: int) -> bool:
            engine = self._engine
            if stream_handle != 7 or set(self._addresses) != set(engine._tensors):
                return False
            feeds = {each.name: self._view(each.name).copy() for each in engine._inputs}
            names = [each.name for each in engine._outputs]
            for name, value in zip(names, engine._session.run(names, feeds), strict=True):
                self._view(name)[...] = value
            profiler = getattr(self, "profiler", None)
            if profiler is not None:
                for name, ms in zip(LAYERS, (0.5, 0.25, 0.125), strict=True):
                    profiler.report_layer_time(name, ms)
            return True

        def _view(self, name: str) -> Any:
            shape = self._engine.get_tensor_shape(name)
            kind = np.dtype(_KINDS[self._engine.get_tensor_dtype(name)])
            count = int(np.prod(shape)) * kind.itemsize
            memory = (ctypes.c_char * count).from_address(self._addresses[name])
            return np.frombuffer(memory, kind).reshape(shape)

    return [Builder, OnnxParser, Runtime]


def _nodes(graph: onnx.GraphProto) -> Any:
    for node in graph.node:
        yield node
        for each in node.attribute:
            if each.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(each.g)


def write_board(root: Any, model: str = "NVIDIA Jetson Orin Nano Developer Kit", mode: str = "0000") -> Any:
    """The files of a Jetson that say what it is; the root."""
    files = {
        "proc/device-tree/model": f"{model}\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "var/lib/nvpmodel/status": f"pmode:{mode}",
        "proc/meminfo": "MemTotal: 7800000 kB\nMemAvailable: 4000000 kB\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
