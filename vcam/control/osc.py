"""OSC in: TouchOSC, lighting desks and the like set looks and strength over UDP (python-osc)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from vcam.commands import Command, from_json, from_text
from vcam.control.controllers import Hand, level, newest_levels
from vcam.control.guard import RateLimit
from vcam.errors import CommandError, DeviceError
from vcam.settings.config import LEVELS, OscSettings

ROOT = "/streamv2v/"
PANIC = f"{ROOT}panic"  # no limit of packets or messages keeps it out
LARGEST = 65_536
PACKETS_PER_S = 200  # more than a hand makes; what is over that is left out unread
MESSAGES_PER_S = 200  # in them: a bundle holds thousands
_NOT_BY_OSC = ("look", "engine", "source")  # which need more than OSC's values
AT_ONCE = 64  # packets that are taken together: of a fader's values the newest counts
PAUSE_S = 0.02
_MISSING = "[osc] needs the package python-osc: pip install python-osc"


def command_of(address: str, values: list[Any]) -> Command | None:
    """Return the command in a message, None for a stranger's or a button that is let go; raise CommandError.

    /streamv2v/use "ink" or /streamv2v/use/ink, /streamv2v/prompt "clay", /streamv2v/strength 0.5, /streamv2v/panic.
    """
    if not address.startswith(ROOT):
        return None
    verb, _, rest = address.removeprefix(ROOT).partition("/")
    value = values[0] if values else None
    if verb in LEVELS and not rest:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CommandError(f"{ROOT}{verb} needs one number between 0 and 1")
        return level(verb, float(value))
    if isinstance(value, str) and not rest:
        if verb not in ("use", "prompt"):
            raise CommandError(f"{ROOT}{verb[:40]} takes no text")
        return from_json({"command": verb, "profile" if verb == "use" else "prompt": value})
    if isinstance(value, int | float) and not value:
        return None  # a button is let go
    if verb == "use" and rest:
        return from_text(f"use {rest.replace('_', ' ')}")
    if rest or verb in _NOT_BY_OSC:
        raise CommandError(f"{address[:60]} is no address of ours; docs/controllers.md lists them")
    return from_json({"command": verb})


class OscReceiver:
    """Hears OSC from `with` to its end. Raises DeviceError where it cannot; nothing that it hears does."""

    def __init__(self, settings: OscSettings, hand: Hand) -> None:
        try:
            from pythonosc.osc_packet import OscPacket
        except ImportError as error:
            raise DeviceError(f"{_MISSING} ({error})") from error
        self._packet, self._hand = OscPacket, hand
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((settings.host, settings.port or 0))
        except OSError as error:
            self._socket.close()
            raise DeviceError(
                f"[osc] port {settings.port} at {settings.host} cannot be used ({error.strerror}); name another"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._socket.settimeout(0.5)
        self._limit = RateLimit(PACKETS_PER_S, 2 * PACKETS_PER_S)
        self._messages = RateLimit(MESSAGES_PER_S, 2 * MESSAGES_PER_S)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vcam-osc", daemon=True)

    def __enter__(self) -> OscReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            packets = self._waiting()
            for command in newest_levels(one for packet in packets for one in self._commands(packet)):
                self._hand.give(command)

    def _waiting(self) -> list[bytes]:
        """Return the packets that have come, at most AT_ONCE; wait a moment for the first."""
        packets: list[bytes] = []
        try:
            packets.append(self._socket.recv(LARGEST))
        except TimeoutError:
            return []
        except OSError:  # one was too large, or came back: nothing to read, and no reason to end
            self._stop.wait(PAUSE_S)
            return []
        self._stop.wait(PAUSE_S)  # what a fader sends meanwhile counts as one, and a flood is not read at full speed
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # no more are there
            while len(packets) < AT_ONCE:
                packets.append(self._socket.recv(LARGEST))
        self._socket.settimeout(0.5)
        return [packet for packet in packets if packet.startswith(PANIC.encode()) or self._limit.allows()]

    def _commands(self, packet: bytes) -> Iterator[Command]:
        try:
            messages = [one.message for one in self._packet(packet).messages]
        except Exception as error:  # noqa: BLE001  whatever is in it costs this packet alone
            self._hand.say(f"a packet that is no OSC was left out ({type(error).__name__})")
            return
        for message in messages:
            if message.address != PANIC and not self._messages.allows():
                continue
            try:
                command = command_of(str(message.address), list(message.params))
            except CommandError as error:
                self._hand.say(str(error))
            except Exception as error:  # noqa: BLE001  see above
                self._hand.say(f"a message was left out ({type(error).__name__})")
            else:
                if command is not None:
                    yield command
