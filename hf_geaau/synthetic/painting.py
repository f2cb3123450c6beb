"""Draw lines, polygons and noise on arrays: what skin, wrinkles, backgrounds and occluders share.

Texture space: u to the image's right, v up the face, both 0-1. Arrays are indexed [v, u], and row 0 is v = 0.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.floating]
"""(H, W) or (H, W, C), values 0-1 unless said otherwise."""
Mask = NDArray[np.uint8]
"""(H, W), 0-255."""
Points = NDArray[np.floating]
"""(..., 2)."""

FRACTION_BITS = 4
"""Fractional bits of the coordinates that cv2 draws at."""


def smooth_noise(rng: np.random.Generator, size: int, cell: int) -> Canvas:
    """Draw smooth noise (size, size) of mean 0 and about ±1, with `cell` pixels per grid cell."""
    grid = rng.standard_normal((size // cell + 2, size // cell + 2)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def smooth_color_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Canvas:
    """Draw smooth noise (height, width, 3) of mean 0.5, with `cells` grid cells each way."""
    gray = rng.random((cells + 1, cells + 1, 1), dtype=np.float32)
    grid = gray + rng.uniform(0, 0.35) * (rng.random((cells + 1, cells + 1, 3), dtype=np.float32) - 0.5)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def fixed_point(points: Points, size: int) -> NDArray[np.int32]:
    """Scale points of 0-1 to `size` pixels, as integers with FRACTION_BITS."""
    return np.round(points * (size << FRACTION_BITS)).astype(np.int32)


def draw_lines(canvas: Mask, lines: Sequence[Points], value: int, width: int = 1) -> None:
    """Draw polylines (K, 2), given in texture coordinates, in place."""
    scaled = [fixed_point(line, canvas.shape[0]) for line in lines]
    cv2.polylines(canvas, scaled, False, value, width, cv2.LINE_AA, FRACTION_BITS)


def mirrored(points: Points) -> Points:
    """Mirror texture coordinates at the middle of the face."""
    return np.stack([1 - points[..., 0], points[..., 1]], -1)


def blend(image: NDArray[np.generic], paint: Canvas, mask: Mask) -> None:
    """Paint over an image (H, W, 3), in place, where the mask covers it."""
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0:
        return
    box = (slice(y, y + h), slice(x, x + w))
    alpha = mask[box].astype(np.float32)[..., None] / 255
    paint = paint[box] if paint.ndim == 3 else paint
    image[box] = image[box] * (1 - alpha) + paint * alpha
