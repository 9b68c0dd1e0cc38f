"""Films as they are in the world: clocks that leap, damaged sound, edit lists, rates that are none, any sizes."""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
import sys
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from struct import pack
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from tests.support.carrying import (
    FILMS,
    Notes,
    aspect_of_circle,
    carried,
    circle,
    end_of,
    numbers,
    told,
    without_repeats,
)
from tests.support.media_files import (
    cut,
    film,
    image,
    joined,
    number_of,
    numbered,
    sound_of,
    without_sound_packets,
)
from vcam.devices.video_loop import VideoLoop
from vcam.errors import VcamError
from vcam.video import Kind, for_picture, probe, read, writing

ROOT = Path(__file__).parents[3]


# ------------------------------------------------------------------------------------------------ clocks that jump


def two_parts(tmp_path: Path, second: str, sound: str | None) -> Path:
    """A film of 2 s whose clock begins anew at `second` after the first."""
    parts = [
        film(
            tmp_path / f"{n}.ts",
            [numbered(25 * n + i) for i in range(25)],
            sound=sound,
            container_options={"output_ts_offset": offset},
        )
        for n, offset in enumerate(("10", second))
    ]
    return joined(tmp_path / "both.ts", *parts)


@pytest.mark.parametrize("sound", [None, "aac"])
@pytest.mark.parametrize("second", ["10", "3", "3600"], ids=["again", "back", "an hour on"])
@pytest.mark.parametrize("suffix", FILMS)
def test_a_clock_that_leaps_goes_on(tmp_path: Path, suffix: str, second: str, sound: str | None) -> None:
    source = two_parts(tmp_path, second, sound)
    notes = Notes()
    pictures = carried(source, tmp_path / f"out{suffix}", notes)
    assert without_repeats(numbers(pictures)) == list(range(50))
    assert end_of(pictures) == pytest.approx(2, abs=0.1)
    gaps = [float(b.time - a.time) for a, b in itertools.pairwise(pictures)]
    assert max(gaps) < 0.12
    assert min(gaps) > 0.03  # nothing is squeezed
    assert told(notes, "its clock leaps")
    if sound:
        assert sound_of(tmp_path / f"out{suffix}")[2] == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("second", ["10.96", "10.9"], ids=["stands", "back a little"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_clock_that_goes_back_a_little_costs_no_picture_and_squeezes_none(
    tmp_path: Path, suffix: str, second: str
) -> None:
    pictures = carried(two_parts(tmp_path, second, "aac"), tmp_path / f"out{suffix}")
    assert numbers(pictures) == list(range(50))
    assert end_of(pictures) == pytest.approx(2, abs=0.12)
    gaps = [float(b.time - a.time) for a, b in itertools.pairwise(pictures)]
    assert min(gaps) > 0.018
    assert max(gaps) < 0.05


# ------------------------------------------------------------------------------------------------ sound


@pytest.mark.parametrize("suffix", FILMS)
def test_damaged_sound_costs_sound_alone(tmp_path: Path, suffix: str) -> None:
    source = without_sound_packets(film(tmp_path / "in.ts", 50, sound="aac"))
    notes = Notes()
    pictures = carried(source, tmp_path / f"out{suffix}", notes)
    assert without_repeats(numbers(pictures)) == list(range(50))
    codecs, _, ends = sound_of(tmp_path / f"out{suffix}")
    assert codecs
    assert ends == pytest.approx(2, abs=0.2)
    assert told(notes, "of its sound are damaged")


@pytest.mark.parametrize("suffix", FILMS)
def test_what_an_edit_list_hides_is_not_heard_and_the_picture_begins_at_once(tmp_path: Path, suffix: str) -> None:
    whole = film(tmp_path / "whole.mp4", 100, sound="aac", options={"g": "25"})
    source = cut(whole, tmp_path / "in.mp4", 1.5)
    notes = Notes()
    pictures = carried(source, tmp_path / f"out{suffix}", notes)
    assert numbers(pictures)[0] == number_of(next(iter(read(probe(source), Notes()))).rgb)
    assert pictures[0].time == pytest.approx(0, abs=0.005)
    _, begins, ends = sound_of(tmp_path / f"out{suffix}")
    assert begins == pytest.approx(0, abs=0.025)
    assert ends == pytest.approx(end_of(pictures), abs=0.1)
    assert not told(notes, "announces")  # the file counts what it hides


@pytest.mark.parametrize("suffix", FILMS)
def test_silences_of_the_sound_stay_where_they_are(tmp_path: Path, suffix: str) -> None:
    source = film(tmp_path / "in.mkv", 100, sound="pcm_s16le", pieces=[(0.5, 1.0), (2.5, 3.5)])
    carried(source, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        loud = [
            (
                frame.time,
                np.abs(frame.to_ndarray().astype(float) / (1 if frame.format.name[:3] == "flt" else 32768)).max(),
            )
            for frame in container.decode(audio=0)
        ]
    for at, heard in ((0.75, True), (1.7, False), (3.0, True)):
        near = [level for begins, level in loud if begins is not None and abs(begins - at) < 0.1]
        assert (max(near, default=0.0) > 0.1) == heard, at


# ------------------------------------------------------------------------------------------------ rates


def browser_film(path: Path) -> tuple[Path, list[Fraction]]:
    """A recording with a nominal rate of 1000, uneven times, and sound that is longer than the pictures."""
    rng = np.random.default_rng(3)
    times = [Fraction(0)]
    for _ in range(49):
        times.append(times[-1] + Fraction(int(rng.integers(30, 60)), 1000))
    options = {"deadline": "realtime", "cpu-used": "8"}
    film(path, 50, codec="libvpx", rate=1000, times=times, sound="libopus", pieces=[(0.0, 4.0)], options=options)
    return path, times


@pytest.mark.parametrize("suffix", FILMS)
def test_a_rate_that_is_none_gives_way_to_the_mean(tmp_path: Path, suffix: str) -> None:
    source, times = browser_film(tmp_path / "in.webm")
    assert float(probe(source).rate) == pytest.approx(float(49 / times[-1]), rel=0.02)
    notes = Notes()
    pictures = carried(source, tmp_path / f"out{suffix}", notes)
    assert without_repeats(numbers(pictures)) == list(range(50))
    assert end_of(pictures) == pytest.approx(float(times[-1]), abs=0.1)
    assert not told(notes, "announces")


def test_a_count_is_said_only_where_the_file_counts(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", 20, sound="pcm_s16le", pieces=[(0.0, 2.0)])
    notes = Notes()
    assert len(list(read(probe(source), notes))) == 20
    assert not notes


@pytest.mark.parametrize("suffix", FILMS)
def test_slides_last_as_long_as_they_did(tmp_path: Path, suffix: str) -> None:
    source = film(tmp_path / "in.mp4", 4, rate=Fraction(1, 4), options={"bf": "0"})
    pictures = carried(source, tmp_path / f"out{suffix}")
    assert without_repeats(numbers(pictures)) == [0, 1, 2, 3]
    assert end_of(pictures) == pytest.approx(16, abs=0.1)


# ------------------------------------------------------------------------------------------------ names


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "in.mp4", 3, sound="aac").rename("12:30.mp4")
    assert numbers(carried(Path("12:30.mp4"), Path("http:0.mkv"))) == [0, 1, 2]


def test_a_name_that_no_file_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(VcamError, match="cannot be read"):
        probe(tmp_path / ("x" * 300 + ".mp4"))


# ------------------------------------------------------------------------------------------------ sizes


def test_pictures_of_several_sizes_become_a_film_unstretched_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n, size in enumerate([(160, 120), (120, 160), (320, 120), (320, 240)]):
        image(tmp_path / "in" / f"{n}.png", circle(*size))
    notes = Notes()
    pictures = carried(tmp_path / "in", tmp_path / "out.mp4", notes)
    assert [picture.rgb.shape for picture in pictures] == [(120, 160, 3)] * 4
    assert [aspect_of_circle(picture.rgb) for picture in pictures] == pytest.approx([1] * 4, abs=0.12)
    assert told(notes, "120x160")
    assert told(notes, "320x120")
    assert not told(notes, "320x240 among")  # of the film's own shape


@pytest.mark.parametrize("first", [True, False])
def test_a_damaged_picture_of_a_folder_costs_itself_alone_and_is_named(tmp_path: Path, first: bool) -> None:
    (tmp_path / "in").mkdir()
    for n in range(6):
        image(tmp_path / "in" / f"{n}.png", numbered(n))
    damaged = ("0.png", "4.png") if first else ("2.png", "4.png")
    whole = (tmp_path / "in" / damaged[0]).read_bytes()
    (tmp_path / "in" / damaged[0]).write_bytes(whole[: len(whole) // 4])
    (tmp_path / "in" / damaged[1]).write_bytes(b"no picture at all")
    left = [n for n in range(6) if f"{n}.png" not in damaged]
    for target in ("out", "out.mkv", "out.avi"):
        notes = Notes()
        pictures = carried(tmp_path / "in", tmp_path / target, notes)
        assert without_repeats(numbers(pictures)) == left
        assert all(told(notes, f"{tmp_path / 'in' / name}: cannot be read as a picture") for name in damaged)
        assert sum("it is left out" in note for note in notes) == 2


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp", ".avif"])
def test_a_picture_that_is_cut_off_is_told_as_that(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7):
        path.write_bytes(whole[: max(12, int(len(whole) * share))])
        with pytest.raises(VcamError, match=r"cannot be read as a (film or )?picture") as caught:
            probe(path)
        assert "permissions" not in str(caught.value)


def test_a_folder_of_damaged_pictures_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"{n}.png").write_bytes(b"no picture at all")
    with pytest.raises(VcamError, match=r"0\.png: cannot be read as a picture"):
        probe(tmp_path)


def test_a_size_that_changes_within_a_film_stretches_nothing(tmp_path: Path) -> None:
    parts = [
        film(tmp_path / f"{n}.ts", [circle(*size)] * 10, codec="mpeg2video")
        for n, size in enumerate([(160, 128), (128, 160), (320, 128)])
    ]
    notes = Notes()
    pictures = carried(joined(tmp_path / "in.ts", *parts), tmp_path / "out.mp4", notes)
    assert {picture.rgb.shape for picture in pictures} == {(128, 160, 3)}
    assert [aspect_of_circle(picture.rgb) for picture in pictures] == pytest.approx([1] * len(pictures), abs=0.12)
    assert told(notes, "the picture's size changes to 128x160")


def chunk(name: bytes, data: bytes) -> bytes:
    return pack(">I", len(data)) + name + data + pack(">I", zlib.crc32(name + data))


def large_png(path: Path, side: int) -> Path:
    """A grey picture of side x side pixels in a file of a few kilobytes to a megabyte."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (side + 1)) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def large_film(path: Path, side: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "threads": "1"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame(side, side, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for n in range(2):
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


PROBE = """
import sys
from pathlib import Path
from vcam.devices.video_loop import VideoLoop
from vcam.errors import VcamError
from vcam.video import probe

try:
    probe(Path(sys.argv[1]))
except VcamError as error:
    print(error)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)  # of this program alone: getrusage's counts who started it, too
"""


@pytest.mark.parametrize("name", ["30000.png", "16000.png", "8192.mp4", "8192.mkv", "8192.ts"])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_absurd_sizes_are_refused_by_their_header(tmp_path: Path, name: str) -> None:
    side = int(Path(name).stem)
    (large_png if name.endswith(".png") else large_film)(tmp_path / name, side)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said, measured = done.stdout.splitlines()
    assert "scale it first" in said
    megabytes = float(measured)
    assert megabytes < 1000


# ------------------------------------------------------------------------------------------------ pictures with pages


def pages(path: Path, count: int = 4) -> Path:
    first, *others = (Image.fromarray(numbered(n)) for n in range(count))
    more: dict[str, Any] = {} if path.suffix == ".tif" else {"duration": [100 * (n + 1) for n in range(count)]}
    if path.suffix == ".webp":
        more["lossless"] = True
    first.save(path, save_all=True, append_images=others, **more)
    return path


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif"])
def test_an_animation_becomes_a_film(tmp_path: Path, suffix: str) -> None:
    media = probe(pages(tmp_path / f"in{suffix}"))
    assert (media.kind, media.frames, media.animated) == (Kind.VIDEO, 4, True)
    pictures = carried(media.path, tmp_path / "out.mp4")
    assert numbers(pictures) == [0, 1, 2, 3]
    expected = [0, 0.04, 0.08, 0.12] if suffix == ".tif" else [0, 0.1, 0.3, 0.6]
    assert [float(picture.time) for picture in pictures] == pytest.approx(expected, abs=0.002)
    folder = carried(media.path, tmp_path / "out")
    assert numbers(folder) == [0, 1, 2, 3]


def test_an_animation_that_becomes_a_picture_is_said(tmp_path: Path) -> None:
    notes = Notes()
    media = for_picture(probe(pages(tmp_path / "in.webp")), notes)
    assert media.kind is Kind.IMAGE
    assert numbers(list(read(media, notes))) == [0]
    assert told(notes, "the first of its 4 pictures alone")


def test_in_a_folder_the_first_picture_of_an_animation_is_taken_and_it_is_said(tmp_path: Path) -> None:
    pages(tmp_path / "1.png")
    image(tmp_path / "2.png", numbered(9))
    notes = Notes()
    assert numbers(list(read(probe(tmp_path), notes))) == [0, 9]
    assert told(notes, "it holds 4 pictures")


@pytest.mark.parametrize("name", ["photo.avif", "photo.mp4", "photo"])
def test_an_avif_photo_is_a_photo_whatever_its_name(tmp_path: Path, name: str) -> None:
    Image.fromarray(numbered(77)).save(tmp_path / "photo.avif", quality=95)
    (tmp_path / "photo.avif").rename(tmp_path / name)
    media = probe(tmp_path / name)
    assert (media.kind, media.width, media.height) == (Kind.IMAGE, 64, 48)
    assert numbers(list(read(media))) == [77]
    with pytest.raises(VcamError, match="a single picture becomes a picture"), writing(tmp_path / "out.mp4", media):
        pass


def test_a_photo_that_only_ffmpeg_knows_is_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.jp2"), "w", format="image2") as container:
        stream = container.add_stream("jpeg2000", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(1), "rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(VcamError, match=r"a photo, not a film.*convert it to PNG or JPEG"):
        probe(tmp_path / "in.jp2")


# ------------------------------------------------------------------------------------------------ all of it

GAPS = st.lists(st.integers(1, 400), min_size=0, max_size=12)  # ms
# tenths of a second: pause and length. In MPEG-TS a pause of picture and sound of more than 2 s is a leap.
PIECES = st.lists(st.tuples(st.integers(0, 19), st.integers(1, 20)), min_size=1, max_size=3)
SOUND = {".ts": "mp2", ".mkv": "pcm_s16le", ".mp4": "aac", ".mov": "aac"}


@dataclass(frozen=True)
class AnyFilm:
    """Even or uneven times, a size, a pixel format, a rotation, a container, and sound of any times or none."""

    times: list[Fraction]
    size: tuple[int, int]
    pixel_format: str | None
    rotation: int | None
    suffix: str
    pieces: list[tuple[float, float]] | None

    def written(self, folder: Path) -> Path:
        odd = self.size[0] % 2 or self.size[1] % 2
        return film(
            folder / f"in{self.suffix}",
            len(self.times),
            times=self.times,
            size=self.size,
            pixel_format="yuv444p" if odd else self.pixel_format,
            rotation=self.rotation,
            sound=SOUND[self.suffix] if self.pieces else None,
            pieces=self.pieces,
        )


@st.composite
def any_film(draw: st.DrawFn) -> AnyFilm:
    times = [Fraction(ms, 1000) for ms in itertools.accumulate([draw(st.integers(0, 500)), *draw(GAPS)])]
    begins, pieces = 0, []
    for pause, length in draw(PIECES):
        begins += pause
        pieces.append((begins / 10, (begins + length) / 10))
        begins += length
    return AnyFilm(
        times,
        draw(st.sampled_from([(64, 48), (48, 64), (65, 49), (96, 32)])),
        draw(st.sampled_from([None, "yuv444p", "yuv420p10le"])),
        draw(st.sampled_from([None, 90, 180, -90])),
        draw(st.sampled_from(sorted(SOUND))),
        draw(st.sampled_from([None, pieces])),
    )


@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(any_film(), st.sampled_from(FILMS))
def test_any_film_comes_out_whole_in_order_and_as_long(
    tmp_path_factory: pytest.TempPathFactory, source: AnyFilm, target: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = source.written(folder)
    media = probe(path)
    before = list(read(media, Notes()))
    notes = Notes()
    after = carried(path, folder / f"out{target}", notes)
    frame = float(max(1 / media.rate, before[-1].duration))
    assert after[0].rgb.shape == before[0].rgb.shape
    assert all(a.time < b.time for a, b in itertools.pairwise(after))
    assert abs(end_of(after) - end_of(before)) <= frame + 0.02
    if target == ".avi":
        assert len(after) >= len(before) or told(notes, "left out")
    else:
        assert [float(p.time) for p in after] == pytest.approx([float(p.time) for p in before], abs=0.002)
        difference = [np.abs(a.rgb.astype(int) - b.rgb).mean() for a, b in zip(after, before, strict=True)]
        assert max(difference) < 12
    if source.pieces:
        codecs, _, ends = sound_of(folder / f"out{target}")
        assert codecs
        assert ends == pytest.approx(sound_of(path)[2] - float(media.start_s), abs=0.15)


@pytest.mark.parametrize("second", ["10", "3", "3600"], ids=["again", "back", "an hour on"])
def test_a_film_whose_clock_leaps_goes_on_as_a_live_source(tmp_path: Path, second: str) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    source = VideoLoop(two_parts(tmp_path, second, None), lambda: now[0], sleep)
    shown = [frame for _ in range(400) if (frame := source.read(0.1)) is not None][:100]
    source.close()
    assert [number_of(frame.picture) for frame in shown] == [*range(50), *range(50)]
    gaps = [b.captured_s - a.captured_s for a, b in itertools.pairwise(shown)]
    assert max(gaps) < 0.12


def small_gif() -> bytes:
    """Two pictures of 16x16, which differ everywhere."""
    random, out = np.random.default_rng(0), io.BytesIO()
    first, *rest = (Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)) for _ in range(2))
    first.save(out, "GIF", save_all=True, append_images=rest, duration=80)
    return out.getvalue()


def test_an_animation_cut_off_anywhere_is_a_picture_or_one_line(tmp_path: Path) -> None:
    whole, path = small_gif(), tmp_path / "cut.png"  # whose name makes it a picture, whatever it holds
    counts = set()
    for length in range(len(whole) - 900, len(whole), 7):
        path.write_bytes(whole[:length])
        with contextlib.suppress(VcamError):
            counts.add(probe(path).frames)
    assert counts
    descriptor = whole.rindex(b"\x2c\x00\x00\x00\x00\x10\x00\x10\x00")
    path.write_bytes(whole[: descriptor + 9])  # Pillow raises IndexError
    with contextlib.suppress(VcamError):
        assert probe(path).frames == 1


def test_an_absurd_picture_within_an_animation_ends_it_in_words(tmp_path: Path) -> None:
    whole, path = small_gif(), tmp_path / "bomb.png"
    descriptor = whole.rindex(b"\x2c\x00\x00\x00\x00\x10\x00\x10\x00")
    path.write_bytes(whole[: descriptor + 5] + b"\xff\xff\xff\xff" + whole[descriptor + 9 :])
    with contextlib.suppress(VcamError):
        assert probe(path).frames in (1, 2)
