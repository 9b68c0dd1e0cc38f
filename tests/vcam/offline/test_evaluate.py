"""`vcam eval` on files that do not match: other rates, lengths, sizes, shapes, and outputs that are late."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.errors import ModelError
from core.measure import delay as delays
from core.measure.identity import MarkedFace
from core.measure.motion import Pixels
from core.settings import Region
from tests.support import synthetic_films as films
from tests.support.media_files import cut, film
from tests.support.stand_in_eyes import SKIN, PaintedPerson, is_skin, none_here
from tests.support.synthetic_films import Film
from vcam.errors import VcamError
from vcam.offline import evaluate as under_test
from vcam.offline.evaluate import Asked, EvalReport, evaluate
from vcam.offline.pairing import Fit, Taking

FINE = {"crf": "6"}
FRAMES = 36
PLAIN = Asked(faces=False)


def quiet(text: str) -> None:
    pass


def written(path: Path, pictures: Film, rate: int = 24) -> Path:
    size = (pictures[0].shape[1], pictures[0].shape[0])
    return film(path, pictures, rate=rate, size=size, options=FINE)


def source(folder: Path, frames: int = FRAMES, rate: int = 24) -> Path:
    return written(folder / "in.mp4", films.source(frames), rate)


def run(source: Path, output: Path, asked: Asked = PLAIN, **more: Any) -> EvalReport:
    return evaluate(source, output, asked, progress=False, note=quiet, **more)


def no_progress(done: int, of: int | None) -> None:
    raise AssertionError("what does not belong together is refused before it is measured")


# ------------------------------------------------------------------------------------------------ late or early


@pytest.mark.parametrize("late", [0, 1, 3])
def test_a_late_output_is_measured_shifted_and_that_is_said(tmp_path: Path, late: int) -> None:
    output = written(tmp_path / "out.mp4", films.late(films.edit(FRAMES), late))
    report = run(source(tmp_path), output)
    assert (report.latency_frames, report.delay, report.frames) == (late, late, FRAMES - late)
    assert bool([note for note in report.notes if f"{late} picture{'s' * (late > 1)} behind" in note]) == (late > 0)
    straight = run(source(tmp_path), written(tmp_path / "straight.mp4", films.edit(FRAMES)))
    assert report.edit_strength == pytest.approx(straight.edit_strength, rel=0.01)
    assert report.warp_error == pytest.approx(straight.warp_error, rel=0.3, abs=1)


def test_a_stream_that_lost_its_beginning_or_came_longer_is_paired_rightly(tmp_path: Path) -> None:
    straight = run(source(tmp_path), written(tmp_path / "straight.mp4", films.edit(FRAMES)))
    longer = [*[films.edit(1)[0]] * 2, *films.edit(FRAMES)]
    for name, pictures, delay in (("short.mp4", films.edit(FRAMES)[2:], -2), ("long.mp4", longer, 2)):
        report = run(source(tmp_path), written(tmp_path / name, pictures))
        assert report.delay == delay
        assert report.edit_strength == pytest.approx(straight.edit_strength, rel=0.01)


def test_of_an_output_that_is_ahead_it_is_said_what_is_left_out(tmp_path: Path) -> None:
    whole = films.edit(FRAMES + 2)[2:]  # as long as its source: its end shows what the source has not
    cut, uncut = (run(source(tmp_path), written(tmp_path / f"{len(one)}.mp4", one)) for one in (whole[:-2], whole))
    for report in (cut, uncut):
        assert (report.delay, report.frames) == (-2, FRAMES - 2)
        assert [note for note in report.notes if "2 pictures ahead" in note and "without the source's first 2" in note]
    ends = [[note for note in report.notes if "its last 2 pictures have no partner" in note] for report in (cut, uncut)]
    assert [len(one) for one in ends] == [0, 1]
    assert str(tmp_path / f"{FRAMES}.mp4") in ends[1][0]


def test_a_delay_that_is_told_is_taken(tmp_path: Path) -> None:
    output = written(tmp_path / "out.mp4", films.late(films.edit(FRAMES), 2))
    as_it_is, shifted = (run(source(tmp_path), output, Asked(faces=False, delay=n)) for n in (0, 2))
    assert (as_it_is.delay, as_it_is.latency_frames, shifted.delay) == (0, None, 2)
    assert shifted.frames == FRAMES - 2
    with pytest.raises(VcamError, match="not one of its pictures has a source"):
        run(source(tmp_path), output, Asked(faces=False, delay=99))


@pytest.mark.parametrize("late", [3, 4, 5])
def test_who_is_later_than_is_looked_is_not_taken_for_less_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    monkeypatch.setattr(delays, "LATEST", 3)
    output = written(tmp_path / "out.mp4", films.late(films.edit(FRAMES), late))
    if late == 3:
        assert run(source(tmp_path), output).delay == 3
        return
    with pytest.raises(VcamError, match="4 pictures behind its source or more"):
        run(source(tmp_path), output)
    assert run(source(tmp_path), output, Asked(faces=False, delay=late)).delay == late


# ------------------------------------------------------------------------------------------------ rates and lengths


def test_half_the_rate_is_paired_in_time(tmp_path: Path) -> None:
    output = written(tmp_path / "out.mp4", films.edit(FRAMES)[::2], rate=12)
    report = run(source(tmp_path), output)
    assert (report.frames, report.rate, report.delay) == (FRAMES // 2, 12, 0)
    assert any("12 pictures a second, its source 24" in note for note in report.notes)
    straight = run(source(tmp_path), written(tmp_path / "straight.mp4", films.edit(FRAMES)))
    assert report.edit_strength == pytest.approx(straight.edit_strength, rel=0.02)


def test_twice_the_rate_is_paired_in_time(tmp_path: Path) -> None:
    doubled = [one for one in films.edit(FRAMES) for _ in range(2)]
    report = run(source(tmp_path), written(tmp_path / "out.mp4", doubled, rate=48))
    assert (report.frames, report.rate, report.delay) == (FRAMES, 24, 0)


def test_another_rate_with_as_many_pictures_is_paired_one_by_one(tmp_path: Path) -> None:
    report = run(source(tmp_path), written(tmp_path / "out.mp4", films.edit(FRAMES), rate=10))
    assert (report.frames, report.rate) == (FRAMES, 24)
    assert any("paired one by one" in note for note in report.notes)


@pytest.mark.parametrize(("frames", "rate"), [(20, 24), (20, 12), (30, 10)])
def test_what_matches_neither_in_number_nor_in_time_is_refused_at_once(tmp_path: Path, frames: int, rate: int) -> None:
    output = written(tmp_path / "out.mp4", films.edit(frames), rate=rate)
    with pytest.raises(VcamError) as refused:
        evaluate(source(tmp_path), output, PLAIN, progress=no_progress, note=quiet)
    assert "\n" not in str(refused.value)
    assert f"{frames} pictures" in str(refused.value)


def test_of_films_of_another_length_the_first_pictures_are_measured_and_that_is_said(tmp_path: Path) -> None:
    output = written(tmp_path / "out.mp4", films.edit(20))
    report = run(source(tmp_path), output, Asked(faces=False, frames=16))
    assert report.frames == 16
    said = [note for note in report.notes if "it has 20 pictures, its source 36; the first 16 are measured" in note]
    assert len(said) == 1
    alike = run(source(tmp_path), written(tmp_path / "alike.mp4", films.edit(FRAMES)), Asked(faces=False, frames=16))
    assert not [note for note in alike.notes if "are measured" in note]


@pytest.mark.parametrize(("ours", "theirs"), [(24, 30), (30, 24)])
@pytest.mark.parametrize("taking", Taking)
def test_a_film_of_another_rate_is_paired_as_it_was_made(
    tmp_path: Path, ours: int, theirs: int, taking: Taking
) -> None:
    """By a converter (the nearest picture), or by who writes down what is shown (the last until then)."""
    rounded = (lambda at: math.floor(at + 0.5)) if taking is Taking.NEAREST else math.floor
    edit = films.edit(FRAMES)
    at = [rounded(Fraction(k * ours, theirs)) for k in range(FRAMES * theirs // ours)]
    output = [edit[min(one, FRAMES - 1)] for one in at]
    report = run(source(tmp_path, rate=ours), written(tmp_path / "out.mp4", output, theirs))
    straight = run(source(tmp_path), written(tmp_path / "straight.mp4", films.edit(FRAMES)))
    assert (report.rate, report.delay) == (24, 0)
    assert report.ghosting == pytest.approx(0, abs=0.03)
    assert report.edit_strength == pytest.approx(straight.edit_strength, rel=0.01)
    said = [note for note in report.notes if "is the source's last one until then" in note]
    assert len(said) == (taking is Taking.SHOWN)


@pytest.mark.parametrize("late", [1, 3])
def test_an_output_of_half_the_rate_may_be_late_by_less_than_its_own_picture(tmp_path: Path, late: int) -> None:
    output = written(tmp_path / "out.mp4", films.late(films.edit(FRAMES), late)[::2], rate=12)
    report = run(source(tmp_path), output)
    straight = run(source(tmp_path), written(tmp_path / "straight.mp4", films.edit(FRAMES)))
    assert (report.rate, report.delay) == (12, (late + 1) // 2)
    assert report.ghosting == pytest.approx(0, abs=0.03)
    assert report.edit_strength == pytest.approx(straight.edit_strength, rel=0.02)
    assert [note for note in report.notes if f", {late} of the source's, behind its source" in note]


def test_pictures_that_a_cut_has_hidden_are_not_counted(tmp_path: Path) -> None:
    """A film may be cut by a list alone: what was cut off lies in the file, and nobody sees it."""
    whole = written(tmp_path / "whole.mp4", films.edit(FRAMES))
    begun = cut(whole, tmp_path / "cut.mp4", 0.5)
    with pytest.raises(VcamError, match=f"cut.mp4 has 24 pictures and .*in.mp4 {FRAMES}"):
        evaluate(source(tmp_path), begun, PLAIN, progress=no_progress, note=quiet)


def test_one_picture_is_one(tmp_path: Path) -> None:
    with pytest.raises(VcamError, match="has 1 picture and"):
        run(source(tmp_path), written(tmp_path / "out.mp4", films.edit(1)))


TURNED: dict[str, Callable[[], Film]] = {
    "another film": lambda: films.moving(films.texture(7), FRAMES),
    "mirrored": lambda: [np.ascontiguousarray(one[:, ::-1]) for one in films.edit(FRAMES)],
    "upside down": lambda: [np.ascontiguousarray(one[::-1, ::-1]) for one in films.edit(FRAMES)],
    "black": lambda: [np.zeros_like(one) for one in films.edit(FRAMES)],
    "all but its end late": lambda: films.late(films.edit(FRAMES), FRAMES - 1),
}


@pytest.mark.parametrize("name", TURNED)
def test_of_an_output_that_shows_nothing_of_its_source_that_is_said(tmp_path: Path, name: str) -> None:
    report = run(source(tmp_path), written(tmp_path / "out.mp4", TURNED[name]()))
    assert (report.latency_frames, report.delay) == (None, 0)
    assert [note for note in report.notes if "or of this source at all, is not known" in note]
    rightly = run(source(tmp_path), written(tmp_path / "edit.mp4", films.edit(FRAMES)))
    assert not [note for note in rightly.notes if "is not known" in note]


def test_where_nothing_moves_nothing_is_said_of_another_film(tmp_path: Path) -> None:
    still, shown = ([one[0]] * FRAMES for one in (films.source(1), films.edit(1)))
    report = run(written(tmp_path / "in.mp4", still), written(tmp_path / "out.mp4", shown))
    assert report.latency_frames is None
    assert report.notes == ()


def test_a_note_has_a_line_of_its_own_beside_the_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = written(tmp_path / "out.mp4", films.edit(FRAMES + 2))
    evaluate(source(tmp_path), output, PLAIN)
    said = re.split(r"[\r\n]", capsys.readouterr().err)
    (note,) = [line for line in said if "no partner" in line]
    assert note.startswith("vcam: note: ")


# ------------------------------------------------------------------------------------------------ sizes and shapes


def squeezed(pictures: Sequence[Pixels], width: int, height: int) -> Film:
    return [np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA)) for one in pictures]


def boxed(pictures: Sequence[Pixels]) -> Film:
    return [np.asarray(cv2.copyMakeBorder(one, 20, 20, 0, 0, cv2.BORDER_CONSTANT)) for one in pictures]


SHAPES = {
    Fit.STRETCH: lambda pictures: squeezed(pictures, 120, 120),
    Fit.CROP: lambda pictures: squeezed([one[:, 20:140] for one in pictures], 96, 96),
    Fit.PAD: boxed,
}


@pytest.mark.parametrize("fit", SHAPES)
def test_how_another_shape_came_about_is_found_out(tmp_path: Path, fit: Fit) -> None:
    here, output = source(tmp_path), written(tmp_path / "out.mp4", SHAPES[fit](films.edit(FRAMES)))
    report = run(here, output)
    told = run(here, output, Asked(faces=False, fit=fit))
    assert (report.width, report.height) == ((120, 120) if fit is Fit.CROP else (160, 120))
    straight = run(source(tmp_path), written(tmp_path / "straight.mp4", films.edit(FRAMES)))
    assert report.edit_strength == pytest.approx(straight.edit_strength, rel=0.06)
    assert (report.warp_error, report.edit_strength) == (told.warp_error, told.edit_strength)
    assert any("and so it is measured" in note for note in report.notes)


# ------------------------------------------------------------------------------------------------ models


def test_the_figures_of_a_region_are_those_of_the_region(tmp_path: Path) -> None:
    def with_person(pictures: Film) -> Film:
        found = [one.copy() for one in pictures]
        for t, one in enumerate(found):
            one[30:90, 20 + t : 70 + t] = SKIN
        return found

    before = with_person(films.source(8))
    styled = [np.where(is_skin(one)[..., None], np.uint8(60), one) for one in before]
    here = written(tmp_path / "in.mp4", before)
    there = written(tmp_path / "out.mp4", styled)
    person, behind, everywhere = (
        run(here, there, Asked(faces=False, region=region), open_persons=PaintedPerson)
        for region in (Region.PERSON, Region.BACKGROUND, Region.ALL)
    )
    assert person.edit_strength > 3 * everywhere.edit_strength
    assert behind.edit_strength < 0.2 * everywhere.edit_strength
    assert (person.region, behind.region) == ("person", "background")


def test_a_region_without_the_model_for_it_is_refused(tmp_path: Path) -> None:
    def none() -> PaintedPerson:
        raise ModelError("the model for it is not here; `vcam models download person` fetches it")

    with pytest.raises(ModelError, match="vcam models download person"):
        run(source(tmp_path, 4), source(tmp_path, 4), Asked(faces=False, region=Region.PERSON), open_persons=none)


def test_faces_are_looked_for_where_the_model_is_here(tmp_path: Path) -> None:
    marks = np.zeros((5, 2), np.float32)

    def find(picture: Pixels) -> list[MarkedFace]:
        dark = float(picture.mean()) < 132
        return [MarkedFace(np.array([50, 50], np.float32), 40.0, marks + (2 if dark else 0))]

    output = written(tmp_path / "out.mp4", [np.asarray(one // 2, np.uint8) for one in films.source(4)])
    report = run(source(tmp_path, 4), output, Asked(), open_landmarks=lambda: find)
    assert (report.faces, report.faces_kept) == (4, 100)
    assert run(source(tmp_path, 4), output, Asked(), open_landmarks=none_here).faces_kept is None
    noted = run(source(tmp_path, 4), output, Asked(faces=True), open_landmarks=none_here).notes
    assert any("vcam models download face" in note for note in noted)


def test_a_prompt_is_compared_by_the_stand_in_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, tuple[int, int]]] = []

    def reference(prompt: str, size: tuple[int, int]) -> Any:
        asked.append((prompt, size))
        return lambda picture: np.asarray(235 - picture // 2, np.uint8)

    monkeypatch.setattr(under_test, "reference_for", reference)
    here = source(tmp_path, 4)
    right = run(here, written(tmp_path / "out.mp4", films.edit(4)), Asked(faces=False, prompt="pale"))
    other = run(
        here, written(tmp_path / "other.mp4", films.moving(films.texture(5), 4)), Asked(faces=False, prompt="pale")
    )
    assert asked == [("pale", (160, 120))] * 2
    assert right.prompt_alignment is not None
    assert other.prompt_alignment is not None
    assert right.prompt_alignment > 95
    assert other.prompt_alignment < 70
    assert right.alignment_by.startswith("stand-in")
    assert run(here, here, PLAIN).alignment_by == ""


def test_the_reference_is_the_included_models_own_picture() -> None:
    make = under_test.reference_for("claymation, a person talking", (160, 120))
    picture = films.source(1)[0]
    made = make(picture)
    assert made.shape == picture.shape
    assert np.abs(made.astype(int) - picture).mean() > 5
    assert (make(picture) == made).all()


def test_a_clip_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path / "models"))
    with pytest.raises(VcamError, match="`vcam models download clip` fetches it"):
        run(source(tmp_path, 4), source(tmp_path, 4), Asked(clip="clip"))
