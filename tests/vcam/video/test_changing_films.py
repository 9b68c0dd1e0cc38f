"""Films that change on the way: size, rotation, pixel format, the shape of a pixel; with sound of any times."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.support.carrying import FILMS, Notes, aspect_of_circle, carried, circle, end_of, told
from tests.support.media_files import Part, film, film_of_parts, joined, number_of, sound_of
from vcam.video import probe, read


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_a_rotation_that_the_pictures_ask_for_holds_until_the_next_key_frame(tmp_path: Path, suffix: str) -> None:
    parts = [Part(tuple(range(n * 400, n * 400 + 400, 40)), turn=turn) for n, turn in enumerate((180, None, 180))]
    pictures = list(read(probe(film_of_parts(tmp_path / f"in{suffix}", parts)), Notes()))
    stored = [picture.rgb[::-1, ::-1] if n // 10 != 1 else picture.rgb for n, picture in enumerate(pictures)]
    assert [number_of(rgb) for rgb in stored] == list(range(30))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_pixels_that_become_wider_on_the_way_stretch_nothing(tmp_path: Path, codec: str) -> None:
    shapes = [Fraction(1), Fraction(4, 3), Fraction(1)]
    films = [
        film(tmp_path / f"{n}.ts", [circle(160, 120, float(shape))] * 8, codec=codec, aspect=shape)
        for n, shape in enumerate(shapes)
    ]
    notes = Notes()
    pictures = list(read(probe(joined(tmp_path / "in.ts", *films)), notes))
    assert len(pictures) == 24
    assert [aspect_of_circle(picture.rgb) for picture in pictures] == pytest.approx([1] * 24, abs=0.08)
    assert told(notes, "size changes to 213x120")


# container: codec of the pictures, their pixel formats, codec of the sound, whether a rotation can change
KINDS = {
    ".ts": ("libx264", ["yuv420p", "yuv444p", "yuv420p10le", "yuv422p"], "mp2", True),
    ".mkv": ("mjpeg", ["yuvj420p", "yuvj422p", "yuvj444p"], "pcm_s16le", False),
    ".mp4": ("libx264", ["yuv420p"], "aac", True),
    ".mov": ("mjpeg", ["yuvj420p", "yuvj422p", "yuvj444p"], "aac", False),
    ".webm": ("libvpx", ["yuv420p"], "libopus", False),
}
GAPS = st.lists(st.integers(1, 400), min_size=1, max_size=6)  # ms
# tenths of a second: pause and length. In MPEG-TS a pause of picture and sound of more than 2 s is a leap.
PIECES = st.lists(st.tuples(st.integers(0, 19), st.integers(1, 20)), min_size=1, max_size=3)


@dataclass(frozen=True)
class ChangingFilm:
    suffix: str
    parts: list[Part]
    pieces: list[tuple[float, float]]

    def written(self, folder: Path) -> Path:
        codec, _, sound, _ = KINDS[self.suffix]
        return film_of_parts(
            folder / f"in{self.suffix}", self.parts, codec, sound if self.pieces else None, self.pieces
        )

    @property
    def times(self) -> list[float]:
        """Seconds from the first picture on."""
        times = [time / 1000 for part in self.parts for time in part.times]
        return [time - times[0] for time in times]


@st.composite
def changing_films(draw: st.DrawFn) -> ChangingFilm:
    suffix = draw(st.sampled_from(sorted(KINDS)))
    _, formats, _, turns = KINDS[suffix]
    at, parts = draw(st.integers(0, 300)), []
    for _ in range(draw(st.integers(2, 4))):
        times = [at := at + gap for gap in draw(GAPS)]
        size = draw(st.sampled_from([(64, 48), (48, 64), (96, 32), (128, 96)]))
        turn = draw(st.sampled_from([None, 90, 180, 270])) if turns else None
        parts.append(Part(tuple(times), size, draw(st.sampled_from(formats)), turn))
    begins, pieces = 0, []
    for pause, length in draw(PIECES):
        begins += pause
        pieces.append((begins / 10, (begins + length) / 10))
        begins += length
    return ChangingFilm(suffix, parts, draw(st.sampled_from([[], pieces])))


@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(changing_films(), st.sampled_from(FILMS))
def test_a_film_that_changes_on_the_way_comes_out_whole_in_order_and_as_long(
    tmp_path_factory: pytest.TempPathFactory, source: ChangingFilm, target: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = source.written(folder)
    media, notes = probe(path), Notes()
    before = list(read(media, Notes()))
    assert [float(one.time - before[0].time) for one in before] == pytest.approx(source.times, abs=0.0015)
    after = carried(path, folder / f"out{target}", notes)
    frame = float(max(1 / media.rate, before[-1].duration))
    assert {picture.rgb.shape for picture in after} == {(media.height, media.width, 3)}
    assert all(a.time < b.time for a, b in itertools.pairwise(after))
    assert abs(end_of(after) - end_of(before)) <= frame + 0.02
    if target == ".avi":
        assert len(after) >= len(before) or told(notes, "left out")
    else:
        assert [float(p.time) for p in after] == pytest.approx([float(p.time) for p in before], abs=0.002)
    sizes = {_upright(part) for part in source.parts} - {(media.width, media.height)}
    assert all(told(notes, f"size changes to {width}x{height}") for width, height in sizes)
    if source.pieces:
        assert sound_of(folder / f"out{target}")[2] == pytest.approx(sound_of(path)[2] - float(media.start_s), abs=0.15)


def _upright(part: Part) -> tuple[int, int]:
    width, height = part.size
    return (height, width) if part.turn in (90, 270) else (width, height)
