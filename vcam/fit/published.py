"""What the engine gets of a camera's picture, and what is published of its translation: the same part of it."""

from __future__ import annotations

from collections.abc import Callable

from vcam.fit.crops import crop_to, cropped, pad_to, part_of, turned, whole_in
from vcam.frames import FILLED, Picture, Shot

Finish = Callable[[Picture, Picture, tuple[int, int]], Picture]
"""Takes a translation, what of its source it shows, and a size: gives the picture at that size (width, height)."""


def viewed(picture: Picture, size: tuple[int, int], shot: Shot = FILLED) -> Picture:
    """Return what of the camera's picture the shot shows, at the engine's `size` (width, height)."""
    if shot.whole:
        return whole_in(turned(picture, shot), size)
    return crop_to(picture, size, shot)


def published(
    translated: Picture,
    source: Picture,
    size: tuple[int, int],
    finish: Finish,
    *,
    shot: Shot = FILLED,
) -> Picture:
    """Return the translation at the published `size`, a new array.

    source: the camera's own picture, uncut, of which `viewed` with this shot made what was
    translated. finish: see Finish; it gets the very part of the source that the translation shows.
    """
    if shot.whole:
        guide = turned(source, shot)
        part = part_of(translated, source.shape[1::-1])
    else:
        guide = cropped(source, translated.shape[1::-1], shot)
        part = translated
    return pad_to(part, size, lambda one, inner: finish(one, guide, inner))
