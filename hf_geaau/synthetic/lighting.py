"""Draw the light of a scene: many lamps and a sky, in one of the kinds that photos show. Needs numpy only.

The three strongest lamps cast shadows; all others, and the sky, are folded into second-order spherical harmonics.
Camera space: x to the image's right, y up, z toward the camera. Colours are linear RGB.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

RADIANCE_OF_IRRADIANCE = np.array([1, 1.5, 1.5, 1.5, 4, 4, 4, 4, 4])
"""Factor of each harmonic from irradiance / π back to radiance, before a cosine lobe blurred it.

Source: Ramamoorthi and Hanrahan 2001, "An efficient representation for irradiance environment maps": π, 2π/3 and
π/4 for the three orders."""


@dataclass(frozen=True)
class Light:
    """Light in camera space: three directional lights over a second-order ambient field."""

    directions: NDArray[np.float32]  # (3, 3) unit vectors toward the lights
    colors: NDArray[np.float32]  # (3, 3)
    ambient: NDArray[np.float32]  # (9, 3) irradiance / π of sky and further lamps, as factors of `harmonics`
    kind: str = "indoor"  # one of LIGHT_KINDS or SHIFTED_LIGHT_KINDS


def harmonics(directions: Vector) -> Vector:
    """Evaluate the nine polynomials of the ambient field: 1, x, y, z, xy, yz, zx, 3z²-1, x²-y².

    From unit vectors (..., 3) to (..., 9): the real spherical harmonics up to order 2 without their constants.

    Example:
        >>> harmonics(np.array([0.0, 0.0, 1.0])).tolist()
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0]
    """
    x, y, z = np.moveaxis(np.asarray(directions, np.float64), -1, 0)
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, 3 * z * z - 1, x * x - y * y], -1)


def lamp_field(direction: Vector, color: Vector) -> Vector:
    """Fold a distant lamp into the ambient field: (9, 3) factors of max(n·d, 0) · color, up to order 2.

    Source: Ramamoorthi and Hanrahan 2001: max(cos, 0) ≈ 1/4 + cos/2 + 5/32 (3 cos² - 1).

    Example:
        >>> up = np.array([0.0, 1.0, 0.0])
        >>> (harmonics(up) @ lamp_field(up, np.ones(3))).round(4).tolist()
        [1.0625, 1.0625, 1.0625]
    """
    x, y, z = direction
    second = 5 / 32 * np.array([6 * x * y, 6 * y * z, 6 * z * x, (3 * z * z - 1) / 2, 1.5 * (x * x - y * y)])
    return np.concatenate([[0.25], 0.5 * np.asarray(direction), second])[:, None] * color


class Environment:
    """Collect lamps and sky, and turn them into a `Light`."""

    def __init__(self) -> None:
        self.lamps: list[tuple[Vector, Vector, float]] = []  # direction, color, share that casts shadows
        self.field = np.zeros((9, 3))

    def lamp(self, azimuth: float, height: float, color: Vector, hard: float = 1.0) -> None:
        """Add a lamp: azimuth 0 at the camera, positive to the image's right, height above the horizon; degrees."""
        a, h = np.deg2rad([azimuth, height])
        self.lamps.append((np.array([np.sin(a) * np.cos(h), np.sin(h), np.cos(a) * np.cos(h)]), color, hard))

    def sky(self, color: Vector, slope: Vector) -> None:
        """Add light from everywhere that grows by the share `slope` (3,) along x, y and z."""
        self.field[0] += color
        self.field[1:4] += np.outer(slope, color)

    def light(self, kind: str, exposure: float, adapted: float) -> Light:
        """Keep the three strongest lamps, fold the rest into the field, and expose for the light on a face.

        `exposure` is in stops above the meter's choice. The white balance takes away `adapted`, 0-1, of the cast.
        """
        field = self.field.copy()
        strongest = sorted(self.lamps, key=lambda lamp: -lamp[1].mean() * lamp[2])
        for direction, color, hard in strongest[:3]:
            field += lamp_field(direction, color * (1 - hard))
        for direction, color, _ in strongest[3:]:
            field += lamp_field(direction, color)
        chosen = [(direction, color * hard) for direction, color, hard in strongest[:3]]
        chosen += [(np.array([0.0, 0.0, 1.0]), np.zeros(3))] * (3 - len(chosen))
        directions, colors = (np.array(part) for part in zip(*chosen, strict=True))
        # The meter sees the front of the face, from slightly left, right and above.
        normals = np.array([[0, 0, 1], [0.6, 0, 0.8], [-0.6, 0, 0.8], [0, 0.5, 0.866]])
        seen = np.maximum(normals @ directions.T, 0) @ colors + np.maximum(harmonics(normals) @ field, 0)
        cast = seen.mean(0) / seen.mean()
        scale = 2.0**exposure / max(float(seen.mean()), 0.05) / cast**adapted
        single = [part.astype(np.float32) for part in (directions, colors * scale, field * scale)]
        return Light(single[0], single[1], single[2], kind)


