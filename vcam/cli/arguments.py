"""The arguments of the command line: which there are, how each is read, and what they choose together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcam.cli.output import print_note

if TYPE_CHECKING:
    from core.settings import Look
    from vcam.settings.config import Config
    from vcam.settings.profiles import Profile
    from vcam.settings.toml_schema import Check

_IDLE_HELP = "rest after so many seconds in which no program looks at the virtual camera, 0: never (30; Linux)"

# What only asks the running camera for something: verb, its help.
PLAIN_COMMANDS = {
    "next": "switch to the next profile",
    "previous": "switch to the profile before",
    "pause": "rest: show a card until `vcam resume`",
    "resume": "go on after pause or panic",
    "toggle": "pause if it runs, resume if it rests: for one key that does both",
    "panic": "at once show a card that tells nothing, until `vcam resume`",
    "mirror": "mirror the picture, or show it again as the camera gives it",
    "forget": "empty the feature bank, so that nothing of earlier frames stays in the picture",
    "record": "record what is published into a file, in your folder of videos",
    "record-stop": "end the recording",
    "record-toggle": "begin a recording, or end it: for one key that does both",
    "microphone": "have recordings hear the microphone, or hear nothing again",
    "snapshot": "keep the picture that is published now",
    "reload": "read the profiles anew; edited files act by themselves",
    "stop": "end the running camera",
}

# Options that are kept under another name than their own.
_OPTION_OF = {
    "presets": "preset",
    "banks": "bank",
    "runtimes": "runtime",
    "idle_after_s": "idle_after",
    "sizes": "engine_size",
}

_FRAMING_HELP = "fill the picture, fit all of the camera's into it, or follow the face"
_PRESET_HELP = "how finely to draw: fast, balanced, fine, sharp; auto: the sharpest that is quick enough here"
_BANK_HELP = "feature bank: fifo, merge, off, or whose: own, paper, authors (the profile's; the model's own)"
_RUNTIMES = "auto, eager, onnx, compiled or tensorrt"
_PROVIDER_HELP = "on what ONNX Runtime runs: auto, cpu, openvino, directml, coreml or migraphx (auto)"


class VerbParser(argparse.ArgumentParser):
    """A verb's arguments; intermixed: its options may stand between the others, however many of those there are."""

    intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Do as argparse does, once for the options and once for the rest where they are intermixed."""
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # argparse comes back here
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True


def build_parser() -> argparse.ArgumentParser:
    """Build the whole command line; args.verb is one of vcam.cli.verbs.VERBS."""
    parser = argparse.ArgumentParser(
        prog="vcam",
        description="StreamV2V Camera: your webcam, translated by a prompt, without flicker, as a virtual camera.",
        epilog="`vcam VERB --help` tells all about a verb.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", parser_class=VerbParser)

    def verb(name: str, text: str) -> VerbParser:
        one = verbs.add_parser(name, help=text, description=_sentence(text), allow_abbrev=False)
        one.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")
        one.add_argument("--debug", action="store_true", help="log everything, and show tracebacks")
        return one

    _add_run(verb("run", "translate a camera live and publish it"))
    _add_translate(verb("translate", "translate a video file, an image or a folder of images"))
    _add_imagine(verb("imagine", "make a film of prompts alone, without any picture (text-to-image)"))
    _add_eval(verb("eval", "measure a translation: warp error, frame consistency, edit strength"))
    _add_suite(verb("suite", "measure clips, profiles, settings and other systems side by side, into one report"))
    _add_bench(verb("bench", "measure the engine on this machine"))
    verb("profiles", "list the profiles: yours and those shipped")
    _add_models(verb("models", "list the models, fetch one, or delete it"))
    verb("cameras", "list the cameras")
    verb("status", "show what the running camera does")
    verb("doctor", "look at this machine: what is broken or missing, and how to mend it")
    _add_setup(verb("setup", "set up the virtual camera that other programs list"))
    uninstall = verb("uninstall", "take back what was put on this machine, asked one by one")
    uninstall.add_argument("--yes", action="store_true", help="do not ask")
    update = verb("update", "say what is new, and when told to, whether there is a newer one; installs nothing")
    update.add_argument("--check", action="store_true", help="ask where it came from: the registry, or git's remote")
    _add_service(verb("service", "have the camera start at login"))
    _add_use(verb("use", "switch the running camera to a profile"))
    _add_prompt(verb("prompt", "give the running camera another prompt"))
    _add_size(verb("size", "begin the running camera again with another published size"))
    for name, text in PLAIN_COMMANDS.items():
        verb(name, text)
    verb("panel", "print a one-time link to the control page of the running camera")
    verb("tray", "show an icon for the running camera: on and off, profiles, panic, panel")
    _add_engines(verb("engines", "TensorRT engines: list them, build, verify against eager, clean"))
    _add_obs(verb("obs", "hotkeys in OBS Studio, and the picture as one of its sources"))
    _add_serve(verb("serve", "translate the pictures of other machines' cameras on this one or on a cluster"))
    _add_pair(verb("pair", "have this camera known to an engine server"))
    _add_completion(verb("completion", "print a completion script for your shell"))
    return parser


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each verb, by its name."""
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(verbs.choices)


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--source",
        metavar="SOURCE",
        help="auto, camera, camera:NAME, a number, an address (rtsp://...), a video file, pattern (drawn), "
        "or imagine: pictures of the prompt alone (auto)",
    )
    run.add_argument(
        "--sink", metavar="SINK", help="auto, camera, ndi, spout, syphon, a file such as out.mp4, or none (auto)"
    )
    run.add_argument("--also", type=_words, metavar="SINK,SINK", help="beside it: ndi, spout (Windows), syphon (macOS)")
    _add_look(run)
    run.add_argument("--strength", type=float, metavar="X", help="0.02 to 1: how far from the input (the profile's)")
    run.add_argument("--size", type=_size, metavar="WxH", help="size published (640x480)")
    run.add_argument("--fps", type=float, metavar="N", help="frames published per second (30)")
    run.add_argument("--frames", type=int, metavar="N", help="stop after this many published frames")
    run.add_argument("--framing", metavar="F", help=f"{_FRAMING_HELP} (the profile's, fill)")
    _add_region(run)
    run.add_argument("--mirror", action="store_true", default=None, help="mirror the picture")
    run.add_argument(
        "--microphone",
        nargs="?",
        const="default",
        metavar="NAME",
        help="recordings hear the microphone: the system's own one, or the one with this in its name (none)",
    )
    run.add_argument("--idle-after", dest="idle_after_s", type=float, metavar="S", help=_IDLE_HELP)
    run.add_argument("--on-failure", metavar="WHAT", help="without a translation, show card, hold or raw (card)")
    run.add_argument("--no-panel", dest="panel", action="store_false", default=None, help="no control page")
    run.add_argument("--open", dest="open_panel", action="store_true", default=None, help="open the control page")
    run.add_argument("--port", type=int, metavar="N", help="of the control page (8787, or the next free one; 0: any)")
    run.add_argument("--engine-size", type=_size, metavar="WxH", help="size translated (the preset's)")
    _add_engine(run)
    run.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine")
    run.add_argument(
        "--remote",
        metavar="WSS",
        help="wss://host:port of a vcam serve that has the engine (vcam pair first); none: this machine's own",
    )
    run.add_argument(
        "--remote-fallback", metavar="F", help="while that fails: none, or local: this machine's engine (none)"
    )
    run.add_argument("--remote-codec", metavar="C", help="how pictures go there: auto, jpeg or h264 (auto)")


