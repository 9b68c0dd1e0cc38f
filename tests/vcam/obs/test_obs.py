"""What OBS says becomes commands; the link to it lives through everything; the script is installed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.support.patience import until
from vcam.commands import Command, CommandError, NextProfile, Panic, Pause, Resume, SetPrompt, Toggle, UseProfile
from vcam.errors import VcamError
from vcam.obs import install, places, words
from vcam.obs.link import NOT_RUNNING, ObsLink
from vcam.obs.protocol import Obs, ObsGone, ObsPassword, proof
from vcam.settings.config import ObsSettings

# ----------------------------------------------------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("next", NextProfile()),
        (" Toggle ", Toggle()),
        ("use ink", UseProfile("ink")),
        ("use Oil painting", UseProfile("Oil painting")),
        ("Oil painting", UseProfile("Oil painting")),
        ("ink", UseProfile("ink")),
        ("prompt a person of clay", SetPrompt("a person of clay")),
    ],
)
def test_texts_are_commands(text: str, command: Command) -> None:
    assert words.from_text(text) == command


@pytest.mark.parametrize("text", ["", "  ", "use", "prompt", "prompt " + "x" * 3000, "use\tx\ny\x00"])
def test_texts_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(CommandError):
        words.from_text(text)


def test_custom_events_for_others_are_not_ours() -> None:
    assert words.from_event({"other": "next"}) is None
    assert words.from_event({"streamv2v": "next"}) == NextProfile()
    assert words.from_event({"streamv2v": {"command": "prompt", "prompt": "x", "transition_ms": 9}}) == SetPrompt(
        "x", 9
    )
    with pytest.raises(CommandError, match="unknown command 'explode'"):
        words.from_event({"streamv2v": {"command": "explode"}})
    with pytest.raises(CommandError):
        words.from_event({"streamv2v": 3})


def test_items_and_filters_speak_by_their_names() -> None:
    assert words.from_switch("StreamV2V: use ink", True) == UseProfile("ink")
    assert words.from_switch("streamv2v: ink #2", True) == UseProfile("ink")
    assert words.from_switch("StreamV2V: use ink", False) is None
    assert words.from_switch("StreamV2V: pause", True) == Pause()
    assert words.from_switch("StreamV2V: pause", False) == Resume()
    assert words.from_switch("StreamV2V: panic", True) == Panic()
    assert words.from_switch("Webcam", True) is None
    assert words.from_switch("StreamV2V Camera", True) is None


def test_scenes_have_profiles_and_a_text_source_is_a_prompt() -> None:
    scenes = {"Interview": "ink", "Break": "pause"}
    assert words.from_scene("Interview", scenes) == UseProfile("ink")
    assert words.from_scene("Break", scenes) == Pause()
    assert words.from_scene("Other", scenes) is None
    assert words.from_prompt("a person\n of clay ", "") == SetPrompt("a person of clay")
    assert words.from_prompt("a person of clay", "a person of clay") is None
    assert words.from_prompt(" ", "x") is None


# ------------------------------------------------------------------------------------------------------ where OBS is


def test_obs_own_files_tell_port_and_password(tmp_path: Path) -> None:
    (tmp_path / "global.ini").write_text(
        "\ufeff[OBSWebSocket]\nServerEnabled=true\nServerPort=4460\nAuthRequired=true\nServerPassword=pa%ss\n"
    )
    at = places.address(ObsSettings(), [tmp_path])
    assert (at.port, at.password, at.enabled) == (4460, "pa%ss", True)
    newer = tmp_path / "plugin_config" / "obs-websocket" / "config.json"
    newer.parent.mkdir(parents=True)
    newer.write_text(json.dumps({"server_enabled": False, "server_port": 4461, "server_password": "other"}))
    at = places.address(ObsSettings(), [tmp_path])
    assert (at.port, at.password, at.enabled) == (4461, "other", False)
    assert "other" not in repr(at)
    at = places.address(ObsSettings(port=1, password="mine", host="h"), [tmp_path])
    assert (at.host, at.port, at.password) == ("h", 1, "mine")


@pytest.mark.parametrize("content", ["", "[General]\n", "[OBSWebSocket]\nServerPort=x\n", "\x00", "[OBS"])
def test_files_that_say_nothing_leave_the_usual_port(tmp_path: Path, content: str) -> None:
    (tmp_path / "global.ini").write_text(content)
    assert places.address(ObsSettings(), [tmp_path]).port == 4455


def test_folders_of_every_packaging_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBS_CONFIG_FOLDER", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    wanted = [
        tmp_path / ".config/obs-studio",
        tmp_path / ".var/app/com.obsproject.Studio/config/obs-studio",
        tmp_path / "snap/obs-studio/current/.config/obs-studio",
    ]
    assert places.config_folders(tmp_path) == []
    for folder in wanted:
        folder.mkdir(parents=True)
    assert places.config_folders(tmp_path) == wanted


# -------------------------------------------------------------------------------------------------------- the script


COLLECTION = {
    "name": "Untitled",
    "sources": [{"name": "Scene"}],
    "modules": {"scripts-tool": [{"path": "/x/other.lua"}]},
}


def test_the_script_is_installed_and_added_once(tmp_path: Path) -> None:
    scenes = tmp_path / "basic" / "scenes"
    scenes.mkdir(parents=True)
    (scenes / "Untitled.json").write_text(json.dumps(COLLECTION))
    (scenes / "Two.json").write_text(json.dumps({"name": "Two"}))
    profiles = [("ink", "Ink"), ("oil", 'Oil "painting"')]
    first = install.install(tmp_path, profiles, add_to_scenes=True)
    assert [path.name for path in first.added_to] == ["Two.json", "Untitled.json"]
    assert "Tools > WebSocket Server Settings" in install.steps(first)
    assert "+ >" not in install.steps(first)
    second = install.install(tmp_path, profiles, add_to_scenes=True)
    assert second.added_to == []
    after = json.loads((scenes / "Untitled.json").read_text())
    assert [one["path"] for one in after["modules"]["scripts-tool"]] == ["/x/other.lua", first.script.as_posix()]
    assert after["sources"] == COLLECTION["sources"]
    assert json.loads((scenes / "Untitled.json.before-streamv2v").read_text()) == COLLECTION
    told = json.loads((first.script.parent / install.PROFILES).read_text())
    assert told["profiles"][1] == {"id": "oil", "name": 'Oil "painting"'}
    assert install.installed_in([tmp_path, tmp_path / "no"]) == [first.script.parent]


def test_without_being_asked_no_scene_collection_is_touched(tmp_path: Path) -> None:
    scene = tmp_path / "basic" / "scenes" / "Untitled.json"
    scene.parent.mkdir(parents=True)
    scene.write_text(json.dumps(COLLECTION))
    done = install.install(tmp_path, [], add_to_scenes=False)
    assert json.loads(scene.read_text()) == COLLECTION
    assert "Tools > Scripts > +" in install.steps(done)
    assert str(done.script) in install.steps(done)


def test_what_is_no_scene_collection_is_named(tmp_path: Path) -> None:
    scene = tmp_path / "basic" / "scenes" / "Broken.json"
    scene.parent.mkdir(parents=True)
    scene.write_text("[1, 2")
    with pytest.raises(VcamError, match=r"Broken\.json is no scene collection"):
        install.install(tmp_path, [], add_to_scenes=True)
    assert scene.read_text() == "[1, 2"


# ------------------------------------------------------------------------- the link, with an OBS that misbehaves on cue

PASSWORD = "a secret pass"


class StandIn:
    """Speaks obs-websocket 5 as far as the link needs it; for what the real OBS cannot be made to do."""

    def __init__(self, password: str = PASSWORD, version: str = "5.5.0") -> None:
        self.password, self.version = password, version
        self.connections: list[ServerConnection] = []
        self.requests: list[str] = []
        self.answers = True

    def __call__(self, connection: ServerConnection) -> None:
        hello = {"obsWebSocketVersion": self.version, "rpcVersion": 1}
        connection.send(json.dumps({"op": 0, "d": hello | {"authentication": {"challenge": "c", "salt": "s"}}}))
        try:
            identify = json.loads(connection.recv())["d"]
            if identify["authentication"] != proof(self.password, "s", "c"):
                connection.close(4009, "Authentication failed.")
                return
            connection.send(json.dumps({"op": 2, "d": {"negotiatedRpcVersion": 1}}))
            self.connections.append(connection)
            for message in connection:
                asked = json.loads(message)["d"]
                self.requests.append(asked["requestType"])
                if self.answers:
                    connection.send(json.dumps({"op": 7, "d": self.answer(asked)}))
        except ConnectionClosed:
            pass

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        data = {
            "GetInputList": {"inputs": []},
            "GetSceneItemList": {"sceneItems": [{"sceneItemId": 4, "sourceName": "StreamV2V: use oil"}]},
        }.get(asked["requestType"])
        status = {"result": data is not None, "code": 100 if data is not None else 600, "comment": "no such thing"}
        return {"requestId": asked["requestId"], "requestStatus": status, "responseData": data}

    def tell(self, kind: str, **data: Any) -> None:
        self.connections[-1].send(json.dumps({"op": 5, "d": {"eventType": kind, "eventData": data}}))


@contextmanager
def standing_in(stand_in: StandIn, port: int = 0) -> Iterator[int]:
    with serve(stand_in, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            for connection in stand_in.connections:
                connection.close()
            server.shutdown()
            thread.join()


class Heard:
    """Takes the link's commands and what it says."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.said: list[str] = []
        self.error: Exception | None = None

    def submit(self, command: Command) -> Future[None]:
        self.commands.append(command)
        done: Future[None] = Future()
        if self.error:
            done.set_exception(self.error)
        else:
            done.set_result(None)
        return done

    def link(self, port: int, password: str = PASSWORD, **settings: Any) -> ObsLink:
        chosen = ObsSettings(port=port, password=password, **settings)
        return ObsLink(chosen, self.submit, self.said.append, find=lambda wanted: places.address(wanted, []))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_each_kind_of_event_is_a_command(heard: Heard) -> None:
    obs = StandIn()
    with standing_in(obs) as port, heard.link(port, scenes={"Interview": "ink"}, prompt_source="Prompt") as link:
        until(lambda: link.state == "connected (obs-websocket 5.5.0)")
        obs.tell("CustomEvent", streamv2v="next")
        obs.tell("CustomEvent", somebody="else")
        obs.tell("CurrentProgramSceneChanged", sceneName="Interview")
        obs.tell("SceneItemEnableStateChanged", sceneName="Scene", sceneItemId=4, sceneItemEnabled=True)
        obs.tell("SourceFilterEnableStateChanged", sourceName="x", filterName="StreamV2V: pause", filterEnabled=False)
        obs.tell("InputCreated", inputName="StreamV2V: panic")
        obs.tell("InputSettingsChanged", inputName="Prompt", inputSettings={"text": "a cat\nof clay"})
        obs.tell("InputSettingsChanged", inputName="Other", inputSettings={"text": "a dog"})
        obs.tell("CustomEvent", streamv2v={"command": "toggle"})
        until(lambda: Toggle() in heard.commands)
    assert heard.commands == [
        NextProfile(), UseProfile("ink"), UseProfile("oil"), Resume(), Panic(), SetPrompt("a cat of clay"), Toggle()
    ]  # fmt: skip


