"""The bridge to OBS in a real process, between a stand-in for OBS and a real control server, whatever OBS does."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.controlled_daemon import ControlledDaemon
from tests.support.obs_stand_in import PASSWORD, StandIn, standing_in
from tests.support.patience import PATIENCE_S, until
from vcam.commands import Command, NextProfile, Panic, Pause, Resume, SetPrompt, Toggle, UseProfile
from vcam.control.server import Server
from vcam.errors import ObsGone, ObsPassword, ObsRefused, VcamError
from vcam.obs import library, supervisor
from vcam.obs.bridge import NOT_RUNNING, Orders
from vcam.obs.listener import PING, PONG
from vcam.obs.places import Address
from vcam.obs.setup import source_kinds
from vcam.obs.supervisor import BridgeProcess
from vcam.settings.config import ObsSettings

# obsws-python leaves the socket of a greeting that fails to the garbage collector
a_socket_is_left = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class Camera:
    """A camera's control server with a bridge beside it."""

    def __init__(self, folder: Path, port: int, password: str, page: bool, settings: dict[str, Any]) -> None:
        self.daemon = ControlledDaemon()
        self.said: list[str] = []
        chosen = ObsSettings(port=port, password=password, **settings)
        self.server = Server(self.daemon, 0 if page else None, folder, chosen.allow)
        session = self.server.bridge_session()
        orders = Orders(session.door, session.token, self.server.port, chosen)
        self.bridge = BridgeProcess(orders, self.said.append, folder)

    @property
    def commands(self) -> list[Command]:
        return self.daemon.commands

    @property
    def connected(self) -> bool:
        return self.bridge.state.startswith("connected")


Start = Callable[..., Camera]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def make(port: int, password: str = PASSWORD, page: bool = True, **settings: Any) -> Camera:
            camera = Camera(tmp_path, port, password, page, settings)
            stack.enter_context(camera.server)
            stack.enter_context(camera.bridge)
            return camera

        yield make


def test_each_kind_of_event_is_a_command(start: Start) -> None:
    obs = StandIn()
    with standing_in(obs) as port:
        camera = start(port, page=False, scenes={"Interview": "ink"}, prompt_source="Prompt")
        until(lambda: camera.bridge.state == "connected (obs-websocket 5.5.0)" and obs.asked("GetInputSettings"))
        obs.tell("CustomEvent", streamv2v="next")
        obs.tell("CustomEvent", somebody="else")
        obs.tell("CurrentProgramSceneChanged", sceneName="Interview")
        obs.tell("SceneItemEnableStateChanged", sceneName="Scene", sceneItemId=4, sceneItemEnabled=True)
        obs.tell("SourceFilterEnableStateChanged", sourceName="x", filterName="StreamV2V: pause", filterEnabled=False)
        obs.tell("InputCreated", inputName="StreamV2V: panic")
        obs.tell("InputSettingsChanged", inputName="Prompt", inputSettings={"text": "a cat\nof clay"})
        obs.tell("InputSettingsChanged", inputName="Other", inputSettings={"text": "a dog"})
        obs.tell("CustomEvent", streamv2v={"command": "toggle"})
        until(lambda: Toggle() in camera.commands)
        assert camera.commands == [
            NextProfile(), UseProfile("ink"), UseProfile("oil"), Resume(), Panic(), SetPrompt("a cat of clay"), Toggle()
        ]  # fmt: skip
        obs.tell("CustomEvent", **{PING: "a mark"})
        until(lambda: {"eventData": {PONG: "a mark"}} in obs.asked("BroadcastCustomEvent"))


def _was_asked(obs: StandIn, settings: dict[str, Any]) -> bool:
    return settings in obs.asked("SetInputSettings")


def test_what_the_model_does_not_read_of_a_prompt_is_said_and_shown_in_obs(start: Start) -> None:
    obs = StandIn()
    with standing_in(obs) as port:
        camera = start(port, page=False)
        until(lambda: camera.connected and obs.asked("GetInputSettings"))
        for notes in (("the model does not know goh (van gogh?)",), ()):
            camera.daemon.prompt_notes = notes
            text = f"by van goh {len(notes)}"
            obs.tell("InputSettingsChanged", inputName="StreamV2V Prompt", inputSettings={"text": text})
            shown = {"inputName": "StreamV2V Prompt Notes", "inputSettings": {"text": "".join(notes)}}
            until(partial(_was_asked, obs, shown))
        told = "OBS: the model does not know goh (van gogh?)"
        until(lambda: told in camera.said)  # on another way than what OBS is shown
        assert camera.said.count(told) == 1


