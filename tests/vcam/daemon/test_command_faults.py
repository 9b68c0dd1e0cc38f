"""One command never ends the camera: every command, from every surface, with every fault, and the pacer goes on."""

from __future__ import annotations

import http.client
import json
import logging
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.every_command import COMMANDS
from tests.support.patience import PATIENCE_S, until
from tests.support.running_daemon import SwitchedDaemon
from vcam import client
from vcam.commands import (
    Command,
    Forget,
    Panic,
    Pause,
    Reload,
    Resume,
    SetPrompt,
    Stop,
    UseProfile,
    UseSource,
    to_json,
    verbs,
)
from vcam.control import api
from vcam.daemon.command_queue import CommandQueue
from vcam.errors import VcamError
from vcam.log_file import FILE
from vcam.settings.config import ObsSettings

FAULTS: list[Callable[[], BaseException]] = [
    lambda: RecursionError("maximum recursion depth exceeded"),
    lambda: MemoryError(),
    lambda: OSError(36, "File name too long"),
    lambda: KeyError("gone"),
    lambda: RuntimeError("Could not determine home directory."),
    lambda: CancelledError(),
    lambda: SystemExit(3),
    lambda: AssertionError("a\nb\0"),
]


def test_every_command_is_tried() -> None:
    assert {to_json(command)["command"] for command in COMMANDS} == set(verbs())


