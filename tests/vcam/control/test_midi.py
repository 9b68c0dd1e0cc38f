"""MIDI in: mido's real messages as commands, devices that come and go on a stand-in for the system's MIDI."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import mido
import pytest

from tests.support.patience import until
from vcam.commands import ChangeLook, Command, NextProfile, Panic, UseProfile
from vcam.control import midi
from vcam.control.controllers import Hand
from vcam.control.midi import MidiReceiver, command_of
from vcam.errors import CommandError, DeviceError
from vcam.settings.config import MidiSettings

KEYS = {
    "note 36": "use ink",
    "note 37": "panic",
    "note 36 channel 10": "next",
    "cc 1": "strength",
    "cc 2": "toggle",
    "program 3": "claymation",
    "note 38": "detail",
}


@pytest.mark.parametrize(
    ("message", "command"),
    [
        (mido.Message("note_on", note=36, velocity=90), UseProfile("ink")),
        (mido.Message("note_on", note=36, velocity=1), UseProfile("ink")),
        (mido.Message("note_on", note=36, velocity=90, channel=9), NextProfile()),
        (mido.Message("note_on", note=37, velocity=90, channel=9), Panic()),
        (mido.Message("note_on", note=36, velocity=0), None),
        (mido.Message("note_off", note=36), None),
        (mido.Message("note_on", note=99, velocity=90), None),
        (mido.Message("control_change", control=1, value=127), ChangeLook({"strength": 1.0})),
        (mido.Message("control_change", control=1, value=0), ChangeLook({"strength": 0.03})),
        (mido.Message("control_change", control=1, value=64), ChangeLook({"strength": 0.504})),
        (mido.Message("control_change", control=2, value=0), None),
        (mido.Message("note_on", note=38, velocity=127), ChangeLook({"detail": 1.0})),
        (mido.Message("program_change", program=3), UseProfile("claymation")),
        (mido.Message("pitchwheel", pitch=100), None),
        (mido.Message("sysex", data=(1, 2, 3)), None),
        (mido.Message("clock"), None),
    ],
)
def test_a_message_is_what_the_map_says(message: Any, command: Command | None) -> None:
    assert command_of(message, KEYS) == command


def test_a_map_that_was_not_checked_says_nothing_worse_than_an_error() -> None:
    with pytest.raises(CommandError):
        command_of(mido.Message("note_on", note=1, velocity=9), {"note 1": "use"})


class System:
    """The system's MIDI: devices by name, and who hears them."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.callbacks: dict[str, Callable[[Any], None]] = {}
        self.broken = False

    def get_input_names(self) -> list[str]:
        if self.broken:
            raise SystemError("no sequencer")
        return list(self.names)

    def open_input(self, name: str, callback: Callable[[Any], None]) -> System:
        self.callbacks[name] = callback
        return self

    def close(self) -> None:
        self.callbacks.clear()


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System("Keyboard", "nanoPAD2")
    monkeypatch.setitem(sys.modules, "rtmidi", ModuleType("rtmidi"))
    monkeypatch.setattr(mido, "get_input_names", made.get_input_names)
    monkeypatch.setattr(mido, "open_input", made.open_input)
    monkeypatch.setattr(midi, "LOOK_S", 0.01)
    monkeypatch.setattr(midi, "AGAIN_S", 0.01)
    return made


def test_the_named_device_is_heard_also_when_it_was_away(system: System) -> None:
    given: list[Command] = []
    said: list[str] = []

    def submit(command: Command) -> Any:
        from concurrent.futures import Future

        given.append(command)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    settings = MidiSettings(port="nanoPAD", map=KEYS)
    with MidiReceiver(settings, Hand("MIDI", "midi", settings.allow, submit, said.append)) as receiver:
        until(lambda: list(system.callbacks) == ["nanoPAD2"] and said)  # which comes a moment later
        hear = system.callbacks["nanoPAD2"]
        for value in range(128):
            hear(mido.Message("control_change", control=1, value=value))
        hear("what mido never sends")
        hear(mido.Message("note_on", note=37, velocity=90))
        until(lambda: given[-1:] == [Panic()])
        assert given[-2] == ChangeLook({"strength": 1.0})
        assert len(given) < 60, "of a fader's values the newest counts"
        system.names.remove("nanoPAD2")
        until(lambda: receiver.device == "")
        system.broken = True
        until(lambda: any("no sequencer" in one for one in said))
        system.broken = False
        system.names.append("nanoPAD2")
        until(lambda: receiver.device == "nanoPAD2")
        system.callbacks["nanoPAD2"](mido.Message("note_on", note=36, velocity=90))
        until(lambda: given[-1] == UseProfile("ink"))
    assert said[:2] == ["MIDI: nanoPAD2 is heard", "MIDI: a message was left out (AttributeError)"]
    assert "MIDI: nanoPAD2 is gone" in said
    assert system.callbacks == {}


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rtmidi", None)
    hand = Hand("MIDI", "midi", (), lambda command: None, lambda text: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(DeviceError, match="pip install mido python-rtmidi"):
        MidiReceiver(MidiSettings(port=""), hand)