def test_what_is_not_allowed_is_refused_by_the_api_and_said(start: Start) -> None:
    obs = StandIn()
    with standing_in(obs) as port:
        camera = start(port, page=False)
        until(lambda: camera.connected)
        for forbidden in ("stop", "reload"):
            obs.tell("CustomEvent", streamv2v={"command": forbidden})
        obs.tell("CustomEvent", streamv2v={"command": "look", "changes": {"strength": 0.02}})
        obs.tell("CustomEvent", streamv2v="next")
        until(lambda: camera.commands)
        assert camera.commands == [NextProfile()]
        # on another way than the commands
        until(lambda: sum("OBS may not give" in one for one in camera.said) == 3)


def test_a_list_of_the_users_own_allows_more(start: Start) -> None:
    obs = StandIn()
    with standing_in(obs) as port:
        camera = start(port, page=False, allow=("look",))
        until(lambda: camera.connected)
        obs.tell("CustomEvent", streamv2v="next")
        obs.tell("CustomEvent", streamv2v={"command": "look", "changes": {"strength": 0.4}})
        until(lambda: camera.commands)
        assert [type(one).__name__ for one in camera.commands] == ["ChangeLook"]


def test_nonsense_and_refusals_are_said_and_nothing_ends(start: Start) -> None:
    obs = StandIn()
    with standing_in(obs) as port:
        camera = start(port, page=False)
        until(lambda: camera.connected)
        obs.tell("CustomEvent", streamv2v={"command": "explode"})
        obs.tell("SceneItemEnableStateChanged", sceneName="Scene", sceneItemId=5, sceneItemEnabled=True)
        obs.tell("SomethingNew")
        until(lambda: any("unknown command 'explode'" in one for one in camera.said))
        camera.daemon.error = VcamError("no profile 'x'; there are ink")
        obs.tell("CustomEvent", streamv2v="use x")
        until(lambda: "OBS: no profile 'x'; there are ink" in camera.said)
        assert camera.connected


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "message",
    [
        DEEP,
        '{"op": 5, "d": ' + DEEP,
        "[]",
        "3",
        "null",
        "no json",
        '{"op": 5}',
        '{"op": 5, "d": []}',
        '{"op": 5, "d": {"eventType": ["x"], "eventData": 3}}',
        '{"op": 5, "d": {"eventType": "CustomEvent", "eventData": ["streamv2v"]}}',
        '{"op": 5, "d": {"eventType": "CustomEvent", "eventData": {"streamv2v": ' + "[" * 200 + "]" * 200 + "}}}",
        '{"op": 5, "d": {"eventType": "InputSettingsChanged", "eventData": {"inputName": "StreamV2V Prompt", '
        '"inputSettings": [1]}}}',
        '{"op": 5, "d": {"eventType": "SceneItemEnableStateChanged", "eventData": {"sceneName": {"a": 1}}}}',
        '{"op": 5, "d": {"eventType": "SourceFilterEnableStateChanged", "eventData": {"filterName": 3}}}',
    ],
    ids=lambda text: text[:60],
)
def test_a_malformed_message_ends_nothing_for_good(start: Start, message: str) -> None:
    obs = StandIn()
    with standing_in(obs) as port:
        camera = start(port, page=False)
        until(lambda: camera.connected)
        obs.send(message)
        before = len(obs.listeners)

        def next_is_heard() -> bool:
            with contextlib.suppress(Exception):  # the connection may be one that the bridge has just given up
                obs.tell("CustomEvent", streamv2v="next")
            time.sleep(0.1)
            return NextProfile() in camera.commands

        until(next_is_heard)
        assert len(obs.listeners) in (before, before + 1)
        until(lambda: camera.connected)


@pytest.mark.parametrize(
    "answer",
    [
        DEEP,
        "[]",
        '"x"',
        '{"op": 7}',
        '{"op": 7, "d": []}',
        '{"op": 7, "d": {"requestStatus": []}}',
        '{"op": 7, "d": {"requestStatus": {"result": true}, "responseData": [1]}}',
        '{"op": 7, "d": {"requestStatus": {"result": false}}}',
        '{"op": 7, "d": {"requestStatus": {"result": false, "code": "x"}, "requestType": "y"}}',
        '{"op": 7, "d": {"requestStatus": {"result": true}, "responseData": {"inputs": {"a": 1}}}}',
    ],
    ids=lambda text: text[:60],
)
def test_a_malformed_answer_is_one_of_our_errors(answer: str) -> None:
    obs = StandIn()
    obs.malformed = answer
    with standing_in(obs) as port:
        at = Address("127.0.0.1", port, PASSWORD)
        with pytest.raises((ObsGone, ObsRefused)) as told:
            source_kinds(partial(library.ask, at))
    assert "\n" not in str(told.value)


