"""Recording while live: what is published, playable whatever ends the program or fills the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.settings import Origin
from tests.support.patience import PATIENCE_S, until
from tests.support.recorded_sound import sound_of, tones_in
from tests.support.recorders import recorder_in
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import EndRecording, Panic, RecorderState, Snapshot, StartRecording, ToggleRecording
from vcam.daemon.loops import FinishedFrame, Shown
from vcam.daemon.recording_files import RecordingFiles
from vcam.devices.microphone_process import RATE
from vcam.devices.sinks import recover
from vcam.errors import VcamError
from vcam.frames import Picture
from vcam.settings.config import RecordSettings
from vcam.video import probe, read

ROOT = Path(__file__).parents[3]
FACE = (245, 55, 225)
NAMED = "StreamV2V 2026-05-17 20.15.00"  # as a recorder names a recording


def colours(path: Path) -> list[tuple[int, int, int]]:
    """The middle of each picture of a film."""
    pictures = [one.rgb for one in read(probe(path), lambda text: None)]
    found = [picture[picture.shape[0] // 2, picture.shape[1] // 4] for picture in pictures]
    return [(int(one[0]), int(one[1]), int(one[2])) for one in found]


def near(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return all(abs(mine - theirs) < 40 for mine, theirs in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_what_is_published_is_recorded_and_no_face_after_a_panic(tmp_path: Path, kind: str) -> None:
    settings = RecordSettings(str(tmp_path / "videos"), kind)  # type: ignore[arg-type]
    with SwitchedDaemon(tmp_path, {"record": settings}) as run:
        run.until(lambda: run.shows(0), "a translation shown")
        run.tell(StartRecording())
        path = Path(run.daemon.status().recording)
        assert path.parent == tmp_path / "videos"
        assert path.suffix == f".{kind}"
        begun = run.daemon.status().published
        # on a busy machine half a second may be of two pictures
        run.until(lambda: run.daemon.status().recorded_s >= 0.5, "half a second recorded")
        run.until(lambda: run.daemon.status().published > begun + 10, "ten pictures recorded")
        run.tell(Panic())
        seconds = run.daemon.status().recorded_s
        run.until(lambda: run.daemon.status().recorded_s >= seconds + 0.5, "half a second of the card recorded")
        run.tell(EndRecording())
        assert run.daemon.status().recording == ""
        run.until(lambda: run.daemon.status().saved == str(path), "saved")
        run.until(lambda: run.daemon.status().finishing == "", "finished")  # which is told just after
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    found = [near(one, FACE) for one in colours(path)]
    assert found[0]
    assert found.index(False) > 5
    assert not any(found[found.index(False) :]), "a face comes after the card"


def test_a_recording_takes_no_picture_of_another_origin(tmp_path: Path) -> None:
    def even(level: int) -> Picture:
        return np.full((48, 64, 3), level, np.uint8)

    def made(level: int, tick: int, origin: Origin) -> Shown:
        return Shown(even(level), tick, FinishedFrame(even(level), 0.0, origin=origin))

    recorder = recorder_in(tmp_path, suffix=".mkv", fps=24.0)
    recorder.start()
    recorder.take(made(60, 0, Origin.TRANSLATED))
    recorder.mark(Origin.GENERATED)
    generated = Path(recorder.state.recording)
    recorder.take(made(60, 1, Origin.TRANSLATED))  # which was in flight
    recorder.take(Shown(even(120), 2, card=True))  # a card
    recorder.take(made(240, 3, Origin.GENERATED))
    recorder.close()
    assert [round(one[0] / 60) for one in colours(generated)] == [2, 4]


def test_a_recording_that_fails_just_as_the_next_one_begins_leaves_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorder_in(tmp_path, suffix=".mkv")
    recorder.start()
    failing, begin = recorder._session, RecordingFiles.recording
    assert failing is not None

    def late(*given: Any) -> Any:
        """While the next one is begun."""
        failing.pictures.put("no picture")  # type: ignore[arg-type]
        until(failing.done.is_set, "it has not failed")
        return begin(*given)

    monkeypatch.setattr(RecordingFiles, "recording", late)
    recorder.mark(Origin.GENERATED)
    following = recorder.state.recording
    assert following not in ("", str(failing.path))
    recorder.take(Shown(np.full((48, 64, 3), 99, np.uint8), 0))
    recorder.close()
    assert recorder.state.saved == following


def test_the_cameras_end_completes_a_recording(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path) as run:
        run.tell(ToggleRecording())
        path, begun = Path(run.daemon.status().recording), run.daemon.status().published
        run.until(lambda: run.daemon.status().published > begun + 5, "anything recorded")
    assert len(colours(path)) > 3


def test_a_picture_is_kept_as_it_is_published(tmp_path: Path) -> None:
    with SwitchedDaemon(tmp_path) as run:
        run.until(lambda: run.shows(0), "a translation shown")
        run.tell(Snapshot())
        picture = cv2.imread(run.daemon.status().saved)
        assert picture is not None
        assert tuple(int(one) for one in picture[0, 0, ::-1]) == FACE
        run.tell(Snapshot())
        assert len(list((tmp_path / "videos").glob("*.png"))) == 2, "a second one of the same moment has another name"


def test_recordings_and_pictures_say_that_they_are_ai_translated(tmp_path: Path) -> None:
    import c2pa

    recorder = recorder_in(tmp_path)
    kept = []
    recorder.start()
    for tick in range(30):
        recorder.take(Shown(np.full((48, 64, 3), 99, np.uint8), tick))
    recorder.close()
    kept.append(recorder.state.saved)
    recorder.snapshot()
    kept.append(recorder.state.saved)
    for path in kept:
        with c2pa.Reader(path) as reader:
            assert reader.get_validation_state() == "Valid"
            assert "compositeWithTrainedAlgorithmicMedia" in reader.json()


def test_a_copy_that_was_being_signed_is_removed_but_not_while_it_is_written(tmp_path: Path) -> None:
    old, new, other = (f".{stem}.marking.mp4" for stem in (NAMED, f"{NAMED} 2", "a"))
    for name in (f"{NAMED}.mp4", old, new, other):
        (tmp_path / name).touch()
    for name in (old, other):
        os.utime(tmp_path / name, (0, 0))
    recover(tmp_path, lambda text: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{NAMED}.mp4", new, other])


def test_a_file_that_is_another_ones_or_being_written_keeps_its_name(tmp_path: Path) -> None:
    hidden = [".take.part.mp4", ".StreamV2V live.part.mp4", f".{NAMED}.part.mp4", f".{NAMED} 2.part.mkv"]
    for name in hidden:
        (tmp_path / name).touch()
    for name in (*hidden[:2], hidden[3]):
        os.utime(tmp_path / name, (0, 0))
    recover(tmp_path, lambda text: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*hidden[:3], f"{NAMED} 2.incomplete.mkv"])


def test_a_run_looks_for_what_was_left_before_it_starts_and_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcam.daemon.daemon.SURELY_LEFT_S", 0.01)
    videos = tmp_path / "videos"
    videos.mkdir()
    old, new = (videos / f".{stem}.part.mp4" for stem in (NAMED, f"{NAMED} 2"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    run = SwitchedDaemon(tmp_path)
    assert sorted(path.name for path in videos.iterdir()) == sorted([new.name, f"{NAMED}.incomplete.mp4"])
    os.utime(new, (0, 0))
    with run:
        run.until(lambda: not new.exists(), "kept under a name that is seen")
    assert (videos / f"{NAMED} 2.incomplete.mp4").exists()


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    recorder = recorder_in(tmp_path / "file" / "videos", said.append)
    with pytest.raises(VcamError, match="nothing is being recorded"):
        recorder.end()
    with pytest.raises(VcamError, match="nothing was published"):
        recorder.snapshot()
    with pytest.raises(VcamError, match=r"cannot be made .* folder under \[record\]"):
        recorder.start()
    recorder = recorder_in(tmp_path / "videos", said.append)
    recorder.start()
    with pytest.raises(VcamError, match="being recorded already"):
        recorder.start()
    recorder.close()
    assert not list((tmp_path / "videos").iterdir()), "nothing was published: there is nothing to keep"


def test_an_encoder_that_is_late_never_holds_up_the_publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    recorder = recorder_in(tmp_path, suffix=".mkv")
    recorder.start()
    assert recorder._session is not None
    send = recorder._session.file.send
    monkeypatch.setattr(recorder._session.file, "send", lambda *one: (gate.wait(PATIENCE_S), send(*one)))
    for tick in range(200):
        recorder.take(Shown(np.full((48, 64, 3), 99, np.uint8), tick))  # returns though nothing is encoded
    gate.set()
    recorder.close()
    assert 20 < len(colours(Path(recorder.state.saved))) < 200


@pytest.mark.parametrize("at", ["send", "close"])
def test_what_nobody_foresaw_ends_the_recording_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    said: list[str] = []
    recorder = recorder_in(tmp_path, said.append)
    recorder.start()
    session = recorder._session
    assert session is not None
    assert session.thread is not None

    def out_of_memory(*_: object) -> None:
        raise MemoryError("no more")

    send, close = session.file.send, session.file.close
    if at == "send":
        monkeypatch.setattr(
            session.file, "send", lambda one, tick, heard: out_of_memory() if tick else send(one, tick, heard)
        )
    else:
        monkeypatch.setattr(session.file, "close", out_of_memory)
    for tick in range(2):
        recorder.take(Shown(np.full((48, 64, 3), 99, np.uint8), tick))
    if at == "close":
        recorder.end()
    session.thread.join(PATIENCE_S)
    assert recorder.state.recording == ""
    assert said[1:] == [said[-1]]
    assert "the recording has ended" in said[-1]
    assert "MemoryError: no more" in said[-1]
    assert str(session.path) in said[-1]
    assert session.path.exists() == (at == "send")
    if at == "close":
        close()


def test_a_recording_whose_thread_does_not_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    recorder = recorder_in(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(VcamError, match="can't start new thread"):
        recorder.start()
    assert not list(tmp_path.iterdir())
    assert recorder.state.recording == ""


def test_the_end_of_a_recording_waits_for_nothing_and_a_toggle_begins_no_other_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    recorder = recorder_in(tmp_path)
    recorder.toggle()
    session = recorder._session
    assert session is not None
    close = session.file.close
    monkeypatch.setattr(session.file, "close", lambda: (gate.wait(PATIENCE_S), close()))
    for tick in range(200):  # more than wait for the encoder
        recorder.take(Shown(np.full((48, 64, 3), 99, np.uint8), tick))
    recorder.toggle()  # returns though nothing is signed
    path = str(session.path)
    assert recorder.state == RecorderState(finishing=path)
    with pytest.raises(VcamError, match="is being finished"):
        recorder.toggle()
    recorder.start()  # who asks for another by name gets it, in another file
    assert (recorder.state.recording not in ("", path), recorder.state.finishing) == (True, path)
    gate.set()
    recorder.close()
    assert recorder.state == RecorderState(saved=path)
    recorder.toggle()
    recorder.close()


PROGRAM = """
import resource, signal, sys, time
from pathlib import Path
import numpy as np
from tests.support.recorded_sound import SpokenMicrophone, sound_of
from tests.support.recorders import recorder_in
from vcam.daemon.loops import Shown
from vcam.video import probe, read

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)
folder, how, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
microphone, now_s = SpokenMicrophone(), 0.0
recorder = recorder_in(
    folder, lambda text: print(text, flush=True), kind,
    microphone="default" if how != "a disk of its own" else "",
    open_microphone=lambda name, say: microphone, clock=lambda: now_s,
)
if how == "limited":
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
recorder.start()
session = recorder._session
for tick in range(1000 if how != "killed" else 150):
    if not recorder.state.recording:
        break
    now_s = tick / 25
    microphone.hear(now_s, ((0.0, 1000.0),))
    recorder.take(Shown(rng.integers(0, 255, (48, 64, 3), np.uint8), tick))
    while not session.pictures.empty() and not session.done.is_set():
        time.sleep(0.001)
