"""What may go wrong around a running camera, on real V4L2 devices, while another process reads and keeps a record.

After each failure: the reader had no gap, saw nothing raw, the status named the reason, and the picture came back by
itself. The virtual camera is v4l2loopback's; the physical one the kernel's simulated camera (vivid), which can be
unplugged and plugged in again. Times count in intervals of frames.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.settings import EngineSettings
from tests.support.fake_engine import FACTORY
from tests.support.patience import PATIENCE_S
from tests.support.profile_files import write_profile
from tests.support.running_daemon import RunningDaemon
from vcam import fit
from vcam.commands import ChangeLook, Panic, Resume, SetPrompt, UseProfile
from vcam.daemon.cards import Halt, card_for, draw_card
from vcam.daemon.daemon import RunParts
from vcam.devices import cameras, health, sinks
from vcam.devices.webcam import Webcam
from vcam.errors import ProfileError, VcamError
from vcam.frames import Picture
from vcam.settings.config import CardTexts
from vcam.settings.run_options import RunOptions, RunReport
from vcam.worker.limits import Limits

if sys.platform == "linux":
    from vcam.devices import v4l2

pytestmark = pytest.mark.v4l2
SIZE = (160, 120)
FPS = 4.0
GAP_INTERVALS = 5
NEAR = 24  # mean difference of two thumbnails that show the same
DRIVER = Path("/sys/bus/platform/drivers/vivid")
NO_TEXT = 2  # the simulated camera's "OSD Text Mode": no counter
DROPPED = "percentage_of_dropped_buffers"
BLACK_BARS = 5  # the simulated camera's test pattern "100% Black"

RECORDER = """
import base64, json, sys, time, cv2
capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_V4L2)
while True:
    good, picture = capture.read()
    if not good:
        print(json.dumps({"at": time.monotonic(), "shot": None}), flush=True)
        continue
    small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), (16, 12), interpolation=cv2.INTER_AREA)
    print(json.dumps({"at": time.monotonic(), "shot": base64.b64encode(small.tobytes()).decode()}), flush=True)
"""


def thumbnail(picture: Picture) -> Picture:
    import cv2

    return cv2.resize(picture, (16, 12), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def alike(one: Picture, other: Picture) -> bool:
    return float(np.abs(one.astype(int) - other.astype(int)).mean()) < NEAR


class Recorder:
    """Another process that reads the virtual camera and writes down when each picture came and what it showed."""

    def __init__(self, path: str) -> None:
        command = [sys.executable, "-c", RECORDER, path]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.shots: list[tuple[float, Picture | None]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            raw = told["shot"]
            shot = None if raw is None else np.frombuffer(base64.b64decode(raw), np.uint8).reshape(12, 16, 3)
            self.shots.append((told["at"], shot))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Live(RunningDaemon):
    """A daemon at work on real devices, and a recorder that reads what it publishes."""

    def __init__(self, camera: str, folder: Path, **options: Any) -> None:
        self.profiles = profiles = folder / "profiles"
        profiles.mkdir(exist_ok=True)
        write_profile(profiles, "plain")
        settings = EngineSettings(model="fake", width=128, height=96, steps=1)
        given = RunOptions(
            source=f"camera:{camera}", sink="camera", profile="plain", size=SIZE, fps=FPS, panel=False,
            profiles_folder=profiles, idle_after_s=0.0,
        )  # fmt: skip
        self.unseen = False  # whether the daemon finds no camera where it looks
        parts = RunParts(
            engine=FACTORY,
            open_source=lambda options: Webcam(camera, SIZE, FPS, cameras=self._cameras),
            settings_of=lambda profile, options: settings,
            state_folder=lambda: folder,
            limits=Limits(frame_s=5.0, first_wait_s=0.2, longest_wait_s=1.0, tries=3),
            signals=False,
        )
        super().__init__(RunOptions(**{**vars(given), **options}), parts)
        self.thread.start()
        self.recorder: Recorder | None = None

    def _cameras(self) -> list[cameras.Camera]:
        return [] if self.unseen else cameras.list_cameras()

    def end(self) -> RunReport:
        try:
            return super().end()
        finally:
            if self.recorder is not None:
                self.recorder.end()

    def until_translated(self) -> None:
        """The picture moves on: three more translations went out."""
        seen = self.daemon.status().translated
        self.until(lambda: self.daemon.status().translated >= seen + 3, "translating")
        assert self.daemon.status().state == "running"

    def raw(self) -> Picture:
        """What the physical camera shows, as the reader would see it if it were published."""
        seen = self.daemon.camera
        assert seen is not None
        return thumbnail(fit.viewed(seen.picture, SIZE, seen.shot))


@pytest.fixture(scope="module")
def vivid() -> str:
    """The name of a simulated camera that can be unplugged: colour bars, and a counter that moves."""
    if not DRIVER.is_dir() or not os.access(DRIVER / "unbind", os.W_OK):
        pytest.skip("no simulated camera (vivid) that can be unplugged")
    return next(camera.name for camera in cameras.list_cameras() if "vivid" in camera.name)


def vivid_path() -> str:
    return next(str(camera.path) for camera in cameras.list_cameras() if "vivid" in camera.name)


def vivid_device() -> str:
    return next(path.name for path in DRIVER.iterdir() if path.name.startswith("vivid."))


@pytest.fixture(scope="module")
def live(vivid: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One run for all failures; a reader that has it open all the time."""
    at_work = Live(vivid, tmp_path_factory.mktemp("live"))
    try:
        at_work.until(lambda: at_work.daemon.status().translated > 3, "translating")
        at_work.recorder = Recorder(sinks.find_device())
        at_work.until(lambda: len(at_work.recorder.shots) > 5, "read")  # type: ignore[union-attr]
        yield at_work
    finally:
        at_work.end()