def test_nonsense_and_refusals_are_said_and_nothing_ends(heard: Heard) -> None:
    obs = StandIn()
    with standing_in(obs) as port, heard.link(port) as link:
        until(lambda: link.state.startswith("connected"))
        obs.tell("CustomEvent", streamv2v={"command": "explode"})
        obs.tell("SceneItemEnableStateChanged", sceneName="Scene", sceneItemId=5, sceneItemEnabled=True)
        obs.tell("SomethingNew")
        heard.error = VcamError("no profile 'x'; there are ink")
        obs.tell("CustomEvent", streamv2v="use x")
        until(lambda: "OBS: no profile 'x'; there are ink" in heard.said)
        assert any("unknown command 'explode'" in one for one in heard.said)
        assert link.state.startswith("connected")


def test_a_wrong_password_is_said_once_without_it_and_a_changed_one_is_taken(heard: Heard) -> None:
    obs = StandIn(password="another")
    with standing_in(obs) as port, heard.link(port) as link:
        until(lambda: "refuses the password" in link.state)
        time.sleep(1)  # several tries
        assert len(heard.said) == 1
        obs.password = PASSWORD
        until(lambda: link.state.startswith("connected"))
    assert not [one for one in heard.said if PASSWORD in one or "another" in one]


def test_obs_that_goes_is_waited_for(heard: Heard) -> None:
    first, second = StandIn(), StandIn()
    with standing_in(first) as port:
        link = heard.link(port)
        link.__enter__()
        until(lambda: link.state.startswith("connected"))
    try:
        until(lambda: not link.state.startswith("connected"))
        with standing_in(second, port):
            until(lambda: link.state.startswith("connected"))
            second.tell("CustomEvent", streamv2v="next")
            until(lambda: heard.commands == [NextProfile()])
            second.tell("ExitStarted")
            until(lambda: not link.state.startswith("connected"))
    finally:
        link.__exit__(None, None, None)