def _add_translate(translate: argparse.ArgumentParser) -> None:
    translate.add_argument("input", type=Path, metavar="IN", help="video, image or folder of images")
    translate.add_argument("output", type=Path, metavar="OUT", help="what to write")
    _add_look(translate.add_mutually_exclusive_group())
    translate.add_argument("--strength", type=float, metavar="X", help="0.02 to 1: how far from the input")
    translate.add_argument("--framing", metavar="F", help="fill or fit: all of the picture; face: follow the face")
    _add_region(translate)
    translate.add_argument("--seed", type=int, metavar="N", help="of the noise (0)")
    translate.add_argument("--frames", type=int, metavar="N", help="stop after this many frames")
    translate.add_argument("--engine-size", type=_size, metavar="WxH", help="size translated (the input's shape)")
    _add_engine(translate)


def _add_imagine(imagine: VerbParser) -> None:
    imagine.intermixed = True  # vcam imagine "a" "b" --seconds 20 out.mp4
    imagine.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to see, one after the other")
    imagine.add_argument("output", type=Path, metavar="OUT", help="film, or folder of pictures, to write")
    imagine.add_argument("--seconds", type=float, default=20.0, metavar="S", help="length of the film (20)")
    imagine.add_argument("--fps", type=float, default=24.0, metavar="N", help="pictures a second (24)")
    imagine.add_argument(
        "--transition",
        type=int,
        metavar="MS",
        help="milliseconds from one prompt to the next (half of a prompt's time)",
    )
    imagine.add_argument(
        "--wander", type=float, metavar="DEG", help="degrees a picture by which the noise turns: how much moves (0)"
    )
    imagine.add_argument("--profile", metavar="P", help="look and LoRAs of this profile, without its prompt")
    imagine.add_argument("--seed", type=int, metavar="N", help="of the noise (0)")
    imagine.add_argument("--engine-size", type=_size, metavar="WxH", help="size of the pictures (the preset's)")
    _add_engine(imagine)


