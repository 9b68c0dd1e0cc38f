"""What each figure is: formula, unit, range, source. `docs/evaluation.md` and the report of a suite are made of it."""

from __future__ import annotations

import math
from typing import NamedTuple

from core.measure import alignment, delay, drift, flicker, identity, metrics, motion


class Definition(NamedTuple):
    """A figure as it is told to a reader. better: lower, higher, near (to 0 or to what it says), or none by itself."""

    name: str
    title: str
    unit: str
    range: str
    better: str
    formula: str
    source: str
    beware: str = ""


DEFINITIONS = (
    Definition(
        "warp_error",
        "warp error",
        "grey levels squared",
        "0 to 65,025",
        "lower",
        "mean over pairs of pictures and visible pixels of (o[t] - o[t-1] warped to it)^2, R, G and B from 0 to "
        "255; the "
        f"warp follows the flow of the *source*; visible: |b + f|^2 < {motion.OF_MOTION:g} (|b|^2 + |f|^2) + "
        f"{motion.PIXELS:g} with the flow back b and forth f",
        "StreamV2V (arXiv 2405.15757), section 5.1, after Lai et al., ECCV 2018; visibility: Sundaram et al., "
        "ECCV 2010; "
        "flow: DIS (Kroeger et al., ECCV 2016), Farneback's (SCIA 2003) or RAFT (Teed and Deng, ECCV 2020)",
        "An output that does nothing scores best: read it beside the edit strength and `warp_error_input`.",
    ),
    Definition(
        "warp_error_input",
        "warp error of the source",
        "grey levels squared",
        "0 to 65,025",
        "none",
        "the warp error of the unedited source: the floor, which the camera's noise, the flow and interpolation leave",
        "as warp_error",
    ),
    Definition(
        "frame_consistency",
        "frame consistency",
        "cosine x 100",
        "-100 to 100",
        "higher",
        "mean over pairs of the cosine of the features of o[t-1] and o[t]; by CLIP, or by a descriptor of gradient "
        f"directions and colours in {metrics.CELLS}x{metrics.CELLS} cells (`consistency_by` says which)",
        "by CLIP: the paper's CLIP score; the descriptor is ours (after HOG, Dalal and Triggs, CVPR 2005)",
        "Figures of CLIP and of the descriptor do not compare. It knows no prompt.",
    ),
    Definition(
        "prompt_alignment",
        "prompt alignment",
        "cosine x 100",
        "-100 to 100",
        "higher",
        "by CLIP: mean cosine of the picture's and the prompt's embedding. Stand-in: mean over each "
        f"{alignment.EVERY}th picture of the "
        "cosine between the descriptor's change from source to output and that from source to the included "
        "model's own "
        "picture of the prompt, without a bank; 0 where the output's mean Delta E from its source is under "
        f"{alignment.LEAST_EDIT:g}, and "
        "a picture that the included model changes by less than that is left out",
        "Hessel et al., EMNLP 2021, without their weight; the stand-in is ours, after directional CLIP similarity "
        "(Gal et "
        "al., SIGGRAPH 2022)",
        "The stand-in asks whether the included model's style is there, not whether the words are: it says "
        "nothing of "
        "another model's idea of the prompt.",
    ),
    Definition(
        "edit_strength",
        "edit strength",
        "Delta E*ab (CIE 1976)",
        "0 to about 258",
        "none",
        "mean over pictures and pixels of the distance of source and output in CIELAB, at a short side of "
        f"{metrics.SHORT_SIDE} pixels at most",
        "CIE 15:2004",
        "More is no better: it says at what strength the other figures were reached.",
    ),
    Definition(
        "edit_structure",
        "edit of structure",
        "1 - SSIM",
        "0 to 2",
        "none",
        f"1 - SSIM of L* of source and output (window: Gaussian of sigma {metrics.SIGMA:g}), 0 the same structure, 1 "
        "unrelated",
        "Wang et al., IEEE TIP 2004",
    ),
    Definition(
        "sharpness",
        "sharpness",
        "of the source's",
        "0 and up",
        "near",
        f"root mean square of L* less its Gaussian mean (sigma {metrics.SIGMA:g}), of the output over that of the "
        f"source, at a short side of {metrics.SHORT_SIDE} pixels at most; mean over pictures",
        "ours",
        "Noise and drawn lines are fine structure, too. Compare settings of one look, not looks.",
    ),
    Definition(
        "flicker",
        "flicker",
        "L*, root mean square",
        "0 to 50",
        "lower",
        f"points {flicker.SPACING} pixels apart are followed by the source's flow for {flicker.WINDOW} pictures; of L* "
        f"(smoothed, sigma {flicker.SMOOTHING:g}) at each the line that fits best is taken off, the Hann-tapered "
        f"spectrum is taken; the root of the power from {flicker.SLOWEST / flicker.WINDOW:g} cycles a picture on "
        "(`flicker_spectrum` has each frequency)",
        "ours; the spectrum after Welch, IEEE Trans. Audio Electroacoust. 1967",
        "It sees brightness on a scale of a few pixels: fine shimmer and a flicker of colour alone are in the warp "
        "error.",
    ),
    Definition(
        "flicker_input",
        "flicker of the source",
        "L*, root mean square",
        "0 to 50",
        "none",
        "the same of the unedited source: the floor",
        "ours",
    ),
    Definition(
        "ghosting",
        "ghosting",
        "share",
        "about -0.7 to 1",
        "lower",
        "least squares, over moving visible pixels, of the fine structure of o[t] on that of o[t-1] at the same "
        "place (g), "
        "of o[t-1] as far on the other side of its right place (h), and on functions of the source's colours; g - h",
        "ours",
        "Where an edit invents its own texture up to two thirds of a ghost are hidden. Where a sensor's noise is taken "
        "for motion it falls below 0 and says nothing. None where too little moves.",
    ),
    Definition(
        "drift_sharpness",
        "drift of sharpness",
        "%, first to last picture",
        "-100 and up",
        "near",
        "slope, by least squares, of the logarithm of the output's fine structure against time between places of the "
        f"source of like fine structure ({drift.SHARPNESSES} kinds, fixed effects), over the film's length",
        "ours",
        f"Of a film too short for a trend (under {drift.FEWEST} pictures) it is not given; of a few seconds it is "
        "mostly the scene.",
    ),
    Definition(
        "drift_edit",
        "drift of edit strength",
        "%, first to last picture",
        "any",
        "near",
        f"the same of the edit strength between places of the source of like colour ({math.prod(drift.COLOURS):,} "
        "kinds), over its mean",
        "ours",
    ),
    Definition(
        "drift_colour",
        "drift of colour",
        "Delta E*ab, first to last picture",
        "0 and up",
        "lower",
        "the length of the same of the output's L*, a*, b*",
        "ours",
    ),
    Definition(
        "faces_kept",
        "faces kept",
        "%",
        "0 to 100",
        "higher",
        "share of the faces that YuNet finds in the source for which it finds one in the output less than "
        f"{identity.NEAR:g} of its width away",
        "detector: YuNet (Wu et al., 2023)",
    ),
    Definition(
        "landmark_error",
        "landmark error",
        "% of the face's width",
        "0 and up",
        "lower",
        "mean distance of the five landmarks of those faces",
        "detector: YuNet (Wu et al., 2023)",
        "It asks whether the face is where it was, not whose it is.",
    ),
    Definition(
        "latency_frames",
        "latency",
        "pictures",
        f"{delay.EARLIEST} to {delay.LATEST}",
        "lower",
        "the delay at which the output's edges move most like the source's: correlation of the gradient's "
        f"magnitude less its mean over the film, at a long side of {delay.LONG_SIDE} pixels; the output is shifted by "
        "it before anything is measured",
        "ours",
        "Not said where nothing moves, or where the output shows none of it.",
    ),
)
BY_NAME = {one.name: one for one in DEFINITIONS}