class Watched:
    """What the reader saw between the start and the end of a failure."""

    def __init__(self, live: Live) -> None:
        assert live.recorder is not None
        self.live, self.recorder, self.start = live, live.recorder, len(live.recorder.shots)
        self.raw = live.raw()

    def check(self) -> None:
        """No gap, nothing raw, at the end the translation again."""
        seen = len(self.recorder.shots)
        # what a camera gave before a change, its buffers keep for a while, and it is translated too
        self.live.until(lambda: len(self.recorder.shots) > seen + 2 and self._is_back(), "translating what is shown")
        shots = self.recorder.shots[max(0, self.start - 1) :]
        assert all(shot is not None for _, shot in shots), "the reader was refused a picture"
        gaps = np.diff([at for at, _ in shots])
        assert gaps.max() <= GAP_INTERVALS / FPS, f"a gap of {gaps.max():.2f} s"
        assert not [shot for _, shot in shots if shot is not None and alike(shot, self.raw)], "the raw camera was shown"

    def _is_back(self) -> bool:
        last = self.recorder.shots[-1][1]
        return last is not None and alike(last, 255 - self.raw)


# ---------------------------------------------------- runs of their own, before the one that holds the virtual camera


def test_without_a_reader_it_rests_and_the_camera_is_let_go(vivid: str, tmp_path: Path) -> None:
    at_work = Live(vivid, tmp_path, idle_after_s=2.0)
    try:
        at_work.until_state("resting")
        path = vivid_path()
        at_work.until(lambda: path not in open_files(), "let go")
        assert at_work.daemon.status().reader_count == 0
        at_work.recorder = Recorder(sinks.find_device())
        at_work.until(lambda: at_work.daemon.status().reader_count, "noticed")
        noticed_s = time.monotonic()
        at_work.until_state("running")
        print(f"the picture moved on {time.monotonic() - noticed_s:.2f} s after the reader was noticed")
        at_work.until_translated()
        pid = at_work.recorder.process.pid
        at_work.until(lambda: any(f"(pid {pid})" in one for one in at_work.daemon.status().readers), "named")
        raw = at_work.raw()
        at_work.until(lambda: shows(at_work, 255 - raw), "showing the translation")
        at_work.recorder.end()
        at_work.until_state("resting")
    finally:
        at_work.end()


def open_files() -> set[str]:
    """What this process has open; other threads open and close files meanwhile."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def shows(live: Live, picture: Picture) -> bool:
    assert live.recorder is not None
    last = live.recorder.shots[-1][1] if live.recorder.shots else None
    return last is not None and alike(last, picture)


def test_the_camera_missing_at_the_start(vivid: str, tmp_path: Path) -> None:
    device = vivid_device()
    (DRIVER / "unbind").write_text(device)
    try:
        at_work = Live(vivid, tmp_path)
        try:
            at_work.until(lambda: f'no camera is called "{vivid}"' in at_work.daemon.status().reason, "told")
            (DRIVER / "bind").write_text(device)
            at_work.until_translated()
        finally:
            at_work.end()
    finally:
        if not (DRIVER / device).exists():
            (DRIVER / "bind").write_text(device)


def test_colour_bars_arrive_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a camera fed with SMPTE bars, through the engine (which inverts), to ffmpeg and to OpenCV."""
    monkeypatch.setattr(health, "FROZEN_S", float("inf"))  # bars never move
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to read with")
    camera = next((d for d in v4l2.devices() if d.name == "Physical Camera" and d.captures), None)
    if camera is None:
        pytest.skip('no fed device is called "Physical Camera"')
    at_work = Live("Physical Camera", tmp_path)
    try:
        at_work.until(lambda: at_work.daemon.status().translated > 3, "translating")
        raw = at_work.daemon.camera
        assert raw is not None
        seen = bars(fit.viewed(raw.picture, SIZE, raw.shot))
        if np.abs(seen - BARS).max() > 40 and np.abs(seen[:, ::-1] - BARS).max() > 40:
            pytest.skip("the camera is not fed with SMPTE bars")
        assert np.abs(seen - BARS).max() <= 6
        for picture in (by_ffmpeg(tmp_path), by_opencv(tmp_path)):
            assert np.abs(bars(picture) - (255 - BARS)).max() <= 6
    finally:
        at_work.end()


