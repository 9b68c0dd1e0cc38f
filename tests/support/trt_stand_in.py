"""A stand-in for `tensorrt` and `tensorrt_rtx`: the same names, which run an engine's graph by ONNX Runtime on the CPU.

It keeps the real one's rules, and raises BrokenRule where the real one would read or write memory that is not there:
every address set before execution, no output over an input but where the engine says so, no engine of another version,
nothing used after it is gone. tests/core/runtimes/tensorrt/test_tensorrt_bindings.py compares its names and signatures
with the real bindings.

In the environment of a program: STAND_IN_GATE, a path: builds wait in their middle until there is such a file.
STAND_IN_FAULT: `refused`, no graph is taken; `wrong`, every picture is too dark; `no-refit`, TensorRT for RTX builds no
engine that can be refitted, as without a GPU; `no-capture`, it cannot be captured.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.machinery
import io
import json
import os
import time
import types
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

MAGIC = b"a stand-in's engine\n"
# in the real library's own words
NEEDS_OURS = (
    "Engine was built with BuilderFlag::kREQUIRE_USER_ALLOCATION. Execution context creation requires "
    "ExecutionContextAllocationStrategy::kUSER_MANAGED allocation strategy."
)


class BrokenRule(AssertionError):
    """What the real library would answer with a crash, or with wrong pictures."""


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self._built = True

    def log(self, severity: enum.Enum, msg: str) -> None:
        raise NotImplementedError


# builders, plans and refitters that are there: the library goes on with the first's logger, whatever the others bring
_USERS: weakref.WeakSet[Any] = weakref.WeakSet()


def _registered(user: Any, logger: ILogger) -> ILogger:
    first: ILogger = next((one._logger for one in _USERS), logger)
    _USERS.add(user)
    return first


class IProgressMonitor:
    def __init__(self) -> None:
        self._built = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    BF16 = 7
    INT64 = 8


_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
}
_ONNX = {
    1: DataType.FLOAT,
    10: DataType.HALF,
    6: DataType.INT32,
    7: DataType.INT64,
    9: DataType.BOOL,
    2: DataType.UINT8,
}


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    DEBUG = 0
    REFIT = 2
    TF32 = 4


class RtxBuilderFlag(enum.IntEnum):
    DEBUG = 0
    REFIT = 2
    TF32 = 4
    REQUIRE_USER_ALLOCATION = 28


class ComputeCapability(enum.Enum):
    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120
    SM121 = 121


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Weights:
    def __init__(self, type: DataType, ptr: int, count: int) -> None:
        size = count * np.dtype(_NUMPY[type]).itemsize
        self.values: np.ndarray = np.frombuffer(
            memoryview((ctypes.c_char * size).from_address(ptr)), dtype=_NUMPY[type]
        )


class IHostMemory(bytes):
    """As the real one, it gives its memory to whoever asks for a buffer."""


class IStreamWriter:
    """Whoever subclasses it gives it `write`: bytes -> how many of them were written."""

    _built = False

    def __init__(self) -> None:
        self._built = True


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.data + b"+")


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 1


class IBuilderConfig:
    progress_monitor: IProgressMonitor | None = None
    profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def __init__(self) -> None:
        self._flags: set[int] = {BuilderFlag.TF32}
        self._timing: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._timing = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing


class RtxBuilderConfig(IBuilderConfig):
    """It has a timing cache too, but asks for a GPU where one is used."""

    num_compute_capabilities = 0

    def __init__(self) -> None:
        super().__init__()
        self._targets: dict[int, ComputeCapability] = {}

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        if index >= self.num_compute_capabilities:
            return False
        self._targets[index] = compute_capability
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        raise BrokenRule("a timing cache makes TensorRT for RTX ask for a GPU")

    def get_timing_cache(self) -> ITimingCache | None:
        raise BrokenRule("a timing cache makes TensorRT for RTX ask for a GPU")


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self.model: onnx.ModelProto | None = None


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, list[ParserError]()

    def parse_from_file(self, model: str) -> bool:
        if not Path(model).is_file():
            self._errors.append(ParserError(f"{model} is not there"))
            return False
        if os.environ.get("STAND_IN_FAULT") == "refused":
            self._errors.append(ParserError("In node 7: no importer registered for op: Conv"))
            return False
        self._network.model = onnx.load(model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class Builder:
    def __init__(self, logger: ILogger) -> None:
        assert logger._built, "ILogger.__init__ was not called"
        self._logger = _registered(self, logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network_to_stream(
        self, network: INetworkDefinition, config: IBuilderConfig, writer: Any
    ) -> bool:
        assert writer._built, "IStreamWriter.__init__ was not called"
        from core.runtimes.tensorrt.library import RTX
        from core.runtimes.tensorrt.operators import refused

        assert network.model is not None
        if not network._flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise BrokenRule("weakly typed networks are gone in TensorRT 11")
        major, minor = map(int, self._version.split(".")[:2])
        rtx = isinstance(config, RtxBuilderConfig)
        reasons = refused(network.model, RTX.takes if rtx else (major, minor))
        if isinstance(config, RtxBuilderConfig):
            reasons += _refused_by_rtx(network.model, config)
        if reasons:
            self._logger.log(Severity.ERROR, reasons[0])
            return False
        if not _phases(config.progress_monitor):
            return False
        head = {"version": self._version, "refit": config.get_flag(BuilderFlag.REFIT)}
        head["ours"] = rtx and RtxBuilderFlag.REQUIRE_USER_ALLOCATION in config._flags
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr("head.json", json.dumps(head))
            file.writestr("graph.onnx", network.model.SerializeToString())
        data = MAGIC + packed.getvalue()
        return bool(writer.write(data) == len(data))

    _version = ""


class RtxBuilder(Builder):
    def create_builder_config(self) -> RtxBuilderConfig:
        return RtxBuilderConfig()


def _refused_by_rtx(model: onnx.ModelProto, config: RtxBuilderConfig) -> list[str]:
    if config.get_flag(BuilderFlag.REFIT) and os.environ.get("STAND_IN_FAULT") == "no-refit":
        return ["Error Code 1: Cuda Runtime (cudaError 35)"]
    if ComputeCapability.SM75 in config._targets.values() and _multiplies_float32(model.graph):
        return ["Cannot compile operation 'node_matmul' for Turing (SM75): FP32 GEMM is not supported."]
    return []


def _multiplies_float32(graph: onnx.GraphProto) -> bool:
    types = {one.name: one.data_type for one in graph.initializer}
    types |= {one.name: one.type.tensor_type.elem_type for one in (*graph.input, *graph.value_info)}
    return any(types.get(node.input[0]) == 1 for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv"))


def _phases(monitor: IProgressMonitor | None) -> bool:
    """What a build tells its monitor; whether it may go on."""
    if monitor is None:
        return True
    monitor.phase_start("Building engine", None, 4)
    gate = Path(os.environ.get("STAND_IN_GATE", os.devnull))
    for step in range(4):
        while step == 2 and not gate.exists():
            if not monitor.step_complete("Tactic", 0):
                return False
            time.sleep(0.05)
        monitor.phase_start("Tactic", "Building engine", 2)
        if not all(monitor.step_complete("Tactic", inner) for inner in range(2)):
            return False
        monitor.phase_finish("Tactic")
        if not monitor.step_complete("Building engine", step):
            return False
    monitor.phase_finish("Building engine")
    return True


class Runtime:
    _version = ""

    def __init__(self, logger: ILogger) -> None:
        self._logger = _registered(self, logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if not serialized_engine.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "the file is no engine")
            return None
        with zipfile.ZipFile(io.BytesIO(serialized_engine[len(MAGIC) :])) as file:
            head, graph = json.loads(file.read("head.json")), file.read("graph.onnx")
        if head["version"] != self._version:
            self._logger.log(Severity.ERROR, f"the engine was built by {head['version']}, this is {self._version}")
            return None
        engine = self._engine(onnx.load_from_string(graph), head["refit"])
        engine._runtime, engine._ours = self, head["ours"]
        return engine

    @staticmethod
    def _engine(model: onnx.ModelProto, refittable: bool) -> ICudaEngine:
        return ICudaEngine(model, refittable)


class RtxRuntime(Runtime):
    @staticmethod
    def _engine(model: onnx.ModelProto, refittable: bool) -> ICudaEngine:
        return RtxEngine(model, refittable)


class ICudaEngine:
    """_ours: whether it was built with REQUIRE_USER_ALLOCATION."""

    refittable = False
    _runtime: Runtime | None = None  # which lives as long as it
    _ours = False

    def __init__(self, model: onnx.ModelProto, refittable: bool, path: Path | None = None) -> None:
        """path: of a graph whose weights lie beside it."""
        self.refittable = refittable
        self._model = model
        self._ends = {one.name: one for one in (*model.graph.input, *model.graph.output)}
        self._inputs = {one.name for one in model.graph.input}
        self._session = _session(model.SerializeToString() if path is None else str(path))
        scatters = [node for node in model.graph.node if node.op_type == "TensorScatter"]
        self._aliases = {node.output[0]: node.input[0] for node in scatters}
        for output, ring in self._aliases.items():
            if ring not in self._inputs or output not in self._ends:
                raise BrokenRule(
                    f"{ring} -> {output}: a cache must be an input, and its update an output, of the network"
                )

    @property
    def num_io_tensors(self) -> int:
        return len(self._ends)

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._ends)[index])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size.dim_value for size in self._ends[name].type.tensor_type.shape.dim)

    def get_tensor_dtype(self, name: str) -> DataType:
        return _ONNX[self._ends[name].type.tensor_type.elem_type]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self._aliases.get(name)

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext(self)


class IRuntimeCache:
    """compiled: what was compiled because it was not in the cache, over all caches."""

    _MAGIC = b"a stand-in's kernels\n"
    compiled = 0

    def __init__(self) -> None:
        self._known: list[str] = []

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._MAGIC + json.dumps(self._known).encode())

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(self._MAGIC):
            return False
        self._known = json.loads(blob[len(self._MAGIC) :])
        return True

    def reset(self) -> bool:
        self._known = []
        return True

    def _compile(self, kernel: str) -> None:
        if kernel not in self._known:
            self._known.append(kernel)
            IRuntimeCache.compiled += 1


class IRuntimeConfig:
    cuda_graph_strategy = CudaGraphStrategy.DISABLED

    def __init__(self) -> None:
        self._cache: IRuntimeCache | None = None
        self._allocation = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self._allocation = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> IRuntimeCache | None:
        return self._cache


class RtxEngine(ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    @property
    def device_memory_size_v2(self) -> int:
        return 1000

    def create_execution_context(self, runtime_config: IRuntimeConfig | None = None) -> IExecutionContext | None:
        config = runtime_config or IRuntimeConfig()
        if self._ours and config._allocation is not ExecutionContextAllocationStrategy.USER_MANAGED:
            assert self._runtime is not None
            self._runtime._logger.log(Severity.ERROR, NEEDS_OURS)
            return None
        return RtxExecutionContext(self, config)


def engine_of(path: Path) -> ICudaEngine:
    """The engine of a graph that is too large to be packed."""
    return ICudaEngine(onnx.load(str(path), load_external_data=False), False, path)


def _session(graph: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = weakref.ref(engine)
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._alive()._ends:
            return False
        self._addresses[name] = memory
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._alive()
        if missing := [name for name in engine._ends if not self._addresses.get(name)]:
            raise BrokenRule(f"no address was set for {missing}")
        self._check_overlaps(engine)
        feed = {name: self._array(engine, name).copy() for name in engine._inputs}
        outputs = [name for name in engine._ends if name not in engine._inputs]
        for name, value in zip(outputs, engine._session.run(outputs, feed), strict=True):
            self._array(engine, name)[...] = value
        if os.environ.get("STAND_IN_FAULT") == "wrong" and "shown" in outputs:
            self._array(engine, "shown")[...] //= 2
        return True

    def _alive(self) -> ICudaEngine:
        engine = self._engine()
        if engine is None:
            raise BrokenRule("the context is used after its engine is gone")
        return engine

    def _array(self, engine: ICudaEngine, name: str) -> np.ndarray:
        shape, dtype = engine.get_tensor_shape(name), np.dtype(_NUMPY[engine.get_tensor_dtype(name)])
        size = int(np.prod(shape)) * dtype.itemsize
        memory = memoryview((ctypes.c_char * size).from_address(self._addresses[name]))
        array: np.ndarray = np.frombuffer(memory, dtype=dtype).reshape(shape)
        return array

    def _check_overlaps(self, engine: ICudaEngine) -> None:
        """No output shares memory with another tensor, but with the input that the engine names: with that exactly."""
        spans = {name: (self._addresses[name], self._array(engine, name).nbytes) for name in engine._ends}
        for name, (start, size) in spans.items():
            if name in engine._inputs:
                continue
            alias = engine._aliases.get(name)
            if alias is not None and self._addresses[alias] != start:
                raise BrokenRule(f"{name} must lie where {alias} lies")
            for other, (begin, length) in spans.items():
                if other not in (name, alias) and start < begin + length and begin < start + size:
                    raise BrokenRule(f"{name} lies over {other}")


class RtxExecutionContext(IExecutionContext):
    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        super().__init__(engine)
        self._config = config
        self._ours = config._allocation is ExecutionContextAllocationStrategy.USER_MANAGED
        self._memory = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        engine: Any = self._alive()
        if not self._ours or memory % 256 or size < engine.device_memory_size_v2:
            raise BrokenRule(f"{size} bytes at {memory} are no memory for a context")
        self._memory = memory

    def is_stream_capturable(self, stream: int) -> bool:
        return os.environ.get("STAND_IN_FAULT") != "no-capture"

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._ours and not self._memory:
            raise BrokenRule("the context was given no memory to work in")
        if self._config._cache is not None:
            self._config._cache._compile(str(sorted(self._alive()._ends)))
        return super().execute_async_v3(stream_handle)


class Refitter:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        if not engine.refittable:
            raise BrokenRule("the engine was built without REFIT")
        self._engine, self._logger = engine, _registered(self, logger)
        self._given: dict[str, np.ndarray] = {}

    def get_all_weights(self) -> list[str]:
        return [one.name for one in self._engine._model.graph.initializer]

    def set_named_weights(self, name: str, weights: Weights) -> bool:
        one = next((one for one in self._engine._model.graph.initializer if one.name == name), None)
        if one is None or int(np.prod(one.dims)) != weights.values.size:
            self._logger.log(Severity.ERROR, f"weights {name} are unknown or of another size")
            return False
        self._given[name] = weights.values.copy().reshape(tuple(one.dims))
        return True

    def get_missing_weights(self) -> list[str]:
        return []

    def refit_cuda_engine_async(self, stream_handle: int) -> bool:
        for one in self._engine._model.graph.initializer:
            if one.name in self._given:
                one.CopyFrom(numpy_helper.from_array(self._given[one.name], one.name))
        self._engine._session = _session(self._engine._model.SerializeToString())
        return True


def module(version: str = "10.16.1.11", name: str = "tensorrt") -> types.ModuleType:
    """The stand-in as the module `tensorrt` of that version, or as `tensorrt_rtx`."""
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    made.__version__ = version  # type: ignore[attr-defined]
    kinds = dict(PUBLIC[name])
    for one in ("Builder", "Runtime"):
        kinds[one] = type(one, (kinds[one],), {"_version": version})
    for kind in kinds.items():
        setattr(made, *kind)
    return made


_BOTH: dict[str, Any] = {
    one.__name__: one
    for one in (
        BuilderFlag,
        Builder,
        DataType,
        IBuilderConfig,
        ICudaEngine,
        IExecutionContext,
        IHostMemory,
        ILogger,
        INetworkDefinition,
        IProgressMonitor,
        IStreamWriter,
        ITimingCache,
        NetworkDefinitionCreationFlag,
        OnnxParser,
        ProfilingVerbosity,
        Refitter,
        Runtime,
        TensorIOMode,
        Weights,
    )
}
_RTX: dict[str, Any] = {
    "Builder": RtxBuilder,
    "BuilderFlag": RtxBuilderFlag,
    "ComputeCapability": ComputeCapability,
    "CudaGraphStrategy": CudaGraphStrategy,
    "ExecutionContextAllocationStrategy": ExecutionContextAllocationStrategy,
    "IBuilderConfig": RtxBuilderConfig,
    "ICudaEngine": RtxEngine,
    "IExecutionContext": RtxExecutionContext,
    "IRuntimeCache": IRuntimeCache,
    "IRuntimeConfig": IRuntimeConfig,
    "Runtime": RtxRuntime,
}
PUBLIC = {"tensorrt": _BOTH, "tensorrt_rtx": _BOTH | _RTX}  # module -> its classes by name
