"""What is known of a rendered face beside its action units, for breakdowns of an evaluation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .camera import FACE_OF_CROP
from .sampling import Scene

_BROW_HEIGHT_CM = 6.5  # of the mesh; a fringe that ends below it covers brows


@dataclass(frozen=True)
class FaceFacts:
    """Facts of one rendered face; columns of `labels.parquet`.

    Attributes:
        yaw, pitch, roll: Head pose, radians; positive yaw turns the face to the image's right, positive pitch down.
        skin_ita: Individual typology angle of the skin's colour, degrees: above 55 very light, 41–55 light, 28–41
            intermediate, 10–28 tan, -30–10 brown, below dark (Del Bino and Bernerd 2013).
        age: 0 (twenty) – 1 (eighty).
        feminine: 0–1.
        light: Kind of light, see `lighting`.
        light_hardness: 0–1, share of what the front of the face gets from lamps that cast shadows.
        occluder: What is before the face, "" for nothing.
        glasses: Whether spectacles are worn.
        hair_style: See sampling.HAIR_STYLES.
        hair_over_brows: Whether a fringe hangs over the brows.
        beard: 0 (shaven) – 1, the densest part.
        face_pixels: Side of the face's box in pixels that the picture really resolves.
        camera_distance: cm.
        blur: Standard deviation or radius of blur or half the length of motion, the larger, in shares of the crop side.
        noise: Standard deviation in grey levels.
        quality: JPEG or WebP quality inside the picture, 0 for none (the file's own comes on top).
        grey: Whether the picture has no colours.
        point_error: Mean distance of the points that aligned the crop from the true ones, in eye distances.
        au_source: See sampling.SOURCES.
        style: See sampling.STYLES.
    """

    yaw: float
    pitch: float
    roll: float
    skin_ita: float
    age: float
    feminine: float
    light: str
    light_hardness: float
    occluder: str
    glasses: bool
    hair_style: str
    hair_over_brows: bool
    beard: float
    face_pixels: float
    camera_distance: float
    blur: float
    noise: float
    quality: float
    grey: bool
    point_error: float
    au_source: str
    style: str


def typology_angle(color: ArrayLike) -> float:
    """Individual typology angle of a colour: atan2(L* - 50, b*) in degrees.

    Args:
        color: (3,) linear RGB, 0–1.

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


def face_facts(scene: Scene, size: int) -> FaceFacts:
    """Collect the facts of a scene that is rendered as a crop.

    Args:
        scene: The scene.
        size: Side of the crop in pixels.
    """
    person, camera, light = scene.identity, scene.camera, scene.light
    direct = float((np.maximum(light.directions[:, 2], 0) @ light.colors).mean())
    field = max(float((light.ambient[0] + light.ambient[3] + 2 * light.ambient[7]).mean()), 0.0)
    covered = person.hair.fringe < min(_BROW_HEIGHT_CM, person.hair.hairline - 0.3) and person.hair.style != "bald"
    return FaceFacts(
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
        beard=max(person.beard.moustache, person.beard.chin, person.beard.cheeks),
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
