"""Whether `auto` takes another maker's hardware: compared with eager and timed beside the CPU, once, and remembered."""

from __future__ import annotations

import contextlib
import re
import statistics
from dataclasses import replace

from core.algorithm.net import Picture
from core.errors import StreamV2VError
from core.models.resolved import Resolved
from core.progress import Report
from core.runtimes.choice import on_runtime, resolve
from core.runtimes.onnx import providers
from core.runtimes.onnx.providers import ProviderFinding
from core.settings import EngineSettings, Provider, Runtime

_FRAMES = 4
_LEAST_PSNR = 30.0  # dB, of the worst frame: such hardware may choose half precision by itself
_OF_MEMORY = re.compile(r"(?i)out[ _]?of[ _]?memory|not enough memory|failed to allocate|bad[ _]alloc")


def try_provider(settings: EngineSettings, report: Report) -> None:
    """Find out whether `auto` takes the provider that there is for these settings, unless that is known.

    The model must be on this machine. Raises ModelError.
    """
    provider = providers.candidate() if settings.provider is Provider.AUTO else None
    if provider is None:
        return
    resolved = resolve(settings)
    own, description = resolved.settings, resolved.description
    if resolved.runtime is not Runtime.ONNX or providers.recall(description, own, provider) is not None:
        return
    report(f"comparing {provider} with eager, which is done once", 0.5)
    try:
        providers.begin_trial(description, own, provider)  # should its driver end this process, that is known
        try:
            finding = _found(resolved, provider)
        except BaseException:  # Ctrl-C, which tells nothing of the hardware
            with contextlib.suppress(OSError):
                providers.take_trial_back(description, own, provider)
            raise
        if finding is not None:
            providers.remember(description, own, provider, finding)
            return
        providers.take_trial_back(description, own, provider)
        report(f"{provider} could not be tried, for memory ran out; it is tried again at the next start", 0.5)
    except OSError as error:  # of the folder where it is kept: without that it would be tried at every start
        report(f"{provider} is not tried: what is found of it cannot be kept ({error})", 0.5)


def _found(resolved: Resolved, provider: Provider) -> ProviderFinding | None:
    """Return what a comparison finds; None where memory ran out, which is not the hardware's doing."""
    try:
        return _compared(resolved, provider)
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors derive from Exception alone
        ours = isinstance(error, StreamV2VError)
        told = str(error) if ours else " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, MemoryError) or _OF_MEMORY.search(told):
            return None
        return ProviderFinding(False, told if ours else told[:200])


def _compared(resolved: Resolved, provider: Provider) -> ProviderFinding:
    from core.verify import film, psnr  # which import what few starts need

    def shown(provider: Provider) -> tuple[list[float], list[Picture]]:
        times: list[float] = []
        settings = replace(resolved.settings, provider=provider)
        return times, film(replace(resolved, settings=settings), _FRAMES, times)

    times, pictures = shown(provider)
    expected = film(on_runtime(resolved, Runtime.EAGER, "to compare with"), _FRAMES, [])
    worst = min(map(psnr, expected, pictures))
    if not worst >= _LEAST_PSNR:
        return ProviderFinding(False, f"its pictures are {worst:.1f} dB from eager, {_LEAST_PSNR:g} dB needed")
    on_cpu, _ = shown(Provider.CPU)
    mine, cpu = (statistics.median(some[1:]) * 1000 for some in (times, on_cpu))
    return ProviderFinding(mine < cpu, f"{mine:.0f} ms a frame, the CPU {cpu:.0f} ms; {worst:.1f} dB from eager")
