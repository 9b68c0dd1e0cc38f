"""A recording with the microphone: in step with the picture, silent when nothing may be heard, whatever it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.settings import Origin
from tests.support.microphone_program import COMMAND
from tests.support.patience import until
from tests.support.recorded_sound import SpokenMicrophone, flashes_in, sound_of, tones_in
from tests.support.recorders import UNMARKED, recorder_in
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import EndRecording, Panic, StartRecording, UseMicrophone
from vcam.daemon.loops import FinishedFrame, Shown
from vcam.daemon.recorder import WAITING
from vcam.devices import microphone
from vcam.devices.microphone import HeardSound, MicrophoneProcess
from vcam.devices.microphone_process import RATE
from vcam.settings.config import RecordSettings

FPS = 10
DARK, WHITE = (np.full((48, 64, 3), level, np.uint8) for level in (10, 245))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("GONE_S", "OPEN_S"):
        monkeypatch.setattr(microphone, limit, 120.0)  # a busy machine is no fault


class Scene:
    """Somebody who flashes a light and gives a tone at the same moments, recorded; time is the test's.

    late_s: how old the picture is that is shown, as of a time.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        late_s: Callable[[float], float],
        moments: list[float],
        clock: float = 1.0,
        length_s: float = 0.1,
    ) -> None:
        self.now_s, self.said = 0.0, list[str]()
        self.microphone = SpokenMicrophone(clock)
        self.recorder = recorder_in(
            folder,
            self.said.append,
            kind,
            FPS,
            UNMARKED,
            microphone="default",
            open_microphone=lambda name, say: self.microphone,
            clock=lambda: self.now_s,
        )
        self._late_s = late_s
        self.tones = tuple((at, at + length_s) for at in moments)
        self._tick = 0

    def play(self, until_s: float, card: bool = False, cut: bool = False) -> None:
        """Go on until then; card: it is published in place of the picture, cut: and nothing else may be."""
        while (at_s := self._tick / FPS) < until_s:
            self.now_s = at_s
            self.microphone.hear(at_s, self.tones)
            captured_s = at_s - self._late_s(at_s)
            lit = any(begin <= captured_s + 0.001 < end for begin, end in self.tones)
            made = None if card else FinishedFrame(WHITE if lit else DARK, captured_s)
            self.recorder.take(Shown(DARK if made is None else made.picture, self._tick, made, not card, card, cut))
            self._tick += 1
            until(self._has_room)

    def _has_room(self) -> bool:
        session = self.recorder._session
        return session is None or session.pictures.qsize() < WAITING - 5

    def end(self) -> Path:
        self.recorder.close()
        assert self.microphone.closed
        return Path(self.recorder.state.saved)


@pytest.mark.parametrize(("kind", "clock"), [(".mp4", 1.0), (".mkv", 1.0), (".mp4", 1.002), (".mp4", 0.998)], ids=str)
def test_sound_and_picture_stay_in_step_whatever_the_microphones_clock_does(
    tmp_path: Path, kind: str, clock: float
) -> None:
    """Without anything done about it, a clock that is 0.2 % off would be 80 ms off at the end, and all 200 early."""
    scene = Scene(tmp_path, kind, lambda at_s: 0.2, [2.0 * n for n in range(1, 20)], clock)
    scene.play(1)  # it runs for a while before it is recorded
    scene.recorder.start()
    scene.play(40)
    path = scene.end()
    flashes, tones = flashes_in(path), tones_in(sound_of(path))
    off_ms = [1000 * (tone - flash) for (tone, _), flash in zip(tones, flashes, strict=True)]
    assert len(off_ms) == 19
    assert max(abs(one) for one in off_ms) < 20, off_ms


def test_sound_follows_an_engine_that_becomes_slower(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ".mp4", lambda at_s: 0.2 if at_s < 10 else 0.5, [2.0 * n for n in range(1, 12)])
    scene.play(1)
    scene.recorder.start()
    scene.play(24)
    path = scene.end()
    flashes, tones = flashes_in(path), tones_in(sound_of(path))
    assert len(flashes) == len(tones) == 11
    off_ms = [1000 * (tone - flash) for (tone, _), flash in zip(tones, flashes, strict=True)]
    assert max(abs(one) for one in (*off_ms[:4], *off_ms[-4:])) < 20, off_ms


