"""`vcam engines list | build | verify | clean`: the TensorRT engines that are kept on this machine."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from core.settings import EngineSettings, names
from vcam import client
from vcam.cli.arguments import profile_of
from vcam.cli.output import counted
from vcam.errors import VcamError
from vcam.settings.config import load_config
from vcam.settings.engine_options import EngineOptions
from vcam.settings.run_options import RunOptions, settings_for
from vcam.settings.speeds import place, remembered

if TYPE_CHECKING:
    from core.plans import CachedPlan

KeepGoing = Callable[[], bool]  # whether a build shall go on


def carry_out(args: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    """Carry out args.action; return its result for a program and for a person, and the exit status.

    Raises VcamError, core.errors.ModelError, SettingsError.
    """
    return {"list": _list, "build": _build, "verify": _verify, "clean": _clean}[args.action](args)


def plan_record(plan: CachedPlan) -> dict[str, Any]:
    """Return a plan as a program reads it: what it is for, its state (such as verified or unusable), and why."""
    from core.runtimes.tensorrt.library import named, shown_target

    manifest = plan.manifest
    told: dict[str, Any] = {"engine": plan.folder.name, "bytes": plan.size, "problem": plan.problem}
    if manifest is None:
        return told | {"state": "unusable"}
    wrong = plan.problem and not plan.problem.startswith("wrong")
    key = asdict(manifest.key)
    shape = {name: key[name] for name in names(EngineSettings) if name in key}
    unusable = "elsewhere" if plan.elsewhere else "unusable"
    return told | {
        "state": unusable if wrong else str(manifest.verdict),
        "model": manifest.model,
        **shape,
        **key["machine"],
        "library": named(manifest.key.machine.library).title,
        "target": shown_target(manifest.key.machine),
        "refittable": manifest.refittable,
        "built": manifest.built,
        "build_seconds": manifest.seconds,
        "compared": manifest.compared,
    }


def _line(plan: CachedPlan) -> str:
    told = plan_record(plan)
    if plan.manifest is None:
        return f"{told['engine']}  unusable: {plan.problem}"
    bank = told["policy"] + (f" {told['slots']}" if told["policy"] == "fifo" else "")
    words = [
        f"{told['engine']}  {told['state']}",
        f"{told['model']} {told['width']}x{told['height']}, {counted(told['steps'], 'step')}, "
        f"bank {bank}, {told['dtype']}",
        f"{told['library']} {told['tensorrt']}, for {told['target']}",
        f"{plan.size / 2**20:.0f} MiB",
        *(["with LoRAs in it"] if plan.manifest.key.loras else []),
    ]
    return ", ".join(words) + (f": {plan.problem or told['compared']}" if plan.problem or told["compared"] else "")


def _list(args: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    from core.runtimes.tensorrt import cache as engines
    from core.runtimes.tensorrt import readiness

    machine, why = readiness.this_machine()
    found = engines.listing(machine)
    lines = [_line(plan) for plan in found] or [f"no engines in {engines.cache_folder()}"]
    if why:
        lines.append(f"TensorRT cannot be used here: {why}")
    data = {
        "folder": str(engines.cache_folder()),
        "tensorrt": why or "usable",
        "engines": [plan_record(e) for e in found],
    }
    return data, "\n".join(lines), 0


def _needed() -> None:
    from core.runtimes.tensorrt import readiness

    if why := readiness.why_not(readiness.device(), "float16"):
        raise VcamError(f"TensorRT cannot be used here: {why}; without it --runtime auto takes the next best runtime")


def _build(args: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    from core.plans import Verdict
    from core.runtimes.choice import for_plan
    from core.runtimes.tensorrt import make_plan
    from core.verify import ensure_plan, verify_plan

    if args.target:
        return _build_ahead(args)
    _needed()
    resolved = for_plan(settings_of(args))
    plan = _interruptible(partial(make_plan.build if args.again else ensure_plan, resolved, _report))
    if plan.verdict is Verdict.UNVERIFIED:
        plan = verify_plan(plan, resolved, _report)
    return plan_record(plan), _line(plan), 1 if plan.problem else 0


def _build_ahead(args: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    """Build for another machine's card; what is there already is kept, unless --again."""
    from core.runtimes.choice import for_plan
    from core.runtimes.tensorrt import cache, make_plan
    from core.runtimes.tensorrt.library import target

    resolved = for_plan(settings_of(args), target(args.target))
    plan = resolved.tensorrt.plan
    if plan is None or args.again or cache.changed(plan):
        plan = _interruptible(partial(make_plan.build, resolved, _report))
    remedy = f"copy {plan.folder} there, into the folder that `vcam engines list` names; then vcam engines verify"
    return plan_record(plan) | {"folder": str(plan.folder)}, f"{_line(plan)}\n{remedy}", 0


def _interruptible(work: Callable[[KeepGoing], CachedPlan]) -> CachedPlan:
    """Carry out `work` in a thread that is told to stop at Ctrl-C; TensorRT itself would not notice for minutes."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        made = beside.submit(work, lambda: not stop.is_set())
        try:
            while wait([made], timeout=1).not_done:  # again and again: Windows hears of Ctrl-C between two waits
                pass
            return made.result()
        except KeyboardInterrupt:
            stop.set()
            raise


def _verify(args: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    from core.runtimes.choice import for_plan
    from core.runtimes.tensorrt import make_plan
    from core.verify import verify_plan

    _needed()
    resolved = for_plan(settings_of(args))
    plan = verify_plan(make_plan.there(resolved), resolved, _report, args.frames)
    return plan_record(plan), _line(plan), 1 if plan.problem else 0


def _clean(args: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    from core.runtimes.tensorrt import cache as engines
    from core.runtimes.tensorrt import readiness

    machine, why = readiness.this_machine()
    sizes = {plan.folder: plan.size for plan in engines.listing(machine)}
    gone = engines.clean(machine, everything=args.all)
    freed = sum(sizes[plan.folder] for plan in gone)
    text = f"{counted(len(gone), 'engine')} removed, {freed / 2**20:.0f} MiB freed"
    if why and not args.all and len(sizes):
        text += f"; {len(sizes)} kept, because TensorRT cannot be used here ({why}); --all removes them"
    return {"removed": [plan.folder.name for plan in gone], "freed_bytes": freed}, text, 0


def settings_of(args: argparse.Namespace) -> EngineSettings:
    """Return the settings of the engine that `vcam run` with these options would have."""
    config = load_config()
    profile = profile_of(args.profile, config)
    asked = EngineOptions.read(args, args.engine_size)
    options = RunOptions(size=config.size, engine=asked, machine=config.engine, threads=config.threads)
    speeds = remembered(client.state_folder(), place(options))
    return settings_for(profile, replace(options, automatic={model: one.preset for model, one in speeds.items()}))


def _report(text: str, fraction: float) -> None:
    print(f"vcam: {text} ({100 * fraction:.0f} %)", file=sys.stderr, flush=True)
