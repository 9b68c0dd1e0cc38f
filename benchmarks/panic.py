"""From the key to the card: how long a face is still shown after a panic, everywhere where pictures go.

    python benchmarks/panic.py [--times 20] [--size 640x480] [--fps 30] [--at sink,ndi,page,recording,v4l2] [--double]

The test picture is translated by the included model (--double: by the tests' engine, for machines that only emulate a
CPU), and published. The places that see it, of which --at chooses:

- sink: looks at each picture that is published;
- ndi: a process of its own receives NDI (cyndilib) on this machine;
- page: Chromium (selenium) shows the page, and looks 50 times a second at the picture, or what covers it;
- recording: what is published is recorded meanwhile, and decoded afterwards;
- v4l2: a process of its own reads the v4l2loopback device that the virtual camera feeds (OpenCV).

The key is pressed as every surface presses it: a request through the door. A picture is the card, or it counts as a
face. Prints one JSON object: milliseconds from the key's request to the first card, and how many faces came after a
card before the camera went on (exit status 1 if any). A recording holds what the sink saw: it has no time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first

from core.settings import EngineSettings  # noqa: E402
from vcam import client  # noqa: E402
from vcam.commands import EndRecording, Panic, Resume, StartRecording  # noqa: E402
from vcam.daemon.cards import Halt, card_for, draw_card  # noqa: E402
from vcam.daemon.daemon import Daemon, RunParts  # noqa: E402
from vcam.devices.side_sinks import CameraAndMore  # noqa: E402
from vcam.devices.sinks import VirtualCamera, open_beside  # noqa: E402
from vcam.frames import FrameSink, Picture  # noqa: E402
from vcam.settings.config import CardTexts, MarkingSettings, ObsSettings, RecordSettings  # noqa: E402
from vcam.settings.profiles import Profile  # noqa: E402
from vcam.settings.run_options import RunOptions, RunReport  # noqa: E402

LIKE = 6.0  # the mean difference within which a picture is the card
SHOWN_S = 1.0  # how long the camera shows a face before the key, and the card after it
PLACES = ("sink", "ndi", "page", "recording", "v4l2")
LOOK_MS = 20  # between two looks at the page
Seen = list[tuple[float, bool]]  # when (time.monotonic), whether it was the card


class Watcher:
    """A sink that notes when which kind of picture came. further: a camera that gets it first."""

    name = "watcher"

    def __init__(self, size: tuple[int, int], further: FrameSink | None = None) -> None:
        self.size, self.seen, self._further = size, Seen(), further
        self._card = panic_card(size)

    def send(self, picture: Picture, tick: int) -> None:
        """Note it."""
        if self._further is not None:
            self._further.send(picture, tick)
        self.seen.append((time.monotonic(), is_card(picture, self._card)))

    def close(self) -> None:
        """Close the camera."""
        if self._further is not None:
            self._further.close()


def panic_card(size: tuple[int, int]) -> Picture:
    """Return what a panic shows."""
    return draw_card(card_for(Halt.PANIC, None, CardTexts()), size)


def is_card(picture: Picture, card: Picture) -> bool:
    """Tell whether this is the card, as far as a codec left it so."""
    return bool(np.abs(picture[::4, ::4].astype(np.int16) - card[::4, ::4]).mean() < LIKE)


def receive(place: str, size: tuple[int, int]) -> None:
    """Print a line for each picture that comes by NDI, or from the v4l2 device, until this process is ended."""
    card = panic_card(size)
    for picture in _by_ndi() if place == "ndi" else _by_v4l2():
        print(time.monotonic(), int(is_card(picture, card)), flush=True)


def _by_ndi() -> Iterator[Picture]:
    from tests.support.ndi_receiver import NdiReceiver, find_on_this_machine

    find_on_this_machine()
    with NdiReceiver("StreamV2V Camera") as receiver:
        while True:
            yield receiver.next()


def _by_v4l2() -> Iterator[Picture]:
    import cv2

    from vcam.devices.sinks import find_device

    device = cv2.VideoCapture(find_device(), cv2.CAP_V4L2)
    while True:
        there, picture = device.read()
        if there:
            yield np.asarray(picture[..., ::-1], np.uint8)


def listen(place: str, size: tuple[int, int], seen: Seen) -> subprocess.Popen[str]:
    """Start a process that receives there, and note what it sees."""
    command = [sys.executable, "-P", __file__, "--receive", place, "--size", f"{size[0]}x{size[1]}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def note() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            at, card = line.split()
            seen.append((float(at), card == "1"))

    threading.Thread(target=note, daemon=True).start()
    return process


# What of the page is seen: its cover, where that is shown, else the picture, held against the card.
_LOOK = """
const [every, like, card] = arguments;
const wanted = new Image();
wanted.src = card;
const pen = Object.assign(document.createElement("canvas"), { width: 64, height: 48 }).getContext(
  "2d", { willReadFrequently: true });