L = 191  # ffmpeg's smptebars at 75 %: grey, yellow, cyan, green, magenta, red, blue
BARS = np.array([(L, L, L), (L, L, 0), (0, L, L), (0, L, 0), (L, 0, L), (L, 0, 0), (0, 0, L)])


def bars(picture: Picture) -> np.ndarray[Any, Any]:
    """The middle colour of each of the seven bars."""
    width = picture.shape[1]
    at = [round((i + 0.5) * width / 7) for i in range(7)]
    return np.array([picture[30:60, x - 4 : x + 4].reshape(-1, 3).mean(0) for x in at])


def by_ffmpeg(folder: Path) -> Picture:
    shot = folder / "ffmpeg.rgb"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "v4l2", "-i", sinks.find_device(), "-frames:v", "3"]
    subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", str(shot)], check=True, timeout=PATIENCE_S)
    raw = np.frombuffer(shot.read_bytes(), np.uint8)
    shown: Picture = raw.reshape(-1, SIZE[1], SIZE[0], 3)[-1]
    return shown


def by_opencv(folder: Path) -> Picture:
    shot = folder / "opencv.npy"
    code = (
        "import sys, cv2, numpy as np\n"
        "capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_V4L2)\n"
        "for _ in range(3): picture = capture.read()[1]\n"
        "np.save(sys.argv[2], cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))\n"
    )
    subprocess.run([sys.executable, "-c", code, sinks.find_device(), str(shot)], check=True, timeout=PATIENCE_S)
    picture: Picture = np.load(shot)
    return picture


# --------------------------------------------------------------------------------------------------------- the engine


def test_the_record_tells_raw_from_translated(live: Live) -> None:
    raw = live.raw()
    assert not alike(raw, 255 - raw), "the camera's picture must differ from its inverse, or nothing here is a test"
    Watched(live).check()


def test_the_engine_killed(live: Live) -> None:
    watched, before = Watched(live), live.daemon.status().restarts
    os.kill(live.engine_pid(), signal.SIGKILL)
    live.until(lambda: live.daemon.status().restarts > before, "restarted")
    live.until_translated()
    watched.check()


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [("die", "killed"), ("hang", "has not answered"), ("raise", "CUDA error"), ("memory", "CUDA out of memory")],
)
def test_the_engine_fails_again_and_again(live: Live, prompt: str, reason: str) -> None:
    watched = Watched(live)
    live.tell(SetPrompt(prompt, 0))
    live.until(lambda: reason in live.daemon.status().reason, f"saying {reason}")
    card = live.daemon.preview
    assert not alike(thumbnail(card), watched.raw)
    live.tell(SetPrompt("plain", 0))
    live.until_translated()
    watched.check()
    assert live.daemon.status().reason == ""


def test_a_look_that_is_refused_changes_nothing(live: Live) -> None:
    watched = Watched(live)
    with pytest.raises(VcamError, match="strength"):
        live.tell(ChangeLook({"strength": 7}))
    live.until_translated()
    watched.check()


def test_a_profile_edited_to_nonsense_changes_nothing(live: Live) -> None:
    watched, path = Watched(live), live.profiles / "plain.toml"
    good = path.read_text()
    path.write_text(good.replace('"plain"', "7"))
    try:
        with pytest.raises(ProfileError, match=r"plain\.toml: look\.prompt is 7"):
            live.tell(UseProfile("plain"))
    finally:
        path.write_text(good)
    live.until_translated()
    watched.check()


# --------------------------------------------------------------------------------------------------------- the camera


