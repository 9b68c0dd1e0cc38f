"""Each fault moves the figures that are about it and leaves the others still: films with known motion and known faults.

A row of FAULTS is a fault, a column a figure. `moves` says by how much at least, with its sign; `also` names the
figures that a fault of this kind cannot leave alone, why, and by how much at most; all others must stay within
TOLERANCE. The films show a face, which is found in each picture by its marks (tests/support/marked_faces.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

from core.measure.alignment import direction_alignment
from core.measure.delay import estimate_delay
from core.measure.identity import MarkedFace
from core.measure.metrics import Means, Measures, measure
from core.measure.motion import Mask, Pixels
from tests.support import marked_faces as faces
from tests.support import synthetic_films as films
from tests.support.synthetic_films import Film

# Within these a figure stands still: absolute, in the figure's own unit.
TOLERANCE = {
    "warp_error": 1.5,
    "frame_consistency": 0.3,
    "edit_strength": 2.0,
    "edit_structure": 0.12,
    "sharpness": 0.04,
    "flicker": 0.08,
    "ghosting": 0.03,
    "drift_sharpness": 3.0,
    "drift_edit": 2.0,
    "drift_colour": 0.6,
    "delay": 0.0,
    "faces_kept": 0.0,
    "landmark_error": 0.5,
}


class CrossTalk(NamedTuple):
    """What another fault does to a figure: at most so much, absolute, in the figure's own unit; and why."""

    most: float
    why: str


@dataclass(frozen=True)
class Fault:
    """What is done to a clean edit. moves: the least change of a figure. also: what else may move."""

    make: Callable[[], Film]
    moves: Mapping[str, float]
    also: Mapping[str, CrossTalk] = field(default_factory=dict)


clean = faces.edit
OVER = "two pictures on each other are softer"
BETWEEN = "of a mark and its ghost the middle is found"
CANCEL = "a negative and its source cancel each other"
HARDLY = "hardly any structure is left"
STANDS = "it stands still for three pictures while the source moves"
WRONG = "it is compared with the wrong picture"
HALTS = "what was lost lies a picture's way off"

