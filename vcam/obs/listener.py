"""OBS's events as commands: one connection to OBS, from its greeting to its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from vcam.commands import Command, SetPrompt, UseProfile
from vcam.errors import CommandError, ObsGone, ObsRefused, VcamError
from vcam.obs import answers, event_commands
from vcam.obs.event_commands import SOURCE_NAME
from vcam.obs.setup import media_address, renewed_link
from vcam.settings.config import ObsSettings

BEAT_S = 0.5  # how often it looks whether it shall stop, and says that it is alive
POLL_S = 1.0  # how often a text source is read where OBS does not tell of changes (obs-websocket < 5.4)
CHECK_S = 15.0  # how often OBS is asked whether it is still there, when it has said nothing
NOTES = " Notes"  # after the prompt source's name: a text source that shows what the model does not read of the prompt
PING, PONG = "streamv2v_ping", "streamv2v_pong"

Ask = Callable[..., dict[str, Any]]
"""(request, **data) -> answer: vcam.obs.library.ask at one address."""


class EventStream(Protocol):
    """What of vcam.obs.library.Events is needed."""

    version: str

    def next(self, timeout_s: float) -> tuple[str, dict[str, Any]] | None:
        """Return the next event, None if none came."""


class Listener:
    """Turns the events of one connection into commands.

    give: carries a command out, and returns what is to be said of the prompt then; raises VcamError where it is
    refused. say: tells the user. alive: called at least every few seconds while OBS is really there. beat: called
    about every BEAT_S. page_port: of the running camera, for the address of our media source; None where there is
    no page.
    """

    def __init__(
        self,
        settings: ObsSettings,
        ask: Ask,
        give: Callable[[Command], Sequence[str]],
        say: Callable[[str], None],
        page_port: int | None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._beat = beat
        self._settings, self._ask, self._give, self._say, self._page_port = settings, ask, give, say, page_port
        self._prompt = ""
        self._collection_changes = False

    def listen(self, events: EventStream, alive: Callable[[], None]) -> None:
        """Carry out what OBS says until it ends. Raises ObsGone, ObsPassword."""
        self._renew_picture()
        self._prompt = self._text_of_prompt_source() or ""
        polls = older(events.version, (5, 4))
        next_poll_s, next_check_s = time.monotonic(), time.monotonic() + CHECK_S
        while True:
            alive()
            self._beat()
            event = events.next(BEAT_S)
            now = time.monotonic()
            if event is not None:
                if event[0] == "ExitStarted":
                    raise ObsGone("it ends")
                self.hear(*event)
                next_check_s = now + CHECK_S
            if polls and now >= next_poll_s:
                next_poll_s, next_check_s = now + POLL_S, now + CHECK_S
                self._prompted(self._text_of_prompt_source())
            if now >= next_check_s:
                next_check_s = now + CHECK_S
                self._ask("GetVersion")

    def hear(self, kind: str, data: dict[str, Any]) -> None:
        """Carry out one event; what cannot be carried out is said."""
        try:
            if kind == "CurrentSceneCollectionChanging":
                self._collection_changes = True
            elif kind == "CurrentSceneCollectionChanged":
                self._collection_changes = False
                self._renew_picture()
            elif kind == "CustomEvent" and PING in data:
                self._ask("BroadcastCustomEvent", eventData={PONG: data[PING]})
            elif kind == "InputSettingsChanged":
                if data.get("inputName") == self._settings.prompt_source:
                    settings = data.get("inputSettings")
                    self._prompted(str(settings.get("text", "")) if isinstance(settings, dict) else None)
            elif (command := self._command(kind, data)) is not None:
                self._carry_out(command)
        except (CommandError, ObsRefused) as error:
            self._say(f"OBS: {error}")
        except ObsGone:
            raise
        except VcamError as error:
            self._say(f"OBS: {error}")

    def _command(self, kind: str, data: dict[str, Any]) -> Command | None:
        if kind == "CustomEvent":
            return event_commands.from_event(data)
        if kind == "CurrentProgramSceneChanged":
            return event_commands.from_scene(str(data.get("sceneName")), self._settings.scenes)
        if self._collection_changes:
            return None  # OBS tells of every source that it loads as if somebody had made it
        match kind:
            case "SceneItemEnableStateChanged":
                return event_commands.from_switch(self._item_name(data), data.get("sceneItemEnabled") is True)
            case "SourceFilterEnableStateChanged":
                return event_commands.from_switch(str(data.get("filterName")), data.get("filterEnabled") is True)
            case "InputCreated":
                return event_commands.from_name(str(data.get("inputName")))
            case _:
                return None

    def _prompted(self, text: str | None) -> None:
        if text is None:
            return
        before, self._prompt = self._prompt, " ".join(text.split())
        try:
            command = event_commands.from_prompt(text, before)
            if command is not None:
                self._carry_out(command)
        except VcamError as error:
            self._say(f"OBS: {error}")

    def _carry_out(self, command: Command) -> None:
        """Carry a command out; where it has a prompt, say what the model does not read of it, in OBS too."""
        notes = self._give(command)
        if not isinstance(command, SetPrompt | UseProfile):
            return
        for note in notes:
            self._say(f"OBS: {note}")
        with contextlib.suppress(ObsRefused):  # there is no such source
            name = self._settings.prompt_source + NOTES
            self._ask("SetInputSettings", inputName=name, inputSettings={"text": "\n".join(notes)})

    def _item_name(self, data: dict[str, Any]) -> str:
        """Return the name of the source of a scene item, of which an event tells only the number."""
        scene = str(data.get("sceneName"))
        try:
            answer = self._ask("GetSceneItemList", sceneName=scene)
        except ObsRefused:
            answer = self._ask("GetGroupSceneItemList", sceneName=scene)
        items = answers.objects(answer, "sceneItems")
        return next(
            (str(one.get("sourceName")) for one in items if one.get("sceneItemId") == data.get("sceneItemId")), ""
        )

    def _text_of_prompt_source(self) -> str | None:
        """Return the prompt source's text; None if there is no such source."""
        try:
            answer = self._ask("GetInputSettings", inputName=self._settings.prompt_source)
        except ObsRefused:
            return None
        return str(answers.settings(answer).get("text", ""))

    def _renew_picture(self) -> None:
        """Give our media source in OBS the page's port of this run; the key in its address is OBS's already."""
        link = None if self._page_port is None else media_address(self._ask)
        if self._page_port is None or link is None:
            return
        renewed = renewed_link(link, self._page_port)
        if renewed is not None and urlsplit(renewed) != urlsplit(link):
            self._ask("SetInputSettings", inputName=SOURCE_NAME, inputSettings={"input": renewed})


def older(version: str, than: tuple[int, int]) -> bool:
    """Tell whether a version such as "5.1.0" is older; one that cannot be read is."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return not (major.isdecimal() and minor.isdecimal()) or (int(major), int(minor)) < than
