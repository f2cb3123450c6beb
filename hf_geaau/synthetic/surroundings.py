"""Draw what lies behind and in front of the face: backgrounds, shoulders and occluders. Nothing here is a photo.

Images are (H, W, 3) uint8, display-coded.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.painting import Canvas, Mask, blend, smooth_color_noise

Color = NDArray[np.floating]


def background(rng: np.random.Generator, height: int, width: int, bright: bool = False) -> Canvas:
    """Draw a background: plain, gradient, noise, blurred shapes, or bars like shelves and windows.

    With `bright`, it is as behind a face lit from behind.
    """
    kind = rng.random()
    level = rng.uniform(5, 250) if rng.random() < 0.7 else rng.choice([12.0, 245.0])
    if bright:
        level = rng.uniform(170, 255)
    base = (level * (1 + rng.normal(0, 0.12, 3))).clip(0, 255)
    small = max(height // 2, 8), max(width // 2, 8)
    canvas: Canvas = np.empty((*small, 3), np.float32)
    canvas[:] = base
    if kind < 0.15:
        pass
    elif kind < 0.35:
        direction = rng.normal(size=2)
        y, x = np.mgrid[-1 : 1 : small[0] * 1j, -1 : 1 : small[1] * 1j].astype(np.float32)
        canvas += ((direction[0] * x + direction[1] * y) * rng.uniform(10, 60))[..., None] * (1 + rng.normal(0, 0.1, 3))
    elif kind < 0.6:
        for cells, weight in ((2, 150), (6, 70), (18, rng.uniform(0, 50))):
            tint = rng.uniform(0.6, 1.0, 3)
            canvas += (smooth_color_noise(rng, *small, cells) - 0.5) * weight * tint
    else:
        _draw_shapes(rng, canvas, straight=kind > 0.82)
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 5.0) * small[0] / 100)
    return cv2.resize(canvas.clip(0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


def shifted_background(rng: np.random.Generator, height: int, width: int, bright: bool = False) -> Canvas:
    """Draw what `background` never draws: stripes, a checkerboard, lights out of focus, or lines of text."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.4) * width
    across = (x * np.cos(angle) + y * np.sin(angle)) / period
    along = (y * np.cos(angle) - x * np.sin(angle)) / period
    first, second = (rng.uniform(120 if bright else 5, 250) * rng.uniform(0.7, 1.1, 3) for _ in range(2))
    kind = rng.choice(4)
    canvas: Canvas = np.empty((height, width, 3), np.float32)
    if kind < 2:
        share = np.sin(2 * np.pi * across) if kind == 0 else np.sin(np.pi * across) * np.sin(np.pi * along)
        canvas[:] = first + ((share > 0) * 1.0)[..., None] * (second - first)
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 4.0) * height / 100)
    elif kind == 2:
        canvas[:] = first * (0.8 if bright else 0.25)
        for _ in range(rng.integers(6, 25)):
            color, center = rng.uniform(60, 255, 3), rng.uniform(0, 1, 2) * [width, height]
            glow = np.zeros((height, width), np.uint8)
            radius = int(rng.uniform(0.02, 0.09) * width) + 1
            cv2.circle(glow, tuple(center.astype(int).tolist()), radius, int(rng.uniform(60, 200)), -1, cv2.LINE_AA)
            blend(canvas, np.broadcast_to(color.astype(np.float32), canvas.shape), glow)
    else:
        canvas[:] = first
        step = max(int(rng.uniform(0.05, 0.12) * height), 4)
        for line in range(0, height, step):
            for start in range(0, width, 3 * step):
                end = start + int(step * rng.uniform(0.5, 2.7))
                cv2.rectangle(canvas, (start, line), (end, line + step // 3), tuple(map(float, second)), -1)
    return canvas.clip(0, 255).astype(np.uint8)


def _draw_shapes(rng: np.random.Generator, canvas: Canvas, straight: bool) -> None:
    height, width = canvas.shape[:2]
    for _ in range(rng.integers(4, 22)):
        color = tuple(float(v) for v in (rng.uniform(5, 250) * (1 + rng.normal(0, 0.17, 3))).clip(0, 255))
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        if straight:
            w, h = (int(rng.uniform(0.02, 0.5) * side) for side in (width, height))
            if rng.random() < 0.5:
                w, h = (w, height) if rng.random() < 0.5 else (width, h)
            cv2.rectangle(canvas, (x, y), (x + w, y + h), color, -1)
        else:
            axes = tuple(int(v) for v in rng.uniform(0.02, 0.4, 2) * width)
            cv2.ellipse(canvas, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, color, -1)


def shoulders(
    rng: np.random.Generator,
    image: Canvas,
    neck: tuple[float, float],
    unit: float,
    down: NDArray[np.float64],
    color: Color,
) -> None:
    """Paint clothed shoulders behind the neck, in place.

    Args:
        image: (H, W, 3) background.
        neck: x, y of the lower end of the neck, in pixels.
        unit: Half a head's width in pixels.
        down: Unit vector (x, y) from head to feet.
        color: (3,) of the cloth, 0-255.
    """
    right = np.array([down[1], -down[0]])
    width, slope = rng.uniform(2.0, 2.7), rng.uniform(0.5, 1.0)
    outline = [(-0.5, -0.35), (-0.75, 0.1), (-width * 0.8, slope), (-width, slope + 0.7), (-width - 0.2, 9)]
    points = [np.array(neck) + unit * (x * right + y * down) for x, y in outline + [(-x, y) for x, y in outline[::-1]]]
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(points) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    folds = rng.uniform(0.65, 1.1, (5, 5)).astype(np.float32)
    shade = cv2.resize(folds, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    blend(image, (shade[..., None] * color.astype(np.float32)).clip(0, 255), mask)


def occlude(image: NDArray[np.uint8], kind: str, rng: np.random.Generator, skin: Color) -> NDArray[np.bool_]:
    """Draw one of scenes.OCCLUDERS or SHIFTED_OCCLUDERS before the face, in place; hands in the linear color `skin`.

    Returns:
        (H, W) what it hides; nothing for a shadow.
    """
    mask: Mask = np.zeros(image.shape[:2], np.uint8)
    color = _OCCLUDERS[kind](mask, rng, skin)
    mask = cv2.GaussianBlur(mask, (0, 0), max(image.shape[0] * (0.05 if kind == "shadow" else 0.004), 0.3))
    if kind == "shadow":
        strength = rng.uniform(0.35, 0.75)
        image[:] = image * (1 - strength * mask.astype(np.float32)[..., None] / 255)
        return np.zeros(mask.shape, bool)
    relief = cv2.GaussianBlur(mask, (0, 0), image.shape[0] * 0.02).astype(np.float32)
    light = rng.normal(0, 1, 2)
    slope = light[0] * cv2.Sobel(relief, cv2.CV_32F, 1, 0) + light[1] * cv2.Sobel(relief, cv2.CV_32F, 0, 1)
    shade = 0.8 + 0.0012 * slope
    shade += 0.1 * smooth_color_noise(rng, image.shape[0], image.shape[1], 6)[..., 0]
    blend(image, (shade[..., None] * color.astype(np.float32)).clip(0, 255), mask)
    return mask > 127


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
        ends = tuple(root.astype(int).tolist()), tuple(tip.astype(int).tolist())
        cv2.line(mask, *ends, 255, int(0.062 * side), cv2.LINE_AA)
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