@a_socket_is_left
@pytest.mark.parametrize(
    "hello",
    [
        DEEP,
        "[]",
        "no json",
        '{"op": 0}',
        '{"op": 0, "d": {"authentication": "text"}}',
        '{"op": 0, "d": {"authentication": ["list"]}}',
        '{"op": 0, "d": {"authentication": {"challenge": "c"}}}',
        '{"op": 0, "d": {"authentication": {"challenge": 1, "salt": 2}}}',
        '{"op": 5, "d": {}}',
    ],
    ids=lambda text: text[:60],
)
def test_a_malformed_greeting_is_waited_out(start: Start, hello: str) -> None:
    obs = StandIn()
    good, obs.hello = obs.hello, hello
    with standing_in(obs) as port:
        with pytest.raises((ObsGone, ObsPassword)):
            library.Events(Address("127.0.0.1", port, PASSWORD), library.Subscription.GENERAL)
        gc.collect()
        camera = start(port, page=False)
        until(lambda: camera.bridge.state != NOT_RUNNING)
        assert not camera.connected
        obs.hello = good
        until(lambda: camera.connected)


def test_a_wrong_password_is_said_once_without_it_and_a_changed_one_is_taken(start: Start) -> None:
    obs = StandIn(password="another")
    with standing_in(obs) as port:
        camera = start(port, page=False)
        until(lambda: "refuses the password" in camera.bridge.state and camera.said)
        until(lambda: obs.refused >= 3)
        assert len(camera.said) == 1
        obs.password = PASSWORD
        until(lambda: camera.connected)
    assert not [one for one in camera.said if PASSWORD in one or "another" in one]


@a_socket_is_left
def test_a_missing_password_is_asked_for() -> None:
    with standing_in(StandIn()) as port, pytest.raises(ObsPassword, match="OBS wants a password"):
        library.ask(Address("127.0.0.1", port, ""), "GetVersion")
    gc.collect()


def test_obs_that_goes_is_waited_for(start: Start) -> None:
    first, second = StandIn(), StandIn()
    with standing_in(first) as port:
        camera = start(port, page=False)
        until(lambda: camera.connected)
    until(lambda: not camera.connected)
    with standing_in(second, port):
        until(lambda: camera.connected)
        second.tell("CustomEvent", streamv2v="next")
        until(lambda: camera.commands == [NextProfile()])
        second.tell("ExitStarted")
        until(lambda: not camera.connected or len(second.listeners) > 1)


def test_no_obs_is_quiet(start: Start) -> None:
    camera = start(1, page=False)
    until(lambda: camera.bridge.state == NOT_RUNNING)
    time.sleep(1.0)  # several tries
    assert camera.said == []


