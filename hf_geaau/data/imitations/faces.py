"""Faces for imitations: rendered if the face model is given, else drawn so that a face detector finds them."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from hf_geaau.synthetic import Renderer

_OVERSAMPLING = 2  # drawn larger and shrunk: PIL draws without antialiasing
_SEED = 7_101  # keeps these identities apart from those of other uses of numpy's seeds


Colors = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]  # RGB 0-255 of skin, hair and irises


# Draws an ellipse: center and radii as fractions of the picture's side, and the color.
_Oval = Callable[[float, float, float, float, ArrayLike], None]


def example_face(
    seed: int,
    size: int = 160,
    *,
    identity: int | None = None,
    intensities: Mapping[int, float | tuple[float, float]] | None = None,
    face_model: str | PathLike[str] | None = None,
) -> Image.Image:
    """Return one upright face that no license restricts, for imitations and tests.

    Args:
        seed: Decides everything that the other arguments do not; the same seed gives the same picture.
        size: Side in pixels. From 96 on a drawn face is found by `hf_geaau.FaceDetector` (measured on 40 seeds each
            of 96, 128, 160 and 224).
        identity: Who is shown; by default another person for each seed.
        intensities: FACS intensity 0–5 by AU number. A drawn face shows AUs 1, 2, 4, 5, 6, 7, 12, 15, 25, 26, 43 only,
            of which all but 25 and 26 may have two intensities, of the person's left and right.
        face_model: ICT-FaceKit (see `hf_geaau.synthetic.load_face_model`): then the face is rendered, with one
            intensity for each AU.

    Returns:
        RGB image, size × size.

    Example:
        >>> example_face(0, 96, intensities={12: 5.0}).size
        (96, 96)
    """
    units = dict(intensities or {})
    person = seed if identity is None else identity
    if face_model is None:
        return _drawn(seed, size, person, units)
    return _rendered(seed, size, person, units, str(face_model))


def _drawn(seed: int, size: int, person: int, units: Mapping[int, float | tuple[float, float]]) -> Image.Image:
    """Draw a face of ellipses; lengths below are fractions of the picture's side."""
    who, now = np.random.default_rng([_SEED, person]), np.random.default_rng([_SEED, person, seed, 1])
    side = size * _OVERSAMPLING
    tone = np.array([255, 219, 190]) * who.uniform(0.55, 1.0) * who.uniform(0.96, 1.04, 3)
    hair, iris = who.uniform(15, 130) * np.array([1, 0.85, 0.7]), who.uniform(30, 120, 3)
    width, height = who.uniform(0.29, 0.325), who.uniform(0.38, 0.42)
    x, y = 0.5 + now.uniform(-0.02, 0.02), 0.53 + now.uniform(-0.02, 0.02)
    picture = Image.new("RGB", (side, side), _color(now.uniform(60, 220, 3)))
    pen = ImageDraw.Draw(picture)

    def oval(cx: float, cy: float, rx: float, ry: float, color: ArrayLike) -> None:
        pen.ellipse([(cx - rx) * side, (cy - ry) * side, (cx + rx) * side, (cy + ry) * side], fill=_color(color))

    oval(x, y - 0.1, width + 0.05, height - 0.02, hair)
    pen.rectangle([(x - 0.13) * side, (y + 0.25) * side, (x + 0.13) * side, side], fill=_color(tone * 0.8))
    oval(x, y, width, height, tone)
    oval(x - width * 0.55, y + 0.1, 0.07, 0.06, tone * [1.0, 0.93, 0.92])
    oval(x + width * 0.55, y + 0.1, 0.07, 0.06, tone * [1.0, 0.93, 0.92])
    pairs = {number: np.broadcast_to(np.clip(value, 0, 5) / 5, 2).tolist() for number, value in units.items()}
    # By the sign of the direction in the picture: the person's left lies to its right.
    levels = {sign: {number: pair[sign < 0] for number, pair in pairs.items()} for sign in (-1, 1)}
    _draw_eyes(oval, pen, side, (x, y), (tone, hair, iris), levels)
    _draw_nose_and_mouth(oval, pen, side, (x, y), tone, levels)
    picture = picture.filter(ImageFilter.GaussianBlur(0.006 * side)).resize((size, size), Image.Resampling.LANCZOS)
    noisy = np.asarray(picture, np.float32) + now.normal(0, 3, (size, size, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _draw_eyes(
    oval: _Oval,
    pen: ImageDraw.ImageDraw,
    side: int,
    center: tuple[float, float],
    colors: Colors,
    levels: Mapping[int, Mapping[int, float]],
) -> None:
    """Draw eyes and brows: AU43 and AU7 close the lids, AU5 opens them, AU1, AU2 and AU4 move the brows."""
    (x, y), (tone, hair, iris) = center, colors
    for sign, level in levels.items():
        ex, ey = x + sign * 0.125, y - 0.06
        opening = 0.028 * (1 + 0.4 * level.get(5, 0) - 0.4 * max(level.get(6, 0), level.get(7, 0)))
        opening *= 1 - level.get(43, 0)
        oval(ex, ey, 0.066, 0.045, tone * 0.84)
        oval(ex, ey, 0.052, max(opening, 0.004), [238, 236, 232] if opening > 0.006 else tone * 0.4)
        if opening > 0.006:
            oval(ex, ey, 0.024, min(opening, 0.024), iris)
            oval(ex, ey, 0.012, min(opening, 0.012), [10, 10, 10])
            pen.arc(
                [(ex - 0.054) * side, (ey - opening - 0.004) * side, (ex + 0.054) * side, (ey + opening) * side],
                190, 350, fill=_color(hair * 0.5), width=round(0.008 * side),
            )  # fmt: skip
        inner = y - 0.135 - 0.04 * level.get(1, 0) + 0.035 * level.get(4, 0)
        outer = y - 0.13 - 0.045 * level.get(2, 0) + 0.015 * level.get(4, 0)
        top = (inner + outer) / 2 - 0.02
        pen.line(
            [((x + sign * a) * side, b * side) for a, b in ((0.06, inner), (0.125, top), (0.19, outer))],
            fill=_color(hair * 0.7), width=round(0.022 * side), joint="curve",
        )  # fmt: skip


def _draw_nose_and_mouth(
    oval: _Oval,
    pen: ImageDraw.ImageDraw,
    side: int,
    face_center: tuple[float, float],
    tone: NDArray[np.float64],
    levels: Mapping[int, Mapping[int, float]],
) -> None:
    """Draw nose and mouth: AU12 and AU15 move the corners, AU25 and AU26 open it."""
    x, y = face_center
    oval(x, y + 0.05, 0.022, 0.075, np.minimum(tone * 1.07, 255))
    oval(x, y + 0.1, 0.05, 0.03, tone * 0.93)
    for sign in (-1, 1):
        oval(x + sign * 0.025, y + 0.118, 0.012, 0.008, tone * 0.4)
    half = {sign: 0.09 + 0.03 * level.get(12, 0) for sign, level in levels.items()}
    lift = {sign: 0.045 * level.get(12, 0) - 0.035 * level.get(15, 0) for sign, level in levels.items()}
    gap = 0.02 * levels[1].get(25, 0) + 0.06 * levels[1].get(26, 0)
    center = y + 0.21
    corners = [(x + sign * half[sign], center - lift[sign]) for sign in (-1, 1)]
    upper = [corners[0], (x - 0.035, center - 0.022), (x, center - 0.014), (x + 0.035, center - 0.022)]
    lower = [corners[1], (x + 0.05, center + 0.026 + gap), (x - 0.05, center + 0.026 + gap)]
    pen.polygon([(a * side, b * side) for a, b in upper + lower], fill=_color(tone * [0.78, 0.5, 0.5]))
    if gap > 0.004:
        oval(x, center + gap / 2 + 0.002, (half[-1] + half[1]) / 2 * 0.7, gap / 2 + 0.004, [60, 20, 25])
    line = [corners[0], (x, center + (lift[-1] + lift[1]) / 6), corners[1]]
    pen.line([(a * side, b * side) for a, b in line], fill=_color(tone * 0.35), width=round(0.007 * side))


def _color(values: ArrayLike) -> tuple[int, ...]:
    return tuple(int(value) for value in np.clip(np.asarray(values), 0, 255))


def _rendered(seed: int, size: int, person: int, units: Mapping[int, Any], face_model: str) -> Image.Image:
    from dataclasses import replace

    from hf_geaau.synthetic import ACTION_UNITS

    wanted = [float(units.get(number, 0.0)) for number in ACTION_UNITS]
    renderer = _renderer(face_model)
    scene = renderer.sample_scene(_SEED, seed, person, wanted)
    # Nothing in front of the face: an imitation must be found by the detector.
    scene = replace(scene, yaw=scene.yaw * 0.4, pitch=scene.pitch * 0.4, occluder="", wears_glasses=False)
    render = renderer.render_photo(scene, size, size, 0.26 * size, (0.5 * size, 0.46 * size))
    return Image.fromarray(render.image)


@lru_cache(1)  # a renderer takes a second to build, and an imitation tree has many faces
def _renderer(face_model: str) -> "Renderer":
    from hf_geaau.synthetic import Renderer, load_face_model

    return Renderer(load_face_model(face_model))
