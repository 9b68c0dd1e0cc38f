"""core.steadying: flicker goes where the source says where a point was; elsewhere a translation stays as it is."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from core.steadying import SourceMotion, Steadying, mixed, source_motion

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 96, 128
HALF = 0.5


def scene(shift: int) -> Pixels:
    """A smooth picture of some structure, `shift` pixels further to the left."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    x = x + shift
    planes = [np.sin(x / 7 + k) + np.cos(y / 6 - k) + np.sin((x + 2 * y) / (11 + k)) for k in range(3)]
    return (127 + 40 * np.stack(planes, axis=-1)).clip(0, 255).astype(np.uint8)


def flickering(picture: Pixels, number: int, sigma: float = 12) -> Pixels:
    noise = np.random.default_rng(number).normal(0, sigma, picture.shape)
    return (255 - picture + noise).clip(0, 255).astype(np.uint8)


def run(sources: list[Pixels], outputs: list[Pixels], strength: float, delay: int = 0) -> list[Pixels]:
    """What is shown of those translations, outputs[i] being that of sources[i]."""
    state, shown = Steadying(), []
    for number in range(len(sources) + delay):
        state = state.given(sources[min(number, len(sources) - 1)], delay)
        if number >= delay:
            picture, state = state.after(outputs[number - delay], state.motion(strength), strength)
            shown.append(picture)
    return shown


def error(one: Pixels, other: Pixels) -> float:
    inside = (slice(12, -12), slice(16, -16))  # what came into the picture was seen nowhere
    return float(np.square(one[inside].astype(float) - other[inside]).mean())


@pytest.mark.parametrize("speed", [0, 2])
@pytest.mark.parametrize("delay", [0, 2])
def test_flicker_is_halved_at_least_along_the_motion_and_nothing_trails(speed: int, delay: int) -> None:
    sources = [scene(speed * n) for n in range(9)]
    outputs = [flickering(source, n) for n, source in enumerate(sources)]
    shown = run(sources, outputs, HALF, delay)
    assert error(shown[-1], 255 - sources[-1]) < 0.62 * error(outputs[-1], 255 - sources[-1])
    assert shown[0] is outputs[0]


def test_at_strength_none_and_after_a_cut_a_translation_is_shown_as_it_is() -> None:
    sources = [scene(0), scene(1)]
    outputs = [flickering(source, n) for n, source in enumerate(sources)]
    assert all(a is b for a, b in zip(run(sources, outputs, 0.0), outputs, strict=True))
    cut = [sources[0], np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)]
    apart = run(cut, outputs, HALF)[1].astype(int) - outputs[1]
    assert np.abs(apart).mean() < 0.5


def test_a_thing_that_leaves_takes_its_translation_along() -> None:
    empty = scene(0)
    full = empty.copy()
    full[30:66, 40:88] = [250, 10, 10]
    outputs = [255 - full, 255 - empty]
    shown = run([full, empty], outputs, HALF)[1]
    assert np.abs(shown[36:60, 46:82].astype(int) - outputs[1][36:60, 46:82]).mean() < 6


def test_thousands_of_pictures_grow_neither_soft_nor_dark() -> None:
    source, output = scene(0), 255 - scene(0)
    motion = source_motion(source, source)
    kept = shown = output
    for _ in range(2000):
        kept, shown = mixed(output, kept, motion, 0.9)
    assert np.abs(kept.astype(int) - output).max() <= 1
    assert np.abs(shown.astype(int) - output).mean() < 2


def fine(picture: Pixels) -> float:
    return float(np.abs(np.diff(picture.astype(float), axis=1)).mean())