def test_a_cut_is_silent_and_sound_comes_back_after_the_picture(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ".mp4", lambda at_s: 0.2, [0.0], length_s=100)  # who speaks all the time
    scene.play(2)
    scene.recorder.start()
    scene.play(4)
    assert scene.recorder.state.sound == "on"
    scene.play(6, card=True, cut=True)
    assert scene.recorder.state.sound == "cut"
    scene.play(7, card=True)  # resumed, but there is no picture yet
    assert scene.recorder.state.sound == "cut"
    scene.play(10)
    (_, before), (after, _) = tones_in(sound_of(scene.end()))
    assert before == pytest.approx(2.0, abs=0.03), "until the card"
    assert after == pytest.approx(5.2, abs=0.03), "from what was said when the picture was back"


@pytest.mark.parametrize("late_s", [0.2, 3.0])
def test_what_is_said_in_front_of_the_card_is_never_heard(tmp_path: Path, late_s: float) -> None:
    """Nor what was said just before: its picture was never shown. However late the engine is."""
    scene = Scene(tmp_path, ".mp4", lambda at_s: late_s, [4.95], length_s=1.0)
    scene.play(4)
    scene.recorder.start()
    scene.play(5)
    scene.play(6, card=True, cut=True)
    scene.play(12)
    sound = sound_of(scene.end())
    assert len(sound) == pytest.approx(8 * RATE, abs=0.1 * RATE)
    assert tones_in(sound) == []


def test_a_card_that_means_nothing_is_wrong_with_the_sound_cuts_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ".mp4", lambda at_s: 0.2, [0.0], length_s=100)
    scene.play(2)
    scene.recorder.start()
    scene.play(4)
    scene.play(6, card=True)  # the engine is started again
    scene.play(8)
    assert len(tones_in(sound_of(scene.end()))) == 1


def test_the_microphone_is_open_only_while_it_is_recorded_and_can_be_left_out(tmp_path: Path) -> None:
    opened: list[SpokenMicrophone] = []

    def open_one(name: str, say: Callable[[str], None]) -> SpokenMicrophone:
        opened.append(SpokenMicrophone())
        return opened[-1]

    said: list[str] = []
    recorder = recorder_in(tmp_path, said.append, ".mp4", FPS, UNMARKED, open_microphone=open_one)
    assert recorder.state.microphone == "", "off unless somebody asked for it"
    recorder.start()
    recorder.take(Shown(DARK, 0))
    recorder.listen()
    assert not opened, "a file that began without sound stays so"
    assert "began without sound" in said[-1]
    recorder.end()
    assert recorder.state.microphone == "default"
    assert not opened
    recorder.start()
    recorder.take(Shown(DARK, 1))
    assert "with the microphone" in said[-1] or "with the microphone" in said[-2]
    assert (recorder.state.microphone, recorder.state.sound) == ("spoken", "on")
    recorder.listen(False)
    assert opened[0].closed
    assert (recorder.state.microphone, recorder.state.sound) == ("", "")
    recorder.listen(True)
    assert not opened[1].closed
    recorder.close()
    assert opened[1].closed


def test_what_begins_after_the_recording_has_failed_is_closed_again(tmp_path: Path) -> None:
    """Else the microphone would stay open with nothing that is recorded."""
    opened: list[SpokenMicrophone] = []

    def open_one(name: str, say: Callable[[str], None]) -> SpokenMicrophone:
        session = recorder._session
        assert session is not None
        session.pictures.put("no picture")  # type: ignore[arg-type]
        until(session.done.is_set, "it has not failed")
        opened.append(SpokenMicrophone())
        return opened[-1]

    said: list[str] = []
    recorder = recorder_in(tmp_path, said.append, ".mp4", FPS, UNMARKED, microphone="default", open_microphone=open_one)
    recorder.start()
    assert opened[0].closed
    recorder.close()


def test_a_system_without_another_thread_costs_the_sound_alone(tmp_path: Path) -> None:
    def no_thread(name: str, say: Callable[[str], None]) -> SpokenMicrophone:
        raise RuntimeError("can't start new thread")

    said: list[str] = []
    recorder = recorder_in(
        tmp_path, said.append, ".mp4", FPS, UNMARKED, microphone="default", open_microphone=no_thread
    )
    recorder.start()
    assert "the microphone cannot be heard (can't start new thread)" in said[-1]
    for tick in range(FPS):
        recorder.take(Shown(DARK, tick))
    recorder.close()
    assert not np.any(sound_of(Path(recorder.state.saved)))


