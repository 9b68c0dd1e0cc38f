"""A whole daemon whose style is on the person alone: what is published, and that nothing of the camera outlives it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ModelError
from tests.support.fake_camera import FakeCamera
from tests.support.fake_sink import Colour, near
from tests.support.patience import PATIENCE_S
from tests.support.pictures import SIZE
from tests.support.running_daemon import SwitchedDaemon
from tests.support.stand_in_eyes import SKIN, PaintedPerson, scene
from vcam.commands import ChangeLook, OnFailure, Panic, Pause, Resume
from vcam.errors import CommandError
from vcam.fit import Mask
from vcam.frames import Picture

ROOM = (90, 90, 90)  # what the camera sees around the person
STYLED_ROOM, STYLED_PERSON = ((165, 165, 165), tuple(255 - value for value in SKIN))


class RoomDaemon(SwitchedDaemon):
    """Films a person in the middle of a room; the sink remembers a point of the room."""

    def __init__(self, folder: Path, options: dict[str, Any] | None = None, **parts: Any) -> None:
        super().__init__(folder, options, **{"open_persons": PaintedPerson, **parts})
        self.sink._point = (8, 8)

    def _open(self, options: Any) -> FakeCamera:
        return FakeCamera(options.source, scene(SIZE, (0.75, 0.5, 0.5)))

    def person(self) -> Colour:
        red, green, blue = (int(value) for value in self.sink.last[SIZE[1] // 2, SIZE[0] // 2])
        return red, green, blue

    def shows_of(self, room: Colour, person: Colour) -> bool:
        return near(self.sink.colour, room) and near(self.person(), person)

    def until_shown(self, room: Colour, person: Any) -> None:
        self.until(lambda: self.shows_of(room, person), f"{room} around {person}")


def test_the_style_is_on_the_person_behind_it_or_everywhere(tmp_path: Path) -> None:
    with RoomDaemon(tmp_path) as camera:
        camera.until_shown(STYLED_ROOM, STYLED_PERSON)
        camera.tell(ChangeLook({"region": "person"}))
        camera.until_shown(ROOM, STYLED_PERSON)
        camera.tell(ChangeLook({"region": "background"}))
        camera.until_shown(STYLED_ROOM, SKIN)
        with pytest.raises(CommandError, match="'face' is not a valid Region"):
            camera.tell(ChangeLook({"region": "face"}))
        with pytest.raises(CommandError, match="elsewhere is 'blurr'"):
            camera.tell(ChangeLook({"elsewhere": "blurr"}))
        camera.tell(ChangeLook({"region": "all"}))
        camera.until_shown(STYLED_ROOM, STYLED_PERSON)


def room_after(camera: RoomDaemon, begin: int) -> int:
    """How many of the pictures from then on show the room as it is."""
    return sum(near(one.colour, ROOM) for one in camera.sink.sent[begin:])


@pytest.mark.parametrize("halt", [Panic(), Pause()], ids=["panic", "pause"])
def test_a_halt_shows_nothing_of_the_room_from_the_moment_it_is_answered(tmp_path: Path, halt: Any) -> None:
    with RoomDaemon(tmp_path) as camera:
        camera.tell(ChangeLook({"region": "person"}))
        camera.until_shown(ROOM, STYLED_PERSON)
        camera.tell(halt)
        begin = len(camera.sink.sent) + 1  # one may be on its way
        camera.until(lambda: len(camera.sink.sent) > begin + 15, "published")
        assert room_after(camera, begin) == 0
        camera.tell(Resume())
        camera.until_shown(ROOM, STYLED_PERSON)


@pytest.mark.parametrize("way", [OnFailure.CARD, OnFailure.HOLD])
def test_a_lost_engine_shows_the_room_no_longer_than_a_translation_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: OnFailure
) -> None:
    monkeypatch.setattr("vcam.daemon.publisher.HOLD_S", 0.3)
    with RoomDaemon(tmp_path, {"on_failure": way}) as camera:
        camera.tell(ChangeLook({"region": "person"}))
        camera.until_shown(ROOM, STYLED_PERSON)
        os.kill(camera.engine_pid(), signal.SIGSTOP)
        # a while of it: on a busy machine a translation may have been late, and on its way when the engine was stopped
        camera.until(lambda: room_after(camera, len(camera.sink.sent) - 15) == 0, "the card")
        begin = len(camera.sink.sent)
        camera.until(lambda: len(camera.sink.sent) > begin + 15, "published")
        assert room_after(camera, begin) == 0


def test_without_the_model_all_is_styled_and_the_status_says_why(tmp_path: Path) -> None:
    here = [False]

    def open() -> PaintedPerson:
        if not here[0]:
            raise ModelError("all of the picture is styled: `vcam models download person` fetches the model")
        return PaintedPerson()

    with RoomDaemon(tmp_path, open_persons=open) as camera:
        camera.tell(ChangeLook({"region": "person"}))
        camera.until(lambda: any("models download person" in note for note in camera.daemon.status().notes), "a note")
        camera.until_shown(STYLED_ROOM, STYLED_PERSON)
        assert room_after(camera, 0) == 0
        here[0] = True
        camera.until_shown(ROOM, STYLED_PERSON)
        camera.until(lambda: not any("download" in note for note in camera.daemon.status().notes), "without a note")


def test_a_finder_that_hangs_costs_the_pace_nothing(tmp_path: Path) -> None:
    """Persons are found beside the publisher: what others see meanwhile is the card, at the camera's rate."""
    gate = threading.Event()

    class Hanging(PaintedPerson):
        def person(self, picture: Picture) -> Mask:
            assert gate.wait(PATIENCE_S)
            return super().person(picture)

    with RoomDaemon(tmp_path, open_persons=Hanging) as camera:
        camera.until_shown(STYLED_ROOM, STYLED_PERSON)
        camera.tell(ChangeLook({"region": "person"}))
        camera.until(lambda: not near(camera.sink.colour, STYLED_ROOM), "the card")
        before = len(camera.sink.sent)
        camera.until(lambda: len(camera.sink.sent) > before + 30, "published")
        assert room_after(camera, before) == 0
        gate.set()
        camera.until_shown(ROOM, STYLED_PERSON)


def test_a_still_picture_stands_behind_the_person(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "sea.png"), np.full((30, 60, 3), (200, 40, 10), np.uint8))
    with RoomDaemon(tmp_path) as camera:
        camera.tell(ChangeLook({"region": "person", "elsewhere": str(tmp_path / "sea.png")}))
        camera.until_shown((10, 40, 200), STYLED_PERSON)
        camera.tell(ChangeLook({"elsewhere": str(tmp_path / "gone.png")}))
        camera.until_shown(STYLED_ROOM, STYLED_PERSON)
        camera.until(lambda: any("no such picture" in note for note in camera.daemon.status().notes), "a note")
