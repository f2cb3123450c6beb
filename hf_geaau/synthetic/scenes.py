"""Draw scenes: who an image shows, what the face does, how it is lit and photographed. Needs numpy only, no OpenGL.

All random decisions of an image are made here, from `(seed, index)` alone, so that image i of seed s is the same in
every process. People are drawn from `(seed, identity_id)`, see `people`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.action_units import ACTION_UNITS, labels_of, sample_intensities, sample_source
from hf_geaau.synthetic.camera import Camera, sample_camera
from hf_geaau.synthetic.environments import SHARE, Environments
from hf_geaau.synthetic.expressions import ICT_GAPS, Expression, expression, wrinkle_depths
from hf_geaau.synthetic.lighting import Light, sample_light
from hf_geaau.synthetic.people import (
    STREAM_IMAGE,
    STREAM_SHIFTED,
    Identity,
    People,
    sample_identity,
    sample_shifted_identity,
)
from hf_geaau.synthetic.point_errors import sample_point_errors

STYLES = ("standard", "shifted")
"""What is drawn. "shifted" is for tests: its people, lights, backgrounds, occluders, cameras, hair colors, undertones
and wrinkle patterns never occur in "standard"."""

OCCLUDERS, SHIFTED_OCCLUDERS = ("hand", "bar", "mug", "shadow"), ("scarf", "microphone", "strands")
"""Things in front of the face, by style."""

MAX_YAW, MAX_PITCH = np.deg2rad(45), np.deg2rad(30)
"""Limits of the head pose, radians."""


@dataclass(frozen=True)
class Scene:
    """Everything that one image needs."""

    # seed, index: seed of the data set, and number of the image
    seed: int
    index: int
    identity: Identity  # the person
    intensities: NDArray[np.float32]  # (18,) float32, 0-5, in the order of ACTION_UNITS
    labels: NDArray[np.float32]  # (18,) float32, 1 present and 0 absent
    side_intensities: NDArray[np.float32]  # (18, 2) float32, 0-5, on the person's left and right
    shape_weights: NDArray[np.float32]  # (55,) float32, in the order of EXPRESSION_SHAPES
    wrinkles: NDArray[np.float32]  # (12, 2) depth of each of WRINKLES, for the person's left and right
    # yaw, pitch, roll: head pose, radians. Positive yaw turns the face to the image's right, positive pitch down.
    yaw: float
    pitch: float
    roll: float
    wears_glasses: bool  # whether the person wears `identity.glasses`
    pupil: float  # radius in degrees, seen from the center of the eyeball
    cloth: NDArray[np.float32]  # (3,) linear RGB of the clothes
    collar: float  # height of the clothes' upper end, cm on the mesh
    light: Light  # how the face is lit
    camera: Camera  # how the picture is taken
    # (5, 2) errors of a detector's points in the upright crop, in eye distances of the template
    point_jitter: NDArray[np.float32]
    crop_jitter: NDArray[np.float32]  # (4,) rotation (radians), log scale, and shift x, y (fractions of the crop side)
    backdrop_seed: int  # seed of the background and the occluder
    occluder: str = ""  # one of OCCLUDERS or SHIFTED_OCCLUDERS, or "" for none
    source: str = "given"  # how the action units were drawn, one of SOURCES, or "given"
    style: str = "standard"  # one of STYLES
    backdrop: NDArray[np.uint8] | None = None  # (side, side, 3) what lies behind the face; None to draw it

    def showing(self, shown: Expression) -> "Scene":
        """Return the same scene in which the face does something else."""
        return replace(
            self,
            intensities=shown.intensities,
            labels=labels_of(shown.intensities),
            side_intensities=shown.side_intensities,
            shape_weights=shown.shape_weights,
            wrinkles=wrinkle_depths(self.identity, shown.intensities, shown.side_gains),
        )


def sample_pose(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw yaw, pitch and roll in radians: mostly near frontal, with tails to MAX_YAW and MAX_PITCH.

    Our choice: two of three faces look at the camera (standard deviations 9° and 7°), one looks around (25° and 14°).
    """
    looks_around = rng.random() < 0.33
    yaw, pitch = np.inf, np.inf
    while abs(yaw) > MAX_YAW:  # Draw again instead of clipping, so that nothing piles up at the limits.
        yaw = rng.normal(0, np.deg2rad(25 if looks_around else 9))
    while abs(pitch) > MAX_PITCH:
        pitch = rng.normal(np.deg2rad(1.5), np.deg2rad(14 if looks_around else 7))
    return float(yaw), float(pitch), float(rng.normal(0, 0.08))


