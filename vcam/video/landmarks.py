"""What a film is measured by besides its pixels: faces with their landmarks, and where the person is."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from core.errors import ModelError
from core.measure.identity import FindFaces
from core.measure.metrics import FindRegion
from core.measure.motion import Mask, Pixels
from core.settings import Region
from vcam.fit.region import SteadyMask, along_edges
from vcam.fit.small_models import open_landmark_finder, open_person_finder
from vcam.video.media import Note
from vcam.video.regions import OpenPersons

OpenLandmarks = Callable[[], FindFaces]


def faces_of(note: Note, wanted: bool | None = None, open_landmarks: OpenLandmarks | None = None) -> FindFaces | None:
    """Return what finds faces and their landmarks; None where the model is not here, or where it is not wanted.

    wanted: None: if it is here. Where it is wanted and not here, `note` says so.
    """
    if wanted is False:
        return None
    try:
        return (open_landmarks or open_landmark_finder)()
    except ModelError as error:
        if wanted:
            note(str(error))
        return None


def region_of(region: Region, open_persons: OpenPersons | None = None) -> FindRegion | None:
    """Return what tells where a region is in the source, from picture to picture in their order; None: everywhere.

    Raises ModelError where the model for it is not here: figures of the whole picture would be others.
    """
    if region is Region.ALL:
        return None
    steady = SteadyMask((open_persons or open_person_finder)(), math.inf)

    def find(source: Pixels) -> Mask:
        size = (source.shape[1], source.shape[0])
        person = along_edges(steady.of(source), source, size)
        share = person if region is Region.PERSON else 1 - person
        return np.asarray(cv2.blur(share, (3, 3)) > 0.5)

    return find
