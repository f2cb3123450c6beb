"""Draw wrinkles as maps of heights, in the texture space of the face.

Landmarks are (68, 2) texture coordinates. Functions draw the image's left half; the right one mirrors it.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau.synthetic.painting import Canvas, Points, draw_lines, mirrored, smooth_noise
from hf_geaau.synthetic.people import WRINKLES

WRINKLE_SIZE = 256
"""Side of the maps in texels. In a crop of 128 pixels a texel is about half a pixel."""

Crease = tuple[Points, int]
"""A line (K, 2) in texture coordinates, and its width in texels of 512."""


def wrinkle_maps(pattern: int, landmarks: Points) -> Canvas:
    """Draw one set of wrinkles.

    Returns:
        (12, 256, 256) float32 heights of each of people.WRINKLES: 0 for smooth skin, down to -1 for creases.
    """
    rng = np.random.default_rng([pattern, 77])
    layers = np.empty((len(WRINKLES), WRINKLE_SIZE, WRINKLE_SIZE), np.float32)
    for index, name in enumerate(WRINKLES):
        canvas = np.zeros((512, 512), np.uint8)
        for line, width in _CREASES[name](rng, landmarks):
            draw_lines(canvas, [line, mirrored(line)], int(rng.uniform(170, 255)), width)
        crease = canvas.astype(np.float32) * (1 + 0.35 * smooth_noise(rng, 512, 20)).clip(0.1, 1.5)
        spread = 2.8 if name in ("nasolabial", "lower_lid", "chin", "dimple", "mouth_corner") else 2.0
        sharp = cv2.GaussianBlur(crease, (0, 0), spread)
        soft = cv2.GaussianBlur(crease, (0, 0), spread * 3.2)
        height = ((1.1 * soft - 1.5 * sharp) / 128).clip(-1, 0.6)
        layers[index] = cv2.resize(height, (WRINKLE_SIZE, WRINKLE_SIZE), interpolation=cv2.INTER_AREA)
    return layers


def blend_wrinkles(layers: Canvas, depths: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Add up the layers of `wrinkle_maps` to (256, 256) uint8 heights, 128 for smooth skin.

    Their `depths` (12, 2) are those of the person's left and right.
    """
    half, band = WRINKLE_SIZE // 2, WRINKLE_SIZE // 24
    height = np.empty((WRINKLE_SIZE, WRINKLE_SIZE), np.float32)
    height[:, :half] = np.tensordot(depths[:, 1], layers[..., :half], 1)
    height[:, half:] = np.tensordot(depths[:, 0], layers[..., half:], 1)
    middle = slice(half - band, half + band)  # The sides meet softly.
    share = np.linspace(-0.5, 0.5, 2 * band, dtype=np.float32)
    mean, half_change = depths.mean(1), (depths[:, 0] - depths[:, 1])
    height[:, middle] = np.tensordot(mean, layers[..., middle], 1)
    height[:, middle] += share * np.tensordot(half_change, layers[..., middle], 1)
    return (128 + 127 * (height / 2).clip(-0.45, 0.25)).astype(np.uint8)


def _crease(rng: np.random.Generator, width: int, points: ArrayLike, wobble: float = 0.001, count: int = 14) -> Crease:
    """Return a smooth line (count, 2) through two or three control points, with a little wobble."""
    points, t = np.asarray(points, float), np.linspace(0, 1, count)[:, None]
    start, end = points[0], points[-1]
    middle = 2 * points[1] - 0.5 * (start + end) if len(points) == 3 else 0.5 * (start + end)
    line = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    return line + rng.normal(0, wobble, (1, 2)) + wobble * np.cumsum(rng.normal(0, 0.35, (count, 2)), 0), width


def _forehead(rng: np.random.Generator, start: float, end: float) -> list[Crease]:
    lines = []
    for v in np.linspace(0.845, 0.925, rng.integers(3, 6)):
        v += rng.normal(0, 0.004)
        sag = rng.normal(0.004, 0.004)
        points = [(0.5 - start, v - sag), (0.5 - (start + end) / 2, v + sag), (0.5 - end, v - 3 * sag)]
        lines.append(_crease(rng, 2, points, 0.002))
    return lines


def _glabella(rng: np.random.Generator, points: Points) -> list[Crease]:
    root = points[27][1]
    bottom, top = root + 0.018, points[21][1] + rng.uniform(0.0, 0.018)
    lines = [
        _crease(rng, 2, [(0.5 - x, bottom), (0.5 - x - 0.004, (top + bottom) / 2), (0.5 - x - 0.010, top)])
        for x in ((0.020,) if rng.random() < 0.5 else (0.012, 0.026))
    ]
    return [*lines, _crease(rng, 1, [(0.5 - 0.02, root + 0.004), (0.5, root + 0.006)])]


