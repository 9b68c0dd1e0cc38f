"""The real OBS Studio: keys pressed there switch the camera, it may go and come as it likes, it shows our picture."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from core.settings import EngineSettings
from tests.support.fake_camera import FakeCamera
from tests.support.fake_engine import FACTORY
from tests.support.fake_sink import FakeSink
from tests.support.patience import until
from tests.support.pictures import SIZE
from tests.support.profile_files import write_profile
from tests.support.running_daemon import RunningDaemon
from vcam import client
from vcam.cli import main as cli
from vcam.commands import Status, UseProfile
from vcam.daemon.daemon import RunParts
from vcam.errors import ObsError
from vcam.frames import Picture
from vcam.obs import install, library, places, setup
from vcam.obs.bridge import NOT_RUNNING, Orders
from vcam.obs.event_commands import SOURCE_NAME
from vcam.obs.library import WRONG_PASSWORD
from vcam.obs.setup import CameraKind, camera_kind, set_up
from vcam.obs.supervisor import BridgeProcess
from vcam.settings.config import ObsSettings
from vcam.settings.run_options import RunOptions

pytestmark = [
    pytest.mark.obs,
    pytest.mark.skipif("OBS_CONTROL" not in os.environ, reason="nothing to stop and start OBS: OBS_CONTROL is not set"),
]
FPS = 30.0
KEYS = {"streamv2v.use.plain": "OBS_KEY_F5", "streamv2v.use.red": "OBS_KEY_F6", "streamv2v.toggle": "OBS_KEY_F7"}
MICROPHONE = {
    "id": "pulse_input_capture",
    "versioned_id": "pulse_input_capture",
    "name": "Mic/Aux",
    "settings": {"device_id": "default"},
}
BEATS_OF_A_LATENCY = 60  # of `vcam obs sync`, in which 300 ms are gone
BACK_S = 6.0  # how soon it is connected again once OBS answers
PLAIN, RED = 20, 90  # the seeds, which the fake engine adds to the picture's red


def uneven() -> Picture:
    """A picture that is nowhere the same."""
    across = np.linspace(60, 200, SIZE[0], dtype=np.uint8)
    picture = np.dstack([np.broadcast_to(across, (SIZE[1], SIZE[0]))] * 3)
    picture[:20] = 120
    return picture


class Running(RunningDaemon):
    """A camera with the profiles plain and red, of whose picture one point's colour is kept."""

    def __init__(self, folder: Path) -> None:
        profiles = folder / "profiles"
        profiles.mkdir()
        for id, seed in (("plain", PLAIN), ("red", RED)):
            write_profile(profiles, id, seed=seed)
        self.sink = FakeSink(point=(5, 5))
        super().__init__(
            RunOptions(
                size=SIZE,
                fps=FPS,
                port=0,
                profile="plain",
                profiles_folder=profiles,
                obs=ObsSettings(scenes={"Two": "red"}),
            ),
            RunParts(
                engine=FACTORY,
                settings_of=lambda profile, options: EngineSettings(model="fake", width=96, height=64, steps=1),
                open_source=lambda options: FakeCamera(picture=uneven()),
                open_sink=lambda options: self.sink,
                state_folder=lambda: folder,
                signals=False,
            ),
        )

    def changed_s(self) -> float:
        """When the colour that is published now was published first."""
        same = itertools.takewhile(lambda one: one.colour == self.sink.colour, reversed(self.sink.sent))
        return min(one.at_s for one in same)

    @property
    def connected(self) -> bool:
        return self.daemon.status().obs.startswith("connected")

    def profile(self) -> str:
        return self.daemon.status().profile

    def use(self, profile: str) -> None:
        self.tell(UseProfile(profile))


def control(verb: str) -> None:
    subprocess.run([os.environ["OBS_CONTROL"], verb], check=True, timeout=90)


def press(*keys: str) -> None:
    for key in keys:  # held as a finger does: OBS looks every 25 ms
        subprocess.run(["xdotool", "keydown", key, "sleep", "0.1", "keyup", key], check=True, timeout=30)


class Studio:
    """The OBS of the lab, asked as `vcam obs` asks it."""

    def request(self, kind: str, **data: Any) -> dict[str, Any]:
        return library.ask(places.address(ObsSettings()), kind, **data)


@contextmanager
def connect() -> Iterator[Studio]:
    yield Studio()


