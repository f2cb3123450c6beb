"""Draw what lies behind the face: backgrounds and shoulders. Nothing here is a photo.

Images are (H, W, 3) uint8, display-coded.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.painting import Canvas, blend, smooth_color_noise

Image = NDArray[np.uint8]


def background(rng: np.random.Generator, height: int, width: int, bright: bool = False) -> Image:
    """Draw a background: plain, gradient, noise, blurred shapes, or bars like shelves and windows.

    Args:
        rng: Random generator.
        height, width: Size in pixels.
        bright: Whether it is bright, as behind a face lit from behind.
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


def shifted_background(rng: np.random.Generator, height: int, width: int, bright: bool = False) -> Image:
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
    image: Image,
    neck: tuple[float, float],
    unit: float,
    down: NDArray[np.float64],
    color: NDArray[np.floating],
) -> None:
    """Paint clothed shoulders behind the neck, in place.

    Args:
        rng: Random generator.
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
    shade = cv2.resize(
        rng.uniform(0.65, 1.1, (5, 5)).astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_CUBIC
    )
    cloth = (shade[..., None] * color.astype(np.float32)).clip(0, 255)
    blend(image, cloth, mask)