def _add_eval(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("input", type=Path, metavar="SOURCE", help="the video before")
    evaluate.add_argument("output", type=Path, metavar="OUTPUT", help="the video after")
    evaluate.add_argument("--frames", type=int, metavar="N", help="stop after this many frames")
    evaluate.add_argument("--framing", metavar="F", help="with which it was translated (fill)")
    evaluate.add_argument("--region", metavar="R", help="where its style is: all, person or background (all)")
    evaluate.add_argument("--prompt", metavar="TEXT", help="with which it was translated: measures how far it shows")
    evaluate.add_argument("--delay", type=int, metavar="N", help="frames by which it is behind (estimated)")
    evaluate.add_argument("--fit", metavar="F", help="how another shape came about: stretch, crop or pad (found out)")
    _add_flow_and_clip(evaluate)
    evaluate.add_argument(
        "--faces",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure whether faces are kept (if the model `face` is here)",
    )


def _add_suite(suite: argparse.ArgumentParser) -> None:
    suite.add_argument("clips", nargs="+", type=Path, metavar="CLIP", help="films, or folders of films")
    suite.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the report and its films")
    suite.add_argument("--profiles", type=_words, metavar="P,P", help="ids of looks (all that are shipped)")
    suite.add_argument(
        "--settings",
        nargs="+",
        default=["default", "off"],
        metavar="S",
        help="default, a bank's policy, or NAME:key=value,...; all are compared with the first (default off)",
    )
    suite.add_argument(
        "--other",
        dest="others",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another system's films, named like the clips (walk.mp4, walk-ink.mp4 or ink/walk.mp4)",
    )
    suite.add_argument("--claims", type=Path, metavar="FILE", help="JSON: frames per second that others claim")
    suite.add_argument("--frames", type=int, default=64, metavar="N", help="of each clip (64; 0: all)")
    suite.add_argument("--noise", type=float, default=0.0, metavar="S", help="sigma of noise added, grey levels (0)")
    suite.add_argument("--side", type=int, metavar="N", help="measured at about N x N pixels (the model's own)")
    suite.add_argument("--model", metavar="M", help="a name of `vcam models`, or a diffusers folder")
    suite.add_argument("--steps", type=int, metavar="N", help="denoising steps (the model's)")
    _add_machine(suite)
    _add_flow_and_clip(suite)
    suite.add_argument(
        "--faces",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure whether faces are kept (if the model `face` is here)",
    )


def _add_flow_and_clip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--flow", default="dis", metavar="FLOW", help="dis, farneback, raft or raft:WEIGHTS.pth (dis)")
    parser.add_argument(
        "--clip", metavar="CLIP", help="compare by CLIP: `clip` (vcam models download clip) or a folder (a stand-in)"
    )


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--model", metavar="M", help="a name of `vcam models`, or a diffusers folder")
    bench.add_argument(
        "--preset",
        dest="presets",
        type=_words,
        metavar="P,P",
        help="fast,balanced,fine,sharp, in place of size and steps",
    )
    bench.add_argument("--steps", type=_numbers, metavar="N,N", help="denoising steps (1,2,4)")
    bench.add_argument(
        "--bank", dest="banks", type=_words, metavar="B,B", help="off,fifo,merge,paper,authors (off,fifo,merge)"
    )
    bench.add_argument(
        "--engine-size", dest="sizes", type=_sizes, metavar="WxH,WxH", help="sizes translated (the model's own)"
    )
    bench.add_argument("--slots", dest="all_slots", type=_numbers, metavar="N,N", help="frames in a fifo bank (1)")
    bench.add_argument("--frames", type=int, default=40, metavar="N", help="measured for each setting (40)")
    bench.add_argument("--stages", action="store_true", help="measure each stage of a frame by itself too")
    bench.add_argument(
        "--runtime", dest="runtimes", type=_words, metavar="R,R", help=f"what runs the model: {_RUNTIMES}, side by side"
    )
    _add_device(bench)
    bench.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def _add_models(models: argparse.ArgumentParser) -> None:
    models.add_argument(
        "action", nargs="?", default="list", choices=("list", "download", "remove"), help="what to do (list)"
    )
    models.add_argument("name", nargs="?", metavar="NAME", help="of the model to download or remove")
    models.add_argument("--yes", action="store_true", help="download: accept the model's licences without asking")


def _add_setup(setup: argparse.ArgumentParser) -> None:
    setup.add_argument("what", choices=("camera",), help="what to set up")
    setup.add_argument("--yes", action="store_true", help="do not ask")
    setup.add_argument("--dry-run", action="store_true", help="only say what would be done")
    setup.add_argument("--undo", action="store_true", help="take everything back")


def _add_service(service: argparse.ArgumentParser) -> None:
    service.add_argument(
        "action", choices=("install", "remove", "status"), help="what to do; config.toml says how it runs"
    )


def _add_use(use: argparse.ArgumentParser) -> None:
    use.add_argument("profile", metavar="PROFILE", help="id or name; `vcam profiles` lists them")


def _add_prompt(prompt: argparse.ArgumentParser) -> None:
    prompt.add_argument("prompt", metavar="TEXT", nargs="+", help="what to see")
    prompt.add_argument("--transition", type=int, metavar="MS", help="milliseconds to blend (the profile's own)")


def _add_size(size: argparse.ArgumentParser) -> None:
    size.add_argument("size", metavar="WxH", type=_size, help="what is published, such as 1280x720")


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "action",
        nargs="*",
        metavar="clients ...",
        help="nothing: run the server; clients list | add NAME | revoke NAME: whom it lets in",
    )
    serve.add_argument("--host", default="0.0.0.0", metavar="IP", help="address to listen at (0.0.0.0: every one)")
    serve.add_argument("--port", type=int, default=8790, metavar="N", help="port to listen at (8790)")
    serve.add_argument("--streams", type=int, default=1, metavar="K", help="cameras that one replica takes (1)")
    serve.add_argument(
        "--per-client", type=int, metavar="N", help="of which one client may have so many at once (half of them)"
    )
    serve.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="engines at the least, each with a card (1)"
    )
    serve.add_argument(
        "--most-replicas", type=int, metavar="N", help="engines at the most, as cameras come (--replicas)"
    )
    serve.add_argument("--ray", metavar="ADDRESS", help="of a Ray that runs: auto, or host:port (one is started here)")
    serve.add_argument("--model", action="append", metavar="M", help="that cameras may ask for; may be given again")
    serve.add_argument("--lora", action="append", type=Path, metavar="FILE", help="that cameras may ask for; again")
    serve.add_argument(
        "--certificate", type=Path, metavar="PEM", help="your own, by a CA that cameras know (one is made)"
    )
    serve.add_argument("--key", type=Path, metavar="PEM", help="of that certificate")
    serve.add_argument("--engine-size", type=_size, metavar="WxH", help="size loaded first (the preset's)")
    serve.add_argument("--preset", metavar="P", help=_PRESET_HELP)
    serve.add_argument("--steps", type=int, metavar="N", help="denoising steps loaded first (the preset's)")
    _add_machine(serve)
    serve.add_argument("--threads", type=int, metavar="N", help="CPU threads of each engine")