def test_no_obs_is_quiet(heard: Heard) -> None:
    with heard.link(1) as link:
        time.sleep(0.6)
        assert link.state == NOT_RUNNING
    assert heard.said == []


def test_what_is_no_obs_is_not_taken_for_one() -> None:
    def chatter(connection: ServerConnection) -> None:
        connection.send(json.dumps({"op": 5, "d": {}}))

    with serve(chatter, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(ObsGone, match="no obs-websocket 5"):
            Obs("127.0.0.1", server.socket.getsockname()[1], "")
        server.shutdown()
        thread.join()


def test_a_missing_password_is_asked_for() -> None:
    with standing_in(StandIn()) as port, pytest.raises(ObsPassword, match="OBS wants a password"):
        Obs("127.0.0.1", port, "")


def test_a_text_source_is_read_where_obs_does_not_tell(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    obs = StandIn(version="5.1.0")
    text = [""]

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        data = {"inputs": []} if asked["requestType"] == "GetInputList" else {"inputSettings": {"text": text[0]}}
        return {"requestId": asked["requestId"], "requestStatus": {"result": True}, "responseData": data}

    monkeypatch.setattr(obs, "answer", answer)
    with standing_in(obs) as port, heard.link(port) as link:
        until(lambda: link.state.startswith("connected") and obs.requests.count("GetInputSettings") > 1)
        text[0] = "a person of gold"
        until(lambda: heard.commands == [SetPrompt("a person of gold")])