def _sample_surroundings(
    rng: np.random.Generator, style: str, environments: Environments | None
) -> tuple[Light, NDArray[np.uint8] | None]:
    """Draw the light and, where a panorama gives it, what lies behind the face."""
    if environments is not None and style == "standard" and rng.random() < SHARE:
        return environments.sample(rng)
    return sample_light(rng, style), None


def sample_scene(
    seed: int,
    index: int,
    identity_id: int,
    intensities: Sequence[float] | NDArray[np.floating] | None = None,
    style: str = "standard",
    people: People | None = None,
    donors: People | None = None,
    environments: Environments | None = None,
) -> Scene:
    """Draw everything for one image.

    Args:
        seed, index, identity_id: Seed of the data set, number of the image, number of the person.
        intensities: (18,), 0-5, in the order of ACTION_UNITS. None draws them.
        style: One of STYLES.
        people: Whose heads the face model blends, see `face_model.Scans`.
        donors: For another face model: those whose photographed skin some people wear.
        environments: Panoramas that light some of the images.

    Raises:
        ValueError: If `intensities` has another shape, or `style` is unknown.

    Example:
        >>> scene = sample_scene(0, 0, 0)
        >>> scene.labels.shape, scene.shape_weights.shape
        ((18,), (55,))
    """
    if style not in STYLES:
        raise ValueError(f"`style` must be one of {', '.join(STYLES)}, got {style!r}.")
    shifted = style == "shifted"
    rng = np.random.default_rng([seed, STREAM_SHIFTED if shifted else STREAM_IMAGE, index])
    identity = (sample_shifted_identity if shifted else sample_identity)(seed, identity_id, people, donors)
    source = "given" if intensities is not None else sample_source(rng)
    wanted = sample_intensities(rng, source) if intensities is None else np.asarray(intensities, np.float64)
    if wanted.shape != (len(ACTION_UNITS),):
        raise ValueError(
            f"`intensities` must have shape ({len(ACTION_UNITS)},), one for each of ACTION_UNITS, got {wanted.shape}."
        )
    shown = expression(wanted, rng, speech=source == "speech", gaps=ICT_GAPS if people is None else people.gaps)
    yaw, pitch, roll = sample_pose(rng)
    camera = sample_camera(rng, float(identity.skin.tone.mean()), style)
    light, backdrop = _sample_surroundings(rng, style, environments)
    return Scene(
        seed=seed,
        index=index,
        identity=identity,
        intensities=shown.intensities,
        labels=labels_of(shown.intensities),
        side_intensities=shown.side_intensities,
        shape_weights=shown.shape_weights,
        wrinkles=wrinkle_depths(identity, shown.intensities, shown.side_gains),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        wears_glasses=identity.glasses is not None and bool(rng.random() < 0.65),
        pupil=float(rng.uniform(6.5, 13)),
        cloth=(rng.uniform(0.01, 0.7) * rng.uniform(0.4, 1.0, 3)).astype(np.float32),
        collar=float(rng.uniform(-14.5, -11.5)),
        light=light,
        camera=camera,
        point_jitter=sample_point_errors(rng, yaw, pitch, camera.face_pixels or float(np.exp(rng.uniform(4.1, 5.4)))),
        crop_jitter=(rng.normal(0, 1, 4) * [0.015, 0.015, 0.005, 0.005]).astype(np.float32),
        backdrop_seed=int(rng.integers(2**31)),
        occluder=str(rng.choice(SHIFTED_OCCLUDERS if shifted else OCCLUDERS)) if rng.random() < 0.18 else "",
        source=source,
        style=style,
        backdrop=backdrop,
    )
