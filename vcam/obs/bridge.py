"""The bridge to OBS Studio: a process of its own that turns what happens in OBS into commands of the camera's API.

    python -P -m vcam.obs.bridge

reads one JSON object from stdin (see `Orders`), then the measured latency as often as it changes, a number a line;
writes JSON lines to stdout (see `Told`), and ends when stdin does. It may give the commands that `[obs] allow` names
and see no picture; nothing that OBS sends reaches the camera unread.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import IO

from vcam import client
from vcam.commands import Command, Status, to_json
from vcam.errors import ObsError, ObsGone, ObsNotInstalled, ObsPassword
from vcam.obs import library, places
from vcam.obs.listener import Listener
from vcam.obs.sync import AudioSync, stepped
from vcam.settings.config import ObsSettings

FIRST_WAIT_S = 0.25
LASTING_S = 2.0  # a connection
LONGEST_WAIT_S = 4.0  # with what OBS needs to answer, reconnected within 6 s
SAY_S = 1.0  # a line at least so often, as long as the bridge is alive
LARGEST_MEMORY = 1 << 30  # bytes: whoever answers in OBS's place may send what it likes
NOT_RUNNING = "OBS does not run"
WEBSOCKET_OFF = "OBS's websocket is off: OBS > Tools > WebSocket Server Settings > Enable WebSocket server"
_EVENTS = (
    library.Subscription.GENERAL
    | library.Subscription.CONFIG
    | library.Subscription.SCENES
    | library.Subscription.INPUTS
    | library.Subscription.FILTERS
    | library.Subscription.SCENE_ITEMS
)


@dataclass(frozen=True)
class Orders:
    """What the bridge is told at its start.

    door, token: of the camera's API. page_port: None where there is no page.
    """

    door: str | int
    token: str = field(repr=False)
    page_port: int | None
    settings: ObsSettings

    def to_line(self) -> str:
        """Return the JSON object that the bridge reads."""
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def from_line(line: str) -> Orders:
        """Return what `to_line` wrote."""
        data = json.loads(line)
        settings = data["settings"]
        return Orders(**{**data, "settings": ObsSettings(**{**settings, "allow": tuple(settings["allow"])})})


@dataclass(frozen=True)
class Told:
    """A line from the bridge. state: how it stands with OBS, in words. said: something for the user, "" if nothing."""

    state: str
    said: str = ""


class Bridge:
    """Connects to OBS again and again. tell: takes the lines, on any thread."""

    def __init__(
        self,
        orders: Orders,
        tell: Callable[[Told], None],
        find: Callable[[ObsSettings], places.Address] = places.address,
        latency_ms: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._latency_ms = latency_ms
        self._orders, self._tell, self._find = orders, tell, find
        self._state = NOT_RUNNING
        self._told_s = float("-inf")

    def run(self) -> None:
        """Serve until the process ends. Raises ObsNotInstalled."""
        wait_s = FIRST_WAIT_S
        while True:
            began_s = time.monotonic()
            try:
                self._once()
            except ObsNotInstalled:
                raise
            except ObsError as error:
                self._set(self._trouble(error))
            # one that lets us in and at once ends the connection is not asked four times a second
            lasted = time.monotonic() > began_s + LASTING_S
            wait_s = FIRST_WAIT_S if lasted else min(LONGEST_WAIT_S, 2 * wait_s)
            self._alive()
            time.sleep(wait_s)

    @property
    def _connected(self) -> bool:
        return self._state.startswith("connected")

    def _once(self) -> None:
        """Serve one connection. Raises ObsError when it ends, or cannot begin."""
        settings = self._orders.settings
        at = self._find(settings)  # anew each time: the password may have been changed
        if stranger := places.stranger_at(at, settings):
            self._set(stranger)
            return
        with contextlib.closing(library.Events(at, _EVENTS)) as events:
            if stranger := places.stranger_at(at, settings):  # who may have come meanwhile
                self._set(stranger)
                return
            self._set(f"connected (obs-websocket {events.version})")
            ask = partial(library.ask, at)
            sync = AudioSync(ask, settings.microphone) if settings.sync_audio else None
            listener = Listener(settings, ask, self._give, self._say, self._orders.page_port, self._beat(sync))
            listener.listen(events, self._alive)

    def _beat(self, sync: AudioSync | None) -> Callable[[], None]:
        """Return what keeps the sound in step, for a listener that calls it again and again."""

        def beat() -> None:
            if sync is not None:
                stepped(sync, self._latency_ms(), self._say)

        return beat

    def _give(self, command: Command) -> tuple[str, ...]:
        at = client.Session(self._orders.door, self._orders.token)
        return Status.from_json(client.ask(at, "POST", "/api/v1/command", to_json(command))).prompt_notes

    def _trouble(self, error: ObsError) -> str:
        if isinstance(error, ObsPassword):
            return str(error)
        if isinstance(error, ObsGone) and not self._connected:
            where = self._find(self._orders.settings)
            if where.enabled is False:
                return WEBSOCKET_OFF
            if places.listens_for_us(where.port) is None:
                return NOT_RUNNING
        return f"waiting for OBS: {error}"

    def _set(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._send(
                Told(state, "" if state == NOT_RUNNING else state if state.startswith("OBS") else f"OBS: {state}")
            )

    def _say(self, words: str) -> None:
        self._send(Told(self._state, words))

    def _alive(self) -> None:
        if time.monotonic() >= self._told_s + SAY_S:
            self._send(Told(self._state))

    def _send(self, told: Told) -> None:
        self._told_s = time.monotonic()
        self._tell(told)


class Heard:
    """What the camera tells while the bridge runs: the latency, in ms; 0 while it is not known."""

    def __init__(self) -> None:
        self.latency_ms = 0.0

    def until_the_end(self, stdin: IO[str]) -> None:
        """Hear the camera until it ends, and then end the process."""
        for line in stdin:
            with contextlib.suppress(ValueError):  # half a line, where the camera was killed
                self.latency_ms = float(line)
        os._exit(0)


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (LARGEST_MEMORY, LARGEST_MEMORY))


def main() -> int:
    """Run the bridge; return the exit status."""
    _limit_memory()
    if sys.platform != "win32":
        os.nice(-min(0, os.nice(0)))  # the camera may go before others, what OBS sends need not
    line = sys.stdin.readline()
    if not line:
        return 0  # the camera ended before it gave orders
    orders = Orders.from_line(line)
    heard = Heard()
    threading.Thread(target=heard.until_the_end, args=(sys.stdin,), daemon=True).start()
    lock = threading.Lock()

    def tell(told: Told) -> None:
        with lock:
            print(json.dumps(asdict(told)), flush=True)

    try:
        _serve(Bridge(orders, tell, latency_ms=lambda: heard.latency_ms), tell)
    except BrokenPipeError:
        return 1
    return 0


def _serve(bridge: Bridge, tell: Callable[[Told], None]) -> None:
    """Serve until the process ends; without the package there is nothing to do, and nothing to start again."""
    try:
        bridge.run()
    except ObsNotInstalled as error:
        tell(Told(str(error), f"OBS: {error}"))
        while True:
            time.sleep(SAY_S)
            tell(Told(str(error)))  # else it would be taken for one that hangs


if __name__ == "__main__":
    sys.exit(main())
