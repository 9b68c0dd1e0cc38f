"""The two small models that see faces and persons (OpenCV runs them), and the sentence where one is not here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from cv2.utils import logging
from numpy.typing import NDArray

from core.errors import ModelError
from core.measure.identity import FindFaces, MarkedFace
from core.models.catalogue import FACE, PERSON, CatalogueModel
from vcam.fit.crops import brought_to
from vcam.fit.seeing import Face, Mask, T
from vcam.frames import Picture

_SURE = 0.6  # of 1: what is less a face is none
_LONG, _CLOSER = 320, 512  # pixels of the longer side in which faces are looked for; and where there was none
_STEP = 32  # pixels: the detector's sides are multiples
_MASK_SIZE = (256, 144)  # width and height of the finder's picture


class YuNet:
    """A FaceDetector: YuNet (Wu and others, 2023). Used from one thread."""

    def __init__(self, path: Path) -> None:
        with _quiet():
            self._net = cv2.FaceDetectorYN.create(str(path), "", (_LONG, _LONG), _SURE)
        self._side = _LONG

    def faces(self, picture: Picture) -> list[Face]:
        """Return the faces in a picture of any size; a closer look follows one that found none."""
        found = self._detected(picture, self._side)
        self._side = _LONG if len(found) else _LONG + _CLOSER - self._side
        return [
            Face(*(float(value) for value in (left + wide / 2, top + high / 2, wide, high)))
            for left, top, wide, high in found[:, :4]
        ]

    def marked(self, picture: Picture) -> list[MarkedFace]:
        """Return the faces in a picture of any size with their five landmarks, in its pixels.

        Each picture is looked at in the same way, whatever was found before: so figures can be compared.
        """
        size = np.array(picture.shape[1::-1], np.float32)
        rows = self._detected(picture, _LONG)
        rows = rows if len(rows) else self._detected(picture, _CLOSER)
        return [
            MarkedFace((row[:2] + row[2:4] / 2) * size, float(row[2] * size[0]), row[4:14].reshape(5, 2) * size)
            for row in rows
        ]

    def _detected(self, picture: Picture, long_side: int) -> NDArray[np.float32]:
        """Return what was found, all as shares of the picture's sides: [faces, left, top, width, height, landmarks]."""
        rows, columns = picture.shape[:2]
        scale = long_side / max(rows, columns)
        width, height = (max(_STEP, round(side * scale / _STEP) * _STEP) for side in (columns, rows))
        self._net.setInputSize((width, height))
        _, rated = self._net.detect(cv2.cvtColor(brought_to(picture, (width, height)), cv2.COLOR_RGB2BGR))
        found = np.zeros((0, 14), np.float32) if rated is None else rated[:, :14]
        return np.asarray(found / np.tile(np.array([width, height]), 7), np.float32)


class SelfieSegmenter:
    """A PersonFinder: MediaPipe's selfie segmentation for landscape pictures. Used from one thread."""

    def __init__(self, path: Path) -> None:
        with _quiet():
            self._net = cv2.dnn.readNetFromTFLite(str(path))

    def person(self, picture: Picture) -> Mask:
        """Return the mask of a picture of any size: [144, 256]."""
        self._net.setInput(cv2.dnn.blobFromImage(brought_to(picture, _MASK_SIZE), 1 / 255))
        return np.clip(np.asarray(self._net.forward(), np.float32).reshape(_MASK_SIZE[::-1]), 0, 1)


def open_face_detector() -> YuNet:
    """Return what finds faces, if it is here; raises ModelError."""
    return _opened(FACE, "no face is followed", YuNet, YuNet.faces)


def open_landmark_finder() -> FindFaces:
    """Return what finds faces with their landmarks, if it is here; raises ModelError."""
    return _opened(FACE, "no face is looked for", YuNet, YuNet.marked).marked


def open_person_finder() -> SelfieSegmenter:
    """Return what finds persons, if it is here; raises ModelError."""
    return _opened(PERSON, "all of the picture is styled", SelfieSegmenter, SelfieSegmenter.person)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's warnings about itself from the terminal."""
    before = logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _opened(entry: CatalogueModel, without: str, make: Callable[[Path], T], use: Callable[[T, Picture], object]) -> T:
    """Return what `make` makes of the model's file, once it was used on a picture; without: what is so while it lacks.

    Raises ModelError.
    """
    if not entry.is_here():
        raise ModelError(f"{without}: the model for it is not here; `vcam models download {entry.name}` fetches it")
    path = entry.folder / entry.files[0].target
    try:
        model = make(path)
        use(model, np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
        why = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: OpenCV cannot use it ({why}); `vcam models remove {entry.name}`, then download it again"
        ) from error
    return model