FAULTS = {
    "none": Fault(clean, {}),
    "flicker": Fault(lambda: films.flickering(clean()), {"warp_error": 30, "flicker": 1.4}),
    "pulse": Fault(lambda: films.pulsing(clean()), {"warp_error": 60, "flicker": 1.6}),
    "flicker of colour": Fault(
        lambda: films.colour_cast(clean()),
        {"warp_error": 50, "frame_consistency": -0.9},
        {"drift_colour": CrossTalk(1.2, "the cast of the first pictures is not that of the last ones")},
    ),
    "ghost": Fault(
        lambda: films.ghosted(clean()),
        {"ghosting": 0.25},
        {
            "sharpness": CrossTalk(0.12, OVER),
            "drift_sharpness": CrossTalk(6, "the first picture has no ghost"),
            "landmark_error": CrossTalk(1.5, BETWEEN),
        },
    ),
    "ghost at the left": Fault(
        lambda: films.ghosted_at_the_left(clean()),
        {"ghosting": 0.1},
        {
            "sharpness": CrossTalk(0.06, OVER),
            "landmark_error": CrossTalk(0.8, BETWEEN),
            "flicker": CrossTalk(0.12, "a point that leaves the ghost changes once"),
        },
    ),
    "blur": Fault(
        lambda: films.blurred(clean()),
        {"sharpness": -0.15},
        {"edit_structure": CrossTalk(0.15, "of a negative the structure is the less another's the softer it is")},
    ),
    "softening": Fault(
        lambda: films.softening(clean()),
        {"drift_sharpness": -30},
        {
            "sharpness": CrossTalk(0.15, "the mean of a film that softens is softer"),
            "drift_edit": CrossTalk(3, "a soft negative differs a little less from its source"),
        },
    ),
    "tint": Fault(lambda: films.tinted(clean()), {"drift_colour": 6}),
    "fading edit": Fault(
        lambda: films.fading(clean(), faces.source()),
        {"drift_edit": -40},
        {
            "edit_strength": CrossTalk(20, "a film that fades has less on average"),
            "edit_structure": CrossTalk(0.4, "the source's structure comes back"),
            "sharpness": CrossTalk(0.35, CANCEL),
            "drift_sharpness": CrossTalk(110, CANCEL),
            "drift_colour": CrossTalk(12, "the source's colours come back"),
            "faces_kept": CrossTalk(3, "in one picture of 48 the negative and its source leave nothing of it"),
        },
    ),
    "weak edit": Fault(
        lambda: films.mixed(clean(), faces.source()),
        {"edit_strength": -20, "edit_structure": -0.4},
        {
            "sharpness": CrossTalk(0.5, CANCEL),
            "frame_consistency": CrossTalk(0.6, f"{HARDLY} to differ"),
            "drift_sharpness": CrossTalk(5, HARDLY),
        },
    ),
    "delay": Fault(
        lambda: films.late(clean()),
        {"delay": 3, "landmark_error": 15},
        {
            "warp_error": CrossTalk(15, STANDS),
            "edit_strength": CrossTalk(7, WRONG),
            "edit_structure": CrossTalk(0.5, WRONG),
            "flicker": CrossTalk(0.15, STANDS),
            "drift_edit": CrossTalk(5, WRONG),
            "drift_colour": CrossTalk(4, WRONG),
        },
    ),
    "lost and doubled pictures": Fault(
        lambda: films.halting(clean()),
        {"warp_error": 70, "flicker": 1, "ghosting": 0.2},
        {"landmark_error": CrossTalk(2, HALTS)},
    ),
    "wobble": Fault(
        lambda: films.wobbling(clean()),
        {"warp_error": 35, "landmark_error": 1.2},
        {"flicker": CrossTalk(1.2, "at a point that should lie still another place of the picture is seen")},
    ),
    "noise": Fault(
        lambda: films.noisy(clean()),
        {"warp_error": 110},
        {
            "flicker": CrossTalk(0.5, "noise has every frequency"),
            "sharpness": CrossTalk(0.45, "noise is fine structure, too"),
        },
    ),
    "moved face": Fault(
        faces.moved_face,
        {"landmark_error": 9},
        {"ghosting": CrossTalk(0.05, "there the colours of the source no longer tell what belongs where")},
    ),
    "lost face": Fault(
        faces.lost_face,
        {"faces_kept": -25},
        {
            "flicker": CrossTalk(0.2, "a face that goes is a change at each of its points"),
            "drift_sharpness": CrossTalk(15, "its fine structure goes with it and does not come back"),
        },
    ),
}


def figures(source: Film, output: Film) -> dict[str, float]:
    motions = [films.exact_motion()] * (len(source) - 1)
    found = measure(source, output, means=Means(faces=faces.find_faces), motions=motions)
    delay = estimate_delay(source, output)
    assert found.spectrum is not None
    assert found.drift is not None
    assert delay is not None
    assert delay.certain
    values = {
        "warp_error": found.warp_error,
        "frame_consistency": found.frame_consistency,
        "edit_strength": found.edit_strength,
        "edit_structure": found.edit_structure,
        "sharpness": found.sharpness,
        "flicker": found.spectrum.flicker,
        "ghosting": found.ghosting,
        "drift_sharpness": found.drift.sharpness,
        "drift_edit": found.drift.edit,
        "drift_colour": found.drift.colour,
        "delay": float(delay.frames),
        "faces_kept": found.faces_kept,
        "landmark_error": found.landmark_error,
    }
    return {name: value for name, value in values.items() if value is not None}


@functools.cache
def figures_of(fault: str) -> dict[str, float]:
    return figures(faces.source(), FAULTS[fault].make())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("figure", TOLERANCE)
def test_a_fault_moves_its_own_figures_alone(fault: str, figure: str) -> None:
    change = figures_of(fault)[figure] - figures_of("none")[figure]
    wanted = FAULTS[fault].moves.get(figure)
    if wanted is not None:
        assert change * np.sign(wanted) >= abs(wanted)
    else:
        excused = FAULTS[fault].also.get(figure)
        assert abs(change) <= (excused.most if excused else TOLERANCE[figure])


@pytest.mark.parametrize("figure", TOLERANCE)
def test_each_figure_is_moved_by_a_fault_of_its_own(figure: str) -> None:
    assert [name for name, fault in FAULTS.items() if figure in fault.moves]


