"""What a picture has beside the head: background, things in front of the face, and the camera's own faults.

Images are (H, W, 3) uint8, display-coded. Nothing here is a photo: everything is drawn from a generator.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .sampling import Camera

Image = NDArray[Any]


def _soft_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Image:
    """Smooth noise (H, W, 3) of mean 0.5."""
    gray = rng.random((cells + 1, cells + 1, 1), dtype=np.float32)
    grid = gray + rng.uniform(0, 0.35) * (rng.random((cells + 1, cells + 1, 3), dtype=np.float32) - 0.5)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def background(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw a background: plain, gradient, noise, blurred shapes, or bars like shelves and windows."""
    kind = rng.random()
    level = rng.uniform(5, 250) if rng.random() < 0.7 else rng.choice([12.0, 245.0])
    base = (level * (1 + rng.normal(0, 0.12, 3))).clip(0, 255)
    small = max(height // 2, 8), max(width // 2, 8)
    canvas: Image = np.empty((*small, 3), np.float32)
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
            canvas += (_soft_noise(rng, *small, cells) - 0.5) * weight * tint
    else:
        _draw_shapes(rng, canvas, straight=kind > 0.82)
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 5.0) * small[0] / 100)
    return cv2.resize(canvas.clip(0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


def _draw_shapes(rng: np.random.Generator, canvas: Image, straight: bool) -> None:
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
    upright: tuple[float, float],
    color: Image,
) -> None:
    """Paint clothed shoulders behind the neck, in place.

    Args:
        rng: Source of the cut.
        image: (H, W, 3) background.
        neck: x, y of the neck's foot in pixels.
        unit: Half a head's width in pixels.
        upright: Unit vector from head to feet, in pixels.
        color: (3,) of the cloth, 0–255.
    """
    down = np.array(upright)
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
    _blend(image, cloth, mask)


def _blend(image: Image, paint: Image, mask: Image) -> None:
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0:
        return
    box = (slice(y, y + h), slice(x, x + w))
    alpha = mask[box].astype(np.float32)[..., None] / 255
    paint = paint[box] if paint.ndim == 3 else paint
    image[box] = image[box] * (1 - alpha) + paint * alpha


def occlude(image: Image, kind: str, rng: np.random.Generator, skin: Image) -> None:
    """Draw something in front of the face, in place.

    Args:
        image: (H, W, 3).
        kind: One of sampling.OCCLUDERS.
        rng: Source of place and shape.
        skin: (3,) linear skin colour, for hands.
    """
    mask: Image = np.zeros(image.shape[:2], np.uint8)
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
    shade += 0.1 * _soft_noise(rng, image.shape[0], image.shape[1], 6)[..., 0]
    _blend(image, (shade[..., None] * color.astype(np.float32)).clip(0, 255), mask)


def _hand(mask: Image, rng: np.random.Generator, skin: Image) -> Image:
    """A palm with fingers that reaches in from below or the side."""
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


def _bar(mask: Image, rng: np.random.Generator, skin: Image) -> Image:
    """A bar, a microphone stand or a strand: a straight stroke anywhere."""
    side = mask.shape[0]
    start, end = rng.uniform(-0.2, 1.2, 2) * side, rng.uniform(-0.2, 1.2, 2) * side
    points = tuple(start.astype(int).tolist()), tuple(end.astype(int).tolist())
    cv2.line(mask, *points, 255, max(int(rng.uniform(0.01, 0.12) * side), 1), cv2.LINE_AA)
    return rng.uniform(5, 245) * rng.uniform(0.7, 1.1, 3)


def _mug(mask: Image, rng: np.random.Generator, skin: Image) -> Image:
    """A mug, book or phone before the lower half of the face."""
    side = mask.shape[0]
    center, half = np.array([rng.uniform(0.2, 0.8), rng.uniform(0.75, 1.0)]) * side, rng.uniform(0.08, 0.22, 2) * side
    box = cv2.boxPoints((center.tolist(), (2 * half).tolist(), float(rng.normal(0, 15))))
    cv2.fillConvexPoly(mask, box.astype(np.int32), 255, cv2.LINE_AA)
    return rng.uniform(20, 245) * rng.uniform(0.5, 1.1, 3)


def _shadow(mask: Image, rng: np.random.Generator, skin: Image) -> Image:
    """A half plane or a blob of shade."""
    side = mask.shape[0]
    center = rng.uniform(0.1, 0.9, 2) * side
    axes = tuple((rng.uniform(0.2, 0.7, 2) * side).astype(int).tolist())
    cv2.ellipse(mask, tuple(center.astype(int).tolist()), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return np.zeros(3)


_OCCLUDERS: dict[str, Callable] = {"hand": _hand, "bar": _bar, "mug": _mug, "shadow": _shadow}


def develop(image: Image, camera: Camera, rng: np.random.Generator, unit: float) -> Image:
    """Photograph: blur, resolution, colour, noise and compression, in the order of a camera.

    Args:
        image: (H, W, 3) uint8.
        camera: What to do.
        rng: Source of the noise.
        unit: Side in pixels of a crop around the face, to which the lengths in `camera` refer.
    """
    height, width = image.shape[:2]
    work: Image = image.astype(np.float32)
    if camera.blur:
        work = cv2.GaussianBlur(work, (0, 0), max(camera.blur * unit, 0.25))
    if camera.motion[0]:
        work = _motion_blur(work, camera.motion[0] * unit, camera.motion[1])
    if camera.low_resolution < 1:
        small = max(int(width * camera.low_resolution), 8), max(int(height * camera.low_resolution), 8)
        work = cv2.resize(
            cv2.resize(work, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_CUBIC
        )
    if camera.noise > 0.3:
        fine = rng.standard_normal((height, width, 3), dtype=np.float32)
        work += camera.noise * (fine if rng.random() < 0.5 else cv2.GaussianBlur(fine, (0, 0), 0.8) * 1.8)
    gray = work @ np.array([0.299, 0.587, 0.114], np.float32)
    work = gray[..., None] + camera.saturation * (work - gray[..., None])
    work *= camera.white_balance if camera.saturation else 1.0
    work = 127.5 + (work - 127.5) * camera.contrast
    result: Any = work.clip(0, 255).astype(np.uint8)
    if camera.jpeg_quality:
        _, coded = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality])
        result = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return result


def _motion_blur(work: Image, length: float, angle: float) -> Image:
    size = max(int(length) | 1, 3)
    kernel = np.zeros((size, size), np.float32)
    half = size / 2 * np.array([np.cos(angle), np.sin(angle)])
    center = size // 2
    start, end = (center - half).astype(int).tolist(), (center + half).astype(int).tolist()
    cv2.line(kernel, start, end, 1.0)
    return cv2.filter2D(work, -1, kernel / kernel.sum())