def _white(rng: np.random.Generator, spread: float = 0.1) -> Vector:
    """Draw a lamp's color from warm to cool, of mean about 1."""
    warm = rng.normal(0, spread)
    return np.maximum(1 + np.array([warm, 0.15 * warm, -warm]) + rng.normal(0, 0.02, 3), 0.05)


def _vivid(rng: np.random.Generator) -> Vector:
    """Draw a saturated color of mean 1."""
    hue = rng.uniform(0, 2 * np.pi)
    color = np.maximum(1 + rng.uniform(0.4, 1.0) * np.cos(hue + np.array([0, 2.1, 4.2])), 0.03)
    return color / color.mean()


def _slope(rng: np.random.Generator, up: float = 0.25) -> Vector:
    return rng.normal(0, 0.12, 3) + np.array([0, up, 0])


def _side(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _overcast(rng: np.random.Generator, environment: Environment) -> None:
    environment.sky(_white(rng), _slope(rng, rng.uniform(0.2, 0.5)))
    for _ in range(3):
        environment.lamp(rng.uniform(-120, 120), rng.uniform(0, 80), _white(rng) * rng.uniform(0.05, 0.3), 0.3)


def _indoor(rng: np.random.Generator, environment: Environment) -> None:
    """Add several lamps of different temperatures, and walls that throw light back."""
    environment.sky(_white(rng) * rng.uniform(0.3, 0.9), _slope(rng))
    for _ in range(rng.integers(2, 9)):
        strength = rng.exponential(0.35)
        environment.lamp(rng.normal(0, 65), rng.normal(35, 25), _white(rng, 0.14) * strength, rng.uniform(0.3, 1.0))


def _window(rng: np.random.Generator, environment: Environment) -> None:
    """Add one large light from a side, and a dim room of another temperature."""
    side, cool = _side(rng), _white(rng)
    environment.sky(_white(rng, 0.14) * rng.uniform(0.15, 0.5), _slope(rng, 0.1))
    middle = rng.uniform(30, 85)
    for step in (-18, 0, 18):
        environment.lamp(side * (middle + step), rng.uniform(0, 40), cool * rng.uniform(0.3, 0.6), 0.6)


def _sun(rng: np.random.Generator, environment: Environment) -> None:
    environment.lamp(rng.uniform(-80, 80), rng.uniform(15, 65), _white(rng) * [1.1, 1.0, 0.85] * rng.uniform(0.8, 2.0))
    environment.sky(_white(rng) * [0.85, 1.0, 1.2] * rng.uniform(0.25, 0.6), _slope(rng, 0.3))
    # Light from the ground.
    environment.lamp(rng.uniform(-90, 90), rng.uniform(-60, -20), _white(rng) * rng.uniform(0, 0.3), 0.0)


def _hard_side(rng: np.random.Generator, environment: Environment) -> None:
    environment.lamp(_side(rng) * rng.uniform(50, 105), rng.uniform(-5, 45), _white(rng) * rng.uniform(1.0, 2.0))
    environment.sky(_white(rng) * rng.uniform(0.1, 0.35), _slope(rng, 0.1))


def _top(rng: np.random.Generator, environment: Environment) -> None:
    """Add a lamp from above. The eye sockets and the neck lie in shade."""
    environment.lamp(rng.normal(0, 40), rng.uniform(60, 85), _white(rng, 0.14) * rng.uniform(1.0, 2.0))
    environment.sky(_white(rng) * rng.uniform(0.12, 0.4), _slope(rng, 0.4))


def _back(rng: np.random.Generator, environment: Environment) -> None:
    for side in (-1, 1):
        environment.lamp(side * rng.uniform(110, 165), rng.uniform(0, 55), _white(rng) * rng.uniform(0.2, 2.2))
    environment.sky(_white(rng) * rng.uniform(0.4, 0.8), np.array([0, 0.15, rng.uniform(-0.5, -0.1)]))


def _flash(rng: np.random.Generator, environment: Environment) -> None:
    environment.lamp(rng.normal(0, 6), rng.normal(8, 6), _white(rng, 0.05) * rng.uniform(0.7, 1.5))
    environment.sky(_white(rng, 0.15) * rng.uniform(0.15, 0.7), _slope(rng))


def _colored(rng: np.random.Generator, environment: Environment) -> None:
    """Add lamps of two colors from two sides, as on stages and in bars."""
    side = _side(rng)
    for sign, strength in ((side, rng.uniform(0.5, 1.2)), (-side, rng.uniform(0.3, 0.9))):
        azimuth, height = sign * rng.uniform(20, 100), rng.uniform(-10, 50)
        environment.lamp(azimuth, height, _vivid(rng) * strength, rng.uniform(0.5, 1.0))
    environment.sky((_vivid(rng) + 1) / 2 * rng.uniform(0.15, 0.5), _slope(rng))


def _under(rng: np.random.Generator, environment: Environment) -> None:
    """Add a lamp from below, as of a screen, a fire or footlights."""
    environment.lamp(rng.normal(0, 25), rng.uniform(-65, -20), _white(rng, 0.25) * rng.uniform(0.6, 1.4), 0.8)
    environment.sky(_white(rng) * rng.uniform(0.2, 0.5), _slope(rng, 0.0))


def _neon(rng: np.random.Generator, environment: Environment) -> None:
    for azimuth in (-70, 0, 70):
        color = (_vivid(rng) + 0.5) / 1.5 * rng.uniform(0.2, 0.9)
        environment.lamp(azimuth + rng.normal(0, 15), rng.uniform(-30, 60), color, rng.uniform(0.2, 0.9))
    environment.sky(_vivid(rng) * rng.uniform(0.15, 0.4), _slope(rng))


def _ring(rng: np.random.Generator, environment: Environment) -> None:
    """Add lamps all around the camera, which leave no shade."""
    white = _white(rng, 0.05)
    for around in np.arange(0, 360, 45):
        environment.lamp(25 * np.cos(np.deg2rad(around)), 25 * np.sin(np.deg2rad(around)), white * 0.2, 1.0)
    environment.sky(_white(rng) * rng.uniform(0.05, 0.25), _slope(rng))


_Kind = tuple[Callable[[np.random.Generator, Environment], None], float]
# Shares are our choice, after looking at press, party and home photos: soft light is usual, stage light rare.
_STANDARD: dict[str, _Kind] = {
    "overcast": (_overcast, 0.17), "indoor": (_indoor, 0.27), "window": (_window, 0.17), "sun": (_sun, 0.10),
    "side": (_hard_side, 0.06), "top": (_top, 0.07), "back": (_back, 0.05), "flash": (_flash, 0.06),
    "colored": (_colored, 0.05),
}  # fmt: skip
_SHIFTED: dict[str, _Kind] = {"under": (_under, 0.4), "neon": (_neon, 0.2), "ring": (_ring, 0.4)}
LIGHT_KINDS, SHIFTED_LIGHT_KINDS = tuple(_STANDARD), tuple(_SHIFTED)


def sample_light(rng: np.random.Generator, style: str = "standard") -> Light:
    """Draw the light of one image; "shifted" has the kinds that "standard" never shows.

    Example:
        >>> sample_light(np.random.default_rng(0)).ambient.shape
        (9, 3)
    """
    kinds = _STANDARD if style == "standard" else _SHIFTED
    kind = str(rng.choice(list(kinds), p=[share for _, share in kinds.values()]))
    environment = Environment()
    kinds[kind][0](rng, environment)
    dim = {"back": -0.5, "colored": -0.2, "neon": -0.2, "side": -0.1, "top": -0.1}.get(kind, 0.0)
    adapted = rng.uniform(0, 0.3) if kind in ("colored", "neon") else rng.uniform(0.3, 1.0)
    return environment.light(kind, float(rng.normal(dim - 0.15, 0.22)), float(adapted))