def bridge(settings: ObsSettings, say: Callable[[str], None], folder: Path) -> BridgeProcess:
    """A bridge besides the running camera's, whose commands reach nobody."""
    return BridgeProcess(Orders(str(folder / "no.sock"), "token", None, settings), say, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    """A camera that runs, beside an OBS in which our script is installed and has keys."""
    (obs_folder,) = places.config_folders()
    control("stop")
    install.install(obs_folder, [("plain", "Plain"), ("red", "Red")], add_to_scenes=True)
    for path in install.collections(obs_folder):
        data = json.loads(path.read_text())
        (ours,) = (one for one in data["modules"]["scripts-tool"] if one["path"].endswith(install.SCRIPT))
        ours["settings"] = {name: [{"key": key}] for name, key in KEYS.items()}
        data["AuxAudioDevice1"] = MICROPHONE
        path.write_text(json.dumps(data))
    control("start")
    run = Running(folder)
    run.thread.start()
    try:
        until(lambda: run.connected and run.daemon.status().state == "running", "no camera beside OBS")
        yield run
    finally:
        run.end()


def test_a_key_in_obs_switches_the_profile(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    took_ms = []
    for n in range(10):
        running.use("plain")
        until(lambda: running.sink.colour[0] == 255 - 120 + PLAIN, "the plain profile is not shown")
        time.sleep(0.013 * n)  # somewhere between two frames
        start_s = time.perf_counter()
        press("F6")
        until(lambda: running.sink.colour[0] == 255 - 120 + RED, "the key switched nothing")
        took_ms.append(1000 * (running.changed_s() - start_s))
        assert running.profile() == "red"
    with capsys.disabled():
        print(f"\nkey in OBS to the first changed published frame: median {statistics.median(took_ms):.0f} ms")
    assert statistics.median(took_ms) < 1000  # the figure is for people; this is for a way that is broken


def test_on_off_and_the_way_back(running: Running) -> None:
    running.use("red")
    press("F7")
    until(lambda: running.daemon.status().state == "paused", "F7 does not pause")
    press("F7")
    until(lambda: running.daemon.status().state == "running", "F7 does not resume")
    press("F5")
    until(lambda: running.profile() == "plain", "F5 does not switch")


def test_obs_test_and_setup(
    running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(folder))
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(folder / "config"))
    assert cli.main(["obs", "test", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"streamv2v.use.plain", "streamv2v.use.red", "streamv2v.panic"} <= set(told["hotkeys"])
    with connect() as obs:
        for _ in range(3):
            assert cli.main(["obs", "setup"]) == 0
        scene = obs.request("GetCurrentProgramScene")["currentProgramSceneName"]
        items = obs.request("GetSceneItemList", sceneName=scene)["sceneItems"]
        assert [one["sourceName"] for one in items].count(SOURCE_NAME) == 1
        running.use("red")
        until(lambda: alike(running, obs) < 6, "OBS does not show what is published")
        running.use("plain")
        until(lambda: alike(running, obs) < 6, "OBS does not show the change")


def alike(running: Running, obs: Studio) -> float:
    """How far OBS's own screenshot of our source is from what was published (mean of 0..255)."""
    try:
        told = obs.request("GetSourceScreenshot", sourceName=SOURCE_NAME, imageFormat="png", imageWidth=SIZE[0])
    except Exception:  # noqa: BLE001  702 until the source has its first picture
        return 255.0
    raw = base64.b64decode(told["imageData"].partition(",")[2])
    seen = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    if seen is None or seen.shape[:2] != (SIZE[1], SIZE[0]):
        return 255.0
    published = running.daemon.preview
    return float(np.abs(cv2.cvtColor(seen, cv2.COLOR_BGR2RGB).astype(int) - published).mean())


def test_setup_takes_the_camera_that_obs_lists(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """By OBS's own answers; another of its lists stands in for that of cameras: without /dev/video* this is empty."""
    devices = CameraKind("slideshow", "slide_mode")
    monkeypatch.setattr(setup, "_CAMERA_NAMES", ("Manual",))
    with connect() as obs:
        remove(obs)
        scene = obs.request("GetCurrentProgramScene")["currentProgramSceneName"]
        for words in ("(the virtual camera) was added to the scene", "is there"):
            assert words in set_up(obs.request, no_link, devices)
        settings = obs.request("GetInputSettings", inputName=SOURCE_NAME)
        assert (settings["inputKind"], settings["inputSettings"]) == (devices.kind, {devices.device: "mode_manual"})
        assert items_of(obs, scene).count(SOURCE_NAME) == 1
        remove(obs)


def test_setup_leaves_a_camera_source_as_it_is(running: Running) -> None:
    camera = camera_kind("linux")
    with connect() as obs:
        remove(obs)
        scene = obs.request("GetCurrentProgramScene")["currentProgramSceneName"]
        obs.request("CreateScene", sceneName="Elsewhere")
        device = {camera.device: "/dev/video9"}
        given = {"inputName": SOURCE_NAME, "inputKind": camera.kind, "inputSettings": device}
        obs.request("CreateInput", sceneName="Elsewhere", **given)
        try:
            assert set_up(obs.request, no_link, camera) == (
                f'the source "{SOURCE_NAME}" is there; it was added to the scene "{scene}"'
            )
            assert obs.request("GetInputSettings", inputName=SOURCE_NAME)["inputSettings"] == device
            assert items_of(obs, scene).count(SOURCE_NAME) == 1
        finally:
            obs.request("RemoveScene", sceneName="Elsewhere")  # first: a scene that is not shown keeps what is removed
            remove(obs)


def no_link() -> str:
    raise AssertionError("the live picture is not wanted")


def items_of(obs: Studio, scene: str) -> list[str]:
    return [one["sourceName"] for one in obs.request("GetSceneItemList", sceneName=scene)["sceneItems"]]


def remove(obs: Studio) -> None:
    """Removes our source, and waits until OBS has let go of its name."""
    if SOURCE_NAME in inputs(obs):
        obs.request("RemoveInput", inputName=SOURCE_NAME)
    until(lambda: SOURCE_NAME not in inputs(obs), "the source is still there")


def inputs(obs: Studio) -> list[str]:
    return [one["inputName"] for one in obs.request("GetInputList")["inputs"]]


def test_the_microphone_is_delayed_by_the_latency(
    running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(folder))
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(folder / "config"))
    until(lambda: running.daemon.status().latency_ms >= 1, "no latency is measured")
    with connect() as obs:
        scene = obs.request("GetCurrentProgramScene")["currentProgramSceneName"]
        other = {"inputName": "Another", "inputKind": "ffmpeg_source", "inputSettings": {}}
        obs.request("CreateInput", sceneName=scene, **other)
        try:
            for options, name in (([], MICROPHONE["name"]), (["--microphone", "Another"], "Another")):
                assert cli.main(["obs", "setup", "--sync-audio", *options]) == 0
                told = re.search(r'sync offset of "(.+)" is (\d+) ms now', capsys.readouterr().out)
                assert told
                assert told[1] == name
                written = obs.request("GetInputAudioSyncOffset", inputName=name)["inputAudioSyncOffset"]
                assert written == int(told[2]) > 0
            assert cli.main(["obs", "setup", "--sync-audio", "--microphone", "Nobody"]) == 1
            assert "Nobody" in capsys.readouterr().err
        finally:
            obs.request("RemoveInput", inputName="Another")


def test_the_microphone_follows_a_latency_that_changes_and_never_jumps(
    running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`vcam obs sync`: as measured, then far away, then near; OBS itself is asked for the offset at each beat."""
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(folder))
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(folder / "config"))
    monkeypatch.setattr("vcam.obs.sync.BEAT_S", 0.0)
    until(lambda: running.daemon.status().latency_now_ms > 0, "no latency is measured")
    latencies = [min(200.0, running.daemon.status().latency_now_ms), 190.0, 60.0]
    offsets: list[list[float]] = [[] for _ in latencies]

    with connect() as obs:

        def offset() -> float:
            return float(obs.request("GetInputAudioSyncOffset", inputName=MICROPHONE["name"])["inputAudioSyncOffset"])

        def beat(_: float) -> None:
            at = next(n for n, seen in enumerate(offsets) if len(seen) < BEATS_OF_A_LATENCY)
            offsets[at].append(offset())
            if len(offsets[-1]) == BEATS_OF_A_LATENCY:
                raise KeyboardInterrupt

        def measured() -> Status:
            at = next(n for n, seen in enumerate(offsets) if len(seen) < BEATS_OF_A_LATENCY)
            return replace(client.status(), latency_now_ms=latencies[at])

        monkeypatch.setattr("vcam.obs.verbs.client", SimpleNamespace(status=measured))
        monkeypatch.setattr("vcam.obs.verbs.time", SimpleNamespace(sleep=beat))
        before = offset()
        assert cli.main(["obs", "sync", "--microphone", str(MICROPHONE["name"])]) == 0
    for latency_ms, seen in zip(latencies, offsets, strict=True):
        assert abs(seen[-1] - latency_ms) <= 20
        assert seen[-1] == seen[-5]  # it has come to rest
    every = [before, *itertools.chain(*offsets)]
    assert max(abs(b - a) for a, b in itertools.pairwise(every)) <= 5
    assert max(every) - min(every) > 100  # it went there and back


def test_scenes_custom_events_and_items_speak(running: Running) -> None:
    with connect() as obs:
        running.use("plain")
        obs.request("CreateScene", sceneName="Two")
        first = obs.request("GetCurrentProgramScene")["currentProgramSceneName"]
        obs.request("SetCurrentProgramScene", sceneName="Two")
        until(lambda: running.profile() == "red", "the scene switched nothing")
        obs.request("SetCurrentProgramScene", sceneName=first)
        obs.request("BroadcastCustomEvent", eventData={"streamv2v": {"command": "use", "profile": "plain"}})
        until(lambda: running.profile() == "plain", "the custom event switched nothing")
        given: dict[str, Any] = {"inputKind": "color_source_v3", "inputSettings": {}, "sceneItemEnabled": False}
        made = obs.request("CreateInput", sceneName=first, inputName="StreamV2V: red", **given)
        until(lambda: running.profile() == "red", "a source of that name says the same")
        running.use("plain")
        item = {"sceneName": first, "sceneItemId": made["sceneItemId"]}
        obs.request("SetSceneItemEnabled", **item, sceneItemEnabled=True)
        until(lambda: running.profile() == "red", "the item switched nothing")
        obs.request("RemoveInput", inputName="StreamV2V: red")


def test_a_text_source_is_the_prompt(running: Running) -> None:
    with connect() as obs:
        scene = obs.request("GetCurrentProgramScene")["currentProgramSceneName"]
        name = "StreamV2V Prompt"
        given = {"text": "a person of gold"}
        obs.request("CreateInput", sceneName=scene, inputName=name, inputKind="text_ft2_source_v2", inputSettings=given)
        until(lambda: running.daemon.status().prompt == "a person of gold", "the text is not the prompt")
        obs.request("SetInputSettings", inputName=name, inputSettings={"text": "a person\nof ice"})
        until(lambda: running.daemon.status().prompt == "a person of ice", "the changed text is not the prompt")
        obs.request("RemoveInput", inputName=name)


def test_another_scene_collection_is_no_end(running: Running) -> None:
    with connect() as obs:
        before = obs.request("GetSceneCollectionList")["currentSceneCollectionName"]
        obs.request("CreateSceneCollection", sceneCollectionName="Another")
        time.sleep(1)
    until(lambda: running.connected, "not connected after a change of the scene collection")
    with connect() as obs:
        obs.request("BroadcastCustomEvent", eventData={"streamv2v": "red"})
        until(lambda: running.profile() == "red", "no commands after a change of the scene collection")
        obs.request("SetCurrentSceneCollection", sceneCollectionName=before)
        time.sleep(1)
    press("F5")
    until(lambda: running.profile() == "plain", "the keys are gone after the scene collection came back")


def test_what_a_scene_collection_brings_is_no_command(
    running: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OBS tells of every source that a collection loads as if it were new; a dead address of our picture is renewed."""
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(folder))
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(folder / "config"))
    given: dict[str, Any] = {"inputKind": "color_source_v3", "inputSettings": {}}
    stop = "StreamV2V: pause"
    with connect() as obs:
        before = obs.request("GetSceneCollectionList")["currentSceneCollectionName"]
        obs.request("CreateSceneCollection", sceneCollectionName="With a command")
        until(lambda: collection(obs) == "With a command", "no new scene collection")
        scene = obs.request("GetCurrentProgramScene")["currentProgramSceneName"]
        obs.request("CreateInput", sceneName=scene, inputName=stop, **given)
        until(lambda: running.daemon.status().state == "paused", "a new source of that name is a command")
        assert cli.main(["obs", "setup"]) == 0
        link = obs.request("GetInputSettings", inputName=SOURCE_NAME)["inputSettings"]["input"]
        dead = re.sub(r":\d+/", ":9/", link)
        obs.request("SetInputSettings", inputName=SOURCE_NAME, inputSettings={"input": dead})
        obs.request("SetCurrentSceneCollection", sceneCollectionName=before)
        until(lambda: collection(obs) == before, "the first scene collection does not come back")
        obs.request("BroadcastCustomEvent", eventData={"streamv2v": "resume"})
        until(lambda: running.daemon.status().state == "running", "not resumed")
        obs.request("SetCurrentSceneCollection", sceneCollectionName="With a command")
        until(lambda: collection(obs) == "With a command", "the second scene collection does not come back")
        until(lambda: address_of_picture(obs) == link, "the picture's address is not renewed")
        obs.request("BroadcastCustomEvent", eventData={"streamv2v": "red"})  # after all that the change has sent
        until(lambda: running.profile() == "red", "no commands after the change")
        assert running.daemon.status().state == "running"
        obs.request("SetCurrentSceneCollection", sceneCollectionName=before)
        until(lambda: collection(obs) == before, "the first scene collection does not come back")


def address_of_picture(obs: Studio) -> str:
    return str(obs.request("GetInputSettings", inputName=SOURCE_NAME)["inputSettings"]["input"])


def collection(obs: Studio) -> str:
    """The name of the current scene collection; "" while OBS changes it, and answers nothing."""
    try:
        return str(obs.request("GetSceneCollectionList")["currentSceneCollectionName"])
    except ObsError:
        return ""


def test_a_wrong_password_is_said_once_and_not_shown(running: Running, tmp_path: Path) -> None:
    said: list[str] = []
    link = bridge(ObsSettings(password="quite wrong"), said.append, tmp_path)
    with link:
        until(lambda: link.state == WRONG_PASSWORD, "a wrong password is not told")
        time.sleep(3)
        assert link.state == WRONG_PASSWORD
    assert said == [WRONG_PASSWORD]
    assert "quite wrong" not in said[0]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_obs_may_go_and_come_back(running: Running, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    waits_s = []
    for _ in range(5):
        control(how)
        until(lambda: running.daemon.status().obs == NOT_RUNNING, "OBS is gone, but the status says something else")
        control("start")
        start_s = time.monotonic()
        until(lambda: running.connected, "not connected again")
        waits_s.append(time.monotonic() - start_s)
        assert re.fullmatch(r"connected \(obs-websocket 5\.\d+\.\d+\)", running.daemon.status().obs)
        assert running.thread.is_alive()
    with capsys.disabled():
        print(f"\nconnected again {max(waits_s):.1f} s at most after OBS answered ({how}, 5 times)")
    assert max(waits_s) < BACK_S
    running.use("plain")
    press("F6")
    until(lambda: running.profile() == "red", "the keys are gone after a restart")


def test_another_password_is_taken_from_obs_own_files(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (obs_folder,) = places.config_folders()
    right = (obs_folder / "global.ini").read_text(encoding="utf-8-sig")
    password = places.address(ObsSettings()).password
    (tmp_path / "global.ini").write_text(right.replace(password, "that of yesterday"))
    said: list[str] = []
    monkeypatch.setenv("OBS_CONFIG_FOLDER", str(tmp_path))
    with bridge(ObsSettings(), said.append, tmp_path) as link:
        until(lambda: "refuses the password" in link.state, "a wrong password is not told")
        (tmp_path / "global.ini").write_text(right)
        until(lambda: link.state.startswith("connected"), "the new password is not taken")
    assert len(said) == 2
    assert not [one for one in said if password in one or "yesterday" in one]


def test_obs_itself_may_change_its_password(running: Running, tmp_path: Path) -> None:
    """OBS started with another password: the camera takes it from OBS's files; one that is written down is refused."""
    (obs_folder,) = places.config_folders()
    old = places.address(ObsSettings()).password
    control("stop")
    kept = [obs_folder / "global.ini", obs_folder / "plugin_config" / "obs-websocket" / "config.json"]
    before = {file: file.read_text(encoding="utf-8-sig") for file in kept}  # of OBS before 30.2, and of those since
    for file, text in before.items():
        file.write_text(text.replace(old, "that of today"))
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("QT_")
    }  # cv2 sets its own Qt's
    environment |= {"XDG_CONFIG_HOME": str(obs_folder.parent), "QT_QPA_PLATFORM": "xcb"}
    command = ["obs", "--multi", "--disable-missing-files-check", "--collection", "Lab", "--websocket_ipv4_only"]
    said: list[str] = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as obs:
        try:
            until(lambda: running.connected, "the password of OBS's own files is not taken")
            with bridge(ObsSettings(password=old), said.append, tmp_path) as link:
                until(lambda: link.state == WRONG_PASSWORD, "the password of before is not refused")
            assert said == [WRONG_PASSWORD]
        finally:
            obs.kill()
    for file, text in before.items():
        file.write_text(text)
    control("start")
    until(lambda: running.connected, "not connected after the password came back")
