"""Light faces by photographs of surroundings: high-dynamic-range panoramas, of which a user passes a folder.

Panoramas are equirectangular: the middle column lies at the camera, the left edge behind the face. Camera space as in
`lighting`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import GeaauError
from hf_geaau.synthetic.lighting import RADIANCE_OF_IRRADIANCE, Environment, Light, harmonics

SHARE = 0.5
"""Share of the images that are lit by a panorama, where there are any; the rest has drawn lamps. Our choice."""

LIGHT_HEIGHT = 64
"""Rows of a panorama from which light is computed: 2.8° each."""

LAMP_REACH, LAMP_FLOOR = np.cos(np.deg2rad(20)), 8.0
"""A lamp is what lies around the brightest place, up to 20° away, and is more than 8 times as bright as the mean."""

BACKDROP_SIDE = 96


class EnvironmentsError(GeaauError, ValueError):
    """A folder of panoramas cannot be used."""


@dataclass(frozen=True, eq=False)
class Environments:
    """Panoramas, with their names: radiance (H, 2H, 3) float32, linear RGB."""

    names: tuple[str, ...]
    panoramas: tuple[NDArray[np.float32], ...]

    def sample(self, rng: np.random.Generator) -> tuple[Light, NDArray[np.uint8]]:
        """Draw a panorama, turned anyhow: the light of one image, and what the camera sees behind the face.

        Returns:
            The light, and (96, 96, 3) uint8 RGB, out of focus.
        """
        panorama = self.panoramas[rng.integers(len(self.panoramas))]
        panorama = np.roll(panorama, int(rng.integers(panorama.shape[1])), axis=1)
        environment = Environment()
        radiance = cv2.resize(panorama, (2 * LIGHT_HEIGHT, LIGHT_HEIGHT), interpolation=cv2.INTER_AREA)
        _collect(np.asarray(radiance, np.float64), environment)
        light = environment.light("panorama", float(rng.normal(-0.1, 0.22)), float(rng.uniform(0.3, 1.0)))
        # The light is scaled so that a face is well exposed; so is what lies behind it.
        scale = light.ambient[0].sum() / max(environment.field[0].sum(), 1e-6)
        return light, _backdrop(panorama * scale, rng)


def read_environments(folder: str | os.PathLike[str]) -> Environments:
    """Read all panoramas of a folder, by name.

    Args:
        folder: With files of Radiance (*.hdr), twice as wide as high.

    Raises:
        EnvironmentsError: If there is none, or one cannot be read.
    """
    files = sorted(Path(folder).expanduser().glob("*.hdr"))
    if not files:
        raise EnvironmentsError(f"Cannot find a panorama in '{folder}': it has no *.hdr file. Pass another folder.")
    panoramas = []
    for file in files:
        bgr = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED) if file.stat().st_size else None
        if bgr is None or bgr.dtype != np.float32 or bgr.shape[1] != 2 * bgr.shape[0] or not np.isfinite(bgr).all():
            raise EnvironmentsError(
                f"Cannot read the panorama '{file}': it must be a Radiance file, twice as wide as high. Replace it."
            )
        height = min(bgr.shape[0], 256)
        small = cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), (2 * height, height), interpolation=cv2.INTER_AREA)
        panoramas.append(np.asarray(small, np.float32))
    return Environments(tuple(file.stem for file in files), tuple(panoramas))


def panorama_directions(height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the direction (H, 2H, 3) of each texel of a panorama, and the solid angle (H, 1) that it covers.

    Example:
        >>> directions, angles = panorama_directions(8)
        >>> bool(directions[4, 8, 2] > 0.9), round(float(angles.sum() * 16 / np.pi), 3)  # at the camera; 4π in all
        (True, 4.026)
    """
    down = (np.arange(height) + 0.5) / height * np.pi
    around = (np.arange(2 * height) + 0.5) / height * np.pi - np.pi
    polar, azimuth = np.meshgrid(down, around, indexing="ij")
    directions = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1)
    return directions, np.sin(down)[:, None] * (np.pi / height) ** 2


def _collect(radiance: NDArray[np.float64], environment: Environment) -> None:
    """Move the brightest places of a panorama into lamps with shadows, and the rest into the ambient field."""
    directions, angles = panorama_directions(len(radiance))
    mean = (radiance.mean(2) * angles).sum() / (4 * np.pi)
    rest = radiance.copy()
    for _ in range(3):
        brightness = rest.mean(2)
        if brightness.max() < LAMP_FLOOR * mean:
            break
        peak = directions[np.unravel_index(brightness.argmax(), brightness.shape)]
        lamp = (directions @ peak > LAMP_REACH) & (brightness > 2 * mean)
        flux = (rest * angles[..., None])[lamp]
        toward = (directions[lamp] * flux.mean(1, keepdims=True)).sum(0)
        environment.lamps.append((toward / np.linalg.norm(toward), flux.sum(0) / np.pi, 1.0))
        rest[lamp] = mean
    # Irradiance / π of the rest: its projection on harmonics up to order 2, blurred by the cosine lobe.
    basis, weight = (
        harmonics(directions).reshape(-1, 9),
        np.sqrt(np.broadcast_to(angles, rest.shape[:2]).reshape(-1, 1)),
    )
    factors = np.linalg.lstsq(basis * weight, rest.reshape(-1, 3) * weight, rcond=None)[0]
    environment.field += factors / RADIANCE_OF_IRRADIANCE[:, None]


def _backdrop(panorama: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return what the camera sees behind the face: the part of a panorama around its edge, out of focus."""
    height, width = panorama.shape[:2]
    behind = np.roll(panorama, width // 2, axis=1)
    half = int(height * rng.uniform(0.1, 0.2))
    row = int(np.clip(height * rng.normal(0.5, 0.04), half, height - half))
    part = behind[row - half : row + half, width // 2 - half : width // 2 + half].astype(np.float32)
    seen = cv2.resize(part, (BACKDROP_SIDE, BACKDROP_SIDE), interpolation=cv2.INTER_LINEAR)
    seen = cv2.GaussianBlur(seen, (0, 0), float(rng.uniform(0.8, 5)))
    return (255 * np.sqrt(1 - np.exp(-1.35 * np.maximum(seen, 0)))).astype(np.uint8)
