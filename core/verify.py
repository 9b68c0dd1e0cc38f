"""Comparing what a runtime shows with what the eager runtime shows, frame by frame; plans that passed it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from core.algorithm.net import Picture
from core.engine import Engine
from core.errors import BuildRefused, PlanError, PlanMemoryShort
from core.models.resolved import Resolved
from core.plans import CachedPlan, Verdict
from core.progress import Report
from core.runtimes.allocation import empty_device
from core.runtimes.choice import on_runtime
from core.runtimes.tensorrt import cache, make_plan
from core.settings import Guidance, Look, Runtime

FRAMES = 12
_LEAST_PSNR = {"float64": 40.0, "float32": 40.0, "float16": 30.0, "bfloat16": 25.0}  # dB, of the worst frame


class Comparison(NamedTuple):
    """The result of a comparison. right: whether the runtime may be trusted; told: the figures, as a clause."""

    right: bool
    told: str


def psnr(one: Picture, other: Picture) -> float:
    """Return the peak signal-to-noise ratio of two uint8 pictures in dB; infinite where they are equal."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def compare(resolved: Resolved, frames: int = FRAMES) -> Comparison:
    """Compare the runtime with eager over a short film; both engines are built, one after the other.

    Raises PlanError where the runtime does not run and another would stand in; ModelError, SettingsError.
    """
    empty_device()  # of what an export took, if it was here
    eager = film(on_runtime(resolved, Runtime.EAGER, "to compare with"), frames)
    empty_device()
    found = film(resolved, frames)
    empty_device()  # who compares a plan may load it next
    worst, needed = min(map(psnr, eager, found)), _LEAST_PSNR[resolved.settings.dtype]
    told = f"worst of {len(found)} frames {worst:.1f} dB from eager, {needed:g} dB needed"
    return Comparison(len(eager) == len(found) and worst >= needed, told)


def verify_plan(plan: CachedPlan, resolved: Resolved, report: Report, frames: int = FRAMES) -> CachedPlan:
    """Compare a plan with eager over some frames, and write the verdict into its manifest.

    A plan that was found wrong before is tried again. Raises PlanError, ModelError, SettingsError.
    """
    here = resolved.tensorrt.machine
    if plan.verdict is Verdict.WRONG:
        plan = cache.set_verdict(plan, Verdict.UNVERIFIED, "", here)
    report("comparing the engine with eager", 0.9)
    try:
        right, told = compare(replace(resolved, tensorrt=replace(resolved.tensorrt, plan=plan)), frames)
    except PlanMemoryShort:
        raise  # another time there may be enough
    except PlanError as error:
        return cache.set_verdict(plan, Verdict.WRONG, str(error)[:200], here)
    return cache.set_verdict(plan, Verdict.VERIFIED if right else Verdict.WRONG, told, here)


def ensure_plan(resolved: Resolved, report: Report, wanted: Callable[[], bool] = lambda: True) -> CachedPlan:
    """Return the verified plan for the settings; build it, and compare it with eager, if that was not done.

    wanted: asked all the time, False ends the build. Raises PlanError, ModelError, SettingsError.
    """
    found = resolved.tensorrt.plan
    if found is None or found.problem or cache.changed(found):
        try:
            found = make_plan.build(resolved, report, wanted)
        except BuildRefused as error:
            assert resolved.tensorrt.key is not None
            cache.note_refusal(resolved.tensorrt.key, str(error))
            raise
    if found.verdict is Verdict.UNVERIFIED:
        found = verify_plan(found, resolved, report)
    if found.problem:
        raise PlanError(
            f"the engine of {resolved.description.name} is {found.problem}; use --runtime auto, and report this"
        )
    return found


def film(resolved: Resolved, frames: int, seconds: list[float] | None = None) -> list[Picture]:
    """Translate a picture that drifts; the bank is read from the second frame on.

    seconds: gets how long each frame took. Raises PlanError where another runtime would stand in; ModelError,
    SettingsError.
    """
    settings = resolved.settings
    guidance = 1.0 if settings.guidance is Guidance.NONE else 1.5
    engine = Engine(resolved, Look(prompt="a person talking", interval=2, guidance=guidance, steady=0.0))
    if engine.settings.runtime is not resolved.runtime:  # or eager would be compared with itself
        if engine.failure is not None:
            raise engine.failure
        raise PlanError(f"the {resolved.runtime} runtime cannot run this; vcam engines build --again")
    coarse = np.random.default_rng(0).integers(0, 256, (settings.height // 16 + 2, settings.width // 16 + 4, 3))
    scene = coarse.astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    views = [scene[8 : 8 + settings.height, 3 * i : 3 * i + settings.width] for i in range(frames)]
    shown = []
    for view in views:
        begun = time.perf_counter()
        shown.append(engine.translate(np.ascontiguousarray(view)))
        if seconds is not None:
            seconds.append(time.perf_counter() - begun)
    return [picture for picture in [*shown, *engine.drain()] if picture is not None]
