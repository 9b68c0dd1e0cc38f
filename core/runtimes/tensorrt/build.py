"""Building a TensorRT plan from an ONNX graph, loading it, and giving a loaded one other weights; by either library."""

from __future__ import annotations

import collections
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from core.errors import BuildCancelled, BuildRefused, PlanError, PlanMemoryShort
from core.progress import Report
from core.runtimes.tensorrt.cache import write_helper
from core.runtimes.tensorrt.library import RTX, Bindings, Library

if TYPE_CHECKING:
    import tensorrt as trt
    import tensorrt_rtx as rtx


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built. capability: of the card, core.runtimes.tensorrt.library.PORTABLE for all that are newer.

    refittable: whether its weights can be changed later. timing: the file that keeps how long kernels took, if the
    library has such a thing. account: hears the library's own account of the plan, its layers among it, if that is
    wanted.
    """

    dtype: torch.dtype
    capability: str
    refittable: bool
    timing: Path
    account: Callable[[str], None] | None = None


def build(
    library: Library, onnx: Path, plan: Path, options: BuildOptions, report: Report, wanted: Callable[[], bool]
) -> None:
    """Build the plan of a graph into the file `plan`; `wanted` is asked all the time, False ends it. Raises
    BuildRefused where the library does not do it, PlanError, and OSError where the file cannot be written.

    The network is strongly typed: the graph's own types are the plan's, no builder flag chooses a precision. The plan
    is written as it is made: held in RAM it would take once more what the model's weights take.
    """
    trt = library.bindings()
    log, progress = _log(trt.ILogger), _monitor(trt, report, wanted)
    log.errors.clear()
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(onnx)):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise BuildRefused(f"{library.name} does not take the graph: {_first(errors)}")
    config = builder.create_builder_config()
    if options.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)  # so that a LoRA costs no new build
    if options.dtype == torch.float32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it would round what the user asked for in float32
    if options.account is not None:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = progress
    if library is RTX:
        _for_card(cast("rtx.IBuilderConfig", config), options.capability)
    if library.timing_cache:
        config.set_timing_cache(config.create_timing_cache(_bytes(options.timing)), False)
    with plan.open("wb") as file, log.told_to(options.account):
        writer = _Writer(trt, file)
        done = builder.build_serialized_network_to_stream(network, config, writer.writer)
    times = config.get_timing_cache() if library.timing_cache else None
    if times is not None and (told := times.serialize()) is not None:
        write_helper(options.timing, bytes(told))
    if writer.errors:
        raise writer.errors[0]
    if not done:
        if not wanted():
            raise BuildCancelled("the build of the TensorRT engine was cancelled")
        raise _failed(f"{library.name} could not build the engine: {_first(log.errors)}", log.errors, BuildRefused)


def _for_card(config: rtx.IBuilderConfig, capability: str) -> None:
    """Choose the card that a plan is for, and that we give it all memory (kernels.py), which a CUDA graph needs."""
    import tensorrt_rtx as rtx

    config.set_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if capability in RTX.cards:  # else none is named, and it is for all from Ampere on
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(rtx.ComputeCapability, f"SM{capability.replace('.', '')}"), 0)


def refit(
    library: Library,
    engine: trt.ICudaEngine,
    weights: Mapping[str, Tensor],
    stream: int,
    others: Mapping[str, Tensor] | None = None,
) -> None:
    """Give a loaded plan other weights in place; weights: initializer of its graph -> values. Raises PlanError.

    others: the values of those that stay. The library may have combined some with what changes (a layer's queries, keys
    and values in one product), and then wants these too.
    """
    trt = library.bindings()
    types, log = trt_types(library), _log(trt.ILogger)
    log.errors.clear()
    refitter = trt.Refitter(engine, log.logger)
    known = set(refitter.get_all_weights())
    if strangers := sorted(weights.keys() - known):
        raise PlanError(f"the engine has no weights {strangers[0]} ({len(strangers)} in all); build it anew")
    held: dict[str, Tensor] = {}

    def give(values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            held[name] = value.detach().cpu().contiguous()
            given = trt.Weights(types[value.dtype], held[name].data_ptr(), value.numel())
            if not refitter.set_named_weights(name, given):
                raise PlanError(f"the engine refuses weights {name}: {_first(log.errors)}")

    give(weights)
    give({name: others[name] for name in refitter.get_missing_weights() if name in others} if others else {})
    if missing := refitter.get_missing_weights():
        raise PlanError(f"the engine needs weights {missing[0]} too ({len(missing)} in all); build it anew")
    if not refitter.refit_cuda_engine_async(stream):
        raise PlanError(f"the engine's weights could not be changed: {_first(log.errors)}")


def deserialize(library: Library, data: bytes) -> trt.ICudaEngine:
    """Load a plan from the bytes that cache.read_file gave. Raises PlanError."""
    trt = library.bindings()
    log = _log(trt.ILogger)
    log.errors.clear()
    engine = trt.Runtime(log.logger).deserialize_cuda_engine(data)
    if engine is None:
        raise _failed(f"{library.name} does not load the engine: {_first(log.errors)}", log.errors)
    return engine


def no_context(library: Library) -> PlanError:
    """Return the error of an engine that got no execution context, with what the library said last."""
    said = list(_log(library.bindings().ILogger).errors)[-1:]
    return _failed(f"TensorRT cannot run the engine ({_first(said)}); choose a smaller size, or --runtime eager", said)


def _failed(told: str, said: Sequence[str], kind: type[PlanError] = PlanError) -> PlanError:
    """Return the error of something that the library did not do; said: its log of it."""
    short = any(re.search(r"out ?of ?memory|memory allocat|insufficient memory", one, re.IGNORECASE) for one in said)
    return (PlanMemoryShort if short else kind)(told)


def trt_types(library: Library) -> dict[torch.dtype, trt.DataType]:
    """Return the library's type of each torch type."""
    types = library.bindings().DataType
    return {
        torch.float32: types.FLOAT,
        torch.float16: types.HALF,
        torch.bfloat16: types.BF16,
        torch.int32: types.INT32,
        torch.int64: types.INT64,
        torch.bool: types.BOOL,
        torch.uint8: types.UINT8,
    }


