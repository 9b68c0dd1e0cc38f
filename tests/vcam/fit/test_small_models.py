"""The real small models, where they are; and the sentence where they are not, or are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from core.errors import ModelError
from core.measure.identity import IdentitySums
from core.models.catalogue import FACE, PERSON, CatalogueModel
from tests.support import synthetic_films as films
from vcam.devices.test_pattern import draw_person
from vcam.fit.small_models import open_face_detector, open_landmark_finder, open_person_finder

OPENED = {"face": (FACE, open_face_detector), "person": (PERSON, open_person_finder)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path))
    return tmp_path


def put(folder: Path, entry: CatalogueModel, content: bytes) -> Path:
    path = folder / entry.name / entry.files[0].target
    path.parent.mkdir()
    path.write_bytes(content)
    (path.parent / "source.json").write_text("{}")
    return path


@pytest.mark.parametrize("name", OPENED)
def test_without_the_model_the_sentence_names_the_command(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"is not here; `vcam models download {name}`"):
        OPENED[name][1]()


@pytest.mark.parametrize("content", [b"", b"no model at all", os.urandom(5000)], ids=["empty", "text", "noise"])
@pytest.mark.parametrize("name", OPENED)
def test_a_damaged_model_is_named_with_the_remedy(folder: Path, name: str, content: bytes) -> None:
    entry, open = OPENED[name]
    path = put(folder, entry, content)
    with pytest.raises(ModelError, match=f"`vcam models remove {name}`") as caught:
        open()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the real model of that name opened, from the folder of models that VCAM_TEST_MODELS names."""
    if told := os.environ.get("VCAM_TEST_MODELS"):
        monkeypatch.setenv("VCAM_MODELS_FOLDER", told)
    entry: CatalogueModel = request.param
    if not told or not entry.is_here():
        pytest.skip(f"VCAM_TEST_MODELS names no folder of models with {entry.name} in it")


@pytest.mark.parametrize("real", [FACE], indirect=True)
@pytest.mark.usefixtures("real")
def test_the_real_detector_finds_the_drawn_person(capfd: pytest.CaptureFixture[str]) -> None:
    detector = open_face_detector()
    assert detector.faces(np.zeros((480, 640, 3), np.uint8)) == []
    (face,) = detector.faces(draw_person(2.0, (640, 480)))
    assert (round(face.x, 1), round(face.y, 1)) == (0.5, 0.4)
    assert 0.3 < face.height < 0.5
    (marked,) = open_landmark_finder()(draw_person(2.0, (640, 480)))
    assert np.abs(marked.middle / (640, 480) - (face.x, face.y)).max() < 0.02
    assert marked.width / 640 == pytest.approx(face.width, abs=0.03)
    eyes, mouth = marked.landmarks[:2], marked.landmarks[3:]
    assert eyes[:, 1].max() < marked.landmarks[2, 1] < mouth[:, 1].min()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("real", [FACE], indirect=True)
@pytest.mark.usefixtures("real")
def test_the_real_detectors_landmarks_tell_where_a_face_is_and_nothing_of_light_or_colour() -> None:
    find = open_landmark_finder()
    source = [draw_person(1 + t / 12, (320, 240)) for t in range(4)]
    edit = films.blurred([films.whole(40 + 0.75 * one) for one in source], 1)
    width = find(source[0])[0].width
    lower = [np.roll(one, 8, axis=0) for one in edit]  # pixels
    without = [np.asarray(cv2.circle(one.copy(), (174, 105), 75, (150, 150, 150), -1), np.uint8) for one in edit]

    def measured(output: films.Film) -> IdentitySums:
        sums = IdentitySums()
        for first, second in zip(source, output, strict=True):
            sums.add(find(first), find(second))
        return sums

    floor = measured(edit).error()
    assert floor is not None
    assert floor < 3, "an edit without a fault"
    faults = (films.flickering, films.pulsing, films.colour_cast, films.tinted, films.noisy, films.ghosted)
    for fault in faults:
        found = measured(fault(edit))
        assert found.share_kept() == 100, fault.__name__
        assert found.error() == pytest.approx(floor, abs=1.5), fault.__name__
    assert measured(lower).error() == pytest.approx(100 * 8 / width, abs=3)
    assert measured(without).share_kept() == 0


@pytest.mark.parametrize("real", [PERSON], indirect=True)
@pytest.mark.usefixtures("real")
def test_the_real_finder_tells_the_drawn_person_from_the_wall(capfd: pytest.CaptureFixture[str]) -> None:
    mask = open_person_finder().person(draw_person(2.0, (640, 480)))
    assert mask.shape == (144, 256)
    assert mask.min() >= 0
    assert mask.max() <= 1
    middle, corners = mask[80:110, 110:146].mean(), mask[:20, [*range(30), *range(226, 256)]].mean()
    assert middle > 0.8 > 0.2 > corners
    assert capfd.readouterr().err == "", "OpenCV's warnings are not for users"
