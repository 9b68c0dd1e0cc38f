"""A film as the framing `face` shows it: head and shoulders of the picture, at the size of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from core.errors import ModelError
from core.settings import Framing
from vcam.fit import FaceDetector, Framer, WhenThere, crop_to
from vcam.fit.small_models import open_face_detector
from vcam.video.media import Media, Note, Picture

OpenFaces = Callable[[], FaceDetector]


def framed_by(
    framing: Framing | None, media: Media, pictures: Iterable[Picture], note: Note, open_faces: OpenFaces | None = None
) -> Iterator[Picture]:
    """Yield the pictures as this framing shows them: `face` alone cuts, for a film keeps its shape.

    open_faces: opens what finds faces; where it cannot, all of the picture is shown, and `note` says so.
    """
    if framing is not Framing.FACE:
        yield from pictures
        return
    try:
        detector = (open_faces or open_face_detector)()
    except ModelError as error:
        note(str(error))
        yield from pictures
        return
    framer = Framer(WhenThere(lambda: detector), media.width / media.height)
    for picture in pictures:
        size = (picture.rgb.shape[1], picture.rgb.shape[0])
        shot = framer.shot(picture.rgb, float(picture.time), framing)
        alpha = picture.alpha
        if alpha is not None:
            alpha = np.ascontiguousarray(crop_to(np.repeat(alpha[:, :, None], 3, axis=2), size, shot=shot)[..., 0])
        yield picture._replace(rgb=crop_to(picture.rgb, size, shot=shot), alpha=alpha)
