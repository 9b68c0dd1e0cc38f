"""The styles as plain functions of a picture: what the network learns to do from words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import Mask, Picture, Random, blur, f32

Array: TypeAlias = NDArray[Any]


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


def level(x: Mask) -> Mask:
    """Stretch the brightness so that dark rooms and bright windows stylise alike."""
    low, high = np.percentile(x, (2, 98))
    span = max(float(high - low), 0.35)
    middle = float(high + low) / 2
    return clip((x - middle) / span * 0.9 + 0.25 * middle + 0.375)


@dataclass(frozen=True)
class Analysis:
    """What most teachers need to know of a picture, computed once."""

    picture: Picture  # balanced in brightness
    soft: Picture  # edge-preserving smoothing
    flat: Picture  # stronger
    light: Mask  # brightness of `soft`, 0..1
    tangent: Array  # [height, width, 2]: unit vectors along the edges


def analyse(picture: Picture) -> Analysis:
    brightness = grey(picture)
    gain = (level(brightness) + 0.02) / (brightness + 0.02)
    balanced = clip(picture * np.minimum(gain, 3.0)[..., None])
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


def clay(a: Analysis, thickness: float) -> Picture:
    rounded = cv2.medianBlur((a.flat * 255).astype(np.uint8), 5).astype(np.float32) / 255
    light = grey(rounded)
    tone = steps(light, 5, 2.5)
    base = saturate(blur(rounded, 1.5) * ((tone + 0.1) / (blur(light, 1.5) + 0.1))[..., None], 1.55) * 0.82 + 0.11
    volume = blur(light, 1.8) - blur(light, 9.0)
    relief = emboss(volume, 16.0) * 0.42 + emboss(blur(light, 1.0), 6.0) * 0.15
    prints = np.sin(2 * np.pi * 14 * blur(light, 2.0)) * 0.07  # fingerprints follow the form
    crease = np.maximum(blur(edges(light, 1.1, 3.0), 0.7), 0.8 * lines(a.light, 1.2))
    shine = np.maximum(emboss(volume, 16.0) - 0.45, 0) * 0.4
    return clip(base * (1 + relief + prints)[..., None] * (1 - 0.55 * crease)[..., None] + shine[..., None])


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
    smeared = along(a.soft, a.tangent, 10)
    sharp = clip(smeared + 1.2 * (smeared - blur(smeared, 2.5)))
    relief = emboss(along(grey(a.picture + 1.5 * (a.picture - blur(a.picture, 2.0))), a.tangent, 8), 3.0)
    rich = saturate(sharp, 1.4)
    rich = clip(rich * f32([1.04, 0.99, 0.9]))
    return clip(rich + 0.11 * relief[..., None])


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
    tone = steps(light, 5, 6.0)
    fill = saturate(a.flat * ((tone + 0.1) / (light + 0.1))[..., None], 1.55)
    ink = np.maximum(lines(a.light, 1.2 * thickness, 16.0), 0.8 * edges(a.light, 1.1 * thickness, 3.0) ** 2)
    return clip(fill * (1 - ink)[..., None])


def anime(a: Analysis, thickness: float) -> Picture:
    light = grey(a.flat)
    cel = smoothstep(light, 0.24, 0.32) * 0.6 + smoothstep(light, 0.56, 0.63) * 0.4
    colours = saturate(a.flat / (light[..., None] + 0.15) * 0.62, 1.25)
    shade = f32([0.55, 0.48, 0.74])
    fill = clip(colours * (shade + (f32([1.22, 1.16, 1.12]) - shade) * cel[..., None]))
    fill = clip(fill + 0.25 * blur(np.maximum(fill - 0.75, 0), 4))
    line = lines(a.light, 0.85 * thickness, 16.0)[..., None]
    return clip(fill * (1 - line) + f32([0.2, 0.1, 0.28]) * line)


def neon(a: Analysis, thickness: float) -> Picture:
    edge = edges(grey(a.flat), 1.0 * thickness, 5.0)
    hue = ramp(smoothstep(blur(a.light, 3.0), 0.15, 0.85), [(0.2, 0.3, 1.0), (1.0, 0.1, 0.85), (0.1, 0.95, 1.0)])
    core = edge[..., None] * hue
    glow = blur(core, 3.0) * 0.9 + blur(core, 8.0) * 0.6
    return clip(a.soft * f32([0.05, 0.03, 0.1]) + glow + core * 0.9 + (edge**3)[..., None] * 0.5)


def ink(a: Analysis, thickness: float) -> Picture:
    light = grey(along(a.soft, a.tangent, 4))
    line = np.maximum(lines(light, 1.15 * thickness, 22.0), edges(light, 0.9 * thickness, 3.0) ** 2)
    black = 1 - smoothstep(blur(light, 1.0), 0.16, 0.28)
    wash = 0.22 * (1 - smoothstep(blur(light, 1.5), 0.36, 0.46))
    out = 1 - np.maximum(np.maximum(line, black), wash)
    return ramp(out, [(0.03, 0.03, 0.05), (0.97, 0.96, 0.93)])


def vintage(a: Analysis, thickness: float) -> Picture:
    light = grey(blur(a.picture, 0.7))
    faded = 0.14 + 0.74 * smoothstep(light, -0.05, 1.05)
    return ramp(faded, [(0.16, 0.09, 0.04), (0.55, 0.40, 0.25), (0.97, 0.88, 0.70)])


def gold(a: Analysis, thickness: float) -> Picture:
    relief = emboss(blur(a.light, 1.6), 6.0) * 0.5 + emboss(blur(a.light, 3.5), 10.0) * 0.5
    metal = 0.14 + 0.6 * a.light + 0.55 * relief + 0.09 * np.sin(2 * np.pi * 3.5 * blur(a.light, 1.5))
    out = ramp(metal, [(0.10, 0.04, 0.0), (0.45, 0.24, 0.03), (0.86, 0.60, 0.12), (1.0, 0.86, 0.36), (1.0, 0.98, 0.82)])
    return clip(out * (1 - 0.35 * edges(a.light, 1.0, 2.5))[..., None])


def marble(a: Analysis, thickness: float) -> Picture:
    relief = emboss(blur(a.light, 1.3), 6.0) * 0.5 + emboss(blur(a.light, 3.5), 10.0) * 0.5
    stone = 0.58 + 0.36 * (a.light - 0.5) + 0.5 * relief - 0.35 * edges(a.light, 1.1, 2.5)
    return ramp(stone, [(0.16, 0.17, 0.20), (0.55, 0.57, 0.60), (0.90, 0.90, 0.90), (1.0, 1.0, 0.99)])


def low_poly(a: Analysis, thickness: float) -> Picture:
    height, width = a.light.shape
    cell = 12
    slope = np.hypot(cv2.Sobel(a.light, cv2.CV_32F, 1, 0), cv2.Sobel(a.light, cv2.CV_32F, 0, 1))
    weight = blur(slope, 0.8) ** 3 + 1e-5
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    total = cv2.blur(weight, (cell - 2, cell - 2))
    # each corner of the mesh moves to the strongest edge about it
    at_x, at_y = (
        cv2.blur(weight * xs, (cell - 2, cell - 2)) / total,
        cv2.blur(weight * ys, (cell - 2, cell - 2)) / total,
    )
    row, column = np.arange(-cell, height + 2 * cell, cell), np.arange(-cell, width + 2 * cell, cell)
    inside = np.ix_(np.clip(row, 0, height - 1), np.clip(column, 0, width - 1))
    mesh = np.stack([at_x[inside], at_y[inside]], -1)
    mesh[0, :, 1], mesh[-1, :, 1], mesh[:, 0, 0], mesh[:, -1, 0] = -cell, height + cell, -cell, width + cell
    out = blur(a.soft, 1.0)
    colours = saturate(cv2.medianBlur((blur(a.picture, 0.8) * 255).astype(np.uint8), 3).astype(np.float32) / 255, 1.3)
    for r in range(len(row) - 1):
        for c in range(len(column) - 1):
            north, east, south, west = mesh[r, c], mesh[r, c + 1], mesh[r + 1, c + 1], mesh[r + 1, c]
            halves = (
                ((north, east, south), (north, south, west))
                if (r + c) % 2
                else ((north, east, west), (east, south, west))
            )
            for points in halves:
                x, y = np.clip(np.mean(points, 0).round().astype(int), 0, (width - 1, height - 1))
                cv2.fillConvexPoly(
                    out, np.round(np.stack(points) * 16).astype(np.int32), colours[y, x].tolist(), cv2.LINE_AA, 4
                )
    return clip(out)


def pop_art(a: Analysis, thickness: float) -> Picture:
    light = smoothstep(blur(grey(a.flat), 0.8), 0.05, 0.95)
    tone = steps(light, 4, 8.0)
    fill = ramp(
        tone,
        [
            (0.07, 0.05, 0.35),
            (0.35, 0.05, 0.55),
            (0.95, 0.12, 0.48),
            (1.0, 0.55, 0.1),
            (1.0, 0.88, 0.15),
            (0.98, 0.97, 0.75),
        ],
    )
    line = lines(a.light, 1.2 * thickness, 16.0)[..., None]
    return clip(fill * (1 - line))


def pixel_art(a: Analysis, thickness: float) -> Picture:
    height, width = a.light.shape
    small = cv2.resize(saturate(a.picture, 1.4), (width // 8, height // 8), interpolation=cv2.INTER_AREA)
    return clip(cv2.resize(steps(small, 5, 5.0), (width, height), interpolation=cv2.INTER_NEAREST))


def woodblock(a: Analysis, thickness: float) -> Picture:
    light = grey(a.flat)
    tone = steps(light, 4, 7.0)
    warm = clip((a.flat[..., 0] - a.flat[..., 2]) * 2.2 + 0.35)[..., None]
    cool = ramp(tone, [(0.07, 0.14, 0.30), (0.20, 0.38, 0.52), (0.58, 0.70, 0.70), (0.95, 0.91, 0.80)])
    hot = ramp(tone, [(0.25, 0.09, 0.10), (0.70, 0.28, 0.18), (0.90, 0.66, 0.45), (0.97, 0.90, 0.76)])
    line = np.maximum(lines(a.light, 1.0 * thickness, 16.0), edges(a.light, 0.9 * thickness, 2.5) ** 2)[..., None]
    return clip((cool + (hot - cool) * warm) * (1 - line) + f32([0.05, 0.08, 0.18]) * line)


def van_gogh(a: Analysis, thickness: float) -> Picture:
    boosted = a.picture + 2.0 * (a.picture - blur(a.picture, 2.0))
    strokes = along(boosted, a.tangent, 10)
    light = grey(strokes)
    ribs = np.sin(2 * np.pi * 9 * blur(a.light, 2.0))
    relief = emboss(light, 4.0) * 0.2 + 0.07 * ribs
    night = ramp(
        clip(light), [(0.04, 0.07, 0.25), (0.12, 0.30, 0.62), (0.45, 0.62, 0.66), (0.93, 0.78, 0.28), (1.0, 0.95, 0.65)]
    )
    return clip(saturate(night * 0.62 + clip(strokes) * 0.38, 1.25) * (1 + relief)[..., None])


def blueprint(a: Analysis, thickness: float) -> Picture:
    line = np.maximum(edges(a.light, 0.8 * thickness, 3.5), lines(a.light, 1.0 * thickness))
    return ramp(0.1 + 0.12 * a.light + 0.78 * line, [(0.03, 0.14, 0.42), (0.16, 0.36, 0.72), (0.96, 0.98, 1.0)])


def thermal(a: Analysis, thickness: float) -> Picture:
    return ramp(
        blur(a.light, 1.2),
        [(0.02, 0.0, 0.2), (0.35, 0.0, 0.6), (0.85, 0.1, 0.35), (1.0, 0.55, 0.0), (1.0, 0.95, 0.3), (1.0, 1.0, 0.95)],
    )


def cyberpunk(a: Analysis, thickness: float) -> Picture:
    tone = ramp(
        smoothstep(a.light, 0.1, 1.15),
        [(0.04, 0.0, 0.14), (0.0, 0.28, 0.45), (0.75, 0.12, 0.6), (1.0, 0.55, 0.8), (0.85, 1.0, 1.0)],
    )
    glow = blur(np.maximum(tone - 0.5, 0), 4.0) * 0.9
    edge = edges(a.light, 0.9, 3.0)[..., None] * f32([0.0, 0.5, 0.55])
    return clip(saturate(tone * 0.75 + a.soft * 0.25, 1.15) + glow + edge * 0.6)


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