def _add_pair(pair: argparse.ArgumentParser) -> None:
    pair.add_argument("server", metavar="WSS", help="wss://host:port of the server")
    pair.add_argument(
        "pairing",
        nargs="?",
        metavar="TEXT",
        help="what `vcam serve clients add` printed there; left out, it is asked for; -: read from standard input",
    )
    pair.add_argument("--from", dest="pairing_file", type=Path, metavar="FILE", help="a file that holds it")


def _add_engines(engines: argparse.ArgumentParser) -> None:
    engines.add_argument(
        "action",
        choices=("list", "build", "verify", "clean"),
        help="list: what is kept; build: make the engine for these options; verify: compare it with eager; "
        "clean: remove engines that are of no use here",
    )
    engines.add_argument("--profile", metavar="P", help="id or name of a look, whose engine is meant")
    engines.add_argument("--engine-size", type=_size, metavar="WxH", help="size translated (as `vcam run` chooses it)")
    _add_engine(engines)
    engines.add_argument(
        "--for",
        dest="target",
        metavar="CARD",
        help="build: for another machine's card, on any machine: rtx4090, sm89, or portable (RTX 30 and newer)",
    )
    engines.add_argument("--again", action="store_true", help="build: even if it is there")
    engines.add_argument("--frames", type=int, default=12, metavar="N", help="verify: compared (12)")
    engines.add_argument("--all", action="store_true", help="clean: remove all")


