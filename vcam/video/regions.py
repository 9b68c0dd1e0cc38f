"""A film whose style is on the person alone, or behind the person alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from core.errors import ModelError
from core.settings import BLUR, CAMERA, Look, Region
from vcam.fit import PersonFinder, Regions, WhenThere
from vcam.fit.small_models import open_person_finder
from vcam.video.media import Note, Pixels
from vcam.video.pictures import read_still

OpenPersons = Callable[[], PersonFinder]
Compose = Callable[[Pixels, Pixels], Pixels]
"""Takes a picture in its style and its source, of one area; gives the picture with its style in the look's region."""


def composer(look: Look, note: Note, open_persons: OpenPersons | None = None) -> Compose | None:
    """Return what puts the look's region into a film's pictures, in their order; None where all of them is styled.

    open_persons: opens what finds persons; where it cannot, `note` says that all is styled. Raises VcamError for a
    picture that cannot be read.
    """
    if look.region is Region.ALL:
        return None
    try:
        finder = (open_persons or open_person_finder)()
    except ModelError as error:
        note(str(error))
        return None
    still = None if look.elsewhere in (CAMERA, BLUR) else read_still(look.elsewhere)

    def read(path: str) -> Pixels:
        if still is None:
            raise ValueError(f"{path} is no picture of this look")
        return still

    regions = Regions(WhenThere(lambda: finder), read, math.inf)
    return lambda styled, source: regions.composed(styled, source, look)