def test_obs_that_no_longer_answers_is_not_called_connected(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    obs = StandIn(version="5.1.0")  # it is asked for the prompt's text again and again
    with standing_in(obs) as port:
        camera = start(port, page=False)
        until(lambda: camera.connected)
        obs.silent = True
        until(lambda: not camera.connected)
        obs.silent = False
        until(lambda: camera.connected)


def has_another(camera: Camera, process: object) -> bool:
    return camera.bridge._process is not process


def test_a_bridge_that_is_killed_or_stopped_is_started_again(start: Start) -> None:
    obs = StandIn()
    with standing_in(obs) as port:
        camera = start(port, page=False)
        for harm in (signal.SIGKILL, signal.SIGSTOP):
            until(lambda: camera.connected)
            process = camera.bridge._process
            assert process is not None
            process.send_signal(harm)
            camera.bridge._silent_s = 3.0
            until(partial(has_another, camera, process))
            camera.bridge._silent_s = PATIENCE_S  # the next one may start as slowly as a busy machine likes
        until(lambda: camera.connected)
        obs.tell("CustomEvent", streamv2v="next")
        until(lambda: camera.commands == [NextProfile()])


def test_the_bridge_ends_with_the_camera(tmp_path: Path) -> None:
    orders = Orders(str(tmp_path / "nowhere"), "token", None, ObsSettings(port=1))
    with subprocess.Popen(
        supervisor.COMMAND, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(orders.to_line())
        process.stdin.flush()
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def test_nothing_of_the_password_is_ever_said_or_logged(tmp_path: Path) -> None:
    """Even at DEBUG, with every logger heard: the library writes it at INFO."""
    code = (
        "import logging, sys\n"
        "logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)\n"
        "from vcam.obs import library\n"
        "from vcam.obs.places import Address\n"
        f"at = Address('127.0.0.1', int(sys.argv[1]), {PASSWORD!r})\n"
        "events = library.Events(at, library.Subscription.GENERAL)\n"
        "print(library.ask(at, 'GetVersion'), at)\n"
        "events.close()\n"
        "print('done')\n"
    )
    with standing_in(StandIn()) as port:
        run = [sys.executable, "-c", code, str(port)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "done" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


def test_without_the_package_it_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['obsws_python'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "import vcam.obs.library as library\n"
        "library.find_spec = lambda name: None if name == 'obsws_python' else find(name)\n"
        "from vcam.obs.bridge import main; sys.exit(main())\n"
    )
    said: list[str] = []
    orders = Orders("nowhere", "token", None, ObsSettings(port=1))
    with BridgeProcess(orders, said.append, tmp_path, command=[sys.executable, "-c", code]) as bridge:
        until(lambda: "obsws-python must be installed" in bridge.state and said)
        first_s, process = bridge._heard_s, bridge._process
        until(lambda: bridge._heard_s > first_s + 2, "it is silent, and taken for one that hangs")
        assert bridge._process is process
        assert len(said) == 1


def test_a_text_source_is_read_where_obs_does_not_tell(start: Start) -> None:
    obs = StandIn(version="5.1.0")
    obs.answers["GetInputSettings"] = {"inputSettings": {"text": ""}}
    with standing_in(obs) as port:
        camera = start(port, page=False)
        until(lambda: camera.connected and len(obs.asked("GetInputSettings")) > 1)
        obs.answers["GetInputSettings"] = {"inputSettings": {"text": "a person of gold"}}
        until(lambda: camera.commands == [SetPrompt("a person of gold")])


def test_sources_that_a_scene_collection_brings_are_no_commands_and_its_picture_is_renewed(start: Start) -> None:
    obs = StandIn()
    obs.answers |= {
        "GetInputList": {"inputs": [{"inputName": "StreamV2V Camera", "inputKind": "ffmpeg_source"}]},
        "GetInputSettings": {"inputSettings": {"input": "http://127.0.0.1:9/api/v1/picture.mjpeg?key=theirs"}},
        "SetInputSettings": {},
    }
    with standing_in(obs) as port:
        camera = start(port)
        renewed = f"http://127.0.0.1:{camera.server.port}/api/v1/picture.mjpeg?key=theirs"
        until(lambda: len(obs.asked("SetInputSettings")) == 1)
        obs.tell("CurrentSceneCollectionChanging", sceneCollectionName="Old")
        obs.tell("InputCreated", inputName="StreamV2V: pause")
        obs.tell("SourceFilterEnableStateChanged", sourceName="x", filterName="StreamV2V: panic", filterEnabled=True)
        obs.tell("CurrentSceneCollectionChanged", sceneCollectionName="New")
        until(lambda: len(obs.asked("SetInputSettings")) == 2)
        assert [one["inputSettings"]["input"] for one in obs.asked("SetInputSettings")] == [renewed, renewed]
        obs.tell("InputCreated", inputName="StreamV2V: pause")
        until(lambda: camera.commands)
        assert camera.commands == [Pause()]


def test_the_bridge_may_give_commands_and_nothing_else(start: Start) -> None:
    from vcam import client

    camera = start(1)
    session = camera.server.bridge_session()
    for method, path in (
        ("GET", "/api/v1/picture.jpg"),
        ("GET", "/api/v1/status"),
        ("POST", "/api/v1/picture-link"),
        ("POST", "/api/v1/view-key"),
        ("POST", "/api/v1/look"),
    ):
        with pytest.raises(VcamError, match="OBS may give commands, and nothing else"):
            client.ask(session, method, path, {} if method == "POST" else None)
    client.ask(session, "POST", "/api/v1/command", {"command": "panic"})
    assert camera.commands == [Panic()]


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("vcam.obs.bridge", {"obsws_python", "pyvirtualcam", "torch", "cv2", "numpy"}),
        ("vcam.daemon.daemon", {"obsws_python", "websocket"}),
    ],
)
def test_gpl_packages_never_meet_in_one_process(module: str, foreign: set[str]) -> None:
    """The bridge alone loads obsws-python (GPLv3), late; the camera's process loads pyvirtualcam (GPLv2)."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not foreign & set(loaded)


def test_orders_survive_their_way() -> None:
    orders = Orders("/a/door", "secret", 8787, ObsSettings(port=4455, password="p", scenes={"One": "ink"}))
    assert Orders.from_line(orders.to_line()) == orders
    assert "secret" not in repr(orders)
    assert json.loads(orders.to_line())["settings"]["password"] == "p"
    assert os.linesep not in orders.to_line()[:-1]