@functools.cache
def texture(halves: int) -> Pixels:
    """A picture of fine structure, so many half pixels further to the left."""
    noise = np.random.default_rng(0).normal(0, 1, (2 * HEIGHT, 2 * WIDTH + 50)).astype(np.float32)
    double = cv2.GaussianBlur(noise, (0, 0), 1.2)[::2, halves : halves + 2 * WIDTH : 2]
    return np.repeat((127 + 110 * double)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


def test_the_first_pictures_are_no_sharper_than_those_to_come() -> None:
    # nothing moves and nothing flickers, so nothing is lost, and what is given back shows: it must not come at once
    source, output = scene(0), texture(0)
    shown = run([source] * 40, [output] * 40, HALF)
    gained = [fine(picture) / fine(shown[0]) - 1 for picture in shown]
    assert 0 <= gained[1] < 0.4 * gained[-1]
    assert gained[1] < gained[8] < gained[-1]


@pytest.mark.parametrize(("halves", "most"), [(0, 1.08), (1, 1.15)])
def test_what_moves_is_not_softer_for_the_interpolation_and_what_stands_is_no_sharper(halves: int, most: float) -> None:
    # `halves` of a pixel from picture to picture: between two pixels is where interpolating costs most
    x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    seen = np.ones_like(x)
    motion = SourceMotion(x + halves / 2, y, seen, seen * bool(halves))
    kept = shown = texture(0)
    for number in range(1, 20):
        kept, shown = mixed(texture(halves * number), kept, motion, 0.6)
    inside = (slice(None), slice(0, -20))  # what came in at the right was seen nowhere
    assert 1 <= fine(shown[inside]) / fine(texture(halves * 19)[inside]) < most


@pytest.mark.parametrize("sigma", [3, 8])
def test_a_sensors_noise_is_no_motion_not_even_on_a_plain_wall(sigma: float) -> None:
    random = np.random.default_rng(0)
    wall = np.broadcast_to(np.linspace(110, 150, 256, dtype=np.float32)[:, None, None], (256, 256, 3))
    one, other = (np.clip(wall + random.normal(0, sigma, wall.shape), 0, 255).astype(np.uint8) for _ in range(2))
    assert source_motion(one, other).moves.mean() < 0.15


def test_what_moves_is_seen_to_move_through_a_sensors_noise() -> None:
    random = np.random.default_rng(0)
    one, other = (np.clip(texture(n) + random.normal(0, 3, texture(n).shape), 0, 255).astype(np.uint8) for n in (2, 0))
    assert source_motion(one, other).moves[8:-8, 8:-28].mean() > 0.9


def test_after_a_change_of_look_sharpness_comes_back_little_by_little() -> None:
    state = Steadying()
    for held in (0, 0, 0, 2, 0, 0):
        state = state.held(held).given(scene(0), 0)
        _, state = state.after(255 - scene(0), state.motion(HALF), HALF)
    assert state.mixes == 1  # after two that were shown as they are


def test_while_a_look_changes_nothing_is_mixed_and_then_it_goes_on() -> None:
    sources = [scene(0)] * 6
    state, mixes = Steadying().held(3), []
    for number, source in enumerate(sources):
        state = state.given(source, 0)
        output = flickering(source, number)
        picture, state = state.after(output, state.motion(HALF), HALF)
        mixes.append(picture is not output)
    assert mixes == [False, False, False, True, True, True]


def test_a_black_picture_is_shown_and_forgotten() -> None:
    source, state = scene(0), Steadying()
    for output in (255 - source, np.zeros_like(source)):
        state = state.given(source, 0)
        picture, state = state.after(output, state.motion(HALF), HALF)
    assert not picture.any()
    assert state.given(source, 0).motion(HALF) is None


def test_large_pictures_are_measured_small() -> None:
    large = [np.repeat(np.repeat(scene(n), 6, axis=0), 6, axis=1) for n in (0, 2)]
    motion = source_motion(large[1], large[0])
    across = motion.x - np.arange(motion.x.shape[1])
    assert across.shape == (6 * HEIGHT, 6 * WIDTH)
    assert abs(float(np.median(across)) - 12) < 1
    assert abs(float(np.median(motion.y - np.arange(6 * HEIGHT)[:, None]))) < 1
