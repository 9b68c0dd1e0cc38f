"""config.toml: what this machine may be told, and what each mistake is answered with."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import BankPreset, Framing, Provider, Runtime
from vcam.commands import OnFailure
from vcam.errors import ConfigError, OptionError
from vcam.settings.config import (
    SCHEMA,
    CardTexts,
    Config,
    MarkingSettings,
    MidiSettings,
    ObsSettings,
    OscSettings,
    RecordFormat,
    RecordSettings,
    RemoteCodec,
    RemoteFallback,
    config_folder,
    load_config,
    parse_size,
)
from vcam.settings.engine_options import AskedBy, EngineOptions, names_asked_by
from vcam.settings.presets import Preset

FULL = """
source = "camera:Logitech"
sink = "none"
also = ["ndi"]
profile = "Ink"
size = "1280x720"
fps = 25
on_failure = "hold"
mirror = true
framing = "fit"
[camera]
idle_after_s = 90
[panel]
enabled = false
open = true
port = 9000
[record]
folder = "~/films"
format = "mkv"

[cards]
wait = "Soon"
trouble = "A moment"
paused = ""
off = "Away"
[engine]
preset = "sharp"
model = "sd15-lcm"
bank = "paper"
runtime = "eager"
provider = "cpu"
device = "cuda:1"
dtype = "float16"
threads = 4
[marking]
credentials = false
certificate = "/keys/chain.pem"
key = "/keys/key.pem"
[osc]
port = 9100
host = "0.0.0.0"
allow = ["use"]
[remote]
server = "studio"
fallback = "local"
codec = "h264"
[midi]
port = "nanoPAD"
map = { "Note 36" = "use ink", "cc 1  channel 10" = "strength" }
allow = ["panic"]
[obs]
enabled = false
host = "192.0.2.7"
port = 4456
password = "a secret"
prompt_source = "Prompt"
allow = ["next"]
sync_audio = true
microphone = "Desk"
[obs.scenes]
Interview = "ink"
"Break. Time" = "pause"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_means_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path / "absent"))
    assert load_config() == Config()
    write(tmp_path, "")
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path))
    assert load_config() == Config()


@pytest.mark.skipif(sys.platform == "win32", reason="who may make links there is another question")
def test_a_link_to_nothing_is_told_and_not_taken_for_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").symlink_to("dotfiles/config.toml")
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path))
    words = r"^config\.toml: it is a link to 'dotfiles/config\.toml', where nothing is; delete it, or mend it$"
    with pytest.raises(ConfigError, match=words):
        load_config()


def test_settings_in_a_folder_that_cannot_be_entered_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path))
    for name in ("stat", "lstat"):  # of a folder without its x: root, as whom tests may run, enters it all the same
        monkeypatch.setattr(Path, name, closed)
    with pytest.raises(ConfigError, match=r"^config\.toml: it cannot be read \(Permission denied\)$"):
        load_config()


@pytest.mark.parametrize("folder", ["none", "file/within"])
def test_no_settings_are_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    write(tmp_path, "").rename(tmp_path / "file")
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path / folder))
    assert load_config() == Config()


@pytest.mark.parametrize("value", ["true", "nan", "5", "[]"])
def test_a_server_is_text(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.toml: remote\.server is .*; it must be text in quotes$"):
        load_config(write(tmp_path, f"[remote]\nserver = {value}"))


def test_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config\.toml: no such file$"):
        load_config(tmp_path / "config.toml")


def test_every_key_arrives(tmp_path: Path) -> None:
    read = load_config(write(tmp_path, FULL))
    assert read == Config(
        source="camera:Logitech",
        sink="none",
        also=("ndi",),
        profile="Ink",
        size=(1280, 720),
        fps=25.0,
        on_failure=OnFailure.HOLD,
        mirror=True,
        framing=Framing.FIT,
        idle_after_s=90.0,
        panel=False,
        open_panel=True,
        port=9000,
        engine=EngineOptions(
            preset=Preset.SHARP,
            model="sd15-lcm",
            bank=BankPreset.PAPER,
            runtime=Runtime.EAGER,
            provider=Provider.CPU,
            device="cuda:1",
            dtype="float16",
        ),
        threads=4,
        obs=ObsSettings(
            enabled=False,
            host="192.0.2.7",
            port=4456,
            password="a secret",
            scenes={"Interview": "ink", "Break. Time": "pause"},
            prompt_source="Prompt",
            allow=("next",),
            sync_audio=True,
            microphone="Desk",
        ),
        cards=CardTexts("Soon", "A moment", "", "Away"),
        record=RecordSettings("~/films", RecordFormat.MKV),
        marking=MarkingSettings(False, Path("/keys/chain.pem"), Path("/keys/key.pem")),
        osc=OscSettings(9100, "0.0.0.0", ("use",)),
        midi=MidiSettings("nanoPAD", {"note 36": "use ink", "cc 1 channel 10": "strength"}, ("panic",)),
        remote="wss://studio:8790",
        remote_fallback=RemoteFallback.LOCAL,
        remote_codec=RemoteCodec.H264,
    )
    tables = (ObsSettings, CardTexts, RecordSettings, MarkingSettings, OscSettings, MidiSettings)
    own, engine = len(Config.__dataclass_fields__) - 1 - len(tables), len(names_asked_by(AskedBy.CONFIG))
    assert len(SCHEMA) == own + engine + sum(len(table.__dataclass_fields__) for table in tables)
    assert read.record.place() == Path("~/films").expanduser()
    assert read.engine.given().keys() == set(names_asked_by(AskedBy.CONFIG))
    assert all(getattr(read.obs, key) != getattr(ObsSettings(), key) for key in ObsSettings.__dataclass_fields__)
    assert "a secret" not in repr(read)
    assert all(getattr(read, key) != getattr(Config(), key) for key in Config.__dataclass_fields__)


def test_a_certificate_may_lie_beside_config_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path))
    write(tmp_path, '[marking]\ncertificate = "mine.pem"\nkey = "~/mine.key"')
    assert load_config().marking == MarkingSettings(True, tmp_path / "mine.pem", Path.home() / "mine.key")


