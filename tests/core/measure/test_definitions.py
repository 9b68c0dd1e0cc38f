"""The numbers of the figures' definitions are the code's own: taken from its constants, or shown here by pictures."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from core.measure import definitions, metrics
from core.measure.definitions import BY_NAME
from core.measure.metrics import measure
from tests.support import synthetic_films as films
from tests.support.synthetic_films import Film

BLACK, WHITE = (np.full((64, 64, 3), level, np.uint8) for level in (0, 255))
SHOWN = {  # digits that the text has of itself; each is shown below, or is a share or an index that has no other value
    "warp_error": {"0", "65,025", "255"},
    "warp_error_input": {"0", "65,025"},
    "frame_consistency": {"-100", "100"},
    "prompt_alignment": {"-100", "100", "0"},
    "edit_strength": {"0", "258"},
    "edit_structure": {"0", "1", "2"},
    "sharpness": {"0"},
    "flicker": {"0", "50"},
    "flicker_input": {"0", "50"},
    "ghosting": {"-0.7", "0", "1"},
    "drift_sharpness": {"-100"},
    "drift_colour": {"0"},
    "faces_kept": {"0", "100"},
    "landmark_error": {"0"},
}


def written_out() -> dict[str, set[str]]:
    """The numbers that stand as such in the source of each definition's range, formula and warning."""
    found = {}
    for call in ast.walk(ast.parse(Path(definitions.__file__).read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Definition":
            name, _, _, extent, _, formula, _, *beware = call.args
            parts = [part for one in (extent, formula, *beware) for part in ast.walk(one)]
            texts = [one.value for one in parts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            plain = re.sub(r"\[t-1\]|\^2|1 - SSIM|x 100", "", " ".join(texts))
            found[ast.literal_eval(name)] = set(re.findall(r"-?\d[\d,.]*\d|-?\d", plain))
    return found


def test_no_number_of_a_definition_is_written_out_that_the_code_could_give() -> None:
    found = written_out()
    assert found.keys() == BY_NAME.keys()
    assert {name: numbers for name, numbers in found.items() if numbers} == SHOWN


@pytest.mark.parametrize(
    ("module", "constant", "figure"),
    [
        ("motion", "OF_MOTION", "warp_error"),
        ("motion", "PIXELS", "warp_error"),
        ("metrics", "CELLS", "frame_consistency"),
        ("alignment", "EVERY", "prompt_alignment"),
        ("alignment", "LEAST_EDIT", "prompt_alignment"),
        ("metrics", "SHORT_SIDE", "edit_strength"),
        ("metrics", "SHORT_SIDE", "sharpness"),
        ("metrics", "SIGMA", "edit_structure"),
        ("metrics", "SIGMA", "sharpness"),
        ("flicker", "SPACING", "flicker"),
        ("flicker", "WINDOW", "flicker"),
        ("flicker", "SMOOTHING", "flicker"),
        ("drift", "SHARPNESSES", "drift_sharpness"),
        ("drift", "FEWEST", "drift_sharpness"),
        ("identity", "NEAR", "faces_kept"),
        ("delay", "LATEST", "latency_frames"),
        ("delay", "EARLIEST", "latency_frames"),
        ("delay", "LONG_SIDE", "latency_frames"),
    ],
)
def test_a_constant_is_told_in_its_figures_definition(module: str, constant: str, figure: str) -> None:
    value = f"{getattr(getattr(definitions, module), constant):g}"
    told = BY_NAME[figure]
    assert re.search(rf"(?<![\d.-]){re.escape(value)}(?![\d.])", f"{told.range} {told.formula} {told.beware}")


def still(first: Film, second: Film) -> metrics.Measures:
    """Measure films in which nothing moves."""
    none = np.zeros((*first[0].shape[:2], 2), np.float32)
    motion = films.exact_motion()._replace(back=none, forth=none, visible=np.ones(first[0].shape[:2], bool))
    return measure(first, second, motions=[motion] * (len(first) - 1))


def test_the_most_that_warp_error_and_flicker_can_be() -> None:
    found = still([BLACK] * 32, [BLACK, WHITE] * 16)
    assert found.warp_error == 255**2 == 65_025
    assert found.spectrum is not None
    assert found.spectrum.flicker == pytest.approx(50, abs=0.1)
    assert still([BLACK] * 2, [BLACK] * 2).warp_error == 0


def test_the_most_that_an_edit_can_be() -> None:
    corners = [
        np.array(one, np.uint8)[None, None].repeat(16, 0).repeat(16, 1) for one in itertools.product((0, 255), repeat=3)
    ]
    most = max(metrics.picture_edit_strength(a, b) for a, b in itertools.combinations(corners, 2))
    assert round(most) == 258 or most == pytest.approx(258, abs=1)
    checks = np.where(np.indices((64, 64)).sum(axis=0)[..., None] // 2 % 2, WHITE, BLACK)
    assert metrics.picture_edit_structure(checks, np.asarray(255 - checks, np.uint8)) == pytest.approx(2, abs=0.05)
    assert metrics.picture_edit_structure(checks, checks) == pytest.approx(0, abs=1e-6)


def test_a_film_that_stands_still_is_one_whole_ghost() -> None:
    held = measure(films.source(), [films.edit()[0]] * films.FRAMES, motions=[films.exact_motion()] * 47).ghosting
    assert held == pytest.approx(1, abs=0.03)


def test_what_is_the_same_is_wholly_consistent_and_what_has_nothing_in_common_is_not_below_the_range() -> None:
    assert still([BLACK] * 2, [WHITE] * 2).frame_consistency == pytest.approx(100, abs=1e-3)
    assert metrics.cosine(np.array([1, 0], np.float32), np.array([-1, 0], np.float32)) == -1
