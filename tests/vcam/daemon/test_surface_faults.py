"""A fault of a command, or of the status, by the surfaces that are programs of their own: OBS, the tray, a listener."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.every_command import COMMANDS
from tests.support.obs_stand_in import PASSWORD, StandIn, standing_in
from tests.support.patience import PATIENCE_S, until
from tests.support.running_daemon import SwitchedDaemon
from vcam import client
from vcam.commands import (
    Command,
    Forget,
    UseProfile,
    to_json,
    verbs,
)
from vcam.errors import VcamError
from vcam.settings.config import ObsSettings

FAULTS: list[Callable[[], BaseException]] = [
    lambda: RecursionError("maximum recursion depth exceeded"),
    lambda: MemoryError("no room"),
    lambda: OSError(36, "File name too long"),
    lambda: KeyError("gone"),
    lambda: CancelledError("cancelled"),
    lambda: SystemExit(3),
]
NAMES = [type(make()).__name__ for make in FAULTS]


class Attacked:
    """A camera with a bridge to a stand-in for OBS. fault: what each command raises now."""

    def __init__(self, run: SwitchedDaemon, folder: Path, obs: StandIn) -> None:
        self.run, self.folder, self.obs = run, folder, obs
        self.fault: BaseException | None = None
        self.raised: list[Command] = []
        for queue in (run.daemon._commands, run.daemon._at_once):
            apply = queue._apply
            queue._apply = lambda command, apply=apply: self._apply(apply, command)  # type: ignore[misc]

    def _apply(self, apply: Callable[[Command], None], command: Command) -> None:
        if self.fault is not None:
            self.raised.append(command)
            raise self.fault
        apply(command)

    def is_connected(self) -> bool:
        return self.run.daemon.status().obs.startswith("connected")

    def until_raised(self, before: int) -> None:
        until(lambda: len(self.raised) > before)

    def goes_on(self) -> None:
        published = self.run.daemon.status().published
        self.run.until(lambda: self.run.daemon.status().published > published + 2)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder, obs = tmp_path_factory.mktemp("attacked"), StandIn()
    with standing_in(obs) as port:
        settings = ObsSettings(port=port, password=PASSWORD, allow=tuple(verbs()))
        with SwitchedDaemon(folder, {"panel": True, "port": 0, "obs": settings}) as run:
            held = Attacked(run, folder, obs)
            until(held.is_connected)
            yield held
            held.fault = None
            assert run.daemon.status().restarts == 0


def test_every_command_is_tried() -> None:
    assert {to_json(command)["command"] for command in COMMANDS} == set(verbs())


@pytest.mark.parametrize("make", FAULTS, ids=NAMES)
def test_a_fault_of_any_command_of_obs_costs_that_command(
    attacked: Attacked, make: Callable[[], BaseException]
) -> None:
    for command in COMMANDS:
        attacked.fault, before = make(), len(attacked.raised)
        attacked.obs.tell("CustomEvent", streamv2v=to_json(command))
        attacked.until_raised(before)
        assert attacked.raised[-1] == command
    attacked.fault = None
    attacked.goes_on()
    assert attacked.is_connected()
    attacked.obs.tell("CustomEvent", streamv2v="use p2")
    attacked.run.until(lambda: attacked.run.shows(2))
    attacked.run.tell(UseProfile("p0"))
    attacked.run.until(lambda: attacked.run.shows(0))  # the next test waits for the other look


@pytest.mark.parametrize("make", FAULTS, ids=NAMES)
def test_a_fault_of_any_command_of_the_tray_costs_that_command(
    attacked: Attacked, make: Callable[[], BaseException]
) -> None:
    pytest.importorskip("PySide6", reason="the tray's library is not installed")
    from vcam.tray.app import CameraClient, asked

    tray = CameraClient(lambda: asked(attacked.folder), lambda command: client.send(command, attacked.folder))
    for command in COMMANDS:
        attacked.fault = make()
        tray.tell(command)
        until(lambda: len(tray.refusals) > 0)
        assert type(attacked.fault).__name__ in tray.refusals.popleft()
    attacked.fault = None
    attacked.goes_on()
    tray.tell(UseProfile("p3"))
    attacked.run.until(lambda: attacked.run.shows(3))
    until(lambda: tray.view.alive)
    tray.close()
    attacked.run.tell(UseProfile("p0"))
    attacked.run.until(lambda: attacked.run.shows(0))


@pytest.mark.parametrize("make", FAULTS, ids=NAMES)
def test_a_fault_of_the_status_costs_who_asks_for_it(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch, make: Callable[[], BaseException]
) -> None:
    run, session = attacked.run, json.loads((attacked.folder / client.SESSION_FILE).read_text())
    headers = {"Authorization": f"Bearer {session['token']}"}
    address = f"ws://127.0.0.1:{session['port']}/api/v1/events"
    published = run.daemon.status().published

    def fails(*_: object) -> None:
        raise make()

    with connect(address, additional_headers=headers) as events:
        assert json.loads(events.recv(PATIENCE_S))["published"] > 0
        monkeypatch.setattr("vcam.daemon.daemon.status_of", fails)
        with contextlib.suppress(ConnectionClosed):
            while True:
                events.recv(PATIENCE_S)
        with pytest.raises(VcamError):
            client.status(attacked.folder)
    monkeypatch.undo()
    run.until(lambda: run.daemon.status().published > published + 2)
    with connect(address, additional_headers=headers) as events:
        assert json.loads(events.recv(PATIENCE_S))["published"] > published
    assert client.status(attacked.folder).state == "running"
    with contextlib.suppress(VcamError):
        client.send(Forget(), attacked.folder)