def _crows_feet(rng: np.random.Generator, points: Points) -> list[Crease]:
    corner = points[36] - np.array([0.018, 0.0])
    return [
        _crease(rng, 2, [corner + 0.3 * reach, corner + 0.65 * reach + np.array([0, 0.004]), corner + reach], 0.0012)
        for angle in np.linspace(-0.75, 0.65, rng.integers(3, 6)) + rng.normal(0, 0.08)
        for reach in [rng.uniform(0.04, 0.075) * np.array([-np.cos(angle), np.sin(angle)])]
    ]


def _lower_lid(rng: np.random.Generator, points: Points) -> list[Crease]:
    edge = np.stack([points[39], points[[40, 41]].mean(0), points[36]])
    return [
        _crease(rng, 2, edge - np.array([[0.0, d * 0.8], [0.0, d * 1.35], [0.006, d * 0.6]]), 0.0015)
        for d in rng.uniform(0.016, 0.024) * np.arange(1, rng.integers(2, 4))
    ]


def _nose_root(rng: np.random.Generator, points: Points) -> list[Crease]:
    lines: list[Crease] = []
    for v in np.linspace(points[27][1] - 0.012, points[27][1] + 0.022, 3):
        lines.append(_crease(rng, 2, [(0.475, v + 0.004), (0.5, v - 0.002)]))
    for d in (0.0, 0.02, 0.04):
        start = np.array([0.485, points[28][1] + 0.01 - d])
        lines.append(_crease(rng, 2, start + np.array([[0, 0], [-0.03, 0.012], [-0.05, 0.03]])))
    return lines


def _nasolabial(rng: np.random.Generator, points: Points) -> list[Crease]:
    top, bottom = points[31] + np.array([-0.020, 0.035]), points[48] + np.array([-0.035, rng.uniform(-0.03, 0.01)])
    return [_crease(rng, 3, [top, 0.5 * (top + bottom) + np.array([-0.012, 0.014]), bottom], 0.0015)]


def _dimple(rng: np.random.Generator, points: Points) -> list[Crease]:
    center = points[48] - np.array([rng.uniform(0.022, 0.034), 0.0])
    return [_crease(rng, 3, center + np.array([[0.008, 0.028], [-0.006, 0], [0.008, -0.028]]))]


def _chin(rng: np.random.Generator, points: Points) -> list[Crease]:
    low, high = points[8], points[57]
    lines = [_crease(rng, 3, [(0.44, high[1] - 0.035), (0.5, high[1] - 0.022)])]
    for _ in range(14):
        spot = np.array([0.5 - abs(rng.normal(0, 0.03)), rng.uniform(low[1] + 0.005, high[1] - 0.04)])
        lines.append(_crease(rng, 3, [spot, spot + rng.normal(0, 0.006, 2)], count=3))
    return lines


def _mouth_corner(rng: np.random.Generator, points: Points) -> list[Crease]:
    return [_crease(rng, 3, points[48] + np.array([[-0.006, -0.004], [-0.018, -0.025], [-0.022, -0.06]]))]


def _lip_lines(rng: np.random.Generator, points: Points) -> list[Crease]:
    lines = []
    for x in np.linspace(0.42, 0.495, 7):
        x += rng.normal(0, 0.003)
        top = np.interp(x, points[48:52, 0], points[48:52, 1])
        low = np.interp(x, points[[48, 59, 58, 57], 0], points[[48, 59, 58, 57], 1])
        lines.append(_crease(rng, 1, [(x, top), (x, top + rng.uniform(0.01, 0.025))]))
        lines.append(_crease(rng, 1, [(x, low), (x, low - rng.uniform(0.008, 0.02))]))
    return lines


def _cheek_stretch(rng: np.random.Generator, points: Points) -> list[Crease]:
    return [
        _crease(rng, 2, points[48] + np.array([[-d, 0.04], [-d - 0.012, 0.0], [-d, -0.045]]), 0.0015)
        for d in np.linspace(0.04, 0.085, rng.integers(2, 4))
    ]


_CREASES: dict[str, Callable[[np.random.Generator, Points], list[Crease]]] = {
    "forehead_centre": lambda rng, points: _forehead(rng, 0.0, 0.13),
    "forehead_side": lambda rng, points: _forehead(rng, 0.10, 0.23),
    "glabella": _glabella,
    "crows_feet": _crows_feet,
    "lower_lid": _lower_lid,
    "nose_root": _nose_root,
    "nasolabial": _nasolabial,
    "dimple": _dimple,
    "chin": _chin,
    "mouth_corner": _mouth_corner,
    "lip_lines": _lip_lines,
    "cheek_stretch": _cheek_stretch,
}
