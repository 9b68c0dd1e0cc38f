"""What each verb does: one function a verb; what is heavy is imported inside it, so that small verbs answer at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vcam.cli.arguments import (
    PLAIN_COMMANDS,
    build_parser,
    check,
    look_of,
    note_prompt,
    profile_of,
    verbs_of,
)
from vcam.cli.models import agree_to_named, fetch_agreed
from vcam.cli.output import counted, print_note, print_outcome, print_progress, print_result

_FILES = ("input", "output", "source", "sink", "model", "clip", "clips", "out", "claims", "elsewhere")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def _run(args: argparse.Namespace) -> int:
    from vcam.settings.config import load_config
    from vcam.settings.engine_options import EngineOptions
    from vcam.settings.model_facts import check_source
    from vcam.settings.run_options import RunOptions, settings_for

    check(args)
    config = load_config()
    profile = profile_of(args.profile, config)
    agree_to_named(args.model)
    wished = {
        key: own if (value := getattr(args, key, None)) is None else value
        for key, own in vars(config).items()
        if key not in ("profile", "engine", "framing")
    }
    if args.microphone is not None:
        wished["record"] = replace(config.record, microphone=args.microphone)
    options = RunOptions(
        **wished,
        profile=profile.id,
        prompt=args.prompt,
        frames=args.frames,
        strength=args.strength,
        framing=args.framing,
        usual_framing=config.framing,
        region=args.region,
        elsewhere=args.elsewhere,
        engine=EngineOptions.read(args, args.engine_size),
        machine=config.engine,
    )
    model = settings_for(profile, options).model  # what cannot work is said before a camera opens
    check_source(options.source, model)
    look_of(args, profile, model)  # which refuses a strength that cannot be
    note_prompt(args.prompt or profile.look.prompt, model)

    from vcam.daemon.daemon import run
    from vcam.daemon.surfaces import go_first
    from vcam.devices.decoder_lines import decoders_in_log
    from vcam.log_file import kept, log_folder

    go_first()
    with kept(log_folder()), decoders_in_log():
        report = run(options)
    interval, latency = report.publish_interval_ms, report.latency_ms
    print_outcome(
        args,
        report.to_json(),
        f"{counted(report.published, 'picture')} published in {report.seconds:.1f} s, every {interval['p50']:.1f} ms "
        f"(95 % within {interval['p95']:.1f} ms); {report.captured} captured, {report.translated} translated, "
        f"{latency['p50']:.0f} ms behind; {report.profile}, {report.model}, {report.runtime}",
    )
    return 0


def _translate(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vcam.settings.config import load_config
    from vcam.settings.engine_options import EngineOptions, engine_settings

    check(args)
    config = load_config()
    profile = None if args.prompt is not None else profile_of(args.profile, config)
    agree_to_named(args.model)
    asked = EngineOptions.read(args, args.engine_size)
    settings = engine_settings(asked, *([profile.engine] if profile else []), config.engine)
    look = look_of(args, profile, settings.model)
    note_prompt(look.prompt, settings.model)
    fetch_agreed(settings.model)

    from vcam.devices.decoder_lines import decoders_in_log
    from vcam.offline.translate import Job, translate

    chosen = profile.id if profile else None
    with decoders_in_log() as lines:
        job = Job(args.input, args.output, settings, look, args.frames, args.engine_size, chosen, config.marking)
        report = translate(job)
    if lines.count:
        print_note(f"note: {lines.count} warnings of decoders are left out here; the first: {lines.first}")
    print_result(
        args,
        asdict(report),
        f"{report.target}: {counted(report.frames_out, 'frame')} in {report.seconds:.1f} s ({report.fps:.1f} fps); "
        f"{report.profile or look.prompt}, {report.model} at {report.engine_width}x{report.engine_height}, "
        f"{report.runtime}, bank {report.bank}",
    )
    return INTERRUPTED if report.interrupted else 0  # what was kept is among the notes on stderr


def _imagine(args: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from core.settings import Look
    from vcam.commands import IMAGINE
    from vcam.settings.config import load_config
    from vcam.settings.engine_options import EngineOptions, engine_settings
    from vcam.settings.model_facts import check_source

    check(args)
    config = load_config()
    profile = None if args.profile is None else profile_of(args.profile, config)
    asked = EngineOptions.read(args, args.engine_size)
    settings = engine_settings(asked, *([profile.engine] if profile else []), config.engine)
    check_source(IMAGINE, settings.model)
    given = {name: value for name in ("seed", "wander") if (value := getattr(args, name)) is not None}
    look = replace(profile.look if profile else Look(), **given)
    agree_to_named(args.model)
    for prompt in args.prompts:
        note_prompt(prompt, settings.model)
    fetch_agreed(settings.model)

    from vcam.offline.imagine import ImagineJob, imagine

    report = imagine(
        ImagineJob(
            prompts=tuple(args.prompts),
            target=args.output,
            settings=settings,
            look=look,
            seconds=args.seconds,
            fps=args.fps,
            transition_ms=args.transition,
            marking=config.marking,
        )
    )
    lines = [
        f"to {one.prompt!r}: {one.pictures} pictures, {one.mean:.2f} grey levels from one to the next, "
        f"{one.largest:.2f} at most; {one.rest:.2f} before"
        for one in report.transitions
    ]
    lines.append(
        f"{report.target}: {counted(report.frames_out, 'picture')} in {report.seconds:.1f} s ({report.fps:.1f} fps); "
        f"{report.model} at {report.width}x{report.height}, {report.runtime}, bank {report.bank}"
    )
    print_result(args, asdict(report), "\n".join(lines))
    return INTERRUPTED if report.interrupted else 0


def _evaluate(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from core.settings import Region
    from vcam.offline.evaluate import Asked, evaluate
    from vcam.offline.pairing import Fit
    from vcam.settings.toml_schema import check_values, choice

    check(args)
    if args.fit is not None:
        args.fit = check_values({"--fit": args.fit}, {"--fit": choice(Fit)})["--fit"]
    asked = Asked(
        flow=args.flow,
        clip=args.clip,
        prompt=args.prompt,
        frames=args.frames,
        framing=args.framing,
        region=args.region or Region.ALL,
        delay=args.delay,
        fit=args.fit or Fit.AUTO,
        faces=args.faces,
    )
    report = asdict(evaluate(args.input, args.output, asked))
    shown = {key: value for key, value in report.items() if key not in ("curve", "flicker_spectrum") and value != ()}
    lines = [f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}" for key, value in shown.items()]
    print_result(args, report, "\n".join(lines))
    return 0


def _suite(args: argparse.Namespace) -> int:
    args.frames = args.frames or None  # 0: all
    check(args)

    from vcam.devices.decoder_lines import decoders_in_log
    from vcam.offline.suite.make import find_clips, make_report, others_of
    from vcam.offline.suite.plan import SuitePlan, parse_setting
    from vcam.offline.suite.results import read_claims
    from vcam.settings.config import load_config
    from vcam.settings.engine_options import EngineOptions, engine_settings
    from vcam.settings.profiles import find_profile, load_profiles

    config = load_config()
    agree_to_named(args.model)
    asked = EngineOptions.read(args)
    own = engine_settings(asked, config.engine)
    fetch_agreed(own.model)
    known, problems = load_profiles()
    wanted = args.profiles if args.profiles is not None else list(known)
    plan = SuitePlan(
        clips=find_clips(args.clips),
        profiles=tuple(find_profile(one, known, problems) for one in wanted),
        settings=tuple(parse_setting(one) for one in args.settings),
        others=others_of(args.others),
        asked=asked,
        machine=config.engine,
        frames=args.frames,
        side=args.side or round((own.width * own.height) ** 0.5),
        flow=args.flow,
        clip=args.clip,
        faces=args.faces,
        noise=args.noise,
    )
    with decoders_in_log():
        made = make_report(plan, args.out, read_claims(args.claims))
    print_result(args, made.result, made.text)
    return 0


def _bench(args: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from core.settings import Look
    from vcam.errors import OptionError
    from vcam.settings.config import load_config
    from vcam.settings.engine_options import EngineOptions, engine_settings
    from vcam.settings.run_options import DEFAULT_SIZE

    check(args)
    config = load_config()
    agree_to_named(args.model)
    plain = engine_settings(EngineOptions(model=args.model, device=args.device, dtype=args.dtype), config.engine)
    fetch_agreed(plain.model)

    from vcam.offline.bench import HEAD, bench, line, settings_to_measure

    plains = [plain]
    if args.presets:
        if args.sizes or args.steps:
            raise OptionError("--preset stands for a size and steps; leave --size and --steps out")
        args.banks = args.banks or [plain.policy]
        asked = EngineOptions(model=args.model, device=args.device, dtype=args.dtype)
        plains = [
            engine_settings(replace(asked, preset=one), config.engine, shape=DEFAULT_SIZE, automatic={})
            for one in args.presets
        ]
    chosen = [
        one
        for own in plains
        for one in settings_to_measure(
            own, [own.steps] if args.presets else args.steps, args.banks, args.sizes, args.all_slots, args.runtimes
        )
    ]
    stream = sys.stderr if args.json else sys.stdout
    print(HEAD, file=stream, flush=True)
    report = bench(
        chosen,
        Look(prompt="claymation, a person talking"),
        frames=args.frames,
        stages=args.stages,
        threads=args.threads or config.threads,
        each=lambda row: print(line(row), file=stream, flush=True),
    )
    facts = ", ".join(f"{key} {value}" for key, value in report.machine.items() if value is not None)
    print_result(args, asdict(report), f"{report.model}; {facts}")
    return 0


def _profiles(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vcam.settings.profiles import load_profiles, shipped_folder, user_profile_folder

    profiles, problems = load_profiles()
    width = max((len(id) for id in profiles), default=0)
    rows = []
    for id, one in profiles.items():
        yours = "" if one.path and one.path.parent == shipped_folder() else "  (yours)"
        rows.append(f"{id:<{width}}  {one.name}{': ' if one.description else ''}{one.description}{yours}")
    for problem in problems:
        print_note(str(problem))
    print_result(
        args,
        {
            "profiles": [
                asdict(one) | {"engine": one.engine.given(), "path": str(one.path)} for one in profiles.values()
            ],
            "problems": [str(problem) for problem in problems],
            "user_folder": str(user_profile_folder()),
        },
        "\n".join(rows),
    )
    return 0


def _models(args: argparse.Namespace) -> int:
    from vcam.cli.models import carry_out

    print_result(args, *carry_out(args))
    return 0


def _cameras(args: argparse.Namespace) -> int:
    from vcam.devices.cameras import camera_line, list_cameras

    cameras = list_cameras()
    found = [
        {"name": one.name, "identity": one.identity, "path": str(one.path), "virtual": one.virtual} for one in cameras
    ]
    if not found:
        print_note("no camera was found; `vcam run --source pattern` needs none")
    print_result(args, {"cameras": found}, "\n".join(camera_line(one) for one in cameras))
    return 0


def _status(args: argparse.Namespace) -> int:
    from vcam import client

    status = client.status()
    print_result(args, status.to_json(), client.status_text(status))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from vcam.doctor import examine as doctor

    findings = doctor.examine(print_progress)
    print_result(args, doctor.to_json(findings), doctor.as_text(findings, sys.stdout.encoding))
    return 0 if doctor.is_well(findings) else 1


def _service(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vcam.cli import service

    ours = service.this_systems_service()
    if args.action == "install":
        service.install(ours)
    elif args.action == "remove":
        service.remove(ours)
    told = service.status(ours)
    state = ("runs" if told.running else "is installed, but does not run") if told.installed else "is not installed"
    print_result(args, asdict(told), f"the {told.kind} {told.path} {state}")
    return 0


def _setup(args: argparse.Namespace) -> int:
    from vcam.cli import setup

    given = {"yes": args.yes, "dry-run": args.dry_run, "undo": args.undo}
    return setup.carry_out([word for word, wanted in given.items() if wanted])


def _uninstall(args: argparse.Namespace) -> int:
    from vcam.cli import uninstall
    from vcam.errors import VcamError

    def agreed(question: str) -> bool:
        if args.yes:
            return True
        print(f"vcam: {question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    if not args.yes and not sys.stdin.isatty():
        raise VcamError("nobody can be asked here; --yes removes all without asking")
    left = uninstall.uninstall(agreed, print_note)
    print_result(args, {"left": left}, uninstall.last_words())
    return 0


def _update(args: argparse.Namespace) -> int:
    from vcam.cli import update
    from vcam.cli.installation import this_installation

    print_result(args, *update.carry_out(this_installation(), args.check))
    return 0


def _use(args: argparse.Namespace) -> int:
    from vcam.commands import UseProfile

    return _send(args, UseProfile(args.profile))


def _prompt(args: argparse.Namespace) -> int:
    from vcam.commands import SetPrompt

    args.prompt = " ".join(args.prompt)
    check(args)
    return _send(args, SetPrompt(args.prompt, args.transition))


def _send_at(args: argparse.Namespace) -> int:
    from vcam.commands import SendAt

    width, height = args.size
    return _send(args, SendAt(f"{width}x{height}"))


def _plain_command(args: argparse.Namespace) -> int:
    from vcam.commands import from_json

    return _send(args, from_json({"command": args.verb}))


def _send(args: argparse.Namespace, command: Any) -> int:
    from vcam import client
    from vcam.commands import SetPrompt, UseMicrophone, UseProfile

    status = client.send(command)
    what = status.profile_name or status.profile
    if isinstance(command, UseProfile | SetPrompt):
        for note in status.prompt_notes:
            print_note(f"note: {note}")
    if isinstance(command, UseMicrophone):
        hears = f"with this microphone: {status.microphone}" if status.microphone else "without sound"
        print_note(f"recordings are {hears}")
    print_result(args, status.to_json(), f"{status.state}{': ' + what if what else ''}")
    return 0


def _panel(args: argparse.Namespace) -> int:
    from vcam import client

    link = client.panel_link()
    print_result(args, {"link": link}, link)
    return 0


def _tray(args: argparse.Namespace) -> int:
    from vcam.errors import VcamError

    try:
        from vcam.tray.app import run
    except ImportError as error:
        from vcam.tray.display import missing_library, remedy

        if library := missing_library(str(error)):
            raise VcamError(remedy(library)) from error
        raise VcamError(
            f"the tray icon needs PySide6, which cannot be loaded ({error}); "
            f"{sys.executable} -m pip install PySide6-Essentials"
        ) from error
    return run()


def _obs(args: argparse.Namespace) -> int:
    from vcam.obs.verbs import carry_out

    print_result(args, *carry_out(args))
    return 0


def _engines(args: argparse.Namespace) -> int:
    from vcam.cli.engines import carry_out

    check(args)
    data, text, status = carry_out(args)
    print_result(args, data, text)
    return status


def _serve(args: argparse.Namespace) -> int:
    from vcam.cli.serve import serve

    return serve(args)


def _pair(args: argparse.Namespace) -> int:
    from vcam.cli.serve import pair

    return pair(args)


def _completion(args: argparse.Namespace) -> int:
    import shtab

    from vcam.settings.profiles import load_profiles

    parser = build_parser()
    known = list(load_profiles().profiles)
    for one in [parser, *verbs_of(parser).values()]:
        for action in one._actions:
            if action.dest == "profile":
                action.choices = known  # only here: elsewhere a name is as good, and the answer to a typo is better
            if action.dest in (
                "input",
                "output",
                "source",
                "sink",
                "model",
                "clip",
                "clips",
                "out",
                "claims",
                "elsewhere",
            ):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    script = shtab.complete(parser, shell=args.shell)
    if args.json:
        print_result(args, {"shell": args.shell, "script": script}, "")
    else:
        print(script)  # as it is: the shell reads it, not a person
    return 0


# Every verb of the command line (vcam.cli.arguments), and what does it.
VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "translate": _translate,
    "imagine": _imagine,
    "eval": _evaluate,
    "suite": _suite,
    "bench": _bench,
    "profiles": _profiles,
    "models": _models,
    "cameras": _cameras,
    "status": _status,
    "doctor": _doctor,
    "setup": _setup,
    "uninstall": _uninstall,
    "update": _update,
    "service": _service,
    "use": _use,
    "prompt": _prompt,
    "size": _send_at,
    **dict.fromkeys(PLAIN_COMMANDS, _plain_command),
    "panel": _panel,
    "tray": _tray,
    "engines": _engines,
    "obs": _obs,
    "serve": _serve,
    "pair": _pair,
    "completion": _completion,
}
