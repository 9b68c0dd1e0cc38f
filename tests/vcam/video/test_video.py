"""Films, pictures and folders of pictures: read and written whole, in order, upright, in the right colours."""

from __future__ import annotations

import os
import resource
import signal
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.support.media_files import film, image, number_of, numbered, sound_of
from vcam.errors import VcamError
from vcam.video import (
    LARGEST,
    VIDEO_SUFFIXES,
    Kind,
    Media,
    Picture,
    natural,
    on_grid,
    probe,
    read,
    resized,
    writing,
)
from vcam.video.film_writing import clock_of


class Notes(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


def copy(source: Path, target: Path, notes: Notes | None = None, cut: bool = False, frames: int | None = None) -> Media:
    """Carry `source` over to `target` and look at the result."""
    notes = Notes() if notes is None else notes
    media = probe(source)
    with writing(target, media, notes) as writer:
        for index, picture in enumerate(read(media, notes)):
            if frames is not None and index >= frames:
                break
            writer.write(picture)
        writer.finish(cut=cut)
    return probe(target)


def numbers(path: Path) -> list[int]:
    return [number_of(p.rgb) for p in read(probe(path), Notes())]


def times(path: Path) -> list[Fraction]:
    return [p.time for p in read(probe(path), Notes())]


# ------------------------------------------------------------------------------------------------ whole and in order

CODECS = [
    (".mp4", "libx264"),
    (".mp4", "libx265"),
    (".mkv", "libvpx-vp9"),
    (".webm", "libvpx-vp9"),
    (".avi", "mjpeg"),
    (".mkv", "libx265"),
    (".mov", "libx264"),
    (".avi", "mpeg4"),
]


@pytest.mark.parametrize(("suffix", "codec"), CODECS)
def test_every_picture_of_every_codec_is_read_in_order(tmp_path: Path, suffix: str, codec: str) -> None:
    options = {"deadline": "realtime", "cpu-used": "8"} if "vpx" in codec else {"x265-params": "log-level=none"}
    source = film(tmp_path / f"in{suffix}", 20, codec=codec, options=options)
    media = probe(source)
    assert (media.kind, media.width, media.height, media.rate) == (Kind.VIDEO, 64, 48, Fraction(25))
    assert numbers(source) == list(range(20))
    assert times(source) == [Fraction(i, 25) for i in range(20)]


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_the_result_has_the_same_pictures_size_and_times(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    source = film(tmp_path / "in.mp4", 15, rate=rate)
    result = copy(source, tmp_path / f"out{suffix}")
    assert (result.width, result.height) == (64, 48)
    assert float(result.rate) == pytest.approx(float(rate), rel=1e-3)
    assert result.duration_s == pytest.approx(float(15 / rate), abs=0.002)
    assert numbers(result.path) == list(range(15))
    assert times(result.path) == [i / rate for i in range(15)]


def test_a_matroska_clock_of_milliseconds_does_not_make_the_rate_uneven(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", 31, rate=30)
    result = copy(source, tmp_path / "out.mp4")
    assert times(result.path) == [Fraction(i, 30) for i in range(31)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_an_uneven_rate_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    wanted = [Fraction(n, 1000) for n in (0, 40, 53, 200, 201, 333, 1000, 1040)]
    source = film(tmp_path / "in.mp4", 8, times=wanted)
    result = copy(source, tmp_path / f"out{suffix}")
    got = times(result.path)
    assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= Fraction(1, 1000)
    assert numbers(result.path) == list(range(8))


def test_an_uneven_rate_in_avi_is_made_even_and_said(tmp_path: Path) -> None:
    notes = Notes()
    source = film(tmp_path / "in.mp4", 4, times=[Fraction(n, 1000) for n in (0, 40, 300, 340)])
    result = copy(source, tmp_path / "out.avi", notes)
    assert numbers(result.path) == [0, 1, 2, 3]
    assert any("uneven" in note for note in notes)


@examples(max_examples=200)
@given(st.integers(0, 10_000), st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(60)]))
def test_rounding_to_milliseconds_is_undone(index: int, rate: Fraction) -> None:
    rounded = Fraction(round(index / rate * 1000), 1000)
    assert on_grid(rounded, rate, Fraction(1, 1000)) == index / rate


@given(
    st.sampled_from([Fraction(1, n) for n in (1000, 600, 12800, 15360, 90000, 48000)]),
    st.sampled_from(
        [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(48, 5), Fraction(27341, 911)]
    ),
)
def test_the_clock_holds_the_source_s_ticks(tick: Fraction, rate: Fraction) -> None:
    clock = clock_of(tick, rate)
    assert (tick / clock).denominator == 1
    assert clock.denominator <= 1_000_000
    if clock.denominator % rate.numerator == 0:
        assert (1 / rate / clock).denominator == 1


# ------------------------------------------------------------------------------------------------ size and direction


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
@pytest.mark.parametrize("size", [(65, 49), (64, 51), (33, 64)])
def test_odd_sizes_lose_no_row_or_column(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    source = film(tmp_path / "in.mp4", 3, size=size)
    result = copy(source, tmp_path / f"out{suffix}")
    assert (result.width, result.height) == size
    assert numbers(result.path) == [0, 1, 2]


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("mirror", [False, True])
def test_turned_films_come_upright(tmp_path: Path, rotation: int, mirror: bool) -> None:
    stored = np.full((48, 64, 3), 128, np.uint8)
    stored[:24, :32] = (220, 30, 30)  # top left
    stored[:24, 32:] = (30, 220, 30)  # top right
    stored[24:, :32] = (30, 30, 220)  # bottom left
    source = film(tmp_path / "in.mp4", [stored] * 3, rotation=rotation, mirror=mirror)
    shown = np.rot90(stored, rotation // 90)  # counter-clockwise, then mirrored
    if mirror:
        shown = shown[:, ::-1]
    media = probe(source)
    assert (media.height, media.width) == shown.shape[:2]
    picture = next(iter(read(media, Notes()))).rgb
    assert np.abs(picture.astype(int) - shown).mean() < 8
    result = copy(source, tmp_path / "out.mp4")
    assert (result.height, result.width) == shown.shape[:2]
    assert (probe(result.path).height, probe(result.path).width) == shown.shape[:2]


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    result = copy(film(tmp_path / "in.mp4", 2, aspect=Fraction(4, 3)), tmp_path / "out.mp4")
    assert result.pixel_aspect == Fraction(4, 3)


def test_a_change_of_size_in_the_film_is_answered(tmp_path: Path) -> None:
    parts = [film(tmp_path / f"{w}.ts", 3, size=(w, 48), codec="mpeg2video") for w in (64, 96)]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(p.read_bytes() for p in parts))
    notes = Notes()
    pictures = list(read(probe(both), notes))
    assert {p.rgb.shape for p in pictures} == {(48, 64, 3)}
    assert any("size changes" in note for note in notes)


# ------------------------------------------------------------------------------------------------ sound


@pytest.mark.parametrize(
    ("suffix", "sound", "target", "expected"),
    [
        (".mp4", "aac", ".mp4", "aac"),
        (".mp4", "aac", ".mkv", "aac"),
        (".mkv", "libopus", ".webm", "opus"),
        (".mkv", "libopus", ".mp4", "opus"),
        (".mp4", "aac", ".webm", "opus"),
        (".mkv", "pcm_s16le", ".mp4", "aac"),
        (".avi", "pcm_s16le", ".avi", "pcm_s16le"),
        (".mp4", "aac", ".avi", "mp3"),
        (".mkv", "pcm_s16le", ".mov", "pcm_s16le"),
    ],
)
def test_the_sound_is_carried_over(tmp_path: Path, suffix: str, sound: str, target: str, expected: str) -> None:
    notes = Notes()
    source = film(tmp_path / f"in{suffix}", 50, sound=sound)
    result = copy(source, tmp_path / f"out{target}", notes)
    codecs, begins, ends = sound_of(result.path)
    assert [c.removesuffix("float") for c in codecs] == [expected]
    assert begins == pytest.approx(0, abs=0.06)
    assert ends == pytest.approx(2, abs=0.08)
    copied = probe(source).audio == result.audio
    assert copied != any("encoded again" in note for note in notes)
    if copied and expected == "aac":  # not one bit changed; what lies before zero is kept where it can be hidden
        assert packets(source)[0 if target == ".mp4" else 1 :] == packets(result.path)


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


def test_a_film_that_is_cut_ends_its_sound_too(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 75, sound="aac")
    result = copy(source, tmp_path / "out.mp4", cut=True, frames=25)
    assert sound_of(result.path)[2] == pytest.approx(1, abs=0.05)
    assert len(numbers(result.path)) == 25


def test_sound_and_picture_that_begin_late_stay_together(tmp_path: Path) -> None:
    source = film(tmp_path / "in.ts", 30, sound="aac", codec="mpeg2video")  # MPEG-TS begins at 1.4 s
    result = copy(source, tmp_path / "out.mp4")
    assert times(result.path)[0] == pytest.approx(0, abs=0.05)
    assert sound_of(result.path)[1] == pytest.approx(0, abs=0.05)


# ------------------------------------------------------------------------------------------------ colours

BARS = np.array(
    [
        [235, 235, 235],
        [230, 230, 20],
        [20, 230, 230],
        [20, 220, 20],
        [220, 20, 220],
        [220, 20, 20],
        [20, 20, 220],
        [16] * 3,
    ]
)
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # H.273: matrix -> Kr, Kb


def bars(width: int = 128, height: int = 64) -> np.ndarray:
    return np.repeat(np.repeat(BARS[None], width // 8, 1), height, 0).astype(np.uint8)


def to_yuv(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """The defining formulas of H.273, written out: RGB -> Y'CbCr 4:4:4 [3, height, width]."""
    kr, kb = WEIGHTS[matrix]
    r, g, b = (rgb[..., i].astype(float) / 255 for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / 2 / (1 - kb), (r - y) / 2 / (1 - kr)
    planes = (255 * y, 128 + 255 * cb, 128 + 255 * cr) if full else (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr)
    return np.rint(np.stack(planes)).clip(0, 255).astype(np.uint8)


def colour_film(path: Path, matrix: int, full: bool, tagged: bool = True) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv444p"
        context = stream.codec_context
        if tagged:
            context.colorspace, context.color_range = matrix, 2 if full else 1
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(to_yuv(bars(), matrix, full), "yuv444p")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_are_respected_in_and_out(tmp_path: Path, matrix: int, full: bool) -> None:
    source = colour_film(tmp_path / "in.mp4", matrix, full)
    assert np.abs(next(iter(read(probe(source)))).rgb.astype(int) - bars()).max() <= 4
    result = copy(source, tmp_path / "out.mp4")
    assert result.matrix == matrix
    with av.open(str(result.path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (matrix, 1)
        written = frame.reformat(format="yuv444p").to_ndarray()[:, 32, 8::16]
    middle = to_yuv(bars(), matrix, False)[:, 32, 8::16]  # the middle of each bar: chroma is subsampled
    assert np.abs(written.astype(int) - middle).max() <= 4


def test_an_untagged_small_film_is_taken_for_bt601(tmp_path: Path) -> None:
    source = colour_film(tmp_path / "in.mp4", 6, False, tagged=False)
    assert np.abs(next(iter(read(probe(source)))).rgb.astype(int) - bars()).max() <= 4
    assert copy(source, tmp_path / "out.mp4").matrix == 6


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_a_colour_bar_comes_back_from_every_container(tmp_path: Path, suffix: str) -> None:
    source = colour_film(tmp_path / "in.mp4", 1, False)
    result = copy(source, tmp_path / f"out{suffix}")
    got = next(iter(read(probe(result.path)))).rgb[32, 8::16].astype(int)
    assert np.abs(got - BARS).max() <= 8


def test_full_range_mjpeg_becomes_right_h264(tmp_path: Path) -> None:
    source = film(tmp_path / "in.avi", [bars()] * 2, codec="mjpeg", options={"qmin": "1", "qmax": "1"})
    result = copy(source, tmp_path / "out.mp4")
    got = next(iter(read(probe(result.path)))).rgb[32, 8::16].astype(int)
    assert np.abs(got - BARS).max() <= 8


# ------------------------------------------------------------------------------------------------ pictures and folders


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_a_picture_becomes_a_picture(tmp_path: Path, suffix: str) -> None:
    source = image(tmp_path / f"in{suffix}", numbered(77, 65, 49))
    result = copy(source, tmp_path / f"out{suffix}")
    assert (result.kind, result.width, result.height) == (Kind.IMAGE, 65, 49)
    assert numbers(result.path) == [77]


def test_transparency_is_kept_where_the_file_can_hold_it(tmp_path: Path) -> None:
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    source = image(tmp_path / "in.png", np.dstack([numbered(9), alpha]))
    picture = next(iter(read(probe(source))))
    assert picture.alpha is not None
    assert (picture.alpha == alpha).all()
    assert (picture.rgb[:, :32] == 255).all()  # over white
    assert (picture.rgb[:, 32:] == numbered(9)[:, 32:]).all()
    kept = next(iter(read(copy(source, tmp_path / "out.png"))))
    assert kept.alpha is not None
    assert (kept.alpha == alpha).all()
    assert next(iter(read(copy(source, tmp_path / "out.jpg")))).alpha is None


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_and_16_bit_pictures_are_read_alike(tmp_path: Path, depth: type, channels: int) -> None:
    grey = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    pixels: np.ndarray = grey if channels == 1 else np.dstack([grey] * 3)
    if channels == 4:
        pixels = np.dstack([pixels, np.full_like(grey, 255)])
    if depth is np.uint16:
        pixels = pixels.astype(np.uint16) * 257
    notes = Notes()
    picture = next(iter(read(probe(image(tmp_path / "in.png", pixels)), notes)))
    assert np.abs(picture.rgb.astype(int) - grey[..., None]).max() <= 1
    assert bool(notes) == (depth is np.uint16)


def test_a_photo_turned_by_exif_comes_upright(tmp_path: Path) -> None:
    jpeg = image(tmp_path / "plain.jpg", numbered(5)).read_bytes()
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    (tmp_path / "in.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    media = probe(tmp_path / "in.jpg")
    assert (media.width, media.height) == (48, 64)
    assert number_of(np.rot90(next(iter(read(media))).rgb)) == 5


def test_a_folder_is_read_in_natural_order_and_keeps_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2, 9, 10, 11, 100):
        image(folder / f"shot {number}.png", numbered(number))
    (folder / "notes.txt").write_text("no picture")
    image(folder / ".hidden.png", numbered(200))
    assert numbers(folder) == [1, 2, 9, 10, 11, 100]
    result = copy(folder, tmp_path / "out")
    assert [p.name for p in result.pictures] == [f"shot {n}.png" for n in (1, 2, 9, 10, 11, 100)]
    assert numbers(result.path) == [1, 2, 9, 10, 11, 100]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_a_folder_becomes_a_film_and_a_film_a_folder(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 7)
    folder = copy(source, tmp_path / "pictures")
    assert [p.name for p in folder.pictures] == [f"{i:06d}.png" for i in range(1, 8)]
    again = copy(folder.path, tmp_path / "again.mp4")
    assert (again.rate, numbers(again.path)) == (Fraction(25), list(range(7)))


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=8, unique=True))
def test_natural_order_is_the_order_of_numbers(values: list[int]) -> None:
    names = sorted((f"picture {value}.png" for value in values), key=natural)
    assert names == [f"picture {value}.png" for value in sorted(values)]


@given(st.lists(st.text(max_size=12), max_size=6))
def test_natural_order_takes_any_name(values: list[str]) -> None:
    backwards = values[::-1]
    assert sorted(values, key=natural) == sorted(backwards, key=natural)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_resizing_an_even_colour_leaves_it(width: int, height: int, value: int) -> None:
    rgb = np.full((17, 23, 3), value, np.uint8)
    result = resized(rgb, width, height)
    assert result.shape == (height, width, 3)
    assert (result == value).all()


# ------------------------------------------------------------------------------------------------ what goes wrong


def fails(match: str, call: object, *arguments: object) -> None:
    with pytest.raises(VcamError, match=match) as raised:
        call(*arguments)  # type: ignore[operator]
    assert "\n" not in str(raised.value)
    assert ";" in str(raised.value) or ":" in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    fails(r"nowhere\.mp4: no such file", probe, tmp_path / "nowhere.mp4")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    fails(r"empty\.mp4: the file is empty", probe, tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "text.png", "text", "text.avi"])
def test_a_text_is_no_film(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is not a film.\n" * 100)
    fails(name, probe, tmp_path / name)


def test_noise_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    fails("noise.mp4", probe, tmp_path / "noise.mp4")


def test_sound_alone_is_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    fails(r"song\.m4a: no video stream \(it holds only sound\)", probe, tmp_path / "song.m4a")


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    fails("no pictures in this folder", probe, tmp_path)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    good = image(tmp_path / "in.png", numbered(1)).read_bytes()
    (tmp_path / "in.png").write_bytes(good[:40])
    fails("in.png", probe, tmp_path / "in.png")


@pytest.mark.parametrize("size", [(8, 64), (64, 8), (LARGEST + 16, 64)])
def test_absurd_sizes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    fails(
        "each side must be between 16 and 8192", probe, image(tmp_path / "in.png", np.zeros((*size[::-1], 3), np.uint8))
    )


def test_a_picture_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    fails("bomb.png", probe, tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mp4"])
def test_a_cut_off_film_gives_what_is_there_and_says_so(tmp_path: Path, suffix: str) -> None:
    codec = "mjpeg" if suffix == ".avi" else "libx264"
    source = film(
        tmp_path / f"in{suffix}",
        40,
        codec=codec,
        options={"g": "5", "bf": "0"},
        container_options={"movflags": "+faststart"} if suffix == ".mp4" else {},
    )
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 6 // 10])
    notes = Notes()
    got = [number_of(p.rgb) for p in read(probe(source), notes)]
    assert 3 < len(got) < 40
    assert got[:3] == [0, 1, 2]
    told = ("of the 40 pictures that the file announces", "stops early", "damaged")
    assert any(words in note for note in notes for words in told)


def test_a_film_whose_index_is_cut_off_is_an_error(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", 10)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    fails("cut off", probe, source)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("in.mp4", "the output is the input"),
        ("nowhere/out.mp4", "does not exist; create it"),
        ("out.xyz", "unknown suffix .xyz"),
        ("out.png", "a film becomes a film"),
        ("full", "is not empty"),
        ("file", "has no suffix that says"),
    ],
)
def test_an_impossible_target_is_refused_before_any_work(tmp_path: Path, target: str, match: str) -> None:
    media = probe(film(tmp_path / "in.mp4", 2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    (tmp_path / "file").touch()
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(VcamError, match=match), writing(tmp_path / target, media):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_picture_does_not_become_a_film(tmp_path: Path) -> None:
    media = probe(image(tmp_path / "in.png", numbered(0)))
    for target in (tmp_path / "out.mp4", tmp_path / "folder"):
        with pytest.raises(VcamError), writing(target, media):
            pass


def test_a_folder_is_not_written_into_itself(tmp_path: Path) -> None:
    image(tmp_path / "1.png", numbered(0))
    with pytest.raises(VcamError, match="lies in the input folder"), writing(tmp_path / "out", probe(tmp_path)):
        pass


@pytest.mark.parametrize("target", ["out.mp4", "out.webm", "out", "out.avi"])
def test_an_error_keeps_the_old_file_and_what_was_made_beside_it(tmp_path: Path, target: str) -> None:
    media = probe(film(tmp_path / "in.mp4", 3, sound="aac"))
    if "." in target:
        (tmp_path / target).write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_and_break(media, tmp_path / target)
    kept = f"out.incomplete{Path(target).suffix}"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {"in.mp4", kept} | ({target} if "." in target else set())
    )
    assert numbers(tmp_path / kept) == [0, 1, 2]
    if "." in target:
        assert (tmp_path / target).read_text() == "old"


def write_and_break(media: Media, target: Path) -> None:
    with writing(target, media, Notes()) as writer:
        for picture in read(media):
            writer.write(picture)
        _ = 1 / 0


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    media = probe(film(tmp_path / "in.mp4", 3))
    for target in ("out.mp4", "out"):
        with pytest.raises(VcamError, match="nothing was written"), writing(tmp_path / target, media) as writer:
            writer.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
@pytest.mark.parametrize("target", ["out.mp4", "out.avi", "out", "out.mkv"])
def test_a_disk_that_takes_no_more_is_said_and_what_was_made_plays(tmp_path: Path, target: str) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(60)]
    media = probe(film(tmp_path / "in.mp4", noise, options={"preset": "ultrafast", "qp": "20"}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(VcamError, match="cannot be written") as raised:
            copy(media.path, tmp_path / target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert "another disk" in str(raised.value)
    assert not (tmp_path / target).exists()
    kept = tmp_path / f"out.incomplete{Path(target).suffix}"
    assert {p.name for p in tmp_path.iterdir()} <= {"in.mp4", kept.name}
    assert target in ("out.mp4", "out") or list(read(probe(kept), Notes()))  # of those nothing fits into 20 kB


def test_a_place_that_takes_no_file_is_said(tmp_path: Path) -> None:
    media = probe(film(tmp_path / "in.mp4", 2))
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc")
    with pytest.raises(VcamError, match="cannot be written"), writing(Path("/proc/out.mp4"), media):
        pass


def test_an_image_written_by_writing_is_what_was_given(tmp_path: Path) -> None:
    media = probe(image(tmp_path / "in.png", numbered(0)))
    with writing(tmp_path / "out.png", media) as writer:
        writer.write(Picture(numbered(201)))
        writer.finish()
    written = cv2.imread(str(tmp_path / "out.png"))
    assert written is not None
    assert (written[..., ::-1] == numbered(201)).all()
    assert os.path.getsize(tmp_path / "out.png") > 0
