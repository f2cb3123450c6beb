"""Draw how a photo is taken: distance, lens, sensor, processing and compression. Needs numpy only.

Every fault is rare and mostly weak. A fifth of the photos has none. Ranges are our choice, by comparison with photos.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FACE_OF_CROP = 0.76  # side of a face detector's box (2.4 eye distances, see hf_geaau.faces) over that of the crop
SMALLEST_FACE = 24  # pixels


@dataclass(frozen=True)
class Camera:
    """What happens between the scene and the file. Lengths are fractions of the crop side unless said otherwise."""

    distance: float = 90.0  # from camera to face, cm
    exposure: float = 0.0  # stops, before the highlights roll off
    clip: float = 0.0  # stops added afterwards, which cut the highlights
    blur: float = 0.0  # standard deviation of a Gaussian, or radius of a disk
    disk: bool = False  # whether the blur is that of an aperture out of focus
    motion: tuple[float, float] = (0.0, 0.0)  # length of a motion blur, and its angle
    shake: float = 0.0  # bend of the motion, 0 for a straight one
    # Side of the crop in pixels of the sensor; the crop is enlarged from there. 0 for no limit.
    source_side: float = 0.0
    enlarging: str = "cubic"  # "cubic", "linear", "lanczos" or "nearest"
    noise: float = 0.0  # standard deviation in gray levels of 255, at mid-gray
    grain: float = 0.0  # standard deviation of the noise's own blur in pixels, 0 for independent pixels
    white_balance: NDArray[np.float32] | tuple[float, float, float] = (1.0, 1.0, 1.0)  # (3,) channel factors
    gamma: float = 1.0  # exponent of the tone curve
    contrast: float = 1.0  # slope around mid-gray
    lift: float = 0.0  # grey level of black, as of haze or faded prints
    saturation: float = 1.0  # 0 (gray) - 1.4
    smoothing: float = 0.0  # 0-1, as of beauty filters and strong denoising
    # Amount and radius in pixels of an unsharp mask; strong ones leave halos
    sharpening: tuple[float, float] = (0.0, 1.0)
    codec: str = "jpeg"  # "jpeg" or "webp"
    quality: int = 0  # of the codec; 0 for none
    recompressed: bool = False  # whether the file was saved twice, the second time at another scale

    @property
    def face_pixels(self) -> float:
        """Side of the face in pixels of the sensor; 0 if nothing limits it."""
        return self.source_side * FACE_OF_CROP


def _rarely(rng: np.random.Generator, rate: float, scale: float, largest: float) -> float:
    """Draw 0, or at this rate an exponential value, so that strong values are rarer still."""
    return float(min(rng.exponential(scale), largest)) if rng.random() < rate else 0.0


def sample_distance(rng: np.random.Generator, style: str = "standard") -> float:
    """Draw the distance of the camera in cm: 35 (selfie) to 300 (tele); shifted: 26-34 or 320-600."""
    if style == "shifted":
        return float(rng.uniform(26, 34) if rng.random() < 0.5 else rng.uniform(320, 600))
    if rng.random() < 0.3:
        return float(rng.uniform(35, 60))
    return float(np.clip(np.exp(rng.normal(np.log(110), 0.5)), 40, 300))


def sample_camera(rng: np.random.Generator, luminance: float = 0.35, style: str = "standard") -> Camera:
    """Draw how a picture is taken; "shifted" has kernels, codecs and distances that "standard" never has.

    The exposure follows `luminance`, the mean of the skin's linear color, in part.
    """
    camera = Camera(
        distance=sample_distance(rng, style),
        exposure=float(rng.normal(0.3, 0.27) + 0.4 * np.log2(0.35 / max(luminance, 0.02))),
        white_balance=(1 + rng.normal(0, 0.035) * np.array([1, 0, -1]) + rng.normal(0, 0.015, 3)).astype(np.float32),
    )
    if style == "standard" and rng.random() < 0.2:
        return camera
    gray = rng.random() < 0.1
    camera = replace(
        camera,
        clip=_rarely(rng, 0.15, 0.35, 1.3),
        source_side=_source_side(rng) if rng.random() < 0.3 else 0.0,
        enlarging=str(rng.choice(["cubic", "linear"])),
        noise=_rarely(rng, 0.5, 3.0, 12.0),
        grain=float(rng.choice([0.0, 0.6, 1.0])),
        gamma=float(np.exp(rng.normal(0, 0.1))),
        contrast=float(np.exp(rng.normal(0, 0.1))),
        lift=_rarely(rng, 0.15, 12.0, 45.0),
        saturation=0.0 if gray else float(rng.uniform(0.7, 1.35)),
        smoothing=_rarely(rng, 0.15, 0.4, 1.0),
        sharpening=(_rarely(rng, 0.25, 0.5, 2.0), float(rng.uniform(0.5, 1.8))),
        quality=int(98 - min(rng.exponential(18), 80)) if rng.random() < 0.6 else 0,
    )
    if style == "shifted":
        return _shifted(rng, camera)
    return replace(
        camera,
        blur=_rarely(rng, 0.35, 0.004, 0.014),
        motion=(_rarely(rng, 0.12, 0.02, 0.06), float(rng.uniform(0, np.pi))),
    )


def _shifted(rng: np.random.Generator, camera: Camera) -> Camera:
    return replace(
        camera,
        blur=_rarely(rng, 0.3, 0.005, 0.016),
        disk=True,
        motion=(_rarely(rng, 0.15, 0.025, 0.06), float(rng.uniform(0, np.pi))),
        shake=float(rng.uniform(0.5, 1.5)),
        enlarging=str(rng.choice(["lanczos", "nearest"])),
        grain=float(rng.choice([0.8, 1.5])),
        codec="webp" if rng.random() < 0.5 else "jpeg",
        recompressed=rng.random() < 0.5,
    )


def _source_side(rng: np.random.Generator) -> float:
    """Draw the side of a small crop, down to SMALLEST_FACE, with few at the end."""
    least = np.log(SMALLEST_FACE / FACE_OF_CROP)
    return float(np.exp(least + (np.log(130) - least) * rng.beta(1.6, 1.0)))
