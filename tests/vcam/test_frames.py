"""The newest-wins slot."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from tests.support.patience import PATIENCE_S
from vcam.frames import LatestSlot


def test_the_newest_put_wins_and_what_nobody_took_is_counted() -> None:
    slot: LatestSlot[int] = LatestSlot()
    for value in (1, 2, 3):
        slot.put(value)
    assert slot.take() == 3
    assert slot.take() is None
    assert slot.dropped == 2
    assert slot.newest == 3


def test_cleared_values_are_gone_and_do_not_count() -> None:
    slot: LatestSlot[int] = LatestSlot()
    slot.put(1)
    slot.clear()
    assert slot.take() is None
    assert slot.newest is None
    assert slot.dropped == 0


def test_take_waits_for_a_put_from_another_thread() -> None:
    slot: LatestSlot[int] = LatestSlot()
    thread = threading.Thread(target=lambda: slot.put(7))
    thread.start()
    assert slot.take(PATIENCE_S) == 7
    thread.join()


@given(st.lists(st.booleans(), max_size=50))
def test_every_put_is_taken_dropped_or_still_there(puts: list[bool]) -> None:
    slot: LatestSlot[int] = LatestSlot()
    count = taken = 0
    for put in puts:
        if put:
            slot.put(count)
            count += 1
        else:
            taken += slot.take() is not None
    left = slot.take() is not None
    assert count == taken + slot.dropped + left
