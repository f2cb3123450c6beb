"""Photograph: apply what a camera and its file do to a picture. Images are (H, W, 3) uint8, display-coded."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.camera import Camera

Image = NDArray[Any]  # uint8
Pixels = NDArray[Any]  # float32


def develop(image: Image, camera: Camera, rng: np.random.Generator, unit: float) -> Image:
    """Apply blur, resolution, noise, tone, processing and compression, in the order of a camera.

    Noise, tone and compression are applied at the resolution of the sensor. The result is enlarged afterwards.

    `unit` is the side in pixels of a crop around the face, to which the lengths in `camera` refer.
    """
    height, width = image.shape[:2]
    work: Pixels = image.astype(np.float32)
    if camera.blur:
        work = _defocused(work, camera.blur * unit, camera.disk)
    if camera.motion[0]:
        work = _motion_blur(work, camera.motion[0] * unit, camera.motion[1], camera.shake)
    if 0 < camera.source_side < unit:
        scale = camera.source_side / unit
        small = max(round(width * scale), 8), max(round(height * scale), 8)
        work = cv2.resize(work, small, interpolation=cv2.INTER_AREA)
    if camera.noise > 0.3:
        work += _noise(work, camera, rng)
    result = _toned(work, camera)
    if camera.smoothing:
        even = cv2.bilateralFilter(result, 7, 60, 3)
        result = cv2.addWeighted(even, camera.smoothing, result, 1 - camera.smoothing, 0)
    amount, radius = camera.sharpening
    if amount:
        result = cv2.addWeighted(result, 1 + amount, cv2.GaussianBlur(result, (0, 0), radius), -amount, 0)
    if camera.quality:
        result = _coded(result, camera)
    if result.shape[:2] != (height, width):
        result = cv2.resize(result, (width, height), interpolation=_ENLARGING[camera.enlarging])
    return result


_ENLARGING = {
    "cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR, "lanczos": cv2.INTER_LANCZOS4, "nearest": cv2.INTER_NEAREST,
}  # fmt: skip


def _defocused(work: Pixels, size: float, disk: bool) -> Pixels:
    if not disk:
        return cv2.GaussianBlur(work, (0, 0), max(size, 0.25))
    side = 2 * int(np.ceil(size)) + 1
    away = np.hypot(*(np.mgrid[:side, :side] - side // 2))
    kernel = (size + 0.5 - away).clip(0, 1)
    return cv2.filter2D(work, -1, kernel / kernel.sum())


def _noise(work: Pixels, camera: Camera, rng: np.random.Generator) -> Pixels:
    """Draw the noise of the sensor, which is strongest in the dark in display-coded levels."""
    noise: Pixels = rng.standard_normal(work.shape, dtype=np.float32)
    if camera.grain:
        noise = cv2.GaussianBlur(noise, (0, 0), camera.grain) * (1 + 2 * camera.grain)
    gray = noise.mean(-1, keepdims=True)  # Most of the noise is in the brightness, because all cameras smooth colors.
    return camera.noise * (0.4 * noise + gray) * (1.4 - 0.8 / 255 * work)


def _toned(work: Pixels, camera: Camera) -> Image:
    """Apply colors and the tone curve through one table per channel."""
    if camera.saturation != 1:
        gray = work @ np.array([0.299, 0.587, 0.114], np.float32)
        work = gray[..., None] + camera.saturation * (work - gray[..., None])
    level = np.arange(256)[:, None] / 255 * (np.array(camera.white_balance) if camera.saturation else np.ones(3))
    level = (level * 2 ** (camera.clip / 2.2)).clip(0, 1) ** camera.gamma
    level = (0.5 + camera.contrast * (level - 0.5)).clip(0, 1)
    table = (camera.lift + (255 - camera.lift) * level).round().astype(np.uint8)
    return cv2.LUT(work.clip(0, 255).astype(np.uint8), table[None])


def _coded(image: Image, camera: Camera) -> Image:
    """Save and read back."""
    kind, setting = {
        "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY), "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY),
    }[camera.codec]  # fmt: skip
    result: Any = cv2.imdecode(cv2.imencode(kind, image, [setting, camera.quality])[1], cv2.IMREAD_COLOR)
    if camera.recompressed:
        height, width = result.shape[:2]
        other = cv2.resize(result, (max(width * 3 // 4, 8), max(height * 3 // 4, 8)), interpolation=cv2.INTER_AREA)
        _, coded = cv2.imencode(".jpg", other, [cv2.IMWRITE_JPEG_QUALITY, 80])
        read: Any = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        result = cv2.resize(read, (width, height), interpolation=cv2.INTER_LINEAR)
    return result


def _motion_blur(work: Pixels, length: float, angle: float, shake: float) -> Pixels:
    """Blur along a stroke, which `shake` bends."""
    size = max(int(np.ceil(length)) | 1, 3)
    steps = np.linspace(-0.5, 0.5, 16)
    along, across = length * steps, length * shake * (steps**2 - 1 / 12)
    x = along * np.cos(angle) - across * np.sin(angle)
    y = along * np.sin(angle) + across * np.cos(angle)
    kernel = np.zeros((size + 2, size + 2), np.float32)
    center = (size + 2) // 2
    points = np.column_stack([x, y]) + center
    cv2.polylines(kernel, [np.round(points * 16).astype(np.int32)], False, 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(work, -1, kernel / kernel.sum())
