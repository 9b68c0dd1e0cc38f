"""What is known of the pictures that are on their way to a server and back."""

from __future__ import annotations

from vcam.remote.on_the_way import MEASURED, PARTS, TOLD_AGAIN, SentPicture, WayTimes
from vcam.remote.protocol import Answer
from vcam.worker.messages import TranslateFrame

SENT = SentPicture(TranslateFrame(0, 0.0, False), 0.0, 1.0)


def add(times: WayTimes, trip_ms: float) -> None:
    """An answer that was 1 ms in the codec at each of four places, 2 waiting and 3 in the engine."""
    times.add(SENT, Answer(0, 0, 2.0, 3.0, 1.0, 1.0, 0), trip_ms, 1.0)


def test_each_part_of_the_way_is_told_apart() -> None:
    times = WayTimes()
    assert times.spreads() == {}
    add(times, 20.0)
    assert {part: one.p50_ms for part, one in times.spreads().items()} == {
        "round trip": 22.0,  # with our encoding and decoding
        "encode": 2.0,
        "network": 13.0,  # of the 20 all but what the server says that it took: 2 + 3 + 1 + 1
        "engine": 5.0,
        "decode": 2.0,
    }
    assert tuple(times.spreads()) == PARTS


def test_half_and_nineteen_of_twenty_are_told_and_not_worked_out_at_each_picture() -> None:
    """They are asked for before each picture is shown."""
    times = WayTimes()
    for number in range(TOLD_AGAIN):
        add(times, float(number))
        assert times.spreads()["round trip"].p95_ms == number + 2
    told = times.spreads()
    for number in range(TOLD_AGAIN - 1):
        add(times, 100.0 + number)
        assert times.spreads() is told
    add(times, 200.0)
    assert times.spreads()["round trip"].p95_ms > 100
    for number in range(MEASURED):
        add(times, float(number))
    spread = times.spreads()["round trip"]
    assert (spread.p50_ms, spread.p95_ms) == (MEASURED // 2 + 2, int(0.95 * MEASURED) + 2)
