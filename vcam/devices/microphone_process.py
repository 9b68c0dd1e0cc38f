"""The microphone's own process: `python -m vcam.devices.microphone_process NAME` writes what it hears to stdout.

A process of its own, because sound libraries and their drivers hang, abort and write to the terminal, and so that the
microphone is closed for certain when the recording ends. It ends when its stdin does.

Each message is a head (`HEAD`: kind, seconds of `time.perf_counter`, length) and that many bytes. Kinds: OPENED (the
device's name), SOUND and AFTER_A_GAP (RATE a second, one channel, 16 bits; the time is when it came), FAILED (why).
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, NamedTuple

from vcam.errors import DeviceError

DEFAULT = "default"  # the name of the microphone that the system prefers
RATE = 48_000
BLOCK = 960  # samples in a message: 20 ms
HEAD = struct.Struct("<BdI")
OPENED, SOUND, AFTER_A_GAP, FAILED = range(4)
LOOK_S = 0.2  # how often it is asked whether the microphone still runs


class Message(NamedTuple):
    """One message."""

    kind: int
    at_s: float
    data: bytes


Send = Callable[[int, bytes], None]
Open = Callable[[str, Send], None]
"""Opens the microphone of that name and sends what it hears until it is gone; raises DeviceError."""


def messages(pipe: IO[bytes]) -> Iterator[Message]:
    """Yield the messages until the pipe ends."""
    while len(head := pipe.read(HEAD.size)) == HEAD.size:
        kind, at_s, length = HEAD.unpack(head)
        if len(data := pipe.read(length)) < length:  # ended in the middle of one
            return
        yield Message(kind, at_s, data)


def sender(pipe: BinaryIO) -> Send:
    """Return what writes messages into the pipe, each at once and whole, from any thread."""
    alone = threading.Lock()

    def send(kind: int, data: bytes) -> None:
        with alone:
            pipe.write(HEAD.pack(kind, time.perf_counter(), len(data)) + data)
            pipe.flush()

    return send


def hear(name: str, send: Send) -> None:
    """Send what the microphone hears until it is gone; raises DeviceError. See `Open`."""
    sound = _library()
    gone = threading.Event()

    def heard(data: Any, frames: int, times: Any, status: Any) -> None:
        try:
            send(AFTER_A_GAP if status.input_overflow else SOUND, bytes(data))
        except OSError:  # nobody listens any more
            gone.set()

    try:
        device = _device(sound, name)
        # one channel: a voice is in the middle, also where an interface has it on the first of its inputs
        stream = sound.RawInputStream(RATE, BLOCK, device, 1, "int16", callback=heard, finished_callback=gone.set)
        send(OPENED, str(sound.query_devices(stream.device)["name"]).encode())
        with stream:
            while not gone.wait(LOOK_S) and stream.active:
                pass
    except sound.PortAudioError as error:
        raise DeviceError(f"the microphone cannot be opened ({_first_line(error)}): {BUSY}") from error


BUSY = "is it plugged in, not in another program's hands alone, and may this program hear it?"


def _library() -> Any:
    """Return sounddevice; raises DeviceError that says how it is installed."""
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceError(
            "sound needs the package sounddevice: pip install sounddevice into the program's environment"
        ) from error
    except OSError as error:  # its wheel for Linux brings no PortAudio
        raise DeviceError(
            "sound needs the system's package libportaudio2 (Fedora, Arch: portaudio): install it, and record again"
        ) from error
    return sounddevice


def _device(sound: Any, name: str) -> int | None:
    """Return the first microphone whose name has `name` in it, None for the system's own choice; raises DeviceError."""
    there = [(at, str(one["name"])) for at, one in enumerate(sound.query_devices()) if one["max_input_channels"] > 0]
    if not there:
        raise DeviceError("there is no microphone: plug one in")
    if name == DEFAULT:
        return None
    found = next((at for at, known in there if name.casefold() in known.casefold()), None)
    if found is None:
        names = ", ".join(dict.fromkeys(known for _, known in there))
        raise DeviceError(f'no microphone is called "{name}"; there are: {names}')
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def main(name: str, open_it: Open = hear) -> int:
    """Hear the microphone until stdin ends; return the exit status."""
    send = sender(sys.stdout.buffer)
    threading.Thread(target=_until_stdin_ends, daemon=True).start()
    try:
        open_it(name, send)
    except DeviceError as error:
        send(FAILED, str(error).encode())
        return 1
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001  a library's own faults: told, or nobody would know
        send(FAILED, f"the microphone failed ({type(error).__name__}: {_first_line(error)})".encode())
        return 1
    return 0


def _until_stdin_ends() -> None:
    while os.read(0, 4096):  # unbuffered: a buffer that is being read when the program ends aborts it
        pass
    os._exit(0)  # a driver that hangs does not keep the microphone open


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
