"""TensorRT's Python bindings as far as they are used; tests/support/tensorrt_bindings.py writes this."""

# from tensorrt-cu13-bindings 11.4.0.106

from collections.abc import Iterator
from enum import Enum, IntEnum

__version__: str

class Dims:
    def __iter__(self) -> Iterator[int]: ...

class ParserError: ...
class IParserError(ParserError): ...

class Builder:
    def __init__(self, logger: ILogger) -> None: ...
    def create_network(self, flags: int = 0) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...

class BuilderFlag(IntEnum):
    DEBUG = 2
    GPU_FALLBACK = 3
    REFIT = 4
    DISABLE_TIMING_CACHE = 5
    EDITABLE_TIMING_CACHE = 26
    TF32 = 6
    SPARSE_WEIGHTS = 7
    SAFETY_SCOPE = 8
    DIRECT_IO = 11
    VERSION_COMPATIBLE = 12
    EXCLUDE_LEAN_RUNTIME = 13
    ERROR_ON_TIMING_CACHE_MISS = 15
    DISABLE_COMPILATION_CACHE = 17
    STRIP_PLAN = 18
    REFIT_IDENTICAL = 19
    WEIGHT_STREAMING = 20
    REFIT_INDIVIDUAL = 22
    STRICT_NANS = 23
    MONITOR_MEMORY = 24
    DISTRIBUTIVE_INDEPENDENCE = 27

class DataType(Enum):
    FLOAT = 0
    HALF = 1
    BF16 = 7
    INT8 = 2
    INT32 = 3
    INT64 = 8
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    INT4 = 9
    FP4 = 10
    E8M0 = 11

class IBuilderConfig:
    progress_monitor: IProgressMonitor | None
    profiling_verbosity: ProfilingVerbosity
    def set_flag(self, flag: BuilderFlag) -> None: ...
    def clear_flag(self, flag: BuilderFlag) -> None: ...
    def get_flag(self, flag: BuilderFlag) -> bool: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache | None: ...

class ICudaEngine:
    refittable: bool
    num_io_tensors: int
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def get_tensor_dtype(self, name: str) -> DataType: ...
    def get_tensor_mode(self, name: str) -> TensorIOMode: ...
    def get_aliased_input_tensor(self, name: str) -> str | None: ...
    def create_execution_context(self) -> IExecutionContext | None: ...

class IExecutionContext:
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def get_tensor_address(self, name: str) -> int: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...

class IHostMemory:
    def __buffer__(self, flags: int) -> memoryview: ...

class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4
    def __init__(self) -> None: ...
    def log(self, severity: ILogger.Severity, msg: str) -> None: ...

class INetworkDefinition: ...

class IProgressMonitor:
    def __init__(self) -> None: ...
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
    def phase_finish(self, phase_name: str) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...

class ITimingCache:
    def serialize(self) -> IHostMemory: ...

class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 0
    PREFER_AOT_PYTHON_PLUGINS = 2
    PREFER_JIT_PYTHON_PLUGINS = 1

class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None: ...
    def parse_from_file(self, model: str) -> bool: ...
    num_errors: int
    def get_error(self, index: int) -> IParserError: ...

class ProfilingVerbosity(Enum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 2
    NONE = 1

class Refitter:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None: ...
    def get_all_weights(self) -> list[str]: ...
    def set_named_weights(self, name: str, weights: Weights) -> bool: ...
    def get_missing_weights(self) -> list[str]: ...
    def refit_cuda_engine_async(self, stream_handle: int) -> bool: ...

class Runtime:
    def __init__(self, logger: ILogger) -> None: ...
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...

class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2

class Weights:
    def __init__(self, type: DataType, ptr: int, count: int) -> None: ...