def test_another_source_closes_the_microphone_before_it_is_opened_again(tmp_path: Path) -> None:
    opened: list[SpokenMicrophone] = []

    def open_one(name: str, say: Callable[[str], None]) -> SpokenMicrophone:
        assert all(one.closed for one in opened), "some can be open only once"
        opened.append(SpokenMicrophone())
        return opened[-1]

    recorder = recorder_in(
        tmp_path, lambda text: None, ".mp4", FPS, UNMARKED, microphone="default", open_microphone=open_one
    )
    recorder.start()
    recorder.take(Shown(DARK, 0))
    recorder.mark(Origin.GENERATED)
    recorder.take(Shown(DARK, 1))
    assert recorder.state.sound == "on"
    recorder.close()
    assert [one.closed for one in opened] == [True, True]


def test_a_recording_that_ends_before_its_first_picture_leaves_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    microphone = SpokenMicrophone()
    recorder = recorder_in(
        tmp_path,
        said.append,
        ".mp4",
        FPS,
        UNMARKED,
        microphone="default",
        open_microphone=lambda name, say: microphone,
    )
    recorder.start()
    recorder.close()
    assert microphone.closed
    assert len(said) == 1, said
    assert not list(tmp_path.iterdir())


def with_program(how: str) -> Callable[[str, Callable[[str], None]], MicrophoneProcess]:
    return lambda name, say: MicrophoneProcess(how, say, COMMAND)


class Counting(MicrophoneProcess):
    """Tells how many blocks of its tone the recording has taken."""

    taken = 0

    def take(self) -> list[HeardSound]:
        heard = super().take()
        self.taken += len(heard)
        return heard


def loudness(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound.astype(float))))) if len(sound) else 0.0


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_camera_records_the_microphone_until_a_panic(tmp_path: Path, kind: str) -> None:
    settings = RecordSettings(str(tmp_path / "videos"), kind, "default")  # type: ignore[arg-type]
    opened: list[Counting] = []

    def open_one(name: str, say: Callable[[str], None]) -> Counting:
        opened.append(Counting("sine", say, COMMAND))
        return opened[-1]

    with SwitchedDaemon(tmp_path, {"record": settings}, open_microphone=open_one) as run:
        run.until(lambda: run.shows(0), "a translation shown")
        run.tell(StartRecording())
        path = Path(run.daemon.status().recording)
        run.until(lambda: run.daemon.status().sound == "on", "the microphone heard")
        assert run.daemon.status().microphone == "Test sine"
        run.until(lambda: opened[0].taken > 100, "two seconds heard")
        heard_s = run.daemon.status().recorded_s

        def recorded() -> bool:
            """Whether a second of it is in the recording: sound waits for the picture that it belongs to."""
            now = run.daemon.status()
            return now.recorded_s > heard_s + 1 + now.latency_now_ms / 1000

        run.until(recorded, "a second of it recorded")
        run.tell(Panic())
        run.until(lambda: run.daemon.status().sound == "cut", "cut")
        panic = run.daemon.status().recorded_s
        run.until(lambda: run.daemon.status().recorded_s > panic + 1, "a second of the card recorded")
        run.tell(EndRecording())
        run.until(lambda: run.daemon.status().saved == str(path), "saved")
    sound = sound_of(path)
    at_panic = round(panic * RATE)
    assert len(sound) > at_panic + RATE // 2
    assert len(np.flatnonzero(sound[:at_panic])) > RATE // 10, "nothing is heard before it"
    assert not np.any(np.abs(sound[at_panic + RATE // 10 :].astype(int)) > 3), "anything is heard after the panic"


@pytest.mark.parametrize(
    ("how", "says"), [("missing", "there is no microphone"), ("faulty", "RuntimeError: the driver is broken")]
)
def test_a_microphone_that_cannot_be_opened_costs_the_sound_alone(tmp_path: Path, how: str, says: str) -> None:
    settings = RecordSettings(str(tmp_path / "videos"))
    with SwitchedDaemon(tmp_path, {"record": settings}, open_microphone=with_program(how)) as run:
        run.tell(UseMicrophone())
        run.tell(StartRecording())
        run.until(lambda: run.daemon.status().sound_trouble, "told")
        status = run.daemon.status()
        assert status.sound == "missing"
        assert any("the recording has no sound" in note and says in note for note in status.notes)
        run.until(lambda: run.daemon.status().recorded_s > status.recorded_s + 1.2, "recorded all the same")
        run.tell(EndRecording())
        run.until(lambda: run.daemon.status().saved, "saved")
        told = [one["text"] for one in run.daemon.log() if says in one["text"]]
        assert len(told) == 1, told
        assert "the recording goes on without sound" in told[0]
    assert loudness(sound_of(Path(run.daemon.status().saved))) == 0
