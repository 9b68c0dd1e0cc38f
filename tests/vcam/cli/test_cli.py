"""The command line: options, exit status, the one line on stderr, JSON, quickness."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.models import description
from core.models.description import ModelDescription, describe
from core.settings import EngineSettings, Framing, Look, Policy, Region
from tests.support.patience import PATIENCE_S
from vcam import client, commands
from vcam.cli import arguments, verbs
from vcam.cli import main as cli
from vcam.commands import OnFailure, Status
from vcam.daemon import daemon
from vcam.devices import cameras
from vcam.errors import VcamError
from vcam.offline import bench, evaluate, imagine, translate
from vcam.offline.pairing import Fit
from vcam.offline.suite import make
from vcam.offline.suite.results import CLAIMS
from vcam.settings.engine_options import EngineOptions
from vcam.settings.run_options import RunOptions, RunReport

ROOT = Path(__file__).parents[3]
VERBS = (
    "run translate imagine eval suite bench profiles models cameras status use prompt next previous pause resume panic "
    "forget stop"
)


@dataclass
class Call:
    """What a faked function was called with."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without settings, without a running camera, with an embedded model that is only described."""
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(folder))
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(tmp_path / "state"))
    embedded = ModelDescription("embedded", tmp_path, width=256, height=192, steps=2, strength=0.7, policy=Policy.FIFO)
    real = description.describe
    monkeypatch.setattr(description, "describe", lambda name: embedded if name == "embedded" else real(name))
    return folder


