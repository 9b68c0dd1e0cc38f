"""The command line: one function a verb; what is heavy is imported inside it, so that small verbs answer at once."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.settings import Look
    from vcam.config import Config
    from vcam.profiles import Profile
    from vcam.tomlfiles import Check

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_READER_GONE = 141  # 128 + SIGPIPE

_IDLE_HELP = "rest after so many seconds in which no program looks at the virtual camera, 0: never (30; Linux)"

# What only asks the running camera for something: verb, its help.
_PLAIN_COMMANDS = {
    "next": "switch to the next profile",
    "previous": "switch to the profile before",
    "pause": "rest: show a card until `vcam resume`",
    "resume": "go on after pause or panic",
    "toggle": "pause if it runs, resume if it rests: for one key that does both",
    "panic": "at once show a card that tells nothing, until `vcam resume`",
    "forget": "empty the feature bank, so that nothing of earlier frames stays in the picture",
    "stop": "end the running camera",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and gives the exit status: 0; 1 after one line on stderr; 2 for wrong usage; 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that cannot show a name still shows the rest
    try:
        return _run_verb(argv)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # the reader has gone (vcam profiles | head): the interpreter's own flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="vcam",
        description="StreamV2V Camera: your webcam, translated by a prompt, without flicker, as a virtual camera.",
        epilog="`vcam VERB --help` tells all about a verb.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")

    def verb(name: str, call: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=_sentence(text), allow_abbrev=False)
        one.set_defaults(call=call)
        one.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")
        one.add_argument("--debug", action="store_true", help="log everything, and show tracebacks")
        return one

    run = verb("run", _run, "translate a camera live and publish it")
    run.add_argument("--source", metavar="SOURCE", help="auto, camera, camera:NAME, a video file, or pattern (auto)")
    run.add_argument("--sink", metavar="SINK", help="auto, camera, a file such as out.mp4, or none (auto)")
    _add_look(run)
    run.add_argument("--strength", type=float, metavar="X", help="0.02 to 1: how far from the input (the profile's)")
    run.add_argument("--size", type=_size, metavar="WxH", help="size published (640x480)")
    run.add_argument("--fps", type=float, metavar="N", help="frames published per second (30)")
    run.add_argument("--frames", type=int, metavar="N", help="stop after this many published frames")
    run.add_argument("--mirror", action="store_true", default=None, help="mirror the picture")
    run.add_argument("--idle-after", dest="idle_after_s", type=float, metavar="S", help=_IDLE_HELP)
    run.add_argument("--on-failure", metavar="WHAT", help="without a translation, show card, hold or raw (card)")
    run.add_argument("--no-panel", dest="panel", action="store_false", default=None, help="no control page")
    run.add_argument("--open", dest="open_panel", action="store_true", default=None, help="open the control page")
    run.add_argument("--port", type=int, metavar="N", help="of the control page (8787, or the next free one)")
    run.add_argument("--engine-size", type=_size, metavar="WxH", help="size translated (the model's own)")
    _add_engine(run)
    run.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine")

    translate = verb("translate", _translate, "translate a video file, an image or a folder of images")
    translate.add_argument("input", type=Path, metavar="IN", help="video, image or folder of images")
    translate.add_argument("output", type=Path, metavar="OUT", help="what to write")
    _add_look(translate.add_mutually_exclusive_group())
    translate.add_argument("--strength", type=float, metavar="X", help="0.02 to 1: how far from the input")
    translate.add_argument("--seed", type=int, metavar="N", help="of the noise (0)")
    translate.add_argument("--frames", type=int, metavar="N", help="stop after this many frames")
    translate.add_argument("--size", type=_size, metavar="WxH", help="size translated (chosen by the input's shape)")
    _add_engine(translate)

    evaluate = verb("eval", _evaluate, "measure a translation: warp error, frame consistency, edit strength")
    evaluate.add_argument("input", type=Path, metavar="SOURCE", help="the video before")
    evaluate.add_argument("output", type=Path, metavar="OUTPUT", help="the video after")
    evaluate.add_argument("--frames", type=int, metavar="N", help="stop after this many frames")
    evaluate.add_argument("--flow", default="dis", metavar="FLOW", help="dis, raft or raft:WEIGHTS.pth (dis)")
    evaluate.add_argument("--clip", metavar="FOLDER", help="CLIP model for frame consistency")

    bench = verb("bench", _bench, "measure the engine on this machine")
    bench.add_argument("--model", metavar="M", help="a name of `vcam models`, or a diffusers folder")
    bench.add_argument("--steps", type=_numbers, metavar="N,N", help="denoising steps (1,2,4)")
    bench.add_argument(
        "--bank", dest="banks", type=_words, metavar="B,B", help="policies of the feature bank (off,fifo,merge)"
    )
    bench.add_argument(
        "--size", dest="sizes", type=_sizes, metavar="WxH,WxH", help="sizes translated (the model's own)"
    )
    bench.add_argument("--frames", type=int, default=40, metavar="N", help="measured for each setting (40)")
    _add_machine(bench)
    bench.add_argument("--threads", type=int, metavar="N", help="CPU threads")

    verb("profiles", _profiles, "list the profiles: yours and those shipped")
    verb("models", _models, "list the models")
    verb("cameras", _cameras, "list the cameras")
    verb("status", _status, "show what the running camera does")
    verb("doctor", _doctor, "look at this machine: what is broken or missing, and how to mend it")
    service = verb("service", _service, "have the camera start at login")
    service.add_argument(
        "action", choices=("install", "remove", "status"), help="what to do; config.toml says how it runs"
    )
    use = verb("use", _use, "switch the running camera to a profile")
    use.add_argument("profile", metavar="PROFILE", help="id or name; `vcam profiles` lists them")
    prompt = verb("prompt", _prompt, "give the running camera another prompt")
    prompt.add_argument("prompt", metavar="TEXT", nargs="+", help="what to see")
    prompt.add_argument("--transition", type=int, metavar="MS", help="milliseconds to blend (the profile's own)")
    for name, text in _PLAIN_COMMANDS.items():
        verb(name, _plain_command, text)
    verb("panel", _panel, "print a one-time link to the control page of the running camera")
    verb("tray", _tray, "show an icon for the running camera: on and off, profiles, panic, panel")
    obs = verb("obs", _obs, "hotkeys in OBS Studio, and the picture as one of its sources")
    obs.add_argument(
        "action",
        choices=("install", "setup", "test"),
        help="install: put the script with the hotkeys where OBS finds it; setup: add the picture to OBS's current "
        "scene; test: see whether OBS reaches the running camera",
    )
    obs.add_argument(
        "--add-to-scenes",
        action="store_true",
        help="install: load it in every scene collection too (close OBS)",
    )
    obs.add_argument("--sync-audio", action="store_true", help="setup: delay the microphone by the measured latency")
    obs.add_argument("--microphone", metavar="NAME", help="setup: the audio input to delay (OBS's first microphone)")
    completion = verb("completion", _completion, "print a completion script for your shell")
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"), help="your shell")
    return parser


def _add_look(group: argparse._ActionsContainer) -> None:
    group.add_argument("--profile", metavar="P", help="id or name of a look; `vcam profiles` lists them")
    group.add_argument("--prompt", metavar="TEXT", help="what to see, in words")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="a name of `vcam models`, or a diffusers folder")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps, 1 to 16 (the model's own)")
    parser.add_argument("--bank", metavar="B", help="feature bank: fifo, merge or off (the model's own)")
    parser.add_argument("--slots", type=int, metavar="N", help="frames in a fifo bank (the model's own)")
    _add_machine(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime", metavar="R", help="what runs the model: auto, eager or onnx (auto)")
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps or xpu (auto)")
    parser.add_argument("--dtype", metavar="T", help="auto, float32, float16, bfloat16 or float64 (auto)")


# --- verbs -------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from vcam.config import load_config

    _check(args)
    config = load_config()
    profile = _profile(args.profile, config)
    settings = _engine(args, profile, config, args.engine_size)  # what cannot work is said before a camera opens
    _note_unknown_words(args.prompt or profile.look.prompt, settings.model)

    from vcam.daemon import RunOptions, run

    wished = {
        key: own if (value := getattr(args, key, None)) is None else value
        for key, own in vars(config).items()
        if key not in ("profile", "model")
    }
    _look(args, profile, settings.model)  # which refuses a strength that cannot be
    width, height = args.engine_size or (None, None)
    options = RunOptions(
        **wished,
        profile=profile.id,
        prompt=args.prompt,
        frames=args.frames,
        strength=args.strength,
        model=args.model,
        default_model=config.model,
        steps=args.steps,
        policy=args.bank,
        slots=args.slots,
        width=width,
        height=height,
    )
    from vcam.journal import kept, log_folder

    with kept(log_folder()):
        report = run(options)
    interval, latency = report.publish_interval_ms, report.latency_ms
    _print_result(
        args,
        report.to_json(),
        f"{report.published} pictures published in {report.seconds:.1f} s, every {interval['p50']:.1f} ms (95 % within "
        f"{interval['p95']:.1f} ms); {report.captured} captured, {report.translated} translated, "
        f"{latency['p50']:.0f} ms behind; {report.profile}, {report.model}, {report.runtime}",
    )
    return 0


def _translate(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vcam.config import load_config

    _check(args)
    config = load_config()
    profile = None if args.prompt is not None else _profile(args.profile, config)
    settings = _engine(args, profile, config, args.size)
    look = _look(args, profile, settings.model)
    _note_unknown_words(look.prompt, settings.model)

    from vcam.translate import translate

    report = translate(
        args.input,
        args.output,
        settings,
        look,
        frames=args.frames,
        size=args.size,
        profile=profile.id if profile else None,
    )
    _print_result(
        args,
        asdict(report),
        f"{report.target}: {report.frames_out} frames in {report.seconds:.1f} s ({report.fps:.1f} fps); "
        f"{report.profile or look.prompt}, {report.model} at {report.engine_width}x{report.engine_height}, "
        f"{report.runtime}, bank {report.bank}",
    )
    return _INTERRUPTED if report.interrupted else 0  # what was kept is among the notes on stderr


def _evaluate(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vcam.evaluate import evaluate

    _check(args)
    report = asdict(evaluate(args.input, args.output, flow=args.flow, clip=args.clip, frames=args.frames))
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in report.items() if value != ()}
    _print_result(args, report, "\n".join(f"{key}: {value}" for key, value in shown.items()))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from core.settings import Look
    from vcam.config import load_config
    from vcam.profiles import engine_settings

    _check(args)
    config = load_config()
    plain = engine_settings(
        model=args.model or config.model,
        runtime=args.runtime or config.runtime,
        device=args.device or config.device,
        dtype=args.dtype or config.dtype,
    )

    from vcam.bench import HEAD, bench, line, settings_to_measure

    chosen = settings_to_measure(plain, args.steps, args.banks, args.sizes)
    stream = sys.stderr if args.json else sys.stdout
    print(HEAD, file=stream, flush=True)
    report = bench(
        chosen,
        Look(prompt="claymation, a person talking"),
        frames=args.frames,
        threads=args.threads or config.threads,
        each=lambda row: print(line(row), file=stream, flush=True),
    )
    facts = ", ".join(f"{key} {value}" for key, value in report.machine.items() if value is not None)
    _print_result(args, asdict(report), f"{report.model}; {facts}")
    return 0


def _profiles(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vcam.profiles import load_profiles, shipped_folder, user_profile_folder

    profiles, problems = load_profiles()
    width = max((len(id) for id in profiles), default=0)
    rows = []
    for id, one in profiles.items():
        yours = "" if one.path and one.path.parent == shipped_folder() else "  (yours)"
        rows.append(f"{id:<{width}}  {one.name}{': ' if one.description else ''}{one.description}{yours}")
    for problem in problems:
        _say(str(problem))
    _print_result(
        args,
        {
            "profiles": [asdict(one) | {"path": str(one.path)} for one in profiles.values()],
            "problems": [str(problem) for problem in problems],
            "user_folder": str(user_profile_folder()),
        },
        "\n".join(rows),
    )
    return 0


def _models(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from core.models import available, describe

    models = [describe(name) for name in available()]
    rows = [
        f"{one.name}: {one.width}x{one.height}, {one.steps} steps, bank {one.policy}; licence: {one.licence}"
        + (f"\n  styles: {', '.join(one.styles)}" if one.styles else "")
        for one in models
    ]
    rows.append("--model also takes a folder in diffusers format: SD 1.5-shaped, safetensors")
    _print_result(args, {"models": [asdict(one) | {"folder": str(one.folder)} for one in models]}, "\n".join(rows))
    return 0


def _cameras(args: argparse.Namespace) -> int:
    from vcam.sources import list_cameras

    cameras = list_cameras()
    found = [{"name": one.name, "identity": one.identity, "path": str(one.path)} for one in cameras]
    if not found:
        _say("no camera was found; `vcam run --source pattern` needs none")
    _print_result(args, {"cameras": found}, "\n".join(f"{one['name']}  ({one['path']})" for one in found))
    return 0


def _status(args: argparse.Namespace) -> int:
    from vcam import client

    status = client.status()
    _print_result(args, status.to_json(), client.describe(status))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from vcam import doctor

    findings = doctor.examine()
    _print_result(args, doctor.to_json(findings), doctor.as_text(findings, sys.stdout.encoding))
    return 0 if doctor.is_well(findings) else 1


def _service(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vcam import service

    ours = service.this_systems_service()
    if args.action == "install":
        service.install(ours)
    elif args.action == "remove":
        service.remove(ours)
    told = service.status(ours)
    state = ("runs" if told.running else "is installed, but does not run") if told.installed else "is not installed"
    _print_result(args, asdict(told), f"the {told.kind} {told.path} {state}")
    return 0


def _use(args: argparse.Namespace) -> int:
    from vcam.commands import UseProfile

    return _send(args, UseProfile(args.profile))


def _prompt(args: argparse.Namespace) -> int:
    from vcam.commands import SetPrompt

    args.prompt = " ".join(args.prompt)
    _check(args)
    return _send(args, SetPrompt(args.prompt, args.transition))


def _plain_command(args: argparse.Namespace) -> int:
    from vcam.commands import from_json

    return _send(args, from_json({"command": args.verb}))


def _panel(args: argparse.Namespace) -> int:
    from vcam import client

    link = client.panel_link()
    _print_result(args, {"link": link}, link)
    return 0


def _tray(args: argparse.Namespace) -> int:
    from vcam.errors import VcamError

    try:
        from vcam.tray.app import run
    except ImportError as error:
        raise VcamError(
            f"the tray icon needs PySide6, which cannot be loaded ({error}); "
            f"{sys.executable} -m pip install PySide6-Essentials"
        ) from error
    return run()


def _obs(args: argparse.Namespace) -> int:
    from vcam.obs.verbs import carry_out

    _print_result(args, *carry_out(args))
    return 0


def _completion(args: argparse.Namespace) -> int:
    import shtab

    from vcam.profiles import load_profiles

    parser = build_parser()
    known = list(load_profiles().profiles)
    for one in [parser, *_verbs_of(parser).values()]:
        for action in one._actions:
            if action.dest == "profile":
                action.choices = known  # only here: elsewhere a name is as good, and the answer to a typo is better
            if action.dest in ("input", "output", "source", "sink", "model", "clip"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    script = shtab.complete(parser, shell=args.shell)
    _print_result(args, {"shell": args.shell, "script": script}, script)
    return 0


# --- what the verbs share ----------------------------------------------------------------------------------------


def _run_verb(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
        if not args.version and args.verb is None:
            parser.print_help(sys.stderr)
            return 2
    except SystemExit as ended:  # argparse has printed help (0) or what is wrong (2)
        return int(ended.code or 0)
    if args.version:
        print(f"vcam {_version()}")
        return 0
    _start_logging(args.debug)
    try:
        status: int = args.call(args)
        sys.stdout.flush()  # a reader that has gone shows here, not at exit
        return status
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  the one place where a failure becomes a line and a status
        if args.debug:
            import traceback

            traceback.print_exc()
        expected = isinstance(error, _expected())
        _say("error: " + (_line(error) if expected else _unexpected(error)))
        return 1


def _expected() -> tuple[type[Exception], ...]:
    """The failures that a user can mend, by the message alone."""
    from core.settings import SettingsError
    from vcam.config import ConfigError
    from vcam.errors import VcamError
    from vcam.profiles import ProfileError

    # not imported here: if it was not, it raised nothing
    models = sys.modules.get("core.models")
    return (VcamError, ConfigError, ProfileError, SettingsError, *([models.ModelError] if models else []))


def _unexpected(error: Exception) -> str:
    """The line for a failure that nobody foresaw; its traceback goes to a file."""
    import traceback

    what = f"{type(error).__name__}: {_line(error)}"
    if isinstance(error, OSError) and error.filename is not None:
        what = f"{error.filename}: {error.strerror}"
    try:
        from vcam.client import state_folder

        path = state_folder() / "last-error.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    except OSError:
        return f"{what} (unexpected; --debug shows where)"
    return f"{what} (unexpected; {path} tells where)"


def _line(error: Exception) -> str:
    from vcam.tomlfiles import one_line

    return one_line(error)


def _say(text: str) -> None:
    print(f"vcam: {text}", file=sys.stderr)


def _print_result(args: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    if args.json:
        print(json.dumps(_plain(data)))
    elif text:
        print(text)


def _plain(value: Any) -> Any:
    """The value as strict JSON holds it: no NaN, no infinity, paths and fractions as text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _send(args: argparse.Namespace, command: Any) -> int:
    from vcam import client

    status = client.send(command)
    what = status.profile_name or status.profile
    _print_result(args, status.to_json(), f"{status.state}{': ' + what if what else ''}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Puts each value as its check gives it in its place; raises VcamError, which names the option."""
    from core.settings import Policy, Runtime
    from vcam.commands import OnFailure
    from vcam.config import FPS, IDLE_AFTER, PORT, THREADS, check_device, check_dtype, check_published_size
    from vcam.errors import VcamError
    from vcam.tomlfiles import check_values, choice, each, text, whole

    checks: dict[str, Check] = {
        "source": text(1000),
        "sink": text(1000),
        "prompt": text(1000, fold=True),
        "fps": FPS,
        "frames": whole(1, 10**9),
        "on_failure": choice(OnFailure),
        "idle_after_s": IDLE_AFTER,
        "port": PORT,
        "threads": THREADS,
        "bank": choice(Policy),
        "banks": each(choice(Policy)),
        "runtime": choice(Runtime),
        "device": check_device,
        "dtype": check_dtype,
        "transition": whole(0, 60_000),
    }
    if args.verb == "run":
        checks["size"] = check_published_size
    for key in checks.keys() & vars(args).keys():
        name = "--" + {"banks": "bank", "idle_after_s": "idle_after"}.get(key, key).replace("_", "-")
        try:
            if getattr(args, key) is not None:
                setattr(args, key, check_values({name: getattr(args, key)}, {name: checks[key]})[name])
        except ValueError as error:
            raise VcamError(str(error)) from error


def _profile(wanted: str | None, config: Config) -> Profile:
    from vcam.profiles import find_profile, load_profiles

    profiles, problems = load_profiles()
    return find_profile(config.profile if wanted is None else wanted, profiles, problems)


def _engine(args: argparse.Namespace, profile: Profile | None, config: Config, size: tuple[int, int] | None) -> Any:
    from vcam.profiles import engine_settings

    width, height = size or (None, None)
    return engine_settings(
        profile,
        model=args.model,
        width=width,
        height=height,
        steps=args.steps,
        policy=args.bank,
        slots=args.slots,
        runtime=args.runtime or config.runtime,
        device=args.device or config.device,
        dtype=args.dtype or config.dtype,
        default_model=config.model or "embedded",
    )


def _look(args: argparse.Namespace, profile: Profile | None, model: str) -> Look:
    """The profile's look, or the prompt at the model's own strength, changed by what the command line says."""
    from dataclasses import replace

    from core.models import describe
    from core.settings import Look

    look = profile.look if profile else Look(prompt=args.prompt, strength=describe(model).strength)
    given = {"strength": args.strength, "seed": getattr(args, "seed", None)}
    return replace(look, **{key: value for key, value in given.items() if value is not None})


def _note_unknown_words(prompt: str, model: str) -> None:
    """Says which words the model ignores: a small one knows few."""
    import re

    from core.models import describe

    own = describe(model)
    unknown = [word for word in re.findall(r"\w+", prompt.lower().replace("'", "")) if word not in own.words]
    if own.words and unknown:
        _say(
            f"note: the model {own.name} does not know {', '.join(dict.fromkeys(unknown))}; "
            "it ignores such words (`vcam models` lists its styles)"
        )


def _start_logging(debug: bool) -> None:
    import logging

    logging.basicConfig(
        stream=sys.stderr, format="vcam: %(message)s", level=logging.DEBUG if debug else logging.WARNING
    )
    for ours in ("vcam", "core"):
        logging.getLogger(ours).setLevel(logging.DEBUG if debug else logging.INFO)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("streamv2v-camera")
    except metadata.PackageNotFoundError:
        return "(not installed: run from a checkout)"


def _verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(verbs.choices)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _size(text: str) -> tuple[int, int]:
    from vcam.config import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _sizes(text: str) -> list[tuple[int, int]]:
    return [_size(one) for one in text.split(",")]


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 1,2,4") from error


def _words(text: str) -> list[str]:
    return text.split(",")