@pytest.mark.parametrize("fault", [name for name, one in FAULTS.items() if one.also])
def test_no_figure_is_excused_that_stands_still(fault: str) -> None:
    excused = FAULTS[fault].also
    changes = {figure: abs(figures_of(fault)[figure] - figures_of("none")[figure]) for figure in excused}
    assert [figure for figure, change in changes.items() if change <= TOLERANCE[figure]] == []
    loose = [figure for figure, change in changes.items() if excused[figure].most > 2 * change]
    assert loose == [], "the bound says less than what was seen"


def test_the_untouched_source_is_nothing_that_a_prompt_asked_for() -> None:
    source, negative = films.source(2), [films.whole(255.0 - one) for one in films.source(2)]

    def aligned(output: Film) -> float | None:
        means = Means(align=direction_alignment(lambda picture: films.whole(255.0 - picture)))
        return measure(source, output, means=means, motions=[films.exact_motion()]).prompt_alignment

    assert aligned(source) == 0
    assert aligned(negative) == pytest.approx(100, abs=0.1)


def test_a_clean_edit_has_no_faults() -> None:
    found = figures_of("none")
    for figure in ("warp_error", "flicker", "ghosting"):
        assert abs(found[figure]) < 0.01
    assert abs(found["drift_sharpness"]) < 8
    assert abs(found["drift_edit"]) < 5
    assert found["drift_colour"] < 1.5


# ------------------------------------------------------------------------------------------------ how much it moves


@pytest.mark.parametrize("cycles", [0.125, 0.25, 0.375, 0.5])
@pytest.mark.parametrize("amplitude", [3.0, 9.0])
def test_the_spectrum_shows_a_flicker_at_its_frequency_with_its_strength(cycles: float, amplitude: float) -> None:
    grey = [np.full((films.HEIGHT, films.WIDTH, 3), 120, np.uint8)] * 32
    levels = [one + amplitude * np.cos(2 * np.pi * cycles * t) for t, one in enumerate(grey)]
    output = [films.whole(one) for one in levels]
    still = films.exact_motion()
    found = measure(grey, output, motions=[still._replace(back=still.back * 0, forth=still.back * 0)] * 31).spectrum
    assert found is not None
    assert found.cycles[int(np.argmax(found.rms))] == cycles
    lightness = amplitude * 100 / 255 * 0.97  # L* a grey level, near 120
    assert found.flicker == pytest.approx(lightness * (1 if cycles == 0.5 else 0.5**0.5), rel=0.12)
    assert found.flicker_input == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("amplitude", [4.0, 8.0])
def test_the_warp_error_of_a_known_flicker_is_that_of_theory(amplitude: float) -> None:
    found = figures(faces.source(), films.flickering(clean(), amplitude))
    assert found["warp_error"] == pytest.approx(2 * amplitude**2 * np.sin(np.pi * 0.25) ** 2, rel=0.12)


@pytest.mark.parametrize("frames", [-4, 0, 1, 3, 7, 16])
@pytest.mark.parametrize("sigma", [0.0, 8.0])
def test_a_known_delay_is_found(frames: int, sigma: float) -> None:
    source, output = faces.source(), films.noisy(clean(), sigma)
    late = films.late(output, frames) if frames >= 0 else [*output[-frames:], *[output[-1]] * -frames]
    found = estimate_delay(source, late)
    assert found is not None
    assert found.certain
    assert found.frames == frames


def test_nothing_is_said_of_a_delay_where_nothing_moves_or_nothing_is_shown() -> None:
    source = faces.source()
    rng = np.random.default_rng(0)
    still, noise = [source[0]] * 30, [rng.integers(0, 256, source[0].shape, np.uint8) for _ in source]
    for ours, theirs in ((still, still), (source, noise), (source, [source[0]] * len(source))):
        found = estimate_delay(ours, theirs)
        assert found is not None
        assert not found.certain
    assert estimate_delay(source[:8], source[:8]) is None


def test_what_the_camera_sees_anew_is_no_drift() -> None:
    darker = [films.whole(one * (1 - 0.2 * t / films.FRAMES)) for t, one in enumerate(faces.source())]
    negative = [255 - one for one in darker]
    found = figures(darker, negative)
    assert abs(found["drift_edit"]) < 8  # the mean edit itself, over all places, falls by 19 %
    assert abs(found["drift_sharpness"]) < 8  # the contrast of the output itself falls by 20 %
    assert found["drift_colour"] < 3  # the lightness itself falls by some 10