if how != "killed":
    session.thread.join()  # it says at its end what has become of the recording
    (kept,) = folder.iterdir()
    if how == "limited":
        assert len(sound_of(kept)) / 48000 > tick / 25 - 2, "the sound does not play"
    print(tick, sum(1 for _ in read(probe(kept), lambda text: None)), kept.name)
    raise SystemExit
print("taken", flush=True)
sys.stdin.read()
"""
LAST = 2 * 25  # pictures of the last two seconds


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes, or mounts")
@pytest.mark.parametrize("kind", [".mp4", ".mkv"])
@pytest.mark.parametrize("how", ["limited", "a disk of its own"])
def test_a_full_disk_ends_the_recording_and_it_plays_to_within_two_seconds(tmp_path: Path, how: str, kind: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), how, kind]
    if how != "limited":
        mounted = f"mount -t tmpfs -o size=700k tmpfs '{tmp_path}'"
        small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mounted} && exec "$@"', "sh"]
        if sys.platform != "linux" or subprocess.run([*small, "true"], capture_output=True).returncode:
            pytest.skip("no user namespaces here")
        command = [*small, *command]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *said, found = done.stdout.splitlines()
    taken, plays, name = found.split(maxsplit=2)
    assert ".incomplete" in name
    assert "the recording has ended" in said[-1]
    assert name in said[-1]
    assert 2 * LAST < int(taken) < 1000, "it filled in the middle"
    assert int(taken) - LAST <= int(plays) <= int(taken)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_program_leaves_a_recording_that_plays_and_the_next_start_gives_it_a_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "killed", ".mp4"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            if line == "taken\n":
                break
        program.kill()
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    said: list[str] = []
    recover(tmp_path, said.append)
    (kept,) = tmp_path.iterdir()
    assert ".incomplete" in kept.name
    assert not kept.name.startswith(".")
    assert str(kept) in said[0]
    assert 150 - LAST <= len(colours(kept)) <= 150
    sound = sound_of(kept)
    assert len(sound) > (150 - LAST) / 25 * RATE
    assert len(tones_in(sound)) == 1
    recover(tmp_path, said.append)
    assert len(said) == 1