def test_default_profile_is_shipped() -> None:
    from vcam.settings.profiles import find_profile, load_profiles

    assert find_profile(Config().profile, load_profiles(Path("/nowhere")).profiles)


BAD = {
    """midi.map has 'pad 36'; a key is "note 36", "cc 1" or "program 0" (0 to 127), with "channel 10" (1 to 16) """
    "behind it where it matters": "[midi.map]\n'pad 36' = 'panic'",
    "midi.map has 'note 128'": "[midi.map]\n'note 128' = 'panic'",
    "midi.map has 'cc 1 channel 17'": "[midi.map]\n'cc 1 channel 17' = 'panic'",
    "midi.map.note 1: use: profile is missing": "[midi.map]\n'note 1' = 'use'",
    "midi.map.note 1 is empty": "[midi.map]\n'note 1' = ''",
    "osc.port is 80": "[osc]\nport = 80",
    "unknown key fsp; did you mean fps?": "fsp = 30",
    "unknown key port; did you mean panel.port?": "port = 30",
    "unknown key engine.steps; known here: preset, model, bank, runtime, provider, device, dtype and threads": (
        "[engine]\nsteps = 3"
    ),
    "fps is nan; it must be a number between 1 and 240": "fps = nan",
    "fps is -30; it must be a number between 1 and 240": "fps = -30",
    "fps is true; it must be a number between 1 and 240": "fps = true",
    "fps is '30'; it must be a number between 1 and 240": "fps = '30'",
    "size: '640' is no size; write WIDTHxHEIGHT in pixels, such as 640x480": "size = '640'",
    'size is [640, 480]; write it as "640x480"': "size = [640, 480]",
    "size is 641x480; both sides must be even and between 64 and 4096": "size = '641x480'",
    "size is 100000x480; both sides must be even and between 64 and 4096": "size = '100000x480'",
    "on_failure is 'show'; it must be card, hold or raw": "on_failure = 'show'",
    "mirror is 'yes'; it must be true or false": "mirror = 'yes'",
    "framing is 'faces'; it must be fill, fit or face; did you mean face?": "framing = 'faces'",
    "panel is false; it must be a table: [panel]": "panel = false",
    "camera.idle_after_s is -1; it must be a number between 0 and 86400": "[camera]\nidle_after_s = -1",
    "panel.port is 80; it must be a whole number between 1024 and 65535, or 0": "panel.port = 80",
    "engine.device is 'gpu'; it must be auto, cpu, cuda, cuda:1, mps or xpu": "engine.device = 'gpu'",
    "engine.device is 'cuda:x'; it must be": "engine.device = 'cuda:x'",
    "engine.dtype is 'half'; it must be auto, float32, float16, bfloat16 or float64": "engine.dtype = 'half'",
    "engine.dtype is 16; it must be": "engine.dtype = 16",
    "engine.runtime is 'fast'; it must be auto, ": "engine.runtime = 'fast'",
    "engine.threads is 0; it must be a whole number between 1 and 256": "engine.threads = 0",
    "obs.scenes is 'ink'; it must be a table": "[obs]\nscenes = 'ink'",
    "obs.scenes.Break is 3; it must be text in quotes": "[obs.scenes]\nBreak = 3",
    "source is empty; it must be a text": "source = ''",
    "it is not valid TOML: Invalid value (at line 1, column 10)": "source = auto\n",
}


@pytest.mark.parametrize("message", BAD, ids=range(len(BAD)))
def test_each_mistake_is_named_in_one_line(message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, BAD[message]))
    assert str(caught.value).startswith(f"config.toml: {message}")
    assert "\n" not in str(caught.value)


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))
def test_sizes_are_read(width: int, height: int) -> None:
    assert parse_size(f" {width}X{height} ") == (width, height)


@pytest.mark.parametrize(
    "text", ["", "x", "640", "640x", "x480", "640x480x3", "6.4x4", "-6x4", "nanxnan", "²x²", "9" * 99]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is no size; write WIDTHxHEIGHT"):
        parse_size(text)


@pytest.mark.skipif(sys.platform != "linux", reason="XDG folders are Linux's")
def test_folder_is_the_systems_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VCAM_CONFIG_FOLDER", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert config_folder() == Path("/somewhere/streamv2v-camera")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_folder() == Path.home() / ".config" / "streamv2v-camera"


def test_the_readmes_configuration_is_the_defaults_but_for_the_camera(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (block,) = [part for part in re.findall(r"```toml\n(.*?)```", readme, re.DOTALL) if "[panel]" in part]
    loaded = load_config(write(tmp_path, block))
    engine = EngineOptions(preset=Preset.AUTO, model="embedded", runtime=Runtime.AUTO)
    assert loaded == replace(Config(), source="camera:Logitech", size=(640, 480), engine=engine)