def _add_obs(obs: argparse.ArgumentParser) -> None:
    obs.add_argument(
        "action",
        choices=("install", "setup", "sync", "test"),
        help="install: put the script with the hotkeys where OBS finds it; setup: add the picture to OBS's current "
        "scene; sync: keep the microphone in step until Ctrl-C; "
        "test: see whether OBS reaches the running camera",
    )
    obs.add_argument(
        "--add-to-scenes",
        action="store_true",
        help="install: load it in every scene collection too (close OBS)",
    )
    obs.add_argument("--sync-audio", action="store_true", help="setup: delay the microphone by the measured latency")
    obs.add_argument("--microphone", metavar="NAME", help="setup, sync: the audio input to delay (OBS's first one)")


def _add_completion(completion: argparse.ArgumentParser) -> None:
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"), help="your shell")


def _add_look(group: argparse._ActionsContainer) -> None:
    group.add_argument("--profile", metavar="P", help="id or name of a look; `vcam profiles` lists them")
    group.add_argument("--prompt", metavar="TEXT", help="what to see, in words")


def _add_region(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", metavar="R", help="where the style is: all, person or background (the profile's)")
    parser.add_argument(
        "--elsewhere", metavar="W", help="what is shown outside of it: camera, blur or a picture's file (the profile's)"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="a name of `vcam models`, or a diffusers folder")
    parser.add_argument("--preset", metavar="P", help=_PRESET_HELP)
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps, 1 to 16 (the preset's)")
    parser.add_argument("--bank", metavar="B", help=_BANK_HELP)
    parser.set_defaults(policy=None)  # which `check` takes out of --bank
    parser.add_argument("--slots", type=int, metavar="N", help="frames in a fifo bank (the model's own)")
    _add_machine(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime", metavar="R", help=f"what runs the model: {_RUNTIMES} (auto)")
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--provider", metavar="P", help=_PROVIDER_HELP)
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps or xpu (auto)")
    parser.add_argument("--dtype", metavar="T", help="auto, float32, float16, bfloat16 or float64 (auto)")


def check(args: argparse.Namespace) -> None:
    """Put each value, as its check gives it, in its place; raises OptionError, which names the option."""
    from core.settings import Framing, Policy, Provider, Region, Runtime
    from vcam.commands import OnFailure
    from vcam.settings.config import (
        FPS,
        IDLE_AFTER,
        THREADS,
        RemoteCodec,
        RemoteFallback,
        check_also,
        check_bank,
        check_device,
        check_dtype,
        check_port,
        check_published_size,
        check_remote,
    )
    from vcam.settings.presets import Preset
    from vcam.settings.profiles import full_path_of_elsewhere
    from vcam.settings.toml_schema import check_values, choice, each, number, text, whole

    checks: dict[str, Check] = {
        "source": text(1000),
        "sink": text(1000),
        "also": check_also,
        "prompt": text(1000, fold=True),
        "prompts": each(text(1000, fold=True)),
        "seconds": number(0.1, 36_000),
        "fps": FPS,
        "frames": whole(1, 10**9),
        "on_failure": choice(OnFailure),
        "framing": choice(Framing),
        "region": choice(Region),
        "elsewhere": full_path_of_elsewhere,
        "idle_after_s": IDLE_AFTER,
        "port": check_port,
        "threads": THREADS,
        "preset": choice(Preset),
        "presets": each(choice(Preset)),
        "bank": check_bank,
        "banks": each(check_bank),
        "runtime": choice(Runtime),
        "runtimes": each(choice(Runtime)),
        "provider": choice(Provider),
        "device": check_device,
        "dtype": check_dtype,
        "transition": whole(0, 60_000),
        "remote": check_remote,
        "remote_fallback": choice(RemoteFallback),
        "remote_codec": choice(RemoteCodec),
        "streams": whole(1, 64),
        "per_client": whole(1, 64),
        "replicas": whole(1, 10_000),
        "most_replicas": whole(1, 10_000),
    }
    if args.verb == "run":
        checks["size"] = check_published_size
    for key in checks.keys() & vars(args).keys():
        name = "--" + _OPTION_OF.get(key, key).replace("_", "-")
        if getattr(args, key) is not None:
            setattr(args, key, check_values({name: getattr(args, key)}, {name: checks[key]})[name])
    if isinstance(getattr(args, "bank", None), Policy):
        args.policy, args.bank = args.bank, None


def profile_of(wanted: str | None, config: Config) -> Profile:
    """Return the profile of that id or name (None: the usual one); raises ProfileError, which lists those there are."""
    from vcam.settings.profiles import find_profile, load_profiles

    profiles, problems = load_profiles()
    return find_profile(config.profile if wanted is None else wanted, profiles, problems)


def look_of(args: argparse.Namespace, profile: Profile | None, model: str) -> Look:
    """Return the look: the profile's, or the prompt at the model's own strength, with what the command line changes."""
    from dataclasses import replace

    from core.models.description import describe
    from core.settings import Look

    look = profile.look if profile else Look(prompt=args.prompt, strength=describe(model).strength)
    asked = ("strength", "seed", "framing", "region", "elsewhere")
    given = {name: getattr(args, name, None) for name in asked}
    return replace(look, **{key: value for key, value in given.items() if value is not None})


def note_prompt(prompt: str, model: str) -> None:
    """Say what the model ignores of the prompt: a small one knows few words."""
    from core.models.prompt_reading import prompt_notes

    for note in prompt_notes(model, prompt):
        print_note(f"note: {note}")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _size(text: str) -> tuple[int, int]:
    from vcam.errors import OptionError
    from vcam.settings.config import parse_size

    try:
        return parse_size(text)
    except OptionError as error:
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