@pytest.mark.parametrize("held", [False, True], ids=["at once", "under another number"])
def test_the_camera_unplugged_and_plugged_in_again(live: Live, vivid: str, held: bool) -> None:
    watched, device, before = Watched(live), vivid_device(), vivid_path()
    keep = os.open(before, os.O_RDWR) if held else None  # the old number is not given back while somebody has it open
    (DRIVER / "unbind").write_text(device)
    try:
        live.until(lambda: live.daemon.status().reason == f"{vivid} is not there: plug it in again", "told")
    finally:
        (DRIVER / "bind").write_text(device)
        if keep is not None:
            assert vivid_path() != before
            os.close(keep)
    live.until_translated()
    watched.check()


def test_the_camera_silent(live: Live, vivid: str) -> None:
    watched, path = Watched(live), vivid_path()
    assert v4l2.set_control(path, DROPPED, 100)
    try:
        live.until(lambda: live.daemon.status().reason == f"{vivid} gives no pictures", "told")
    finally:
        v4l2.set_control(path, DROPPED, 0)
    live.until_translated()
    watched.check()


def test_the_camera_black(live: Live) -> None:
    watched, path = Watched(live), vivid_path()
    assert v4l2.set_control(path, "osd_text_mode", NO_TEXT)
    assert v4l2.set_control(path, "test_pattern", BLACK_BARS)
    try:
        live.until(lambda: "gives a black picture" in live.daemon.status().reason, "told")
    finally:
        v4l2.set_control(path, "test_pattern", 0)
        v4l2.set_control(path, "osd_text_mode", 0)
    live.until_translated()
    watched.check()


def test_the_camera_frozen(live: Live) -> None:
    watched, path = Watched(live), vivid_path()
    assert v4l2.set_control(path, "osd_text_mode", NO_TEXT)  # the bars alone never move
    try:
        live.until(lambda: "the same picture again and again" in live.daemon.status().reason, "told")
    finally:
        v4l2.set_control(path, "osd_text_mode", 0)
    live.until_translated()
    watched.check()


def test_the_camera_in_use_elsewhere(live: Live, vivid: str) -> None:
    watched = Watched(live)
    device = vivid_device()
    (DRIVER / "unbind").write_text(device)
    live.until_state("waiting")
    code = (
        "import cv2, sys\n"
        "while True:\n"
        "    capture = cv2.VideoCapture(sys.argv[1], cv2.CAP_V4L2)\n"
        "    while capture.read()[0]: print('reads', flush=True)\n"
    )
    live.unseen = True  # until the other program has it
    (DRIVER / "bind").write_text(device)
    try:
        with subprocess.Popen([sys.executable, "-c", code, vivid_path()], stdout=subprocess.PIPE) as other:
            try:
                assert other.stdout is not None
                assert other.stdout.readline() == b"reads\n"
                live.unseen = False
                live.until(lambda: f"(pid {other.pid})" in live.daemon.status().reason, "told who has it")
                assert f"{vivid} is in use by" in live.daemon.status().reason
            finally:
                other.kill()
    finally:
        live.unseen = False
    live.until_translated()
    watched.check()


# -------------------------------------------------------------------------------------------------- reader and device


def test_the_reader_gone_and_another_come(live: Live) -> None:
    assert live.recorder is not None
    live.recorder.end()
    live.until_translated()
    live.recorder = Recorder(sinks.find_device())
    live.until(lambda: live.recorder is not None and len(live.recorder.shots) > 5, "read")
    Watched(live).check()


def test_after_a_panic_the_reader_sees_the_card_and_no_face_comes_back(live: Live) -> None:
    assert live.recorder is not None
    shots, begin = live.recorder.shots, len(live.recorder.shots)
    card = thumbnail(draw_card(card_for(Halt.PANIC, None, CardTexts()), SIZE))
    assert not alike(card, 255 - live.raw())
    live.tell(Panic())

    def is_card(at: int) -> bool:
        shot = shots[at][1]
        return shot is not None and alike(shot, card)

    live.until(lambda: is_card(-1), "the card at the reader")
    first = next(at for at in range(begin, len(shots)) if is_card(at))
    live.until(lambda: len(shots) > first + 12, "read")
    assert all(is_card(at) for at in range(first, len(shots)))
    live.tell(Resume())
    live.until_translated()


def test_a_second_writer_is_refused_and_told_who_has_it(live: Live) -> None:
    watched = Watched(live)
    code = f"from vcam.devices import sinks; sinks.VirtualCamera({SIZE}, {FPS})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert f"(pid {os.getpid()}): close it there" in told.stderr.splitlines()[-1]
    live.until_translated()
    watched.check()


def test_a_machine_without_our_camera_is_told_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = v4l2.devices()
    monkeypatch.setattr(v4l2, "devices", lambda: [one for one in real if one.name != "StreamV2V Camera"])
    with pytest.raises(VcamError, match="card_label="):
        sinks.find_device()
