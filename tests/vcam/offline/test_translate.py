"""`vcam translate` and `vcam eval` with a small engine of the same shape as the real one, on real files."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ModelError, SettingsError
from core.settings import EngineSettings, Framing, Look, Region
from tests.support.late_engine import LateEngine, SlowEngine
from tests.support.media_files import film, image, number_of, numbered, sound_of
from tests.support.patience import PATIENCE_S, until
from tests.support.stand_in_eyes import SKIN, PaintedFace, PaintedPerson, is_skin, none_here, scene
from tests.support.translating_program import SMALL
from vcam.errors import VcamError, VideoError
from vcam.offline import translate as under_test
from vcam.offline.evaluate import Asked, evaluate
from vcam.offline.translate import Job, TranslateReport, translate
from vcam.settings.engine_options import engine_size
from vcam.video import Kind, Media, Note, Picture, probe, read

ROOT = Path(under_test.__file__).parents[2]


def quiet(text: str) -> None:
    pass


def run(source: Path, target: Path, settings: EngineSettings = SMALL, **more: Any) -> TranslateReport:
    given = {name: more.pop(name) for name in ("frames", "size", "profile") if name in more}
    more = {"make_engine": LateEngine, "progress": False, "note": quiet, **more}
    return translate(Job(source, target, settings, Look(prompt="clay"), **given), **more)


def negative_numbers(path: Path) -> list[int]:
    return [number_of(255 - p.rgb) for p in read(probe(path), quiet)]


# ------------------------------------------------------------------------------------------------ whole and in order


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("frames", [1, 2, 12])
def test_picture_i_shows_picture_i_whatever_the_delay(tmp_path: Path, steps: int, frames: int) -> None:
    source = film(tmp_path / "in.mp4", frames, sound="aac")
    report = run(source, tmp_path / "out.mp4", EngineSettings(width=64, height=64, steps=steps))
    assert negative_numbers(tmp_path / "out.mp4") == list(range(frames))
    assert (report.frames_in, report.frames_out, report.interrupted) == (frames, frames, False)
    assert (report.model, report.runtime, report.bank) == ("embedded", "auto", "fifo")
    assert (report.width, report.height) == (64, 48)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_a_long_film_is_whole_and_keeps_its_sound(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 250, sound="aac")
    report = run(source, tmp_path / "out.mp4", profile="clay")
    assert report.frames_out == 250
    assert report.profile == "clay"
    assert negative_numbers(tmp_path / "out.mp4") == list(range(250))
    assert sound_of(tmp_path / "out.mp4")[2] == pytest.approx(10, abs=0.05)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["frames_in"] == 250


def test_frames_stops_early_with_its_sound(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 100, sound="aac")
    report = run(source, tmp_path / "out.mp4", frames=25)
    assert (report.frames_in, report.frames_out) == (25, 25)
    assert negative_numbers(tmp_path / "out.mp4") == list(range(25))
    assert sound_of(tmp_path / "out.mp4")[2] == pytest.approx(1, abs=0.06)


def test_the_size_comes_back_and_nothing_is_cropped(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 4, size=(150, 334))
    report = run(source, tmp_path / "out.mp4", EngineSettings(width=256, height=256))
    out = probe(tmp_path / "out.mp4")
    assert (out.width, out.height) == (150, 334)
    assert (report.engine_width, report.engine_height) == engine_size(150, 334, 256 * 256) == (176, 384)
    got = next(iter(read(out, quiet))).rgb.astype(int)
    assert np.abs(255 - got - numbered(0, 150, 334)).mean() < 8


def test_a_given_engine_size_is_taken(tmp_path: Path) -> None:
    report = run(film(tmp_path / "in.mp4", 2), tmp_path / "out.mp4", size=(128, 96))
    assert (report.engine_width, report.engine_height) == (128, 96)
    with pytest.raises(SettingsError, match="multiple of 16"):
        run(tmp_path / "in.mp4", tmp_path / "out2.mp4", size=(100, 96))


def test_a_picture_with_transparency(tmp_path: Path) -> None:
    alpha = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    source = image(tmp_path / "in.png", np.dstack([numbered(42), alpha]))
    report = run(source, tmp_path / "out.png", EngineSettings(width=64, height=64, steps=4))
    assert report.frames_out == 1
    kept = next(iter(read(probe(tmp_path / "out.png")))).alpha
    assert kept is not None
    assert (kept == alpha).all()


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (3, 20, 100):
        image(tmp_path / "in" / f"{number}.jpg", numbered(number, 64 + number % 7, 48))
    run(tmp_path / "in", tmp_path / "out")
    out = probe(tmp_path / "out")
    assert out.kind is Kind.FOLDER
    assert [p.name for p in out.pictures] == ["3.jpg", "20.jpg", "100.jpg"]
    assert negative_numbers(tmp_path / "out") == [3, 20, 100]
    assert [p.rgb.shape for p in read(out)] == [(48, 64 + n % 7, 3) for n in (3, 20, 100)]


# ------------------------------------------------------------------------------------------------ progress, stopping


def test_progress_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int | None]] = []
    source = film(tmp_path / "in.mp4", 5)
    run(source, tmp_path / "out.mp4", progress=lambda done, of: told.append((done, of)))
    assert told == [(i, 5) for i in range(1, 6)]
    run(source, tmp_path / "out2.mp4", progress=True)
    shown = capsys.readouterr()
    assert "5/5" in shown.err
    assert not shown.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_completes_the_file(tmp_path: Path, number: signal.Signals) -> None:
    source = film(tmp_path / "in.mp4", 200, sound="aac")

    def after_ten(done: int, of: int | None) -> None:
        if done == 10:
            os.kill(os.getpid(), number)

    notes: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    report = run(source, tmp_path / "out.mp4", make_engine=SlowEngine, progress=after_ten, note=notes.append)
    assert report.interrupted
    assert 10 <= report.frames_out == report.frames_in < 100
    assert negative_numbers(tmp_path / "out.mp4") == list(range(report.frames_out))
    assert sound_of(tmp_path / "out.mp4")[2] == pytest.approx(report.frames_out / 25, abs=0.06)
    assert any(f"holds the {report.frames_out} pictures" in n for n in notes)
    assert signal.getsignal(signal.SIGINT) is before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", 200)
    files = str(tmp_path / "in.mp4"), str(tmp_path / "out.mkv")
    command = [sys.executable, "-m", "tests.support.translating_program", *files]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "12\n":
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read().split()
        assert process.wait(PATIENCE_S) == 0
    assert rest[-1] == "True"
    assert len(negative_numbers(tmp_path / "out.mkv")) == int(rest[-2])


def test_stopping_before_the_first_picture_leaves_nothing(tmp_path: Path) -> None:
    def stopped(settings: EngineSettings, look: Look) -> LateEngine:
        os.kill(os.getpid(), signal.SIGTERM)
        return LateEngine(settings, look)

    with pytest.raises(VcamError, match="stopped before the first picture"):
        run(film(tmp_path / "in.mp4", 5), tmp_path / "out.mp4", make_engine=stopped)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_it_runs_outside_the_main_thread(tmp_path: Path) -> None:
    source, reports = film(tmp_path / "in.mp4", 3), []
    thread = threading.Thread(target=lambda: reports.append(run(source, tmp_path / "out.mp4")))
    thread.start()
    thread.join(PATIENCE_S)
    assert reports[0].frames_out == 3


# ------------------------------------------------------------------------------------------------ what goes wrong


class Breaks(LateEngine):
    def translate(self, picture: np.ndarray) -> np.ndarray | None:
        if len(self.seen) == 7:
            raise ZeroDivisionError("the engine broke")
        return super().translate(picture)


class Forgets(LateEngine):
    def drain(self) -> Iterator[np.ndarray]:
        return iter(())


@pytest.mark.parametrize(("engine", "error"), [(Breaks, ZeroDivisionError), (Forgets, RuntimeError)])
def test_an_engine_that_breaks_leaves_what_was_made_under_another_name(
    tmp_path: Path, engine: type, error: type[Exception]
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(error):
        run(film(tmp_path / "in.mp4", 60), tmp_path / "out.mp4", make_engine=engine)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.incomplete.mp4"]
    made = negative_numbers(tmp_path / "out.incomplete.mp4")
    assert made == list(range(len(made)))
    assert made
    assert set(threading.enumerate()) <= before  # one of an earlier test may have ended meanwhile


def never(settings: EngineSettings, look: Look) -> LateEngine:
    raise AssertionError("no engine is needed to see that this cannot work")


@pytest.mark.parametrize(
    ("make", "target", "match"),
    [
        (lambda p: p / "nowhere.mp4", "out.mp4", "no such file"),
        (lambda p: film(p / "in.mp4", 2), "in.mp4", "the output is the input"),
        (lambda p: film(p / "in.mp4", 2), "out.doc", "unknown suffix"),
        (lambda p: film(p / "in.mp4", 2), "no/out.mp4", "does not exist"),
        (lambda p: image(p / "in.png", np.zeros((8, 8, 3), np.uint8)), "out.png", "between 16 and 8192"),
    ],
)
def test_bad_input_is_named_before_the_engine_starts(
    tmp_path: Path, make: Callable[[Path], Path], target: str, match: str
) -> None:
    source = make(tmp_path)
    with pytest.raises(VcamError, match=match):
        run(source, tmp_path / target, make_engine=never)
    assert not (tmp_path / target).exists() or target == "in.mp4"


def test_frames_must_be_one_or_more(tmp_path: Path) -> None:
    with pytest.raises(VcamError, match="frames is 0"):
        run(film(tmp_path / "in.mp4", 2), tmp_path / "out.mp4", frames=0)


def test_a_cut_off_film_is_translated_as_far_as_it_goes(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", 40, options={"g": "5", "bf": "0"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    report = run(source, tmp_path / "out.mp4")
    assert 3 < report.frames_out < 40
    assert report.notes
    assert len(negative_numbers(tmp_path / "out.mp4")) == report.frames_out


def test_a_damaged_picture_of_a_folder_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        image(tmp_path / "in" / f"{number}.png", numbered(number))
    (tmp_path / "in" / "3.png").write_bytes(b"broken")
    report = run(tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png", "4.png"]
    assert report.frames_out == 4
    assert any("3.png: cannot be read as a picture" in note for note in report.notes)


def test_errors_of_the_reader_s_thread_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_off(media: Media, note: Note) -> Iterator[Picture]:
        yield from itertools.islice(read(media, note), 3)
        raise VideoError("the stick was pulled out")

    monkeypatch.setattr(under_test, "read", breaks_off)
    (tmp_path / "in").mkdir()
    for number in range(5):
        image(tmp_path / "in" / f"{number}.png", numbered(number))
    with pytest.raises(VcamError, match="the stick was pulled out"):
        run(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"in", "out.incomplete"}


def test_memory_is_flat(tmp_path: Path) -> None:
    """Reading never runs further ahead than the two bounded queues."""
    source = film(tmp_path / "in.mp4", 120)
    read_so_far, ahead = 0, 0
    original = read

    def counted(media: Any, note: Any) -> Iterator[Any]:
        nonlocal read_so_far
        for picture in original(media, note):
            read_so_far += 1
            yield picture

    class Watches(LateEngine):
        def translate(self, picture: np.ndarray) -> np.ndarray | None:
            nonlocal ahead
            if not self.seen:
                until(lambda: read_so_far > 2, "the reader reads nothing ahead")
            time.sleep(0.002)
            ahead = max(ahead, read_so_far - len(self.seen))
            return super().translate(picture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_test, "read", counted)
        run(source, tmp_path / "out.mp4", make_engine=Watches)
    assert 2 <= ahead <= 12


# ------------------------------------------------------------------------------------------------ eval


def test_a_translation_is_evaluated(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", [np.roll(numbered(9, 128, 96), 3 * i, 1) for i in range(6)])
    run(source, tmp_path / "out.mp4", EngineSettings(width=128, height=96, steps=2))
    told: list[tuple[int, int | None]] = []
    report = evaluate(source, tmp_path / "out.mp4", progress=lambda done, of: told.append((done, of)), note=quiet)
    assert (report.frames, report.width, report.height, report.flow) == (6, 128, 96, "dis")
    assert report.warp_error is not None
    assert report.edit_strength > 20
    assert told[-1] == (6, 6)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["consistency_by"] == "descriptor"
    floor = evaluate(source, source, progress=False, note=quiet)
    assert (floor.warp_error, floor.edit_strength) == (floor.warp_error_input, 0)


def test_an_output_of_another_size_is_brought_to_the_source_s_and_it_is_said(tmp_path: Path) -> None:
    source, output = film(tmp_path / "in.mp4", 3), film(tmp_path / "out.mp4", 3, size=(128, 96))
    report = evaluate(source, output, progress=False, note=quiet)
    assert any("measured at the source's size" in n for n in report.notes)
    with pytest.raises(VcamError, match="must be of one shape"):
        evaluate(source, film(tmp_path / "wide.mp4", 3, size=(128, 48)), progress=False, note=quiet)


def no_progress(done: int, of: int | None) -> None:
    raise AssertionError("the lengths are compared before the pictures are")


def test_another_number_of_pictures_is_an_error(tmp_path: Path) -> None:
    source, output = film(tmp_path / "in.mp4", 8), film(tmp_path / "out.mp4", 5)
    for name in ("out.mp4", "out.mkv"):
        film(tmp_path / name, 5)
        with pytest.raises(VcamError, match=r"has 5 pictures and .* 8; .* --frames 5 "):
            evaluate(source, tmp_path / name, progress=no_progress, note=quiet)
    six = evaluate(film(tmp_path / "six.mp4", 6), output, progress=False, note=quiet)
    assert six.frames == 5
    assert any("its last picture has no partner and is left out" in note for note in six.notes)
    assert evaluate(source, output, Asked(frames=5), progress=False, note=quiet).frames == 5


def test_what_eval_cannot_use_is_named(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 2)
    with pytest.raises(VcamError, match="it must be dis, farneback, raft or raft:FILE"):
        evaluate(source, source, Asked(flow="fastest"), progress=False, note=quiet)
    with pytest.raises(VcamError, match="no such file"):
        evaluate(source, tmp_path / "out.mp4", progress=False, note=quiet)
    with pytest.raises(VcamError, match="frames is -1"):
        evaluate(source, source, Asked(frames=-1), progress=False, note=quiet)


def test_the_modules_need_no_torch() -> None:
    code = "import sys, vcam.offline.translate, vcam.offline.evaluate, vcam.video; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# ------------------------------------------------------------------------------------------------------------ framing


def faces(count: int) -> list[np.ndarray]:
    return [scene((160, 120), (0.9 + 0.002 * i, 0.4, 0.12)) for i in range(count)]


def face_share(path: Path) -> float:
    shown = [p.rgb.astype(int) for p in read(probe(path))]
    return float(np.mean([np.abs(rgb - (255 - np.array(SKIN))).max(axis=2) < 40 for rgb in shown]))


def framed_run(source: Path, target: Path, framing: Framing | None, **more: Any) -> TranslateReport:
    job = Job(source, target, EngineSettings(width=160, height=128), Look(prompt="clay", framing=framing))
    return translate(job, make_engine=LateEngine, progress=False, **{"note": quiet, **more})


def test_a_film_follows_the_face_and_keeps_its_size(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", faces(12), size=(160, 120))
    for framing in (None, Framing.FIT, Framing.FACE):
        framed_run(source, tmp_path / f"{framing}.mp4", framing, open_faces=PaintedFace)
    whole, fit, face = (face_share(tmp_path / f"{framing}.mp4") for framing in (None, Framing.FIT, Framing.FACE))
    assert 0.005 < whole < 0.02
    assert fit == whole, "a film is shown whole as it is"
    assert face > 4 * whole
    made = probe(tmp_path / "face.mp4")
    assert (made.width, made.height) == (160, 120)


def test_a_framed_picture_keeps_its_transparency_in_its_place(tmp_path: Path) -> None:
    picture = scene((160, 120), (0.9, 0.4, 0.2))
    clear = np.where(is_skin(picture), 255, 60).astype(np.uint8)
    source = image(tmp_path / "in.png", np.dstack([picture, clear]))
    framed_run(source, tmp_path / "out.png", Framing.FACE, open_faces=PaintedFace)
    made = next(iter(read(probe(tmp_path / "out.png"))))
    assert made.alpha is not None
    face = np.abs(made.rgb.astype(int) - (255 - np.array(SKIN))).max(axis=2) < 40
    assert face.mean() > 0.05
    assert made.alpha[face].mean() > 200 > 100 > made.alpha[~face].mean()


def test_a_film_without_the_model_for_faces_is_shown_whole_and_that_is_said(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", faces(3), size=(160, 120))
    report = framed_run(source, tmp_path / "out.mp4", Framing.FACE, open_faces=none_here)
    assert face_share(tmp_path / "out.mp4") < 0.02
    assert len([note for note in report.notes if "`vcam models download face`" in note]) == 1


def test_a_framed_translation_is_measured_against_the_framed_source(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", faces(12), size=(160, 120), options={"crf": "4"})
    framed_run(source, tmp_path / "out.mp4", Framing.FACE, open_faces=PaintedFace)
    given: dict[str, Any] = {"open_faces": PaintedFace, "progress": False, "note": quiet}
    framed = evaluate(source, tmp_path / "out.mp4", Asked(framing=Framing.FACE), **given)
    whole = evaluate(source, tmp_path / "out.mp4", **given)
    assert framed.warp_error is not None
    assert whole.warp_error is not None
    assert framed.warp_error < 0.6 * whole.warp_error


# ------------------------------------------------------------------------------------------------------------- region


def region_run(source: Path, target: Path, look: Look, **more: Any) -> TranslateReport:
    job = Job(source, target, EngineSettings(width=160, height=128), look)
    return translate(job, make_engine=LateEngine, progress=False, **{"note": quiet, **more})


def room_of(path: Path) -> list[int]:
    """The brightness of each picture's corner; the engine's negative of 90 is 165."""
    return [round(float(p.rgb[:20, :20].mean())) for p in read(probe(path))]


def test_a_film_whose_style_is_on_the_person_alone(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", faces(5), size=(160, 120), options={"crf": "4"})
    for region, room in ((Region.ALL, 165), (Region.PERSON, 90), (Region.BACKGROUND, 165)):
        target = tmp_path / f"{region}.mp4"
        region_run(source, target, Look(region=region), open_persons=PaintedPerson)
        assert room_of(target) == pytest.approx([room] * 5, abs=3)
    assert face_share(tmp_path / "person.mp4") == pytest.approx(face_share(tmp_path / "all.mp4"), rel=0.3)
    assert face_share(tmp_path / "background.mp4") < 0.2 * face_share(tmp_path / "all.mp4")


def test_a_film_without_the_model_for_persons_is_styled_whole_and_that_is_said(tmp_path: Path) -> None:
    def none() -> PaintedPerson:
        raise ModelError("all of the picture is styled: `vcam models download person` fetches the model")

    source = film(tmp_path / "in.mp4", faces(2), size=(160, 120))
    report = region_run(source, tmp_path / "out.mp4", Look(region=Region.PERSON), open_persons=none)
    assert room_of(tmp_path / "out.mp4") == pytest.approx([165, 165], abs=3)
    assert len([note for note in report.notes if "`vcam models download person`" in note]) == 1


def test_a_still_picture_that_is_not_there_is_told_before_anything_is_written(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", faces(2), size=(160, 120))
    look = Look(region=Region.PERSON, elsewhere=str(tmp_path / "sea.png"))
    with pytest.raises(VideoError, match=r"sea.png: no such picture"):
        region_run(source, tmp_path / "out.mp4", look, open_persons=PaintedPerson)
    image(tmp_path / "sea.png", np.full((30, 40, 3), 20, np.uint8))
    region_run(source, tmp_path / "out.mp4", look, open_persons=PaintedPerson)
    assert room_of(tmp_path / "out.mp4") == pytest.approx([20, 20], abs=3)
