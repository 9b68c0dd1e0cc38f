"""What of a picture is shown, and how: cut, mirrored, framed by a face, enlarged with its edges, styled in a part."""

from vcam.fit.crops import crop_to, cropped, of_one_shape, pad_to, part_of, whole_in
from vcam.fit.edges import detail_at, enlarged
from vcam.fit.framing import Framer
from vcam.fit.published import published, viewed
from vcam.fit.region import Regions
from vcam.fit.seeing import Face, FaceDetector, Mask, PersonFinder, WhenThere

__all__ = [
    "Face",
    "FaceDetector",
    "Framer",
    "Mask",
    "PersonFinder",
    "Regions",
    "WhenThere",
    "crop_to",
    "cropped",
    "detail_at",
    "enlarged",
    "of_one_shape",
    "pad_to",
    "part_of",
    "published",
    "viewed",
    "whole_in",
]
