"""Draw things in front of the face. Images are (H, W, 3) uint8, display-coded."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.painting import Mask, blend, smooth_color_noise

Color = NDArray[np.floating]


def occlude(image: NDArray[np.uint8], kind: str, rng: np.random.Generator, skin: Color) -> None:
    """Draw something in front of the face, in place.

    Args:
        image: (H, W, 3).
        kind: One of scenes.OCCLUDERS or scenes.SHIFTED_OCCLUDERS.
        rng: Random generator of position and shape.
        skin: (3,) linear color of the skin, for hands.
    """
    mask = np.zeros(image.shape[:2], np.uint8)
    color = _OCCLUDERS[kind](mask, rng, skin)
    mask = cv2.GaussianBlur(mask, (0, 0), max(image.shape[0] * (0.05 if kind == "shadow" else 0.004), 0.3))
    if kind == "shadow":
        strength = rng.uniform(0.35, 0.75)
        image[:] = image * (1 - strength * mask.astype(np.float32)[..., None] / 255)
        return
    relief = cv2.GaussianBlur(mask, (0, 0), image.shape[0] * 0.02).astype(np.float32)
    light = rng.normal(0, 1, 2)
    shade = 0.8 + 0.0012 * (
        light[0] * cv2.Sobel(relief, cv2.CV_32F, 1, 0) + light[1] * cv2.Sobel(relief, cv2.CV_32F, 0, 1)
    )
    shade += 0.1 * smooth_color_noise(rng, image.shape[0], image.shape[1], 6)[..., 0]
    blend(image, (shade[..., None] * color.astype(np.float32)).clip(0, 255), mask)


def _hand(mask: Mask, rng: np.random.Generator, skin: Color) -> Color:
    """Draw a palm with fingers that reaches in from below or the side."""
    side = mask.shape[0]
    start = np.array([rng.uniform(-0.1, 1.1), rng.uniform(0.75, 1.15)]) * side
    toward = np.array([0.5, 0.55]) * side + rng.normal(0, 0.12, 2) * side - start
    angle, reach = np.arctan2(toward[1], toward[0]), rng.uniform(0.18, 0.34) * side
    palm = 0.12 * side
    cv2.circle(mask, tuple(start.astype(int).tolist()), int(palm), 255, -1, cv2.LINE_AA)
    for finger in range(4):
        spread = (finger - 1.5) * 0.17 + rng.normal(0, 0.04)
        root = start + palm * np.array([np.cos(angle + 2.2 * spread), np.sin(angle + 2.2 * spread)])
        tip = root + reach * rng.uniform(0.75, 1.0) * np.array([np.cos(angle + spread), np.sin(angle + spread)])
        cv2.line(
            mask, tuple(root.astype(int).tolist()), tuple(tip.astype(int).tolist()), 255, int(0.062 * side), cv2.LINE_AA
        )
    return 255 * (skin * rng.uniform(0.6, 1.1)).clip(0, 1) ** (1 / 2.2)


def _bar(mask: Mask, rng: np.random.Generator, skin: Color) -> Color:
    """Draw a straight stroke anywhere: a bar, a microphone stand or a strand."""
    side = mask.shape[0]
    start, end = rng.uniform(-0.2, 1.2, 2) * side, rng.uniform(-0.2, 1.2, 2) * side
    points = tuple(start.astype(int).tolist()), tuple(end.astype(int).tolist())
    cv2.line(mask, *points, 255, max(int(rng.uniform(0.01, 0.12) * side), 1), cv2.LINE_AA)
    return rng.uniform(5, 245) * rng.uniform(0.7, 1.1, 3)


def _mug(mask: Mask, rng: np.random.Generator, skin: Color) -> Color:
    """Draw a mug, book or phone in front of the lower half of the face."""
    side = mask.shape[0]
    center, half = np.array([rng.uniform(0.2, 0.8), rng.uniform(0.75, 1.0)]) * side, rng.uniform(0.08, 0.22, 2) * side
    box = cv2.boxPoints((center.tolist(), (2 * half).tolist(), float(rng.normal(0, 15))))
    cv2.fillConvexPoly(mask, box.astype(np.int32), 255, cv2.LINE_AA)
    return rng.uniform(20, 245) * rng.uniform(0.5, 1.1, 3)


def _shadow(mask: Mask, rng: np.random.Generator, skin: Color) -> Color:
    """Draw an ellipse of shade."""
    side = mask.shape[0]
    center = rng.uniform(0.1, 0.9, 2) * side
    axes = tuple((rng.uniform(0.2, 0.7, 2) * side).astype(int).tolist())
    cv2.ellipse(mask, tuple(center.astype(int).tolist()), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return np.zeros(3)


def _scarf(mask: Mask, rng: np.random.Generator, skin: Color) -> Color:
    """Draw cloth over chin and neck, sometimes up to the mouth."""
    side = mask.shape[0]
    x = np.linspace(-0.1, 1.1, 9)
    edge = rng.uniform(0.78, 1.0) + 0.12 * (x - 0.5) ** 2 + rng.normal(0, 0.02, 9)
    outline = np.column_stack([np.append(x, [1.1, -0.1]), np.append(edge, [1.2, 1.2])]) * side
    cv2.fillPoly(mask, [outline.astype(np.int32)], 255, cv2.LINE_AA)
    return rng.uniform(20, 245) * rng.uniform(0.4, 1.1, 3)


def _microphone(mask: Mask, rng: np.random.Generator, skin: Color) -> Color:
    """Draw a ball on a stick in front of chin or cheek."""
    side = mask.shape[0]
    ball = np.array([rng.uniform(0.25, 0.75), rng.uniform(0.75, 0.98)]) * side
    foot = ball + np.array([rng.normal(0, 0.3), 0.6]) * side
    ends = tuple(ball.astype(int).tolist()), tuple(foot.astype(int).tolist())
    cv2.line(mask, *ends, 255, max(int(0.05 * side), 1), cv2.LINE_AA)
    cv2.circle(mask, ends[0], int(rng.uniform(0.05, 0.1) * side), 255, -1, cv2.LINE_AA)
    return rng.uniform(5, 120) * rng.uniform(0.8, 1.1, 3)


def _strands(mask: Mask, rng: np.random.Generator, skin: Color) -> Color:
    """Draw loose strands of hair across the face."""
    side, t = mask.shape[0], np.linspace(0, 1, 12)
    start, bend = np.array([rng.uniform(0.1, 0.9), rng.uniform(0.0, 0.3)]), rng.normal(0, 0.25)
    for _ in range(rng.integers(4, 16)):
        path = start + rng.normal(0, 0.04, 2) + np.column_stack([bend * t**2 + rng.normal(0, 0.05) * t, 0.8 * t])
        cv2.polylines(mask, [(path * side).astype(np.int32)], False, 200, max(side // 100, 1), cv2.LINE_AA)
    return rng.uniform(5, 150) * np.array([1.0, 0.8, 0.6])


_Occluder = Callable[[Mask, np.random.Generator, Color], Color]
"""Draws the shape into the mask and returns the color (3,), 0-255."""
_OCCLUDERS: dict[str, _Occluder] = {
    "hand": _hand, "bar": _bar, "mug": _mug, "shadow": _shadow,
    "scarf": _scarf, "microphone": _microphone, "strands": _strands,
}  # fmt: skip
