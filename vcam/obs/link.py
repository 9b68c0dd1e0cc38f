"""The daemon's ear at OBS: a supervised connection that turns what happens there into commands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vcam.commands import Command, CommandError
from vcam.obs import places, words
from vcam.obs.protocol import Obs, ObsError, ObsGone, ObsPassword, ObsRefused, Subscription
from vcam.settings.config import ObsSettings

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 4.0  # with what OBS needs to answer, reconnected within 6 s
BEAT_S = 0.5  # how often it looks whether it shall stop
POLL_S = 1.0  # how often a text source is read where OBS does not tell of changes (obs-websocket < 5.4)
_EVENTS = (
    Subscription.GENERAL
    | Subscription.SCENES
    | Subscription.INPUTS
    | Subscription.FILTERS
    | Subscription.SCENE_ITEMS
)  # fmt: skip
PING, PONG = "streamv2v_ping", "streamv2v_pong"
NOT_RUNNING = "OBS does not run"


class ObsLink:
    """Listens to OBS in a thread of its own, from `with` to its end; connects again whenever OBS is back.

    submit: takes the commands. say: tells the user, once for each change. picture_link: an address of the live
    picture, for OBS's media source.
    """

    def __init__(
        self,
        settings: ObsSettings,
        submit: Callable[[Command], Future[None]],
        say: Callable[[str], None],
        picture_link: Callable[[], str] | None = None,
        find: Callable[[ObsSettings], places.Address] = places.address,
    ) -> None:
        self._settings, self._submit, self._say = settings, submit, say
        self._picture_link, self._find = picture_link, find
        self._stop = threading.Event()
        self._state = NOT_RUNNING
        self._prompt = ""
        self._thread = threading.Thread(target=self._run, name="vcam-obs", daemon=True)

    @property
    def state(self) -> str:
        """How it stands, in words; begins with "connected" while it is."""
        return self._state

    def __enter__(self) -> ObsLink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(BEAT_S + 5)

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stop.is_set():
            try:
                with self._connected() as obs:
                    wait_s = FIRST_WAIT_S
                    self._set(f"connected (obs-websocket {obs.version})")
                    self._listen(obs)
            except ObsError as error:
                self._set(self._trouble(error))
            self._stop.wait(wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)

    def _connected(self) -> Obs:
        at = self._find(self._settings)  # anew each time: the password may have been changed
        return Obs(at.host, at.port, at.password, _EVENTS)

    def _trouble(self, error: ObsError) -> str:
        if isinstance(error, ObsGone) and not self._state.startswith("connected"):
            if self._find(self._settings).enabled is False:
                return "OBS's websocket is off: OBS > Tools > WebSocket Server Settings > Enable WebSocket server"
            return NOT_RUNNING
        return str(error) if isinstance(error, ObsPassword) else f"waiting for OBS: {error}"

    def _set(self, state: str) -> None:
        if state != self._state and state != NOT_RUNNING:
            self._say(state if state.startswith("OBS") else f"OBS: {state}")
        self._state = state

    def _listen(self, obs: Obs) -> None:
        self._refresh_picture(obs)
        self._prompt = _text_of(obs, self._settings.prompt_source) or ""
        polls = _older(obs.version, (5, 4))
        next_poll_s = time.monotonic()
        while not self._stop.is_set():
            found = obs.event(BEAT_S)
            if found is not None:
                kind, data = found
                if kind == "ExitStarted":
                    raise ObsGone("it ends")
                self._heard(obs, kind, data)
            if polls and time.monotonic() >= next_poll_s:
                next_poll_s = time.monotonic() + POLL_S
                self._prompted(_text_of(obs, self._settings.prompt_source))

    def _heard(self, obs: Obs, kind: str, data: dict[str, Any]) -> None:
        try:
            if kind == "CustomEvent" and PING in data:
                obs.request("BroadcastCustomEvent", eventData={PONG: data[PING]})
            elif kind == "InputSettingsChanged":
                if data.get("inputName") == self._settings.prompt_source:
                    self._prompted(str(data.get("inputSettings", {}).get("text", "")))
            elif (command := self._command(obs, kind, data)) is not None:
                self._send(command)
        except (CommandError, ObsRefused) as error:
            self._say(f"OBS: {error}")

    def _command(self, obs: Obs, kind: str, data: dict[str, Any]) -> Command | None:
        match kind:
            case "CustomEvent":
                return words.from_event(data)
            case "CurrentProgramSceneChanged":
                return words.from_scene(str(data.get("sceneName")), self._settings.scenes)
            case "SceneItemEnableStateChanged":
                return words.from_switch(_item_name(obs, data), bool(data.get("sceneItemEnabled")))
            case "SourceFilterEnableStateChanged":
                return words.from_switch(str(data.get("filterName")), bool(data.get("filterEnabled")))
            case "InputCreated":
                return words.from_name(str(data.get("inputName")))
            case _:
                return None

    def _prompted(self, text: str | None) -> None:
        if text is None:
            return
        try:
            command = words.from_prompt(text, self._prompt)
        except CommandError as error:
            self._say(f"OBS: {error}")
            command = None
        self._prompt = " ".join(text.split())
        if command is not None:
            self._send(command)

    def _send(self, command: Command) -> None:
        def refused(done: Future[None]) -> None:
            if error := done.exception():
                self._say(f"OBS: {error}")

        self._submit(command).add_done_callback(refused)

    def _refresh_picture(self, obs: Obs) -> None:
        """Our media source in OBS gets this run's address: port and key are new each time."""
        from vcam.obs.setup import refresh_picture

        if self._picture_link is not None:
            refresh_picture(obs, self._picture_link)


def _item_name(obs: Obs, data: dict[str, Any]) -> str:
    """The name of the source of a scene item, of which an event tells only the number."""
    scene = str(data.get("sceneName"))
    try:
        items = obs.request("GetSceneItemList", sceneName=scene)["sceneItems"]
    except ObsRefused:
        items = obs.request("GetGroupSceneItemList", sceneName=scene)["sceneItems"]
    return next((str(one["sourceName"]) for one in items if one["sceneItemId"] == data.get("sceneItemId")), "")


def _text_of(obs: Obs, source: str) -> str | None:
    """The text of a text source; None if there is no such source."""
    try:
        settings = obs.request("GetInputSettings", inputName=source)["inputSettings"]
    except ObsRefused:
        return None
    return str(settings.get("text", ""))


def _older(version: str, than: tuple[int, int]) -> bool:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return not (major.isdecimal() and minor.isdecimal()) or (int(major), int(minor)) < than
