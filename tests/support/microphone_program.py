"""Takes the place of the microphone's process: a microphone that behaves as its name says, behind the same messages."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import av

from vcam.devices import microphone_process
from vcam.devices.microphone_process import BLOCK, OPENED, RATE, SOUND, Send
from vcam.errors import DeviceError

COMMAND = (sys.executable, "-m", "tests.support.microphone_program")


def hear(name: str, send: Send) -> None:
    """sine: FFmpeg's own tone, without end; silent; unplugged: a tone of half a second; hangs; missing; faulty.

    "unplugged FILE" and "missing FILE": only until there is that file, then sine.
    """
    how, _, file = name.partition(" ")
    if file and Path(file).exists():
        how = "sine"
    if how == "missing":
        raise DeviceError("there is no microphone: plug one in")
    if how == "faulty":
        raise RuntimeError("the driver is broken\nat great length")
    send(OPENED, f"Test {how}".encode())
    if how == "hangs":
        threading.Event().wait()
    blocks = RATE // 2 // BLOCK if how == "unplugged" else 10**9
    with av.open(f"sine=frequency=440:sample_rate={RATE}:samples_per_frame={BLOCK}", format="lavfi") as source:
        frames = source.decode(audio=0)
        next(frames)  # takes its time
        began_s = time.perf_counter()
        for number, frame in enumerate(frames):
            if number == blocks:
                return
            time.sleep(max(0.0, began_s + (number + 1) * BLOCK / RATE - time.perf_counter()))
            sound = frame.to_ndarray()
            send(SOUND, bytes(sound.nbytes) if how == "silent" else sound.tobytes())


if __name__ == "__main__":
    sys.exit(microphone_process.main(sys.argv[1], hear))