class _Log:
    """The log of a library, of which the errors are kept.

    A process has one for each: while a builder, a plan or a refitter is there, the library goes on with the log that it
    was given first, and takes no other.
    """

    def __init__(self, base: type[trt.ILogger]) -> None:
        self.errors: collections.deque[str] = collections.deque(maxlen=100)
        self._account: Callable[[str], None] | None = None
        ours = self

        class Logger(base):  # type: ignore[valid-type,misc]  # of the library at work
            def __init__(self) -> None:
                base.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in (base.Severity.ERROR, base.Severity.INTERNAL_ERROR):
                    ours.errors.append(msg)
                if ours._account is not None:
                    ours._account(msg)

        self.logger = Logger()

    @contextmanager
    def told_to(self, account: Callable[[str], None] | None) -> Iterator[None]:
        """Have somebody hear all of it while the body runs."""
        self._account = account
        try:
            yield
        finally:
            self._account = None


_LOGS: dict[object, _Log] = {}  # of each library that is loaded, by its class of logs


def _log(base: type[trt.ILogger]) -> _Log:
    if base not in _LOGS:
        _LOGS[base] = _Log(base)
    return _LOGS[base]


class _Writer:
    """Where TensorRT writes a plan. What goes wrong there is kept, for no error may pass through the library."""

    def __init__(self, trt: Bindings, file: IO[bytes]) -> None:
        errors: list[OSError] = []

        class Writer(trt.IStreamWriter):  # type: ignore[name-defined,misc]  # of the library at work
            def __init__(self) -> None:
                trt.IStreamWriter.__init__(self)

            def write(self, data: bytes) -> int:
                try:
                    file.write(data)
                except OSError as error:
                    errors.append(error)
                    return 0  # ends the build
                return len(data)

        self.errors = errors
        self.writer = Writer()


def _monitor(trt: Bindings, report: Report, wanted: Callable[[], bool]) -> trt.IProgressMonitor:
    class BuildMonitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]  # of the library at work
        """Called by several threads of TensorRT's; the outermost phase says how far the build is."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told = -1
            self._one = threading.Lock()  # of the threads may report at a time

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = num_steps
                self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                self._tell(phase_name, step + 1)
            return wanted()

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def _tell(self, phase: str, done: int) -> None:
            with self._one:
                percent = 100 * done // max(1, self._steps[phase])
                if percent != self._told:
                    self._told = percent
                    report(f"building the TensorRT engine: {phase} {percent} %", percent / 100)

    return BuildMonitor()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _first(errors: Sequence[str]) -> str:
    return " ".join(errors[0].split())[:300] if errors else "it does not say why"
