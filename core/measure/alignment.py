"""How much an output is what the prompt asks for: by CLIP, or by a stand-in that needs no download."""

from __future__ import annotations

from collections.abc import Callable

from core.measure.clip import Clip
from core.measure.metrics import Align, cosine, descriptor, picture_edit_strength
from core.measure.motion import Pixels

EVERY = 16  # pictures; the stand-in looks at one of so many, for it must make each a second time
LEAST_EDIT = 3.0  # Delta E: a weaker change is the codec's or the camera's, and its direction says nothing


def clip_alignment(clip: Clip, prompt: str) -> Align:
    """Return the alignment by CLIP: cosine of picture and text, times 100 (Hessel et al., EMNLP 2021, without weight).

    Raises MetricError where the CLIP has no text half.
    """
    text = clip.text(prompt)
    return lambda source, output: 100 * cosine(clip.picture(output), text)


def direction_alignment(reference: Callable[[Pixels], Pixels], every: int = EVERY) -> Align:
    """Return the stand-in: whether an output differs from its source as a reference picture of that prompt does.

    reference: makes the source's picture in the prompt's style, each by itself. Cosine between the change of the
    descriptor from source to output and that from source to reference, times 100: 100 the same change, 0 another,
    or next to no change. None for pictures that the reference leaves as they are, and between those looked at.
    """
    count = 0

    def align(source: Pixels, output: Pixels) -> float | None:
        nonlocal count
        count += 1
        if (count - 1) % every:
            return None
        wanted = reference(source)
        if picture_edit_strength(source, wanted) < LEAST_EDIT:
            return None
        if picture_edit_strength(source, output) < LEAST_EDIT:
            return 0.0
        before = descriptor(source)
        return 100 * cosine(descriptor(output) - before, descriptor(wanted) - before)

    return align