def test_a_curve_shows_when_it_happened() -> None:
    output = [*clean()[:24], *films.tinted(clean(), (0, 0, -400))[24:26], *clean()[26:]]
    curve = measure(faces.source(), output, motions=[films.exact_motion()] * 47).curve
    assert 23 <= curve.at[int(np.argmax(curve.colour))] <= 26
    assert curve.colour[0] == 0


def test_a_long_film_has_a_curve_of_few_points() -> None:
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(3)]
    many = [small[t % 3] for t in range(500)]
    still = films.exact_motion()
    motions = [still._replace(back=np.zeros((16, 16, 2), np.float32), visible=np.ones((16, 16), bool))] * 499
    motions = [one._replace(forth=one.back) for one in motions]
    curve = measure(many, many, motions=motions).curve
    assert 60 <= len(curve.at) <= 120
    assert curve.at[-1] > 490


# ------------------------------------------------------------------------------------------------ a part of it alone


def test_what_happens_outside_the_region_does_not_count() -> None:
    left = np.zeros((films.HEIGHT, films.WIDTH), bool)
    left[:, : films.WIDTH // 2] = True

    def region(picture: Pixels) -> Mask:
        return left

    def beside(bad: Film) -> Film:
        return [np.where(left[..., None], good, one) for good, one in zip(clean(), bad, strict=True)]

    means = Means(region=region)
    motions = [films.exact_motion()] * (films.FRAMES - 1)
    wanted = measure(faces.source(), clean(), means=means, motions=motions)
    for bad in (films.flickering(clean(), 30), films.noisy(clean(), 30), faces.source()):
        found = measure(faces.source(), beside(bad), means=means, motions=motions)
        assert found.warp_error == wanted.warp_error
        assert found.edit_strength == pytest.approx(wanted.edit_strength)
        assert found.ghosting == pytest.approx(wanted.ghosting, abs=0.03)
        assert found.frame_consistency == pytest.approx(wanted.frame_consistency)
        assert found.spectrum is not None
        assert found.spectrum.flicker == pytest.approx(0, abs=0.02)
    inside = measure(faces.source(), films.flickering(clean(), 30), means=means, motions=motions)
    assert inside.warp_error is not None
    assert inside.warp_error > 500


def test_a_picture_without_the_region_is_no_picture_of_it() -> None:
    means = Means(region=lambda picture: np.zeros(picture.shape[:2], bool))
    found = measure(films.source(4), films.edit(4), means=means)
    assert (found.warp_error, found.edit_strength, found.sharpness, found.drift) == (None, 0.0, None, None)


# ------------------------------------------------------------------------------------------------ faces


def marked(x: float, y: float, width: float = 40.0) -> MarkedFace:
    points = [(-0.2, -0.2), (0.2, -0.2), (0, 0), (-0.15, 0.2), (0.15, 0.2)]
    landmarks = np.array([(x + width * dx, y + width * dy) for dx, dy in points], np.float32)
    return MarkedFace(np.array([x, y], np.float32), width, landmarks)


def of_faces(source: list[MarkedFace], output: list[MarkedFace]) -> Measures:
    pictures = films.source(2)
    shown = {id(pictures[0]): source, id(pictures[1]): output}
    return measure([pictures[0]] * 3, [pictures[1]] * 3, means=Means(faces=lambda picture: shown[id(picture)]))


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (4, 0), (0, -8), (3, 4)])
def test_a_face_that_moved_has_the_landmark_error_that_it_moved_by(dx: float, dy: float) -> None:
    found = of_faces([marked(60, 50)], [marked(60 + dx, 50 + dy)])
    assert found.landmark_error == pytest.approx(100 * np.hypot(dx, dy) / 40, rel=1e-5)
    assert (found.faces, found.faces_kept) == (3, 100)


def test_a_face_that_is_gone_or_elsewhere_is_not_kept() -> None:
    assert of_faces([marked(60, 50)], []).faces_kept == 0
    assert of_faces([marked(60, 50)], [marked(100, 50)]).faces_kept == 0
    both = of_faces([marked(60, 50), marked(120, 60)], [marked(61, 50)])
    assert both.faces_kept == 50
    assert both.landmark_error == pytest.approx(2.5)
    none = of_faces([], [marked(60, 50)])
    assert (none.faces, none.faces_kept, none.landmark_error) == (0, None, None)
