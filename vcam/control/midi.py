"""MIDI in: the keys and faders of a pad set looks and strength (mido, python-rtmidi)."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Mapping
from typing import Any

from vcam.commands import Command, from_text
from vcam.control.controllers import Hand, level, newest_levels
from vcam.errors import CommandError, DeviceError
from vcam.settings.config import LEVELS, MidiSettings

LOOK_S = 3.0  # how often it is seen whether the device is there
AGAIN_S = 60.0  # ... where the system has no MIDI: its library complains on the terminal each time
PAUSE_S = 0.02  # in which a fader's values become one
MOST_WAITING = 1000
_MISSING = "[midi] needs the packages mido and python-rtmidi: pip install mido python-rtmidi"


def command_of(message: Any, keys: Mapping[str, str]) -> Command | None:
    """Return the command that the map says of a message, None where it says nothing; raise CommandError.

    A level's value is that of the fader, or how hard the key was hit.
    """
    match message.type:
        case "note_on" if message.velocity:
            name, value = f"note {message.note}", message.velocity
        case "control_change":
            name, value = f"cc {message.control}", message.value
        case "program_change":
            name, value = f"program {message.program}", 127
        case _:
            return None
    said = keys.get(f"{name} channel {message.channel + 1}") or keys.get(name)
    if said is None:
        return None
    if said in LEVELS:
        return level(said, value / 127)
    return from_text(said) if value >= 64 or name.startswith("note") else None  # a knob's button is let go below that


class MidiReceiver:
    """Hears a MIDI device from `with` to its end, also one that is plugged in later. Raises DeviceError."""

    def __init__(self, settings: MidiSettings, hand: Hand) -> None:
        try:
            import mido
            import rtmidi  # noqa: F401  what mido speaks to the system with
        except ImportError as error:
            raise DeviceError(f"{_MISSING} ({error})") from error
        self._mido: Any = mido
        self._settings, self._hand = settings, hand
        self._messages: queue.Queue[Any] = queue.Queue(MOST_WAITING)
        self._port: Any = None
        self.device = ""  # that is heard now
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._run, "vcam-midi"), (self._watch, "vcam-midi-watch"))
        ]

    def __enter__(self) -> MidiReceiver:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._put(None)
        for thread in self._threads:
            thread.join(5)
        self._close()

    def _put(self, message: Any) -> None:
        """Take a message (the library's thread); one too many is left out."""
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(message)

    def _run(self) -> None:
        while not self._stop.is_set():
            messages = [self._messages.get()]
            self._stop.wait(PAUSE_S)
            with contextlib.suppress(queue.Empty):
                while True:
                    messages.append(self._messages.get_nowait())
            commands = (command for one in messages if (command := self._command(one)) is not None)
            for command in newest_levels(commands):
                self._hand.give(command)

    def _command(self, message: Any) -> Command | None:
        try:
            return None if message is None else command_of(message, self._settings.map)
        except CommandError as error:
            self._hand.say(str(error))
        except Exception as error:  # noqa: BLE001  whatever a device sends costs this message alone
            self._hand.say(f"a message was left out ({type(error).__name__})")
        return None

    def _watch(self) -> None:
        """Open the device when it is there, let it go when it is gone."""
        trouble = None
        while not self._stop.is_set():
            wait_s = LOOK_S
            try:
                names = list(self._mido.get_input_names())
                if self.device and self.device not in names:
                    self._hand.say(f"{self.device} is gone")
                    self._close()
                wanted = next((name for name in names if (self._settings.port or "") in name), "")
                if not self.device and wanted:
                    self._port = self._mido.open_input(wanted, callback=self._put)
                    self.device = wanted
                    self._hand.say(f"{wanted} is heard")
                now = "" if self.device else f"no device {self._settings.port!r} is there; there are: {names or 'none'}"
            except Exception as error:  # noqa: BLE001  the library's own errors, of no common class
                wait_s = AGAIN_S
                now = f"the system's MIDI cannot be used ({type(error).__name__}: {error})"
            if now and now != trouble:
                self._hand.say(now)
            trouble = now
            self._stop.wait(wait_s)

    def _close(self) -> None:
        port, self._port, self.device = self._port, None, ""
        if port is not None:
            with contextlib.suppress(Exception):  # a device that is gone: nothing to tell
                port.close()
