"""Pictures as H.264: near what they were, small, whole where one begins, and never more work than one picture is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import pytest

from vcam.errors import CodecError
from vcam.frames import Picture
from vcam.remote import h264
from vcam.remote.h264 import Decoder, Encoder, available
from vcam.remote.jpegs import to_jpeg

SIZE = (96, 64)
KEY, SLICE = b"\0\0\1\x65", b"\0\0\1\x41"  # how the unit of a whole picture begins, and of another one


def film(count: int = 6, size: tuple[int, int] = SIZE) -> list[Picture]:
    """A soft picture that moves to the right."""
    across, down = np.meshgrid(np.arange(size[0] + count), np.arange(size[1]))
    waves = [128 + 90 * np.sin(across / 9 + colour) * np.cos(down / 7) for colour in range(3)]
    whole = np.stack(waves, axis=2).astype(np.uint8)
    return [np.ascontiguousarray(whole[:, at : at + size[0]]) for at in range(count)]


def psnr(a: Picture, b: Picture) -> float:
    return 10 * math.log10(255**2 / max(1e-9, float(np.mean((a.astype(float) - b) ** 2))))


@pytest.mark.parametrize("size", [(96, 64), (72, 88), (256, 192)])
def test_pictures_come_back_in_order_near_what_they_were_and_smaller_than_jpeg(size: tuple[int, int]) -> None:
    assert available()
    encoder, decoder = Encoder(size), Decoder(size)
    pictures = film(size=size)
    coded = [encoder.encode(one) for one in pictures]
    for one, data in zip(pictures, coded, strict=True):
        assert psnr(decoder.decode(data), one) > 32
    assert KEY in coded[0]
    assert not any(KEY in one for one in coded[1:])
    assert sum(map(len, coded)) < sum(len(to_jpeg(one)) for one in pictures)


def test_one_that_is_missing_is_noticed_and_a_stream_begins_with_a_whole_one() -> None:
    encoder = Encoder(SIZE)
    first, second, third = (encoder.encode(one) for one in film(3))
    with pytest.raises(CodecError, match="needs one before it, which did not come"):
        Decoder(SIZE).decode(second)
    decoder = Decoder(SIZE)
    decoder.decode(first)
    with pytest.raises(CodecError, match="needs one before it, which did not come"):
        decoder.decode(third)


def bombs() -> dict[str, bytes]:
    """Messages of few bytes that claim to be more work than a picture of SIZE."""
    one = Encoder(SIZE)
    first, second = (one.encode(picture) for picture in film(2))
    of_it = second[second.index(SLICE) :]
    return {
        "is not one picture in one slice": first + 2000 * of_it,
        "cannot be decoded": Encoder((1024, 1024)).encode(np.zeros((1024, 1024, 3), np.uint8)),
        "no H.264 of ours": first[:4] + b"\1" + first[4:],  # as a decoder's other form begins, whose units have no mark
        "not one picture of": Encoder((64, 64)).encode(film(size=(64, 64))[0]),
        "more than its pixels need": first + b"\xff" * 4_000_000,
    }


@pytest.mark.parametrize("words", bombs())
def test_what_would_cost_more_than_one_picture_is_refused(words: str) -> None:
    with pytest.raises(CodecError, match=words):
        Decoder(SIZE).decode(bombs()[words])


def test_a_message_of_nothing_but_units_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of them would be looked for while no other thread runs."""
    found: list[object] = []
    unit = h264._UNIT

    class Counted:
        def finditer(self, data: bytes) -> Iterator[re.Match[bytes]]:
            for one in unit.finditer(data):
                found.append(one)
                yield one

    monkeypatch.setattr(h264, "_UNIT", Counted())
    with pytest.raises(CodecError, match="is not one picture in one slice"):
        Decoder((1024, 1024)).decode(KEY[:4] + b"\0\0\1\6" * 700_000)
    assert len(found) <= h264.MOST_UNITS + 1


@pytest.mark.parametrize("data", [b"", b"\0", b"\0" * 9, b"\0\0\0\0" + KEY, b"\0\0\0\0" + KEY + b"\xff" * 90])
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        Decoder(SIZE).decode(data)


def test_a_damaged_stream_is_refused_or_of_its_size() -> None:
    chance = np.random.default_rng(0)
    encoder = Encoder(SIZE)
    coded = [encoder.encode(one) for one in film(3)]
    for _ in range(60):
        decoder, data = Decoder(SIZE), bytearray(coded[1])
        decoder.decode(coded[0])
        for at in chance.integers(4, len(data), 4):
            data[at] = chance.integers(0, 256)
        try:
            assert decoder.decode(bytes(data)).shape == (64, 96, 3)
        except CodecError:
            continue
