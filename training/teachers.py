"""The styles as plain functions of a picture: what the network learns to do from words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from core.algorithm.exposure import gain
from training.data import Mask, Picture, Random, blur, f32

Array: TypeAlias = NDArray[Any]
PIXEL = 4  # pixels of a picture in one of pixel art
HOLLOW = 0.05  # of a picture's shorter side: an eye of a face close by is no larger
NEAR = 0.02  # of it: where a contour would lie about an eye
FACETS = 7  # ways in which a face of low poly may slope


def clip(picture: Array) -> Array:
    return np.clip(picture, 0, 1).astype(np.float32)


def grey(picture: Picture) -> Mask:
    return f32(picture @ f32([0.299, 0.587, 0.114]))


def saturate(picture: Picture, amount: float) -> Picture:
    g = grey(picture)[..., None]
    return clip(g + (picture - g) * amount)


def smoothstep(x: Array, low: float, high: float) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def steps(x: Array, levels: int, sharpness: float = 3.0) -> Array:
    """Soft posterising."""
    scaled = x * levels
    floor = np.floor(scaled)
    return f32((floor + 0.5 + 0.5 * np.tanh(sharpness * (scaled - floor - 0.5)) / np.tanh(sharpness / 2)) / levels)


def ramp(x: Mask, colours: list[tuple[float, float, float]]) -> Picture:
    """Gradient map: 0 is the first colour, 1 the last."""
    table = f32(colours)
    at = np.clip(x, 0, 1) * (len(table) - 1)
    low = np.minimum(at.astype(int), len(table) - 2)
    part = (at - low)[..., None]
    return f32(table[low] * (1 - part) + table[low + 1] * part)


def balance(picture: Picture) -> Picture:
    """Even the light out, as the engine does with what it gives to the network."""
    return clip(picture * gain(grey(picture))[..., None])


@dataclass(frozen=True)
class Analysis:
    """What most teachers need to know of a picture, computed once."""

    picture: Picture  # balanced in brightness
    soft: Picture  # edge-preserving smoothing
    flat: Picture  # stronger
    light: Mask  # brightness of `soft`, 0..1
    tangent: Array  # [height, width, 2]: unit vectors along the edges


def analyse(picture: Picture) -> Analysis:
    balanced = balance(picture)
    soft = cv2.bilateralFilter(balanced, 7, 0.12, 3)
    flat = cv2.bilateralFilter(cv2.bilateralFilter(soft, 9, 0.14, 4), 9, 0.1, 4)
    light = grey(soft)
    smooth = blur(light, 1.2)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    xx, xy, yy = blur(dx * dx, 2.5), blur(dx * dy, 2.5), blur(dy * dy, 2.5)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    return Analysis(balanced, soft, flat, light, np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32))


def along(picture: Array, tangent: Array, length: int) -> Array:
    """Smear along the edges (line integral convolution), `length` pixels each way."""
    height, width = picture.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    total, count = picture.copy(), 1
    for sign in (-1.0, 1.0):
        at: Array = grid.copy()
        before: Array = tangent * sign
        for _ in range(length // 2):
            at = at + before * 2
            here = cv2.remap(tangent, at[..., 0], at[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            before = here * np.where((here * before).sum(-1, keepdims=True) < 0, -1, 1).astype(np.float32)
            total += cv2.remap(picture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            count += 1
    return total / count


def lines(light: Mask, thickness: float = 1.0, softness: float = 10.0, bias: float = 0.008) -> Mask:
    """Dark contours by a difference of Gaussians: 1 on lines, 0 elsewhere."""
    narrow, wide = blur(light, 0.9 * thickness), blur(light, 1.6 * 0.9 * thickness + 0.5)
    return f32(np.tanh(np.maximum(wide - narrow - bias, 0) * softness * 6))


def edges(light: Mask, thickness: float = 1.0, gain: float = 4.0) -> Mask:
    smooth = blur(light, 1.1 * thickness)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 4
    return np.tanh(np.maximum(slope - 0.012, 0) * gain * 3).astype(np.float32)


def emboss(height: Mask, strength: float) -> Mask:
    """Light from above left on a height field: about 0, positive where lit."""
    dx, dy = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
    return np.tanh((dx + 1.3 * dy) * strength / 4).astype(np.float32)


def slope(picture: Mask) -> Mask:
    """How steep a brightness is, a pixel."""
    return f32(np.hypot(cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1)) / 4)


def contours(a: Analysis) -> Mask:
    """Distance in pixels to the nearest strong contour of brightness or of colour, at most 32."""
    flat = blur(a.flat, 0.8)
    light = blur(grey(a.flat), 0.8)
    chroma = np.hypot(slope(flat[..., 0] - light), slope(flat[..., 2] - light))
    strong = np.maximum(slope(light), 0.8 * chroma) > 0.035
    away = cv2.distanceTransform((~strong).astype(np.uint8), cv2.DIST_L2, 5)
    return f32(np.minimum(blur(away, 0.7), 32))


def lit(form: Mask, lamp: tuple[float, float, float], contrast: float) -> Mask:
    """About 0: how much brighter a height field is, by a lamp at (right, below, before), than a flat one."""
    dx, dy = cv2.Sobel(form, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(form, cv2.CV_32F, 0, 1) / 8
    shade = (-dx * lamp[0] - dy * lamp[1] + lamp[2]) / np.sqrt(1 + dx * dx + dy * dy) / lamp[2]
    return f32(np.tanh((np.maximum(shade, 0) - 1) * contrast))


def evened(picture: Picture) -> Picture:
    """Without specks."""
    return f32(cv2.medianBlur((picture * 255).astype(np.uint8), 5)) / np.float32(255)


def toned(picture: Picture, tone: Mask, floor: float) -> Picture:
    """With another brightness and its own colours."""
    return picture * ((tone + floor) / (grey(picture) + floor))[..., None]


def features(a: Analysis) -> Mask:
    """What is small and darker or lighter than what is about it, signed: eyes, brows, lips, the rims of glasses."""
    light = grey(a.picture)
    return f32(0.6 * (light - blur(light, 1.2)) + 0.7 * (blur(light, 0.8) - blur(light, 3.0)))


def hollows(a: Analysis) -> Mask:
    """How much darker a small place is than what is about it, 0..1: eyes, nostrils, lips, folds."""
    light = blur(grey(a.picture), 0.6)
    size = 2 * round(HOLLOW * min(light.shape) / 2) + 1
    about = cv2.morphologyEx(light, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    about = blur(about, size / 4)
    # the least of it is noise
    return clip(1.2 * (about - light) / (about + 0.08) - 0.03)


def apart(hollow: Mask) -> Mask:
    """1 where no hollow is near, 0 beside them: where a contour may be bold and takes nothing from an eye."""
    return clip(1 - 8 * blur(hollow, NEAR * min(hollow.shape)))


def rims(light: Mask, thickness: float = 1.0) -> Mask:
    """The lighter side of each contour: 1 on it, 0 elsewhere."""
    return lines(1 - light, thickness, 10.0, 0.012)


def sunk(picture: Picture, hollow: Mask, depth: float, ink: tuple[float, float, float]) -> Picture:
    """Draw the hollows into a picture, with an ink that is darker than it."""
    return f32(picture + (f32(ink) - picture) * clip(depth * hollow)[..., None])


def clay(a: Analysis, thickness: float) -> Picture:
    away, rounded = contours(a), evened(a.flat)
    light = grey(rounded)
    base = toned(rounded, 0.4 * light + 0.6 * steps(light, 5, 3.5), 0.08)
    base = saturate(0.12 + 0.84 * blur(base, 0.7) ** 0.8, 1.55)  # no clay is black
    rims = 1 - np.exp(-away / 3)  # every coloured piece has a rounded rim
    shade = 0.5 * lit(blur(rims, 1.2) * 1.7 + blur(a.light, 1.2) * 5 + blur(a.light, 3.5) * 5, (-0.6, -0.36, 0.71), 1.6)
    prints = 0.05 * np.sin(2 * np.pi * (away / 3.4 + 6 * blur(a.light, 2))) * np.clip(1.3 - away / 10, 0, 1)
    crease = np.exp(-((away / 1.1) ** 2)) * 0.12 + 0.4 * lines(a.light, 0.8)
    base = clip(base + 0.9 * features(a)[..., None])
    shine = np.clip((shade - 0.16) * 3, 0, 1) ** 2 * 0.22
    return clip(base * (1.04 + shade + prints)[..., None] * (1 - crease)[..., None] + shine[..., None])


def pencil(a: Analysis, thickness: float) -> Picture:
    light = grey(a.picture) * 0.4 + a.light * 0.6
    dodge = np.minimum(light / (blur(light, 5.0 * thickness) + 0.03), 1.0) ** (2.2 * thickness)
    tone = 0.62 + 0.38 * smoothstep(a.light, 0.0, 0.55)
    out = np.minimum(dodge, 1 - 0.75 * lines(light, 0.9 * thickness)) * tone
    return ramp(out, [(0.13, 0.13, 0.15), (0.53, 0.53, 0.54), (0.98, 0.975, 0.955)])


def crayon(a: Analysis, thickness: float) -> Picture:
    strokes = along(a.picture, a.tangent, 4)
    detail = (grey(a.picture) - grey(a.flat)) * 3.0
    colours = saturate(strokes, 1.7)
    cover = clip(0.85 - 0.7 * smoothstep(a.light, 0.35, 0.9) + detail)
    paper = f32([0.99, 0.97, 0.93])
    ripple = 0.5 + 0.5 * np.sin(2 * np.pi * 22 * blur(a.light, 1.5))
    out = paper + (colours - paper) * clip(cover * (0.85 + 0.15 * ripple))[..., None]
    return clip(out * (1 - 0.7 * lines(a.light, 1.3 * thickness)[..., None] * (1 - colours * 0.5)))


def oil(a: Analysis, thickness: float) -> Picture:
    smeared = along(a.soft, a.tangent, 6)
    sharp = clip(smeared + 1.0 * (smeared - blur(smeared, 2.0)) + 1.1 * features(a)[..., None])
    relief = emboss(along(grey(a.picture + 1.5 * (a.picture - blur(a.picture, 2.0))), a.tangent, 8), 3.0)
    rich = clip(saturate(sharp, 1.4) * f32([1.04, 0.99, 0.9]))
    return clip(rich + 0.09 * relief[..., None])


def watercolour(a: Analysis, thickness: float) -> Picture:
    wash = blur(a.flat, 1.2)
    wash = saturate(wash, 1.5) ** 0.55
    light = grey(wash)
    rim = np.maximum(blur(light, 3.5) - light, 0) * 2.4 + 0.45 * edges(a.light, 0.9, 2.5)
    bloom = np.sin(2 * np.pi * 5 * blur(light, 4.0)) * 0.05
    out = wash * (1 - np.minimum(rim, 0.6) + bloom)[..., None]
    paper = f32([1.0, 0.99, 0.96])
    return clip(paper - (paper - clip(out)) * (0.92 - 0.6 * smoothstep(light, 0.55, 0.95))[..., None])


def cartoon(a: Analysis, thickness: float) -> Picture:
    light = grey(a.flat)
    fill = saturate(toned(a.flat, steps(light, 5, 6.0), 0.1), 1.55)
    fill = clip(fill + 0.9 * features(a)[..., None])
    ink = np.maximum(lines(a.light, 0.9 * thickness, 16.0, 0.012), 0.7 * edges(a.light, 0.8 * thickness, 3.0) ** 2)
    return clip(fill * (1 - ink)[..., None])


def anime(a: Analysis, thickness: float) -> Picture:
    flat = evened(a.flat)
    lifted = grey(flat) ** 0.75
    fill = saturate(toned(flat, steps(lifted, 4, 9.0), 0.07), 1.35)
    shadow = 1 - smoothstep(lifted, 0.35, 0.6)[..., None]
    fill = clip(fill * (1 - shadow * (1 - f32([0.86, 0.82, 1.04]))) * 0.98 + 0.02)
    bloom = blur(np.maximum(fill - 0.72, 0), 5) * 0.25
    hollow, dark = hollows(a), (0.17, 0.09, 0.22)
    line = lines(blur(a.light, 0.6), 0.85 * thickness, 16.0, 0.012) * (0.25 + 0.75 * apart(hollow))
    return clip(sunk(sunk(fill + bloom, line, 1.0, dark), hollow, 1.2, dark))


def neon(a: Analysis, thickness: float) -> Picture:
    flat, hollow = grey(a.flat), hollows(a)
    # tubes on the lighter side of contours only, and none about the eyes
    edge = edges(flat, 1.1 * thickness, 6.0) * smoothstep(flat - blur(flat, 2.5), -0.02, 0.02) * apart(hollow) ** 2
    hue = ramp(smoothstep(blur(a.light, 3.0), 0.15, 0.85), [(0.2, 0.3, 1.0), (1.0, 0.1, 0.85), (0.1, 0.95, 1.0)])
    core = edge[..., None] * hue
    glow = blur(core, 3.0) * 1.1 + blur(core, 9.0) * 1.5
    lit = clip(1.25 * (a.light - 0.1))[..., None] ** 1.15 * (0.12 + 0.62 * hue)  # what the tubes light
    return clip(sunk(clip(lit + glow + core * 1.3 + (edge**2)[..., None] * 0.5), hollow, 1.3, (0.0, 0.0, 0.02)))


def ink(a: Analysis, thickness: float) -> Picture:
    light = grey(along(a.soft, a.tangent, 2))
    hollow = hollows(a)
    line = np.maximum(lines(light, 0.8 * thickness, 20.0), 0.7 * edges(light, 0.7 * thickness, 3.0) ** 2)
    line = line * (0.55 + 0.45 * apart(hollow))  # no bolder than an eye beside it
    black = 1 - smoothstep(blur(light, 0.7), 0.10, 0.22)
    tone = light + 0.8 * features(a)
    wash = 0.2 * (1 - smoothstep(tone, 0.34, 0.42)) + 0.12 * (1 - smoothstep(tone, 0.54, 0.60))
    out = (1 - np.maximum(np.maximum(line, black), wash)) * (1 - clip(1.5 * hollow))
    return ramp(out, [(0.03, 0.03, 0.05), (0.97, 0.96, 0.93)])


def vintage(a: Analysis, thickness: float) -> Picture:
    light = grey(blur(a.picture, 0.7))
    faded = 0.14 + 0.74 * smoothstep(light, -0.05, 1.05)
    return ramp(faded, [(0.16, 0.09, 0.04), (0.55, 0.40, 0.25), (0.97, 0.88, 0.70)])


def gold(a: Analysis, thickness: float) -> Picture:
    relief = emboss(blur(a.light, 1.2), 5.0) * 0.3 + emboss(blur(a.light, 3.0), 9.0) * 0.45
    metal = 0.10 + 0.68 * a.light + 0.42 * relief + 1.1 * features(a)
    metal = metal + 0.09 * np.sin(2 * np.pi * 3.5 * blur(a.light, 1.5))
    out = ramp(metal, [(0.10, 0.04, 0.0), (0.45, 0.24, 0.03), (0.86, 0.60, 0.12), (1.0, 0.86, 0.36), (1.0, 0.98, 0.82)])
    return clip(out * (1 - 0.3 * edges(a.light, 0.8, 2.5))[..., None])


def marble(a: Analysis, thickness: float) -> Picture:
    base = grey(a.flat)
    shade = lit(blur(a.light, 1.2) * 7 + blur(a.light, 4) * 14, (-0.62, -0.4, 0.68), 1.2)
    stone = 0.4 + 0.42 * smoothstep(blur(base, 1.5), 0.0, 0.9) + 0.32 * shade + 1.2 * features(a)
    field = 1.6 * blur(a.light, 6.0) + 0.12 * np.sin(9 * blur(a.light, 2.5))
    veins = np.exp(-((np.sin(2 * np.pi * field) / 0.22) ** 2))
    stone = stone - 0.14 * veins - 0.2 * lines(a.light, 1.0)
    return ramp(
        stone, [(0.10, 0.11, 0.15), (0.36, 0.38, 0.43), (0.66, 0.67, 0.69), (0.90, 0.895, 0.88), (1.0, 1.0, 0.98)]
    )


def low_poly(a: Analysis, thickness: float) -> Picture:
    colours = evened(a.flat)
    tone = steps(grey(colours), 7, 14.0)
    bytes_ = (tone * 255).astype(np.uint8)
    borders = cv2.morphologyEx(bytes_, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 14
    # each piece is a roof over its borders; a face of it is what slopes one way
    roof = np.minimum(cv2.distanceTransform((~borders).astype(np.uint8), cv2.DIST_L2, 5), 64)  # of one piece: no end
    roof = blur(roof, 1.0)
    dx, dy = cv2.Sobel(roof, cv2.CV_32F, 1, 0), cv2.Sobel(roof, cv2.CV_32F, 0, 1)
    turn = np.round(np.arctan2(dy, dx) / (2 * np.pi) * FACETS) / FACETS * 2 * np.pi
    light = np.cos(turn + 2.4) * np.tanh(np.hypot(dx, dy) / 2)
    light = f32(cv2.medianBlur(((light + 1) * 127).astype(np.uint8), 7)) / 127 - 1
    hollow = hollows(a)
    clear = apart(hollow)
    fill = saturate(toned(colours, tone, 0.06), 1.35) * (1 + 0.18 * light * clear)[..., None]
    fill = fill * (1 - 0.5 * lines(a.light, 0.9) * clear)[..., None]
    return clip(sunk(fill, hollow, 1.2, (0.06, 0.04, 0.06)))


def pop_art(a: Analysis, thickness: float) -> Picture:
    hollow, dark = hollows(a), (0.07, 0.04, 0.27)
    light = smoothstep(grey(a.flat), 0.0, 1.0)
    fill = ramp(
        0.65 * steps(light, 4, 5.0) + 0.35 * light,
        [dark, (0.35, 0.05, 0.55), (0.95, 0.12, 0.48), (1.0, 0.5, 0.38), (1.0, 0.84, 0.3), (1.0, 0.97, 0.78)],
    )
    line = 0.8 * lines(a.light, 1.0 * thickness, 14.0, 0.014) * apart(hollow)
    return clip(sunk(sunk(fill, line, 1.0, dark), hollow, 1.5, dark))


def pixel_art(a: Analysis, thickness: float) -> Picture:
    height, width = a.light.shape
    small = width // PIXEL, height // PIXEL
    crisp = clip(a.picture + 0.8 * (a.picture - blur(a.picture, 2.5)))
    outline = np.maximum(lines(a.light, 1.6, 14.0), 0.6 * edges(grey(a.flat), 1.6, 3.0) ** 2)
    crisp, outline = (cv2.resize(one, small, interpolation=cv2.INTER_AREA) for one in (crisp, outline))
    few = steps(clip(saturate(toned(crisp, steps(grey(crisp), 6, 12.0), 0.04), 1.5)), 7, 12.0)
    inked = few * (1 - 0.75 * np.clip(outline * 1.3, 0, 1))[..., None]
    return clip(cv2.resize(inked, (width, height), interpolation=cv2.INTER_NEAREST))


def woodblock(a: Analysis, thickness: float) -> Picture:
    light = grey(a.flat)
    tone = steps(light, 4, 7.0)
    warm = clip((a.flat[..., 0] - a.flat[..., 2]) * 2.2 + 0.35)[..., None]
    cool = ramp(tone, [(0.07, 0.14, 0.30), (0.20, 0.38, 0.52), (0.58, 0.70, 0.70), (0.95, 0.91, 0.80)])
    hot = ramp(tone, [(0.25, 0.09, 0.10), (0.70, 0.28, 0.18), (0.90, 0.66, 0.45), (0.97, 0.90, 0.76)])
    line = np.maximum(lines(a.light, 1.0 * thickness, 16.0), edges(a.light, 0.9 * thickness, 2.5) ** 2)
    hollow, dark = hollows(a), (0.05, 0.08, 0.18)
    drawn = sunk(cool + (hot - cool) * warm, line * (0.4 + 0.6 * apart(hollow)), 1.0, dark)
    return clip(sunk(drawn, hollow, 1.4, dark))


def van_gogh(a: Analysis, thickness: float) -> Picture:
    strokes = clip(along(a.picture + 1.5 * (a.picture - blur(a.picture, 1.5)), a.tangent, 12))
    light, swirl, away = grey(strokes), blur(a.light, 3.0), contours(a)
    # strokes run along the contours, and break where the brightness turns
    ribs = np.sin(2 * np.pi * (away / 5 + 5 * swirl)) * np.clip(1.4 - away / 13, 0, 1)
    hollow = hollows(a)
    ribs = ribs * apart(1.6 * hollow) * (0.65 + 0.35 * np.sin(2 * np.pi * 9 * swirl))
    night = ramp(
        smoothstep(light, -0.08, 1.02) + 0.06 * ribs,
        [
            (0.02, 0.04, 0.22),
            (0.05, 0.16, 0.55),
            (0.13, 0.45, 0.68),
            (0.62, 0.72, 0.42),
            (0.97, 0.78, 0.22),
            (1, 0.96, 0.66),
        ],
    )
    out = saturate(night * 0.52 + saturate(strokes, 1.9) * 0.48, 1.25)
    relief = emboss(along(f32(light + 0.07 * ribs), a.tangent, 4), 4.0) * 0.2
    drawn = (relief - 0.5 * lines(a.light, 1.1)) * apart(hollow)
    painted = clip(out * (1 + drawn + 0.12 * ribs)[..., None])
    return clip(sunk(painted, hollow, 1.7, (0.02, 0.04, 0.18)))


def blueprint(a: Analysis, thickness: float) -> Picture:
    hollow, navy = hollows(a), (0.01, 0.07, 0.30)
    # white on the lighter side of contours only, and none about the eyes: what is dark in a face stays darker than skin
    line = np.tanh(2.5 * rims(a.light, 0.9 * thickness) * apart(hollow) ** 2)
    drawn = ramp(0.02 + 0.56 * a.light + 0.8 * line, [navy, (0.15, 0.37, 0.76), (0.96, 0.98, 1.0)])
    return clip(sunk(drawn, hollow, 1.3, navy))


def thermal(a: Analysis, thickness: float) -> Picture:
    heat = ramp(
        blur(a.light, 0.6),
        [(0.02, 0.0, 0.2), (0.35, 0.0, 0.6), (0.85, 0.1, 0.35), (1.0, 0.55, 0.1), (1.0, 0.95, 0.4), (1.0, 1.0, 0.95)],
    )
    return clip(sunk(heat, hollows(a), 1.1, (0.15, 0.0, 0.35)))


def cyberpunk(a: Analysis, thickness: float) -> Picture:
    hollow, around = hollows(a), blur(a.light, 3.0)
    # the hue is of a place, the brightness of a pixel
    tone = ramp(
        smoothstep(around, 0.1, 1.15),
        [(0.04, 0.0, 0.14), (0.0, 0.28, 0.45), (0.75, 0.12, 0.6), (1.0, 0.55, 0.8), (0.85, 1.0, 1.0)],
    )
    tone = clip(tone * ((a.light + 0.1) / (around + 0.1))[..., None])
    glow = blur(np.maximum(tone - 0.5, 0), 4.0) * 0.7
    edge = (rims(a.light, 0.8) * apart(hollow))[..., None] * f32([0.0, 0.22, 0.25])
    lit = clip(saturate(tone * 0.75 + a.soft * 0.25, 1.15) + glow + edge)
    return clip(sunk(lit, hollow, 1.0, (0.02, 0.0, 0.07)))


Teacher = Callable[[Analysis, float], Picture]
TEACHERS: dict[str, Teacher] = {
    "claymation": clay,
    "pencil sketch": pencil,
    "crayon": crayon,
    "oil painting": oil,
    "watercolour": watercolour,
    "cartoon": cartoon,
    "anime": anime,
    "neon": neon,
    "ink": ink,
    "vintage photograph": vintage,
    "low poly": low_poly,
    "pop art": pop_art,
    "gold statue": gold,
    "marble statue": marble,
    "pixel art": pixel_art,
    "woodblock print": woodblock,
    "van gogh": van_gogh,
    "blueprint": blueprint,
    "thermal": thermal,
    "cyberpunk": cyberpunk,
}
LINED = ("pencil sketch", "crayon", "cartoon", "anime", "neon", "ink", "woodblock print", "blueprint", "pop art")


def tint(red: float, green: float, blue: float) -> Callable[[Picture], Picture]:
    def apply(picture: Picture) -> Picture:
        ink = f32([red, green, blue])
        toned = grey(picture)[..., None] ** 0.9 * (0.25 + ink * 1.05)
        return clip(picture * 0.35 + toned * 0.65)

    return apply


ATTRIBUTES: dict[str, Callable[[Picture], Picture]] = {
    "warm": lambda p: clip(p * f32([1.15, 1.0, 0.72]) + f32([0.05, 0.01, 0])),
    "cold": lambda p: clip(p * f32([0.72, 0.96, 1.15]) + f32([0, 0.01, 0.05])),
    "night": lambda p: clip(saturate(p, 0.7) ** 1.3 * f32([0.34, 0.42, 0.72])),
    "day": lambda p: clip(p**0.72 * f32([1.08, 1.06, 0.98]) + 0.03),
    "monochrome": lambda p: np.repeat(grey(p)[..., None], 3, -1),
    "vivid": lambda p: saturate(clip((p - 0.5) * 1.15 + 0.5), 1.8),
    "pastel": lambda p: clip(saturate(p, 0.6) * 0.5 + 0.48),
    "red": tint(1.0, 0.12, 0.10),
    "green": tint(0.15, 0.85, 0.2),
    "blue": tint(0.12, 0.3, 1.0),
    "purple": tint(0.65, 0.15, 0.9),
    "yellow": tint(1.0, 0.82, 0.1),
    "pink": tint(1.0, 0.45, 0.7),
}


def lesson(a: Analysis, style: str, attribute: str, random: Random | None = None) -> Picture:
    """Return what the picture shall look like: a style ("" for none) with an attribute ("" for none)."""
    thickness = {"thick": 1.7, "thin": 0.65}.get(attribute, 1.0)
    out = TEACHERS[style](a, thickness) if style else a.picture
    return ATTRIBUTES[attribute](out) if attribute in ATTRIBUTES else out
