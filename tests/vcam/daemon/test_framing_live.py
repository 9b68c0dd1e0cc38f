"""A whole daemon that follows a face: what is published, what stays with another profile, what is said without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.settings import Framing
from tests.support.fake_camera import FakeCamera
from tests.support.pictures import SIZE
from tests.support.running_daemon import SwitchedDaemon
from tests.support.stand_in_eyes import SKIN, PaintedFace, none_here, scene
from vcam.commands import ChangeLook, Mirror, UseProfile
from vcam.errors import CommandError

FACE = scene((192, 128), (1.2, 0.4, 0.1))


class FacedDaemon(SwitchedDaemon):
    def _open(self, options: Any) -> FakeCamera:
        return FakeCamera(options.source, FACE)

    def face_share(self) -> float:
        """How much of the published picture is the face, which the engine inverts."""
        return float((np.abs(self.sink.last.astype(int) - (255 - np.array(SKIN))).max(axis=2) < 12).mean())

    def face_x(self) -> float:
        """Where the face's middle is in the published picture, as a share of its width."""
        there = np.abs(self.sink.last.astype(int) - (255 - np.array(SKIN))).max(axis=2) < 12
        return float(np.nonzero(there)[1].mean()) / there.shape[1] if there.any() else 0.5


def small(camera: FacedDaemon) -> bool:
    return 0.003 < camera.face_share() < 0.015


def large(camera: FacedDaemon) -> bool:
    return camera.face_share() > 0.04


def test_the_face_is_followed_once_that_is_asked_for_and_with_the_next_profile_too(tmp_path: Path) -> None:
    with FacedDaemon(tmp_path, open_faces=PaintedFace) as camera:
        camera.until(lambda: small(camera), "a small face")
        camera.tell(ChangeLook({"framing": "face"}))
        camera.until(lambda: large(camera), "a large face")
        camera.tell(UseProfile("p2"))
        assert camera.daemon.choice.look.framing == "face"
        camera.until(lambda: camera.sink.last.shape == (SIZE[1], SIZE[0], 3) and large(camera), "a large face")
        camera.tell(ChangeLook({"framing": "fit"}))
        camera.until(lambda: small(camera), "a small face again")
        with pytest.raises(CommandError, match="'near' is not a valid Framing"):
            camera.tell(ChangeLook({"framing": "near"}))
        assert camera.daemon.choice.look.framing == "fit"


def test_the_picture_is_mirrored_live_and_back_and_its_status_says_so(tmp_path: Path) -> None:
    with FacedDaemon(tmp_path) as camera:
        camera.until(lambda: small(camera), "a small face")
        before = camera.face_x()
        assert abs(before - 0.5) > 0.1
        for on, mirrored in ((True, True), (True, True), (None, False), (None, True), (False, False)):
            camera.tell(Mirror(on))
            assert camera.daemon.status().mirror is mirrored
            wanted = 1 - before if mirrored else before
            camera.until(lambda wanted=wanted: abs(camera.face_x() - wanted) < 0.05, f"at {wanted}")  # type: ignore[misc]


def test_without_the_model_the_picture_is_filled_and_the_status_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FacedDaemon(tmp_path, {"framing": Framing.FACE}, open_faces=none_here) as camera:
        camera.until(lambda: small(camera), "a small face")
        (note,) = [one for one in camera.daemon.status().notes if "face" in one]
        assert "`vcam models download face` fetches it" in note
        camera.tell(ChangeLook({"framing": "fill"}))
        camera.until(lambda: not [one for one in camera.daemon.status().notes if "face" in one], "well again")
    assert capsys.readouterr().err.count("vcam models download face") == 1


def test_the_camera_that_the_page_shows_is_framed_as_what_is_published(tmp_path: Path) -> None:
    with FacedDaemon(tmp_path, {"framing": Framing.FACE}, open_faces=PaintedFace) as camera:
        camera.until(lambda: large(camera), "a large face")
        frame = camera.daemon.camera
        assert frame is not None
        assert frame.shot.focus is not None
        assert frame.shot.focus.height < 0.5
