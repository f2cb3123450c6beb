"""Find the five points of an upright face by cascaded regression, learned from rendered faces only."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE, similarity_transform

WEIGHTS = Path(__file__).parents[1] / "checkpoints" / "five-points-synthetic.safetensors"

CROP_SIDE, CROP_EYES = 64, 20  # pixels; the whole head is in the crop, as the points that cut it may be off
SHARPEST = 1.3  # a photo is shrunk to this many times the crop's resolution first, against aliasing


def upright_points(side: float, eyes: float) -> NDArray[np.float64]:
    """Return the five points of an average frontal face in the middle of a square crop.

    Args:
        side: Side of the crop in pixels.
        eyes: Distance between the eyes in pixels.

    Returns:
        (5, 2), x then y, in crop pixels; the proportions are those of `CROP_TEMPLATE`.

    Example:
        >>> upright_points(64, 20).round(1).tolist()
        [[22.0, 20.5], [42.0, 20.5], [32.0, 31.9], [23.7, 43.6], [40.3, 43.6]]
    """
    template = np.array(CROP_TEMPLATE)
    return side / 2 + (template - template.mean(axis=0)) * eyes / (template[1, 0] - template[0, 0])


def describe(gray: NDArray[Any], points: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the features of the crop that points cut out of a photo.

    Args:
        gray: (H, W) uint8, at about the crop's resolution.
        points: (5, 2), x then y, in its pixels.

    Returns:
        1765 numbers: histograms of oriented gradients, and a 1; and the 2×3 matrix, photo -> crop.

    Source:
        Dalal and Triggs 2005, with their cells of 8 and blocks of 16 pixels.
    """
    import cv2

    to_crop = similarity_transform(points, upright_points(CROP_SIDE, CROP_EYES))
    crop = cv2.warpAffine(gray, to_crop, (CROP_SIDE, CROP_SIDE))
    return np.append(_histograms().compute(crop).ravel(), np.float32(1)), to_crop


def step(weights: NDArray[Any], gray: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """Return the points after one step of the cascade.

    Args:
        weights: (1765, 10), from the features of a crop to the offsets of its points from `upright_points`, in eye
            distances.
        gray: (H, W) uint8, as in `describe`.
        points: (5, 2), x then y, in its pixels.

    Returns:
        (5, 2) in the same pixels.
    """
    import cv2

    features, to_crop = describe(gray, points)
    in_crop = upright_points(CROP_SIDE, CROP_EYES) + CROP_EYES * (features @ weights).reshape(5, 2)
    to_photo = cv2.invertAffineTransform(to_crop)
    return in_crop @ to_photo[:, :2].T + to_photo[:, 2]


def find_five_points(gray: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """Find the five points of one face, starting from points that are roughly right.

    Three linear steps, each from the histograms of gradients in the crop that the last points cut out.

    Args:
        gray: (H, W) uint8 photo.
        points: (5, 2), x then y, in photo pixels, off by up to a quarter of the distance between the eyes.

    Returns:
        (5, 2) float64, in photo pixels: image-left eye, image-right eye, nose tip, image-left and image-right mouth
        corner, as the rendered faces define them (eyes: centers of the lids; nose: landmark 30 of 68).

    Source:
        Xiong and De la Torre 2013, supervised descent; our features cover the crop instead of each point's
        surroundings. Weights: benchmarks/train_five_points.py.

    Example:
        >>> find_five_points(np.zeros((80, 80), np.uint8), upright_points(80, 30)).shape
        (5, 2)
    """
    import cv2

    eyes = max(1e-6, float(np.linalg.norm(points[1] - points[0])))
    scale = min(1.0, SHARPEST * CROP_EYES / eyes)
    width, height = (max(1, round(side * scale)) for side in gray.shape[::-1])
    small: NDArray[Any] = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    factors = np.array([width / gray.shape[1], height / gray.shape[0]])
    points = (points + 0.5) * factors - 0.5
    for weights in _cascade():
        points = step(weights, small, points)
    return (points + 0.5) / factors - 0.5


@cache
def _cascade() -> NDArray[np.float32]:
    from safetensors.numpy import load_file

    return load_file(WEIGHTS)["cascade"].astype(np.float32)


@cache
def _histograms() -> Any:
    import cv2

    return cv2.HOGDescriptor((CROP_SIDE, CROP_SIDE), (16, 16), (8, 8), (8, 8), 9)