def fake(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, result: Any) -> Call:
    call = Call()

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        call.args, call.kwargs = args, kwargs
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(module, name, stand_in)
    return call


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on stderr of a verb that ends with status 1."""
    assert cli.main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("vcam: error: ")
    return err.removeprefix("vcam: error: ").rstrip("\n")


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = capsys.readouterr().out.splitlines()
    value: dict[str, Any] = json.loads(lines[-1], parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    return value


# --- usage -------------------------------------------------------------------------------------------------------


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n    {verb}" in out for verb in VERBS.split())


def test_every_verb_that_is_read_is_done() -> None:
    assert list(arguments.verbs_of(arguments.build_parser())) == list(verbs.VERBS)


@pytest.mark.parametrize("verb", arguments.verbs_of(arguments.build_parser()))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: vcam {verb} ")
    assert "--json" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vcam ")


WRONG_USAGE = [
    [],
    ["frob"],
    ["--frob"],
    ["translate", "a.mp4"],
    ["translate", "a", "b", "c"],
    ["translate", "a", "b", "--engine-size", "12"],
    ["translate", "a", "b", "--engine-size", "12x"],
    ["translate", "a", "b", "--steps", "two"],
    ["translate", "a", "b", "--strength", "much"],
    ["translate", "a", "b", "--profile", "ink", "--prompt", "ink"],
    ["translate", "a", "b", "--prof", "ink"],
    ["imagine", "a castle"],
    ["imagine", "a", "b", "--seconds", "long"],
    ["run", "--fps", "fast"],
    ["run", "--frames", "1.5"],
    ["bench", "--steps", "1,two"],
    ["bench", "--engine-size", "64x64,9"],
    ["use"],
    ["prompt"],
    ["completion", "dos"],
]


@pytest.mark.parametrize("argv", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: vcam")


# --- translate ---------------------------------------------------------------------------------------------------


def translated(**changes: Any) -> translate.TranslateReport:
    values: dict[str, Any] = {
        "frames_in": 3,
        "frames_out": 3,
        "seconds": 0.5,
        "fps": 6.0,
        "model": "embedded",
        "runtime": "eager",
        "profile": "ink",
        "bank": "fifo",
        "width": 64,
        "height": 48,
        "engine_width": 64,
        "engine_height": 48,
        "source": "a.mp4",
        "target": "b.mp4",
        "interrupted": False,
        "notes": (),
    }
    return translate.TranslateReport(**values | changes)


def test_translate_passes_everything_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call = fake(monkeypatch, translate, "translate", translated())
    argv = "translate a.mp4 b.mp4 --profile Ink --strength 0.3 --seed 5 --steps 4 --bank merge --slots 2 --frames 9"
    assert cli.main([*argv.split(), "--engine-size", "320x256", "--dtype", "float64", "--json"]) == 0
    (job,) = call.args
    assert (job.source, job.target) == (Path("a.mp4"), Path("b.mp4"))
    assert job.settings == EngineSettings(width=320, height=256, steps=4, policy=Policy.MERGE, slots=2, dtype="float64")
    assert job.look == Look(prompt="ink, a person talking", strength=0.3, seed=5)
    assert (job.frames, job.size, job.profile) == (9, (320, 256), "ink")
    report = last_json(capsys)
    keys = {"frames_in", "frames_out", "seconds", "fps", "model", "runtime", "profile", "bank"}
    assert keys <= report.keys()


def test_translate_takes_the_models_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    call = fake(monkeypatch, translate, "translate", translated())
    assert cli.main(["translate", "a", "b"]) == 0
    assert call.args[0].settings == EngineSettings(width=256, height=192, steps=2, policy=Policy.FIFO)
    assert call.args[0].look.prompt.startswith("ink")
    assert call.args[0].profile == "ink"


def test_prompt_alone_goes_with_the_models_own_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    call = fake(monkeypatch, translate, "translate", translated(profile=None))
    assert cli.main(["translate", "a", "b", "--prompt", "  neon,\n a cat "]) == 0
    assert call.args[0].look == Look(prompt="neon, a cat", strength=0.7)
    assert call.args[0].profile is None


def test_config_goes_before_defaults_and_after_the_command_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text('profile = "neon"\n[engine]\ndtype = "float64"\ndevice = "cuda"\n')
    call = fake(monkeypatch, translate, "translate", translated())
    assert cli.main(["translate", "a", "b", "--device", "cpu"]) == 0
    assert call.args[0].profile == "neon"
    assert (call.args[0].settings.dtype, call.args[0].settings.device) == ("float64", "cpu")


@pytest.mark.parametrize(("frames", "words"), [(1, "1 frame in"), (2, "2 frames in")])
def test_one_is_one(
    frames: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, translate, "translate", translated(frames_out=frames))
    assert cli.main(["translate", "a.mp4", "b.mp4"]) == 0
    assert words in capsys.readouterr().out


def test_result_for_people_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, translate, "translate", translated())
    assert cli.main(["translate", "a", "b"]) == 0
    assert capsys.readouterr().out == ("b.mp4: 3 frames in 0.5 s (6.0 fps); ink, embedded at 64x48, eager, bank fifo\n")


def test_interrupted_translation_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, translate, "translate", translated(interrupted=True))
    assert cli.main(["translate", "a", "b", "--json"]) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["interrupted"] is True
    assert err == ""


def test_words_that_the_model_ignores_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, translate, "translate", translated())
    monkeypatch.setattr(description, "describe", describe)
    assert cli.main(["translate", "a", "b", "--prompt", "Oil-painting, a wizard talking, wizard's hat"]) == 0
    assert capsys.readouterr().err == ("vcam: note: the model does not know wizard, wizard's, and ignores such words\n")
    assert cli.main(["translate", "a", "b", "--prompt", "ink " * 40]) == 0
    assert "vcam: note: the model reads 22 tokens of a prompt; not read: 'ink ink" in capsys.readouterr().err
    assert cli.main(["translate", "a", "b", "--profile", "oil"]) == 0
    assert capsys.readouterr().err == ""


BAD_VALUES = {
    "strength is nan; it must be between 0.02 and 1": "translate a b --strength nan",
    "strength is inf; it must be between 0.02 and 1": "translate a b --strength inf",
    "strength is -1.0; it must be between 0.02 and 1": "translate a b --strength -1",
    "seed is -1; it must be between 0 and 4294967295": "translate a b --seed -1",
    "steps is 0; it must be between 1 and 16": "translate a b --steps 0",
    "slots is 99; it must be between 1 and 16": "translate a b --slots 99",
    "width is 0; it must be between 64 and 2048": "translate a b --engine-size 0x0",
    "height is 100000; it must be between 64 and 2048": "translate a b --engine-size 64x100000",
    "width is 65; it must be a multiple of 16": "translate a b --engine-size 65x64",
    "--frames is 0; it must be a whole number between 1 and 1000000000": "translate a b --frames 0",
    "--frames is -5; it must be a whole number between 1 and 1000000000": "translate a b --frames -5",
    "--bank is 'lifo'; it must be fifo, merge, off, own, paper or authors; did you mean fifo?": (
        "translate a b --bank lifo"
    ),
    "--runtime is 'rocket'; it must be auto, ": "translate a b --runtime rocket",
    "--device is 'gpu'; it must be auto, cpu, cuda, cuda:1, mps or xpu": "translate a b --device gpu",
    "--dtype is 'half'; it must be auto, float32, float16, bfloat16 or float64": "translate a b --dtype half",
    "no profile 'inc'; did you mean ink?": "translate a b --profile inc",
    "model 'nope' is neither a known name": "translate a b --model nope",
    "--fps is 0.0; it must be a number between 1 and 240": "run --fps 0",
    "--fps is nan; it must be a number between 1 and 240": "run --fps nan",
    "--fps is -30.0; it must be a number between 1 and 240": "run --fps -30",
    "--size is 641x480; both sides must be even and between 64 and 4096": "run --size 641x480",
    "--on-failure is 'show'; it must be card, hold or raw": "run --on-failure show",
    "--port is 80; it must be a whole number between 1024 and 65535, or 0 for any free port": "run --port 80",
    "--threads is 0; it must be a whole number between 1 and 256": "run --threads 0",
    "height is 33; it must be between 64 and 2048": "run --engine-size 64x33",
    "--bank is 'x'; it must be fifo, merge, off, own, paper or authors": "bench --bank off,x",
    "steps is 17; it must be between 1 and 16": "bench --steps 1,17",
    "width is 63; it must be between 64 and 2048": "bench --engine-size 64x64,63x64",
    "--transition is -1; it must be a whole number between 0 and 60000": "prompt ink --transition -1",
}


@pytest.mark.parametrize("message", BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_bad_value_is_named_in_one_line(message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, *BAD_VALUES[message].split()).startswith(message)


def test_empty_prompt_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, "translate", "a", "b", "--prompt", " ") == "--prompt is empty; it must be a text"
    assert error_of(capsys, "prompt", "") == "--prompt is empty; it must be a text"


def test_broken_config_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "config.toml").write_text("fsp = 3\n")
    assert error_of(capsys, "run") == "config.toml: unknown key fsp; did you mean fps?"


def test_broken_profile_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "profiles").mkdir()
    (home / "profiles" / "ink.toml").write_text('name = "Ink"\nlook.prompt = "x"\nlook.strength = 1.7\n')
    said = "ink.toml: look.strength is 1.7; it must be between 0.02 and 1"
    assert error_of(capsys, "translate", "a", "b", "--profile", "ink") == said
    assert cli.main(["profiles", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == f"vcam: {said}\n"
    listed = json.loads(out)
    assert listed["problems"] == [said]
    assert "claymation" in [one["id"] for one in listed["profiles"]]


def test_missing_input_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.mp4"
    said = error_of(capsys, "translate", str(tmp_path / "absent.mp4"), str(target))
    assert "absent.mp4" in said
    assert not target.exists()
    assert not [path for path in tmp_path.iterdir() if path.name not in ("config", "state")]


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [VcamError("a\n  b"), ModelError("a b")], ids=["VcamError", "ModelError"])
def test_expected_failure_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, translate, "translate", error)
    assert error_of(capsys, "translate", "x", "y", "--json") == "a b"


def test_unexpected_failure_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, translate, "translate", KeyError("oops"))
    log = tmp_path / "state" / "last-error.log"
    said = error_of(capsys, "translate", "a", "b")
    assert said == f"KeyError: 'oops' (unexpected; {log} tells where)"
    assert "Traceback" in log.read_text()
    fake(monkeypatch, translate, "translate", PermissionError(13, "Permission denied", "/x/y.mp4"))
    assert error_of(capsys, "translate", "a", "b").startswith("/x/y.mp4: Permission denied (unexpected; ")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, translate, "translate", VcamError("no"))
    assert cli.main(["translate", "a", "b", "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("vcam: error: no\n")


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, translate, "translate", KeyboardInterrupt())
    assert cli.main(["translate", "a", "b"]) == 130
    assert capsys.readouterr() == ("", "")


# --- imagine -----------------------------------------------------------------------------------------------------


def imagined(**changes: Any) -> imagine.ImagineReport:
    way = imagine.Transition("a forest", 12, mean=1.25, largest=2.5, rest=0.0, unevenness=2.0)
    values: dict[str, Any] = {
        "frames_out": 48,
        "seconds": 4.0,
        "fps": 12.0,
        "model": "embedded",
        "runtime": "eager",
        "bank": "merge",
        "target": "out.mp4",
        "width": 512,
        "height": 512,
        "transitions": (way,),
        "interrupted": False,
        "notes": (),
    }
    return imagine.ImagineReport(**values | changes)


@pytest.mark.parametrize(
    "argv",
    [
        ["imagine", "a castle", "a forest", "--seconds", "20", "out.mp4"],
        ["imagine", "--seconds", "20", "a castle", "a forest", "out.mp4"],
        ["imagine", "a castle", "--seconds=20", "a forest", "out.mp4"],
    ],
)
def test_imagine_takes_prompts_and_options_in_any_order(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    call = fake(monkeypatch, imagine, "imagine", imagined())
    assert cli.main(argv) == 0
    (job,) = call.args
    assert (job.prompts, job.target, job.seconds) == (("a castle", "a forest"), Path("out.mp4"), 20)
    assert (job.fps, job.transition_ms, job.look) == (24, None, Look())


def test_imagine_passes_everything_on_and_tells_how_smooth_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = fake(monkeypatch, imagine, "imagine", imagined())
    argv = "imagine a out.mp4 --fps 12 --transition 500 --wander 1.5 --seed 4 --bank off --steps 1 --engine-size 128x64"
    assert cli.main(argv.split()) == 0
    (job,) = call.args
    assert (job.fps, job.transition_ms, job.look) == (12, 500, Look(seed=4, wander=1.5))
    assert job.settings == EngineSettings(width=128, height=64, steps=1, policy=Policy.OFF)
    assert capsys.readouterr().out == (
        "to 'a forest': 12 pictures, 1.25 grey levels from one to the next, 2.50 at most; 0.00 before\n"
        "out.mp4: 48 pictures in 4.0 s (12.0 fps); embedded at 512x512, eager, bank merge\n"
    )


@pytest.mark.parametrize("argv", [["imagine", "a castle", "out.mp4"], ["run", "--source", "imagine"]])
def test_a_model_that_only_translates_says_so_at_once(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = replace(describe("embedded"), text_to_image=False)
    monkeypatch.setattr(description, "describe", lambda name: own)
    assert cli.main(argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vcam: error: model 'embedded' only translates pictures: ")
    assert "sd15-lcm or sd-turbo" in line


# --- the other verbs ---------------------------------------------------------------------------------------------


def test_run_passes_everything_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], goes_first: list[str]
) -> None:
    (home / "config.toml").write_text(
        'size = "1280x720"\nfps = 25\nmirror = true\nprofile = "neon"\nsink = "none"\nengine.model = "embedded"\n'
    )
    report = RunReport(
        captured=9,
        translated=8,
        published=7,
        dropped=1,
        publish_interval_ms={"p50": 33.3, "p95": float("nan"), "max": 40.0},
        latency_ms={"p50": 90.0, "p95": 100.0},
        source="pattern",
        sink="none",
        restarts=0,
        seconds=0.3,
        model="embedded",
        runtime="eager",
        profile="neon",
    )
    call = fake(monkeypatch, daemon, "run", report)
    argv = "run --source pattern --fps 30 --frames 7 --no-panel --on-failure hold --steps 1 --bank off --threads 2"
    argv += " --framing face --region person --elsewhere pictures/sea.jpg"
    assert cli.main([*argv.split(), "--engine-size", "128x64", "--prompt", "ink", "--strength", "0.3", "--json"]) == 0
    (options,) = call.args
    assert options == RunOptions(
        source="pattern",
        sink="none",
        profile="neon",
        prompt="ink",
        size=(1280, 720),
        fps=30.0,
        frames=7,
        panel=False,
        on_failure=OnFailure.HOLD,
        mirror=True,
        strength=0.3,
        framing=Framing.FACE,
        region=Region.PERSON,
        elsewhere=str(Path.cwd() / "pictures/sea.jpg"),
        engine=EngineOptions(steps=1, policy=Policy.OFF, width=128, height=64),
        machine=EngineOptions(model="embedded"),
        threads=2,
    )
    out = last_json(capsys)
    assert out["published"] == 7
    assert out["publish_interval_ms"] == {"p50": 33.3, "p95": None, "max": 40.0}
    assert goes_first, "its pictures are due at their time"
    assert cli.main(["run"]) == 0
    assert capsys.readouterr().out == (
        "7 pictures published in 0.3 s, every 33.3 ms (95 % within nan ms); "
        "9 captured, 8 translated, 90 ms behind; neon, embedded, eager\n"
    )


def test_eval_prints_each_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Report:
        frames: int = 3
        warp_error: float = 12.3456789
        ghosting: float | None = None
        notes: tuple[str, ...] = ()

    call = fake(monkeypatch, evaluate, "evaluate", Report())
    options = [
        "--frames",
        "5",
        "--framing",
        "face",
        "--delay",
        "2",
        "--fit",
        "crop",
        "--region",
        "person",
        "--no-faces",
    ]
    assert cli.main(["eval", "a.mp4", "b.mp4", *options, "--no-faces"]) == 0
    asked = evaluate.Asked(frames=5, framing=Framing.FACE, delay=2, fit=Fit.CROP, region=Region.PERSON, faces=False)
    assert call.args == (Path("a.mp4"), Path("b.mp4"), asked)
    assert capsys.readouterr().out == "frames: 3\nwarp_error: 12.35\nghosting: None\n"
    assert cli.main(["eval", "a.mp4", "b.mp4", "--json"]) == 0
    assert last_json(capsys) == {"frames": 3, "warp_error": 12.3456789, "ghosting": None, "notes": []}


def test_suite_plans_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call = fake(monkeypatch, make, "make_report", make.MadeReport({"rows": []}, "a table"))
    (tmp_path / "walk.mp4").touch()
    (tmp_path / "CoDeF").mkdir()
    given = ["suite", str(tmp_path), "--out", str(tmp_path / "out"), "--profiles", "ink,neon", "--frames", "0"]
    given += ["--settings", "default", "four:slots=4", "--other", f"CoDeF={tmp_path / 'CoDeF'}", "--no-faces"]
    assert cli.main(given) == 0
    assert capsys.readouterr().out == "a table\n"
    plan, folder, claims = call.args
    assert (plan.clips, folder, claims) == ((tmp_path / "walk.mp4",), tmp_path / "out", CLAIMS)
    assert [profile.id for profile in plan.profiles] == ["ink", "neon"]
    assert [(one.name, dict(one.engine)) for one in plan.settings] == [("default", {}), ("four", {"slots": 4})]
    assert (plan.frames, plan.side, plan.faces, plan.others[0].name) == (None, 222, False, "CoDeF")
    assert cli.main([*given, "--settings", "fast"]) == 1
    assert "'fast' is no setting" in capsys.readouterr().err


def test_bench_prints_a_table_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Engine:
        bank_bytes = 0

        def __init__(self, settings: EngineSettings) -> None:
            self.settings = settings

        def translate(self, picture: Any) -> Any:
            return picture

    def build(settings: EngineSettings, look: Look, report: Any) -> Any:
        return Engine(settings)

    lab = bench.Instruments(build, lambda _: None, lambda *_: 1.0, lambda _: (0, 0))
    threads = fake(monkeypatch, bench, "_real_instruments", lab)
    argv = ["bench", "--steps", "1,2", "--bank", "off", "--engine-size", "64x64", "--frames", "3"]
    assert cli.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ["size", "steps", "bank"],
        ["64x64", "1", "off"],
        ["64x64", "2", "off"],
    ]
    assert threads.args == (None,)
    assert lines[3].startswith("embedded; processor ")
    assert cli.main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [row["steps"] for row in report["rows"]] == [1, 2]
    assert report["machine"]["torch"]
    assert err.splitlines()[0].split()[0] == "size"


def test_profiles_are_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "profiles").mkdir()
    (home / "profiles" / "mine.toml").write_text('name = "Mine"\nlook.prompt = "x"\n')
    assert cli.main(["profiles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mine         Mine  (yours)" in lines
    assert "claymation   Claymation: Everything modelled in clay" in lines


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json"]) == 0
    assert last_json(capsys)["models"][0]["name"] == "embedded"
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out.startswith("embedded: 256x192, 2 steps, bank fifo; licence: ")


def test_cameras_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, cameras, "list_cameras", [cameras.Camera(name="Logitech", identity="usb-1", path="/dev/video0")])
    assert cli.main(["cameras"]) == 0
    assert capsys.readouterr().out == "Logitech  (/dev/video0)\n"
    fake(monkeypatch, cameras, "list_cameras", [])
    assert cli.main(["cameras", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"cameras": []}
    assert err == "vcam: no camera was found; `vcam run --source pattern` needs none\n"


COMMANDS = {
    "use Ink": commands.UseProfile("Ink"),
    "prompt a cat of clay": commands.SetPrompt("a cat of clay"),
    "prompt ink --transition 900": commands.SetPrompt("ink", 900),
    "next": commands.NextProfile(),
    "previous": commands.PreviousProfile(),
    "pause": commands.Pause(),
    "resume": commands.Resume(),
    "toggle": commands.Toggle(),
    "panic": commands.Panic(),
    "reload": commands.Reload(),
    "record": commands.StartRecording(),
    "record-stop": commands.EndRecording(),
    "record-toggle": commands.ToggleRecording(),
    "microphone": commands.UseMicrophone(),
    "snapshot": commands.Snapshot(),
    "forget": commands.Forget(),
    "stop": commands.Stop(),
}


@pytest.mark.parametrize("argv", COMMANDS)
def test_command_is_sent(argv: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call = fake(monkeypatch, client, "send", Status(state="running", profile="ink", profile_name="Ink"))
    assert cli.main(argv.split()) == 0
    assert call.args == (COMMANDS[argv],)
    assert capsys.readouterr().out == "running: Ink\n"
    assert cli.main([*argv.split(), "--json"]) == 0
    assert last_json(capsys)["state"] == "running"


@pytest.mark.parametrize(
    ("microphone", "says"),
    [("Desk", "recordings are with this microphone: Desk"), ("", "recordings are without sound")],
)
def test_who_turns_the_microphone_on_or_off_is_told_which(
    microphone: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, client, "send", Status(state="running", microphone=microphone))
    assert cli.main(["microphone"]) == 0
    assert capsys.readouterr().err == f"vcam: {says}\n"


def test_status_and_panel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, client, "status", Status(state="running", profile_name="Ink"))
    assert cli.main(["status"]) == 0
    assert "Ink" in capsys.readouterr().out
    assert cli.main(["status", "--json"]) == 0
    assert last_json(capsys)["profile_name"] == "Ink"
    fake(monkeypatch, client, "panel_link", "http://127.0.0.1:1/x")
    assert cli.main(["panel"]) == 0
    assert capsys.readouterr().out == "http://127.0.0.1:1/x\n"


@pytest.mark.parametrize("verb", ["status", "use ink", "prompt x", "next", "stop", "panel"])
def test_no_running_camera_is_said(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, *verb.split()) == "no StreamV2V Camera is running; start one with: vcam run"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "powershell"])
def test_completion_knows_verbs_options_and_profiles(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("translate", "on-failure", "claymation"):
        assert word in script


@pytest.mark.skipif(sys.platform == "win32", reason="bash is needed")
def test_completion_works_in_bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", "bash"])
    (tmp_path / "vcam").write_text(capsys.readouterr().out)
    ask = 'source "$0"; COMP_WORDS=(vcam use cl); COMP_CWORD=2; _shtab_vcam 2>/dev/null; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", ask, str(tmp_path / "vcam")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["claymation"]


# --- as a program ------------------------------------------------------------------------------------------------


def program(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vcam", *argv],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    "argv", [["--help"], ["profiles"], ["status"], ["use", "x"], ["completion", "bash"]], ids=" ".join
)
def test_small_verbs_import_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys; from vcam.cli.main import main; main(sys.argv[1:]); "
        "print([m for m in ('torch', 'cv2', 'av', 'numpy', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_is_the_program() -> None:
    done = program("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vcam: error: no StreamV2V Camera is running; start one with: vcam run\n"
    assert program("frob").returncode == 2


def test_console_without_unicode_still_shows_the_rest(home: Path) -> None:
    (home / "profiles").mkdir()
    (home / "profiles" / "mine.toml").write_text('name = "Ünïque 粘土"\nlook.prompt = "x"\n', encoding="utf-8")
    done = program("profiles", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "\\xdcn\\xefque" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise on Windows")
def test_reader_that_goes_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vcam", "completion", "zsh"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(PATIENCE_S) == 141


def test_who_calls_it_within_a_program_hears_all_messages() -> None:
    """Only its own handler leaves repeats out: pytest's lost messages in later tests."""
    own = [logging.getLogger(name) for name in ("vcam", "core")]
    levels, before = [one.level for one in own], [list(one.filters) for one in logging.getLogger().handlers]
    assert before, "pytest has handlers"
    try:
        cli._start_logging(False)
        assert [list(one.filters) for one in logging.getLogger().handlers] == before
    finally:
        for logger, level in zip(own, levels, strict=True):
            logger.setLevel(level)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell that closes streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault_and_leave_their_numbers_to_no_file(tmp_path: Path, closed: str) -> None:
    code = (
        "import os, sys; from vcam.cli.main import main; status = main(['profiles']); "
        f"os.write(os.open({str(tmp_path / 'said')!r}, os.O_CREAT | os.O_RDWR), b'x'); "
        "sys.exit(status or any(os.path.samestat(os.fstat(n), os.stat(sys.argv[1])) for n in (0, 1, 2)))"
    )
    (tmp_path / "said").touch()
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code, str(tmp_path / "said")]
    assert subprocess.run(command, capture_output=True, timeout=PATIENCE_S).returncode == 0
