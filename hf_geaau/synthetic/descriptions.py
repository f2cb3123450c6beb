"""Describe a scene in columns of the table of labels, for breakdowns of an evaluation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_geaau.synthetic.camera import FACE_OF_CROP
from hf_geaau.synthetic.scenes import Scene

_BROW_HEIGHT_CM = 6.5  # On the mesh. A fringe that ends below it covers the brows.


@dataclass(frozen=True)
class SceneDescription:
    """What is known of a rendered face beside its action units: columns of `labels.parquet`."""

    # yaw, pitch, roll: head pose, radians. Positive yaw turns the face to the image's right, positive pitch down.
    yaw: float
    pitch: float
    roll: float
    # Individual typology angle of the skin's color, degrees: above 55 very light, 41 to 55 light, 28 to 41
    # intermediate, 10 to 28 tan, -30 to 10 brown, below dark (Del Bino and Bernerd 2013)
    skin_ita: float
    age: float  # 0 (twenty) to 1 (eighty)
    feminine: float  # 0-1
    light: str  # kind of light, see `lighting`
    light_hardness: float  # share of the light on the front of the face that comes from lamps with shadows, 0-1
    occluder: str  # what is in front of the face, "" for nothing
    glasses: bool  # whether spectacles are worn
    hair_style: str  # one of people.HAIR_STYLES
    hair_over_brows: bool  # whether a fringe hangs over the brows
    beard: float  # density of the densest part, 0 (shaven) to 1
    face_pixels: float  # side of the face's box in pixels that the picture really resolves
    camera_distance: float  # in cm
    blur: float  # the larger of the blur's standard deviation or radius, and half the length of motion, in crop sides
    noise: float  # standard deviation in gray levels
    quality: float  # JPEG or WebP quality inside the picture, 0 for none. The quality of the file itself comes on top.
    grey: bool  # whether the picture has no colors
    point_error: float  # mean distance of the points that aligned the crop from the true ones, in eye distances
    au_source: str  # one of action_units.SOURCES
    style: str  # one of scenes.STYLES


def typology_angle(color: ArrayLike) -> float:
    """Return the individual typology angle of a color: atan2(L* - 50, b*) in degrees.

    Args:
        color: (3,) linear RGB, 0-1.

    Source:
        Chardon, Cretois and Hourseau 1991; CIELAB under D65 from the matrix of sRGB (IEC 61966-2-1).

    Example:
        >>> typology_angle([0.8, 0.6, 0.52]) > 55 > typology_angle([0.135, 0.073, 0.047])
        True
    """
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = matrix @ np.asarray(color, np.float64) / [0.9505, 1.0, 1.089]
    _, y, z = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    return float(np.rad2deg(np.arctan2(116 * y - 16 - 50, 200 * (y - z))))


def describe_scene(scene: Scene, size: int) -> SceneDescription:
    """Describe a scene that is rendered as a crop of `size` pixels."""
    person, camera, light = scene.identity, scene.camera, scene.light
    direct = float((np.maximum(light.directions[:, 2], 0) @ light.colors).mean())
    field = max(float((light.ambient[0] + light.ambient[3] + 2 * light.ambient[7]).mean()), 0.0)
    covered = person.hair.fringe < min(_BROW_HEIGHT_CM, person.hair.hairline - 0.3) and person.hair.style != "bald"
    return SceneDescription(
        yaw=scene.yaw,
        pitch=scene.pitch,
        roll=scene.roll,
        skin_ita=typology_angle(person.skin.tone),
        age=person.age,
        feminine=person.feminine,
        light=light.kind,
        light_hardness=direct / max(direct + field, 1e-6),
        occluder=scene.occluder,
        glasses=scene.wears_glasses,
        hair_style=person.hair.style,
        hair_over_brows=bool(covered),
        beard=max(person.beard.mustache, person.beard.chin, person.beard.cheeks),
        face_pixels=min(camera.source_side or size, size) * FACE_OF_CROP,
        camera_distance=camera.distance,
        blur=max(camera.blur, camera.motion[0] / 2),
        noise=camera.noise,
        quality=float(camera.quality),
        grey=camera.saturation == 0,
        point_error=float(np.linalg.norm(scene.point_jitter, axis=1).mean()),
        au_source=scene.source,
        style=scene.style,
    )
