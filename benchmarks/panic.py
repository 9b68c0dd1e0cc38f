"""From the key to the card: how long a face is still shown after a panic, at the sink and at a receiver of NDI.

    python benchmarks/panic.py [--times 20] [--size 640x480] [--no-ndi]

The test picture is translated by the included model, and published to a sink that looks at each picture and to NDI
(cyndilib), which a process of its own receives on this machine. The key is pressed as every surface presses it: a
request through the door. A picture is the card, or it counts as a face. Prints one JSON object: milliseconds from the
key's request to the first card, and how many faces came after a card before the camera went on (exit status 1 if any).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first

from vcam import client  # noqa: E402
from vcam.commands import Panic, Resume  # noqa: E402
from vcam.daemon.cards import Halt, card_for, draw_card  # noqa: E402
from vcam.daemon.daemon import Daemon, RunParts  # noqa: E402
from vcam.devices.side_sinks import CameraAndMore  # noqa: E402
from vcam.devices.sinks import open_beside  # noqa: E402
from vcam.frames import FrameSink, Picture  # noqa: E402
from vcam.settings.config import CardTexts, ObsSettings  # noqa: E402
from vcam.settings.run_options import RunOptions, RunReport  # noqa: E402

LIKE = 6.0  # the mean difference within which a picture is the card
SHOWN_S = 1.0  # how long the camera shows a face before the key, and the card after it
Seen = list[tuple[float, bool]]  # when (time.monotonic), whether it was the card


class Watcher:
    """A sink that notes when which kind of picture came."""

    name = "watcher"

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.seen = size, Seen()
        self._card = panic_card(size)

    def send(self, picture: Picture, tick: int) -> None:
        """Note it."""
        self.seen.append((time.monotonic(), is_card(picture, self._card)))

    def close(self) -> None:
        """Nothing to close."""


def panic_card(size: tuple[int, int]) -> Picture:
    """Return what a panic shows."""
    return draw_card(card_for(Halt.PANIC, None, CardTexts()), size)


def is_card(picture: Picture, card: Picture) -> bool:
    """Tell whether this is the card, as far as a codec left it so."""
    return bool(np.abs(picture[::4, ::4].astype(np.int16) - card[::4, ::4]).mean() < LIKE)


def receive(size: tuple[int, int]) -> None:
    """Print a line for each picture that comes by NDI, until this process is ended."""
    from tests.support.ndi_receiver import NdiReceiver, find_on_this_machine

    find_on_this_machine()
    card = panic_card(size)
    with NdiReceiver("StreamV2V Camera") as receiver:
        while True:
            picture = receiver.next()
            print(time.monotonic(), int(is_card(picture, card)), flush=True)


def listen(size: tuple[int, int], seen: Seen) -> subprocess.Popen[str]:
    """Start a process that receives NDI, and note what it sees."""
    command = [sys.executable, "-P", __file__, "--receive", "--size", f"{size[0]}x{size[1]}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def note() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            at, card = line.split()
            seen.append((float(at), card == "1"))

    threading.Thread(target=note, daemon=True).start()
    return process


def waited(true: Callable[[], bool]) -> None:
    """Wait until it is true, at most two minutes."""
    end_s = time.monotonic() + 120
    while not true():
        if time.monotonic() > end_s:
            raise SystemExit("what was waited for did not come")
        time.sleep(0.005)


def judged(pressed: list[float], resumed: list[float], seen: Seen) -> dict[str, float]:
    """Return the figures of one place. pressed, resumed: when each key was given."""
    delays, after, pictures = [], 0, 0
    for key, end in zip(pressed, resumed, strict=True):
        within = [(at, card) for at, card in list(seen) if key <= at < end]
        first = next(at for at, card in within if card)
        delays.append(1000 * (first - key))
        later = [card for at, card in within if at >= first]
        pictures, after = pictures + len(later), after + later.count(False)
    return {
        "ms_p50": round(statistics.median(delays), 1),
        "ms_max": round(max(delays), 1),
        "pictures_after": pictures,
        "faces_after": after,
    }


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--no-ndi", dest="ndi", action="store_false")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    size = (width, height)
    if given.receive:
        receive(size)
    watcher, received = Watcher(size), Seen()

    def open_sink(options: RunOptions) -> FrameSink:
        return CameraAndMore(watcher, [open_beside("ndi", size, options.fps)] if given.ndi else [], print)

    with tempfile.TemporaryDirectory() as name:
        folder, stop, done = Path(name), threading.Event(), Future[RunReport]()
        parts = RunParts(state_folder=lambda: folder, signals=False, open_sink=open_sink)
        options = RunOptions(source="pattern", size=size, panel=False, obs=ObsSettings(enabled=False))
        daemon = Daemon(options, parts, stop)
        worker = threading.Thread(target=lambda: done.set_result(daemon.run()))
        worker.start()
        child = listen(size, received) if given.ndi else None
        places = {"sink": watcher.seen, **({"ndi": received} if given.ndi else {})}
        pressed, resumed = list[float](), list[float]()
        try:
            waited(lambda: daemon.status().state == "running" and daemon.status().translated > 5)
            for _ in range(given.times):
                marks = {place: len(seen) for place, seen in places.items()}
                waited(lambda: all(any(not card for _, card in seen[marks[at] :]) for at, seen in places.items()))  # noqa: B023
                time.sleep(SHOWN_S)
                pressed.append(time.monotonic())
                client.send(Panic(), folder)
                waited(lambda: all(seen[-1][1] for seen in places.values()))
                time.sleep(SHOWN_S)
                resumed.append(time.monotonic())
                client.send(Resume(), folder)
        finally:
            if child is not None:
                child.kill()
                child.wait()
            stop.set()
            worker.join()
    figures = {place: judged(pressed, resumed, seen) for place, seen in places.items()}
    print(json.dumps({"times": given.times, "size": given.size, **figures}))
    return int(any(one["faces_after"] for one in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