class Attacked:
    """A daemon with its page, whose commands fault as the test says; `fault` is what the next one raises."""

    def __init__(self, run: SwitchedDaemon, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.fault: BaseException | None = None

    def raising(self, apply: Callable[[Command], None], command: Command) -> None:
        if self.fault is not None:
            raise self.fault
        apply(command)

    def goes_on(self) -> None:
        """Wait until more pictures were published, none of them late by a second."""
        published = self.run.daemon.status().published
        self.run.until(lambda: self.run.daemon.status().published > published + 2)

    def directly(self, command: Command) -> str:
        error = self.run.daemon.submit(command).exception(PATIENCE_S)
        return type(error).__name__ if error else ""

    def by_page(self, command: Command) -> str:
        """Give the command over the page's port, as a browser does; "" or the status and error."""
        session = json.loads((self.folder / client.SESSION_FILE).read_text())
        connection = http.client.HTTPConnection("127.0.0.1", self.run.daemon.status().panel_port, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {session['token']}", "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/command", json.dumps(to_json(command)), headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return "" if answer.status == 200 else f"{answer.status} {body}"

    def by_door(self, command: Command) -> str:
        """Give the command as the command line, the tray and OBS's bridge do."""
        try:
            client.send(command, self.folder)
        except VcamError as error:
            return str(error)
        return ""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    options = {"panel": True, "port": 0, "obs": ObsSettings(enabled=False)}
    with SwitchedDaemon(folder, options) as run:
        held = Attacked(run, folder)
        for queue in (run.daemon._commands, run.daemon._at_once):
            apply = queue._apply
            queue._apply = lambda command, apply=apply: held.raising(apply, command)  # type: ignore[misc]
        run.until((folder / client.SESSION_FILE).exists)
        run.until(lambda: run.daemon.status().panel_port)
        yield held
        assert run.daemon.status().restarts == 0


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(to_json(command)["command"]))
def test_a_fault_costs_its_command_and_nothing_else(
    attacked: Attacked, command: Command, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("vcam.log_file"), "propagate", True)
    surfaces = (attacked.directly, attacked.by_page, attacked.by_door)
    for number, make in enumerate(FAULTS):
        attacked.fault = make()
        caplog.clear()
        told = surfaces[number % len(surfaces)](command)
        assert told, f"{attacked.fault!r} was not told"
        FILE.wait()
        assert any(line.exc_info and line.exc_info[1] is attacked.fault for line in caplog.records), "no traceback"
    for surface in surfaces:  # the same fault by every surface
        attacked.fault = RecursionError("deep")
        told = surface(command)
        assert told
        if surface == attacked.by_page:
            assert told.startswith("500")
            assert "RecursionError: deep (unexpected; vcam.log tells where)" in told
    attacked.fault = None
    attacked.goes_on()
    assert attacked.by_door(Resume()) == attacked.by_page(SetPrompt("after")) == ""
    assert attacked.run.daemon.status().prompt == "after"


def huge_png(path: Path) -> Path:
    """Write a grey picture of 30000x30000 that is one megabyte small."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed, empty = zlib.compressobj(9), bytes(30_001)
    data = b"".join(packed.compress(empty) for _ in range(30_000)) + packed.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("source", ["x" * 300, "~nouser/film.mp4", "a huge picture"])
def test_a_source_that_cannot_be_is_told_and_the_camera_goes_on(
    attacked: Attacked, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vcam.daemon.daemon import RunParts

    command = UseSource(str(huge_png(tmp_path / "huge.png")) if source == "a huge picture" else source)
    monkeypatch.setattr(attacked.run.daemon._handler, "_open_source", RunParts().open_source)
    assert attacked.by_page(command).startswith("400")
    attacked.goes_on()
    assert attacked.by_door(SetPrompt("after")) == ""


def test_profiles_that_attack_the_reader_cost_themselves(attacked: Attacked) -> None:
    folder = attacked.run.folder
    head = 'name = "x"\n[look]\nprompt = "x"\n'
    bad = {
        "dotted": head + "a" + ".a" * 30_000 + " = 1",
        "deep": head + "a = " + "[" * 20_000,
        "nobody": head + '[engine]\nmodel = "~nouser/model"\n',
        "lora": head + '[engine]\nloras = [{ path = "~nouser/x.safetensors" }]\n',
    }
    for name, text in bad.items():
        (folder / f"{name}.toml").write_text(text)
    try:
        assert attacked.by_door(Reload()) == ""
        for name in bad:
            assert attacked.by_door(UseProfile(name))
        attacked.goes_on()
        assert attacked.by_door(UseProfile("p1")) == ""
    finally:
        for name in bad:
            (folder / f"{name}.toml").unlink()


def test_a_profile_that_cannot_be_read_is_left_out_and_said_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "bad.toml").write_text("a" + ".a" * 30_000 + " = 1")
    with SwitchedDaemon(tmp_path) as run:
        assert "bad" not in run.daemon.choice.profiles
    assert "bad.toml: its keys or lists are nested more than 16 deep" in capsys.readouterr().err


def test_who_waits_no_longer_does_not_end_the_camera_and_panic_does_not_wait(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun, late = threading.Event(), threading.Event(), list[Command]()
    commands = attacked.run.daemon._commands
    apply = commands._apply

    def slow(command: Command) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        late.append(command)
        apply(command)

    monkeypatch.setattr(commands, "_apply", slow)
    monkeypatch.setattr(api, "APPLY_S", 0.05)
    # begun, and nobody waits for it any more; on a busy machine it may be given up before that, and is given again
    until(lambda: attacked.by_page(SetPrompt("slow")).startswith("503") and begun.is_set())
    assert attacked.by_page(SetPrompt("left")).startswith("503")  # not begun yet
    monkeypatch.setattr(api, "APPLY_S", PATIENCE_S)
    assert attacked.by_page(Panic()) == ""
    assert attacked.run.daemon.status().state == "panic"
    attacked.goes_on()
    go_on.set()
    monkeypatch.setattr(commands, "_apply", apply)
    assert attacked.by_page(Resume()) == ""
    assert attacked.by_page(SetPrompt("after")) == ""
    assert late == [SetPrompt("slow")], "what its sender was told is not done must not be done later"


def test_a_command_that_stops_the_picture_is_carried_out_although_nobody_waits() -> None:
    from vcam.daemon.event_log import EventLog

    done = list[Command]()
    queue = CommandQueue(done.append, EventLog())
    for command in (SetPrompt("x"), Panic(), Stop(), Pause()):
        assert queue.submit(command).cancel()
    while queue.carry_out(0):
        pass
    assert done == [Panic(), Stop(), Pause()]


def test_a_fault_while_nothing_is_asked_is_told_and_the_camera_goes_on(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    audience: Any = attacked.run.daemon._audience
    looked, look = threading.Event(), audience.look

    def failing(busy: bool) -> bool:
        looked.set()
        raise KeyError("no such reader")

    monkeypatch.setattr(audience, "look", failing)
    assert looked.wait(PATIENCE_S)
    attacked.goes_on()
    monkeypatch.setattr(audience, "look", look)
    assert attacked.by_door(SetPrompt("after")) == ""
    attacked.run.until(lambda: any("the daemon failed (KeyError" in one["text"] for one in attacked.run.daemon.log()))


@pytest.mark.parametrize(
    "make", [make for make in FAULTS if isinstance(make(), Exception)], ids=lambda make: type(make()).__name__
)
@pytest.mark.parametrize("where", ["sink", "pacer"])
def test_a_fault_of_the_sink_or_the_pacer_costs_its_picture_alone(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch, where: str, make: Callable[[], Exception]
) -> None:
    run, fault, raised = attacked.run, make(), list[int]()
    before = run.daemon.status()
    slot = run.daemon._pipeline.slots.translated

    def fails(*_: object) -> None:
        if len(raised) < 3:
            raised.append(1)
            raise fault

    if where == "sink":
        monkeypatch.setattr(run.sink, "_at_send", fails)
    else:
        monkeypatch.setattr(slot, "take", fails)
    run.until(lambda: len(raised) == 3)
    monkeypatch.undo()
    attacked.goes_on()
    run.until(lambda: not run.daemon.status().notes)
    assert run.daemon.status().refused == before.refused + (3 if where == "sink" else 0)
    assert any(f"({type(fault).__name__}: " in line["text"] for line in run.daemon.log()[-30:])
    assert attacked.by_door(SetPrompt("after")) == ""


def test_a_terminal_or_disk_that_takes_nothing_costs_no_picture(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A stream on a full disk."""

        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stderr", Full())
    attacked.run.sink.trouble = "the device is gone"
    attacked.run.until(lambda: "the device is gone" in attacked.run.daemon.status().notes)
    attacked.run.sink.trouble = ""
    attacked.fault = KeyError("gone")
    assert attacked.directly(Forget()) == "KeyError"
    attacked.fault = None
    attacked.run.until(lambda: not attacked.run.daemon.status().notes)
    attacked.goes_on()
    assert attacked.by_door(replace(SetPrompt("x"), prompt="after")) == ""
