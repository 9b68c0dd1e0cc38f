"""Whether `auto` takes another maker's hardware: compared with eager and timed beside the CPU, once, and remembered."""

from __future__ import annotations

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
        # should its driver end this process, the next one does without it
        providers.remember(description, own, provider, ProviderFinding(False, "it ended the program when it was tried"))
        providers.remember(description, own, provider, _found(resolved, provider))
    except OSError as error:  # of the folder where it is kept: without that it would be tried at every start
        report(f"{provider} is not tried: what is found of it cannot be kept ({error})", 0.5)


def _found(resolved: Resolved, provider: Provider) -> ProviderFinding:
    from core.verify import film, psnr  # which import what few starts need

    def shown(provider: Provider) -> tuple[list[float], list[Picture]]:
        times: list[float] = []
        settings = replace(resolved.settings, provider=provider)
        return times, film(replace(resolved, settings=settings), _FRAMES, times)

    try:
        times, pictures = shown(provider)
    except StreamV2VError as error:
        return ProviderFinding(False, str(error))
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors derive from Exception alone
        return ProviderFinding(False, " ".join(f"{type(error).__name__}: {error}".split())[:200])
    expected = film(on_runtime(resolved, Runtime.EAGER, "to compare with"), _FRAMES, [])
    worst = min(map(psnr, expected, pictures))
    if not worst >= _LEAST_PSNR:
        return ProviderFinding(False, f"its pictures are {worst:.1f} dB from eager, {_LEAST_PSNR:g} dB needed")
    on_cpu, _ = shown(Provider.CPU)
    mine, cpu = (statistics.median(some[1:]) * 1000 for some in (times, on_cpu))
    return ProviderFinding(mine < cpu, f"{mine:.0f} ms a frame, the CPU {cpu:.0f} ms; {worst:.1f} dB from eager")