const points = (image) => { pen.drawImage(image, 0, 0, 64, 48); return pen.getImageData(0, 0, 64, 48).data; };
let blank = null;
window.seen = [];
setInterval(() => {
  const picture = document.getElementById("picture");
  if (!wanted.complete || !picture.naturalWidth) return;
  blank ??= points(wanted).slice();
  let covered = !document.getElementById("veil").hidden;
  if (!covered) {
    const now = points(picture);
    covered = now.reduce((sum, value, at) => sum + Math.abs(value - blank[at]), 0) / now.length * 4 / 3 < like;
  }
  window.seen.push([performance.timeOrigin + performance.now(), covered]);
}, every);
"""


class Page:
    """The page in Chromium, and what it shows."""

    def __init__(self, link: str, size: tuple[int, int]) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1100"):
            options.add_argument(argument)
        self._driver: Any = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self._driver.set_page_load_timeout(120)
        self._driver.get(link)
        self._driver.execute_script(_LOOK, LOOK_MS, LIKE, _as_address(panic_card(size)))
        self._to_monotonic_s = time.monotonic() - time.time()

    def take(self, seen: Seen) -> None:
        """Add what was seen since the last time."""
        for at_ms, card in self._driver.execute_script("return window.seen.splice(0)"):
            seen.append((at_ms / 1000 + self._to_monotonic_s, card))

    def close(self) -> None:
        """End the browser."""
        self._driver.quit()


def _as_address(picture: Picture) -> str:
    import base64

    import cv2

    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", picture[..., ::-1])[1].tobytes()).decode()


def recorded(path: Path, size: tuple[int, int], times: int, fps: float) -> dict[str, int]:
    """Return how many cards a recording of that many panics has, and how many faces came in the middle of them."""
    import av

    card = panic_card(size)
    with av.open(str(path)) as film:
        seen = [is_card(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), card) for frame in film.decode(video=0)]
    runs = [(kind, len(list(run))) for kind, run in itertools.groupby(seen)]
    short = SHOWN_S * fps / 2  # the camera shows a face for longer, between two panics
    between = [length for kind, length in runs[1:-1] if not kind and length < short]
    cards = [length for kind, length in runs if kind]
    if len(cards) - len(between) < times:
        raise SystemExit(f"the recording has {len(cards)} panics, of {times}")
    return {"pictures_after": sum(cards), "faces_after": sum(between)}


def waited(true: Callable[[], bool]) -> None:
    """Wait until it is true, at most ten minutes: a machine may be emulated."""
    end_s = time.monotonic() + 600
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
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--at", default="sink,ndi")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))
    size, wanted = (width, height), given.at.split(",")
    if given.receive:
        receive(given.receive, size)
    if unknown := set(wanted) - set(PLACES):
        raise SystemExit(f"--at knows {', '.join(PLACES)}, not {', '.join(unknown)}")
    watcher = Watcher(size, VirtualCamera(size, given.fps) if "v4l2" in wanted else None)
    places: dict[str, Seen] = {
        "sink": watcher.seen,
        **{one: Seen() for one in wanted if one in ("ndi", "page", "v4l2")},
    }

    def open_sink(options: RunOptions) -> FrameSink:
        return CameraAndMore(watcher, [open_beside("ndi", size, options.fps)] if "ndi" in wanted else [], print)

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as opened:
        folder, stop, done = Path(name), threading.Event(), Future[RunReport]()
        options = RunOptions(
            source="pattern",
            size=size,
            fps=given.fps,
            panel="page" in wanted,
            port=0,
            obs=ObsSettings(enabled=False),
            marking=MarkingSettings(credentials=False),
            record=RecordSettings(str(folder / "videos")),
        )
        parts = RunParts(state_folder=lambda: folder, signals=False, open_sink=open_sink)
        if given.double:
            parts = replace(parts, engine="tests.support.fake_engine:make", settings_of=_small)
        daemon = Daemon(options, parts, stop)
        worker = threading.Thread(target=lambda: done.set_result(daemon.run()))
        worker.start()
        opened.callback(worker.join)
        opened.callback(stop.set)
        waited(lambda: daemon.status().state == "running" and daemon.status().translated > 5)
        for place in ("ndi", "v4l2"):
            if place in wanted:
                opened.enter_context(_ended(listen(place, size, places[place])))
        page = (
            opened.enter_context(contextlib.closing(Page(client.panel_link(folder), size)))
            if "page" in wanted
            else None
        )

        def look() -> None:
            if page is not None:
                page.take(places["page"])

        if "recording" in wanted:
            client.send(StartRecording(), folder)
        pressed, resumed = list[float](), list[float]()
        for _ in range(given.times):
            marks = {place: len(seen) for place, seen in places.items()}

            def faces(marks: dict[str, int] = marks) -> bool:
                look()
                return all(any(not card for _, card in seen[marks[at] :]) for at, seen in places.items())

            def cards() -> bool:
                look()
                return all(seen[-1][1] for seen in places.values())

            waited(faces)
            time.sleep(SHOWN_S)
            pressed.append(time.monotonic())
            client.send(Panic(), folder)
            waited(cards)
            time.sleep(SHOWN_S)
            look()
            resumed.append(time.monotonic())
            client.send(Resume(), folder)
        figures = {place: judged(pressed, resumed, seen) for place, seen in places.items()}
        if "recording" in wanted:
            client.send(EndRecording(), folder)
            waited(lambda: bool(daemon.status().saved))
            figures["recording"] = dict(recorded(Path(daemon.status().saved), size, given.times, given.fps))
    print(json.dumps({"times": given.times, "size": given.size, **figures}))
    return int(any(one["faces_after"] for one in figures.values()))


def _small(profile: Profile, options: RunOptions) -> EngineSettings:
    return EngineSettings(model="fake", width=96, height=64, steps=1)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
